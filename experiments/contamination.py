"""Mixed training on DigitAnatomy: AUC of each method when 0 to 50 % of its training images are abnormal.

    python benchmarks/contamination.py --out runs/contamination --methods squid simsid ae --seeds 0 1 2

The same as 'loligo contaminate METHOD --data OUT/digits/manifest.csv --abnormal OUT/abnormal/manifest.csv --preset
digits' for each method. The abnormal images are drawn from the digits of the training split, so that training sees no
digit of the test split. Finished runs are not made again. Rows are added to results/contamination.csv beside this file,
from which results/contamination.png is drawn.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from loligo.contamination import KEY, SHARES, contaminate, draw
from loligo.data import digit_anatomy, manifest
from loligo.evaluation import results
from loligo.experiment import DATASETS
from loligo.files import replacing, write_csv
from loligo.reports.common import figures

RESULTS = Path(__file__).parent / "results"


def write_abnormal(folder: Path, count: int, seed: int, mnist: Path | None) -> None:
    """Write ``count`` images, of each abnormal kind in turn, and manifest.csv; they stand in its validation split."""
    digits, rows = digit_anatomy.pool(mnist).share("train"), []
    with replacing(folder) as new:
        new.mkdir()
        for i in range(count):
            kind = digit_anatomy.ABNORMAL[i % len(digit_anatomy.ABNORMAL)]
            pixels, _ = digit_anatomy.draw(digits, kind, np.random.default_rng([seed, i]))
            path = new / f"{i:05d}_{kind}.png"
            Image.fromarray(np.uint8(np.rint(pixels * 255))).save(path)
            rows.append({"path": str(path), "split": "validation", "label": 1, "source": digit_anatomy.SOURCE})
        manifest.write(pd.DataFrame(rows), new / "manifest.csv")


def keep(table: pd.DataFrame, folder: Path) -> None:
    """Add rows to contamination.csv of a folder, in place of those of the same runs, and draw their set's curves."""
    path, sets = folder / "contamination.csv", ["dataset", "preset"]
    whole = table
    if path.exists():
        whole = pd.concat([results.read(path), table]).drop_duplicates([*KEY, *sets], keep="last")
    write_csv(whole.sort_values([*sets, *KEY]), path)
    figures.save({"contamination": draw(whole.merge(table[sets].drop_duplicates()))}, folder)


def main() -> None:
    """Draw the data, unless that was done, and make the curve of each method."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--methods", nargs="+", default=["squid", "simsid", "ae"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--shares", nargs="+", type=float, default=list(SHARES))
    parser.add_argument("--preset", default="digits")
    parser.add_argument("--mnist", type=Path, help="folder with MNIST idx files; else scikit-learn's digits")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    data = DATASETS["digit_anatomy"](given.out / "digits", mnist=given.mnist)  # ValueError where others stand there
    abnormal = given.out / "abnormal"
    if not abnormal.exists():
        write_abnormal(abnormal, 800, 1, given.mnist)
    abnormal /= "manifest.csv"
    for method in given.methods:
        sets = {"shares": given.shares, "seeds": given.seeds}
        keep(contaminate(method, data, abnormal, given.out, preset=given.preset, **sets), given.results)


if __name__ == "__main__":
    main()
