"""Measure how fast methods train and score, and what fraction of the machine's convolution peak they reach.

    python -m experiments.speed --methods squid,ae --json experiments/results/speed.json

Each row is measured in a process of its own, fast and plain form in turn, so that ratios hold when the machine's speed
drifts. dtype float32 is the plain form of the same model: for scoring neither packed nor channels-last.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import time
from pathlib import Path
from typing import Any

from experiments.common import best_rate, machine

Row = dict[str, Any]


def convolution_peak(dtype: str) -> float:
    """Return the best FLOP/s of a 3x3 convolution over shapes like those of the networks."""
    import torch

    torch.set_flush_denormal(True)
    kind, rates = (torch.bfloat16 if dtype == "bf16" else torch.float32), []
    for n, c, side in ((16, 64, 64), (64, 128, 16), (64, 256, 8)):
        x = torch.randn(n, c, side, side, dtype=kind).to(memory_format=torch.channels_last)
        conv = torch.nn.Conv2d(c, c, 3, padding=1, bias=False, dtype=kind).to(memory_format=torch.channels_last)
        with torch.inference_mode():
            rates.append(best_rate(lambda conv=conv, x=x: conv(x), 18 * n * c * c * side**2, 1.0))
    return max(rates)


def make(name: str) -> Any:
    """Return a method at its defaults with fresh weights."""
    import torch

    from loligo import methods

    torch.manual_seed(0)
    kind = methods.get(name)
    return kind(kind.Config())


def measure_train(name: str, batch: int, dtype: str) -> tuple[float, float]:
    """Return images/s of the loop itself, without the first epoch, and FLOP an image."""
    import numpy as np
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from loligo.config import TrainConfig
    from loligo.data.arrays import from_images
    from loligo.data.preprocessing import Preprocessing
    from loligo.training.loop import fit

    method, images = make(name), 4 * batch
    size, random = method.config.size, np.random.default_rng(0)
    pixels = random.integers(0, 65535, (images, size, size), dtype=np.uint16)
    data = from_images(pixels, Preprocessing(size))
    if not method.phases():
        return best_rate(lambda: method.fit([data.batch(np.arange(images))]), images), 0.0
    turns, x = method.phases()[0].turns, data.batch(np.arange(2))
    with FlopCounterMode(display=False) as counter:
        for number in range(4):
            scratch: dict[str, Any] = {}
            for turn in turns:
                if number % turn.every == 0:
                    method.losses(x, turn.loss, scratch)[turn.loss].backward()
    flop = counter.get_total_flops() / (4 * len(x))
    torch.manual_seed(0)
    history = fit(method, data, TrainConfig(epochs=4, batch_size=batch, precision=dtype, device="cpu"))
    return float(history["images_per_s"][1:].max()), flop


def measure_score(name: str, batch: int, dtype: str) -> tuple[float, float]:
    """Return images/s and FLOP an image."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from loligo.nn.conv import packed
    from loligo.nn.precision import accelerate, autocast

    method = make(name).eval()
    for epoch in range(30):
        method.after_epoch((epoch + 1) / 30)  # an ensemble then has as many discriminators as after a training
    x = torch.rand(batch, method.config.channels, method.config.size, method.config.size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        method(x)
    accelerate()
    if dtype == "bf16":
        method, x = packed(method, torch.bfloat16, x.device).freeze(), x.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode(), autocast(x.device, torch.bfloat16 if dtype == "bf16" else torch.float32):
        return best_rate(lambda: method(x), batch, 5.0), counter.get_total_flops() / batch


def measure(task: str, name: str, batch: int, dtype: str) -> Row:
    """Measure one row."""
    found = {"train": measure_train, "score": measure_score}[task](name, batch, dtype)
    return {"images_per_s": found[0], "flop": found[1], "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}


def main() -> None:
    """Measure the methods named on the command line; print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", default="squid,ae")
    parser.add_argument("--tasks", default="score,train")
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args()
    cases = {"score": (16, 1), "train": (16,)}
    rows: list[Row] = []
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        peaks = {dtype: pool.apply(convolution_peak, (dtype,)) for dtype in ("float32", "bf16")}
        print({dtype: f"{peak / 1e12:.2f} TFLOP/s" for dtype, peak in peaks.items()}, flush=True)
        for name in given.methods.split(","):
            for task in given.tasks.split(","):
                for batch in cases[task]:
                    for dtype in ("bf16", "float32"):
                        found = pool.apply(measure, (task, name, batch, dtype))
                        fraction = found["images_per_s"] * found["flop"] / peaks[dtype]
                        row = {"method": name, "task": task, "batch": batch, "dtype": dtype}
                        row |= {"images_per_s": round(found["images_per_s"], 2), "peak_fraction": round(fraction, 3)}
                        rows.append(
                            row | {"peak_memory_bytes": found["memory"] * 1024, "flop_per_image": found["flop"]}
                        )
                        print(rows[-1], flush=True)
    about = {"machine": machine(), "peak_flop_per_s": peaks, "command": " ".join(sys.argv), "date": time.strftime("%F")}
    given.json.write_text(json.dumps({**about, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
