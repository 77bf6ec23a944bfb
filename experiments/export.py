"""Compare exported models with their checkpoints on radiographs: scores, flags and images/s, in one run on one CPU.

    python -m experiments.export --data chest_xray/ --out runs/export --methods padim:radiograph,duet:tiny

Each method is trained in float32 on ZhangLab's normals (by the preset `tiny` on 200 of them) and exported. Differences
are those of the scores of 64 test images of both classes, as a part of the score or of the calibration's standard
deviation (`loligo.exporting.difference`). Speeds are of batches of 16 that are decoded already, with as many threads as
$OMP_NUM_THREADS says for all, the best of several. Rows go to results/export.csv.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import loligo
from experiments.common import RESULTS, best_rate, machine
from loligo import Detector, methods
from loligo.data.sources import zhanglab
from loligo.exporting import difference
from loligo.files import write_csv
from loligo.methods.declared import one_pass
from loligo.runs.run import Run

COMPARED, BATCH = 64, 16
FILES = {"onnx": "model.onnx", "openvino": "openvino.xml", "int8": "int8.xml"}


def trained(name: str, preset: str, rows: pd.DataFrame, out: Path) -> Run:
    """Return the run of a method in float32, trained where it is not there."""
    if (out / "calibration.json").is_file():
        return Run.load(out)
    quick = {"epochs": 2} if preset == "tiny" and not one_pass(methods.get(name)) else {}
    if preset == "tiny":
        normal = rows[rows["split"] == "train"].sample(200, random_state=0)
        rows = pd.concat([normal, rows[rows["split"] != "train"]])
    return loligo.train(name, rows, out, preset=preset, train={"precision": "float32", "seed": 0} | quick)


def row(name: str, preset: str, rows: pd.DataFrame, out: Path) -> dict[str, Any]:
    """Measure one method."""
    run = trained(name, preset, rows, out / f"{name}_{preset}")
    checkpoint = Detector.load(run, "cpu")
    test = rows[rows["split"] == "test"]
    images = checkpoint.images(test.iloc[np.linspace(0, len(test) - 1, COMPARED).round().astype(int)])
    expected = checkpoint.scores(images, BATCH)
    x = images.images(np.arange(BATCH))
    found: dict[str, Any] = {"method": name, "preset": preset, "size": run.method_config.size}
    found["torch_images_per_s"] = best_rate(lambda: checkpoint.score(x), BATCH)
    for kind, file in FILES.items():
        path = run.folder / "exported" / file
        try:
            if not path.is_file():
                loligo.export(run, path, int8=kind == "int8")
        except ValueError as error:
            found[f"{kind}_refused"] = str(error)
            continue
        model = Detector.load(path)
        scores = model.scores(images, BATCH)
        flags = (scores >= model.calibration.threshold) != (expected >= checkpoint.calibration.threshold)
        found[f"{kind}_difference"] = difference(scores, expected, checkpoint.calibration)
        found[f"{kind}_flagged_otherwise"] = int(flags.sum())
        found[f"{kind}_images_per_s"] = best_rate(lambda model=model: model.score(x), BATCH)
    return found


def main() -> None:
    """Measure the methods that are named, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="ZhangLab's folder")
    parser.add_argument("--out", type=Path, required=True, help="folder for runs, which are kept")
    parser.add_argument("--methods", default=",".join(f"{name}:tiny" for name in methods.METHODS))
    given = parser.parse_args()
    rows, found = zhanglab.index(given.data), []
    for word in given.methods.split(","):
        name, _, preset = word.partition(":")
        found.append(row(name, preset, rows, given.out) | {"machine": machine()})
        print(found[-1], flush=True)
        write_csv(pd.DataFrame(found), RESULTS / "export.csv")


if __name__ == "__main__":
    main()
