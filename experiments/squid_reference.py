"""SQUID beside its authors' code: how fast each trains and scores, in one run, with the same images and sizes.

    git clone https://github.com/tiangexiang/SQUID /tmp/squid
    python -m experiments.squid_reference --reference /tmp/squid --json experiments/results/squid_reference.json

Theirs runs as its main.py does: the discriminator moves at every step, the generator at every second, each with a
forward pass of its own; scoring is one pass of both with gradients, the discriminator in training mode. ``float32`` is
that code as it stands, ``bf16`` the same under autocast; ours are the plain form and the fast one. Each measurement is
a process of its own, theirs and ours in turn; denormals are flushed in all.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import multiprocessing
import sys
import time
from collections.abc import Callable
from pathlib import Path

from experiments.common import best_rate, machine
from experiments.speed import Row, convolution_peak, measure
from loligo.files import write_json

CASES = [("train", 16), ("score", 16), ("score", 1)]


def reference(folder: Path) -> tuple:
    """Return generator and discriminator with fresh weights, sized as in configs/zhang_best.py."""
    import torch

    sys.path.insert(0, str(folder))
    torch.Tensor.cuda = torch.nn.Module.cuda = lambda self, *_: self  # the code asks for a GPU
    from models.discriminator import SimpleDiscriminator
    from models.squid import AE

    torch.manual_seed(0)
    memories = [{"type": "MemoryMatrixBlock", "multiplier": m, "num_memory": 4} for m in (64, 16)]
    with contextlib.redirect_stdout(io.StringIO()):
        model = AE(1, 32, 5, initial_combine=2, memory_channel=2048, dist=True, decoder_memory=[None, None, *memories])
    return model, SimpleDiscriminator()


def measure_reference(folder: Path, task: str, batch: int, dtype: str) -> float:
    """Return images/s of their code."""
    import torch
    from torch.nn.functional import mse_loss, softplus

    torch.set_flush_denormal(True)
    (model, discriminator), x = reference(folder), torch.rand(batch, 1, 128, 128)
    opt = torch.optim.Adam(model.parameters(), 1e-4, betas=(0.5, 0.999), eps=1e-7, weight_decay=1e-5)
    opt_discriminator = torch.optim.Adam(discriminator.parameters(), 1e-4, betas=(0.5, 0.999))

    def step(loss: Callable[[], torch.Tensor], optimiser: torch.optim.Optimizer) -> None:
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bf16"):
            value = loss()
        value.backward()
        optimiser.step()

    def discriminator_loss() -> torch.Tensor:
        fake = model(x)["recon"]
        return 0.005 * (softplus(-discriminator(x)).mean() + softplus(discriminator(fake.detach())).mean())

    def generator_loss() -> torch.Tensor:
        out = model(x)
        adversarial = 0.005 * softplus(-discriminator(out["recon"])).mean()
        teacher = 0.01 * mse_loss(out["teacher_recon"], x) + 0.001 * out["dist_loss"]
        return 10 * mse_loss(out["recon"], x) + adversarial + teacher

    def two_steps() -> None:
        step(discriminator_loss, opt_discriminator)
        step(generator_loss, opt)
        for module in model.modules():
            if hasattr(module, "enque"):
                module.update()
        step(discriminator_loss, opt_discriminator)

    def scored() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bf16"):
            discriminator(model(x)["recon"]).detach()

    if task == "train":
        return best_rate(two_steps, 2 * batch, 30.0)
    model.eval()
    return best_rate(scored, batch, 10.0)


def main() -> None:
    """Measure, print and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reference", type=Path, required=True)
    parser.add_argument("--json", type=Path, required=True)
    given = parser.parse_args()
    rows: list[Row] = []
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        peaks = {dtype: pool.apply(convolution_peak, (dtype,)) for dtype in ("float32", "bf16")}
        for task, batch in CASES:
            for dtype, peak in peaks.items():
                theirs = pool.apply(measure_reference, (given.reference, task, batch, dtype))
                ours = pool.apply(measure, (task, "squid", batch, dtype))
                row: Row = {"task": task, "batch": batch, "dtype": dtype, "reference": round(theirs, 2)}
                row |= {"loligo": round(ours["images_per_s"], 2), "ratio": round(ours["images_per_s"] / theirs, 2)}
                row |= {"peak_fraction": round(ours["images_per_s"] * ours["flop"] / peak, 3)}
                rows.append(row | {"peak_memory_bytes": ours["memory"] * 1024, "flop_per_image": ours["flop"]})
                print(rows[-1], flush=True)
    about = {"machine": machine(), "unit": "images/s", "peak_flop_per_s": peaks, "date": time.strftime("%F")}
    write_json({**about, "rows": rows}, given.json, indent=2)


if __name__ == "__main__":
    main()
