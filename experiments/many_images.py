"""PaDiM and PatchCore on many images: the memory that training takes, and what a kill half-way leaves.

    python -m experiments.many_images --out runs/many --json experiments/results/many_images.json

Draws images (smooth fields about a fixed anatomy, as PNG), trains by the command line on a hundredth of them and all,
each in a process of its own whose memory is looked at every half second: its own (RssAnon), without pages of files that
the system may drop. The training on all is killed once, half-way through the images, and begun again.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import PIL.Image
from tqdm import tqdm

from experiments.common import machine
from loligo.files import write_json
from loligo.runs.run import Run
from loligo.training.cost import commit


def draw(folder: Path, count: int, size: int) -> pd.DataFrame:
    """Draw what is missing of ``count`` images; return their manifest, a tenth of them for calibration."""
    folder.mkdir(parents=True, exist_ok=True)
    across = np.linspace(-1, 1, size)
    anatomy = 120 - 60 * np.exp(-((np.abs(across[None]) - 0.45) ** 2) / 0.06 - across[:, None] ** 2 / 0.5)
    paths = [folder / f"{i:06}.png" for i in range(count)]
    for i, path in enumerate(tqdm(paths, desc="drawing", unit="image")):
        if not path.exists():
            coarse = PIL.Image.fromarray(np.random.default_rng(i).normal(0, 20, (8, 8)).astype(np.float32))
            image = anatomy + np.asarray(coarse.resize((size, size), PIL.Image.Resampling.BICUBIC))
            PIL.Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(path)
    splits = np.where(np.arange(count) % 10 == 0, "calibration", "train")
    return pd.DataFrame({"path": [str(p.absolute()) for p in paths], "split": splits, "label": 0})


def own_memory(process: int) -> int:
    """Return the bytes of memory that a process has for itself, without pages of files; 0 when it has ended."""
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon"))


def train(command: list[str], log: Path, stop: str = "") -> tuple[int, float, int]:
    """Run a command, killed once its log has the word ``stop``; return its peak memory, seconds and exit code."""
    start, peak = time.monotonic(), 0
    with log.open("w", encoding="utf-8") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        while process.poll() is None:
            peak = max(peak, own_memory(process.pid))
            if stop and stop in log.read_text(encoding="utf-8"):
                process.send_signal(signal.SIGKILL)
            time.sleep(0.5)
    return peak, time.monotonic() - start, process.returncode


def measured(method: str, given: argparse.Namespace, count: int, table: pd.DataFrame) -> dict[str, Any]:
    """Train on the first ``count`` images; on all of them, kill half-way first."""
    folder, data = given.out / f"{method}_{count}", given.out / f"{count}.csv"
    table.head(count).to_csv(data, index=False)
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "loligo", "train", method, "--data", str(data), "--out", str(folder)]
    command += ["--method.size", str(given.size), "--method.memory_limit", given.limit]
    row: dict[str, Any] = {"method": method, "images": count, "memory_limit": given.limit}
    log = given.out / f"{method}_{count}.log"
    peak, seconds, code = train(command, log)
    row |= {"peak_bytes": peak, "seconds": round(seconds, 1), "exit": code}
    if count == given.images:
        shutil.rmtree(folder)
        cut = train(command, log, "fitting:  50%")[2]
        try:
            Run.load(folder).model()
            row |= {"killed": cut, "half_written_model": "loads"}
        except ValueError as error:
            row |= {"killed": cut, "half_written_model": str(error).replace(str(folder), "RUN")}
        row["again_exit"] = train(command, log)[2]
        said = [line for line in log.read_text(encoding="utf-8").splitlines() if "starts over" in line]
        row["again_says"] = said[0].replace(str(folder), "RUN") if said else ""
        Run.load(folder).model()
    return row


def main() -> None:
    """Draw, train, measure, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--limit", default="512MiB")
    parser.add_argument("--methods", nargs="*", default=["padim", "patchcore"])
    given = parser.parse_args()
    table, rows = draw(given.out / "images", given.images, given.size), []
    for method in given.methods:
        for count in (given.images // 100, given.images):
            rows.append(measured(method, given, count, table))
            print(rows[-1], flush=True)
            about = {"machine": machine(), "commit": commit(), "date": time.strftime("%F"), "rows": rows}
            write_json(about, given.json, indent=1)


if __name__ == "__main__":
    main()
