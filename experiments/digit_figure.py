"""Draw the picture of methods on DigitAnatomy: a row a kind of image, a column a method, its heat map over the image.

    python -m experiments.digit_figure runs/squid runs/padim runs/riad --out docs/digits.jpg

The run folders are those of `loligo experiment digit_anatomy METHOD --preset digits` on one data set. Shown is the
first image of each kind in the test split, so that nobody chose it; the first column has it with what was changed
outlined. Colours are those of every heat map: of each method by its own calibration normals.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from PIL import Image

import loligo
from loligo.data.digit_anatomy import KINDS
from loligo.io.overlay import ENDS, overlay, ramp
from loligo.runs.run import Run

CELL = 1.9
"""Side of an image in the picture, in inches."""
OUTLINE = "#00e5ff"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="run folders, one a column, in this order")
    parser.add_argument("--out", type=Path, default=Path("docs/digits.jpg"))
    given = parser.parse_args()
    draw(given.runs, given.out)
    print(f"{given.out}: {given.out.stat().st_size / 1000:.0f} kB")


def chosen(runs: list[Path]) -> pd.DataFrame:
    """Return the first test image of each kind, a row each; ValueError where runs do not have them in common."""
    found: dict[Path, pd.DataFrame] = {}
    for run in runs:
        rows = Run.load(run).manifest()
        kinds = set(rows["kind"]) if "kind" in rows else set()
        if missing := [kind for kind in KINDS if kind not in kinds]:
            raise ValueError(f"{run} has no images of the kind {missing[0]}; name runs on DigitAnatomy")
        test = rows[rows["split"] == "test"].sort_values("path")
        found[run] = test.drop_duplicates("kind").set_index("kind").loc[list(KINDS)]
        if list(found[run]["path"]) != list(found[runs[0]]["path"]):
            raise ValueError(f"{run} and {runs[0]} are on different images; train them on one data set")
    return found[runs[0]]


def draw(runs: list[Path], out: Path) -> None:
    """Write the picture."""
    rows = chosen(runs)
    images = [np.asarray(Image.open(path).convert("L")) for path in rows["path"]]
    matplotlib.use("Agg")
    columns = 1 + len(runs)
    figure = plt.figure(figsize=(0.75 + CELL * columns, 0.65 + (CELL + 0.22) * len(rows)), dpi=100)
    width, height = figure.get_size_inches()
    grid = figure.add_gridspec(
        len(rows) + 1,
        columns,
        height_ratios=(*[1] * len(rows), 0.06),
        wspace=0.04,
        hspace=0.16,
        left=0.7 / width,
        right=1 - 0.05 / width,
        top=1 - 0.35 / height,
        bottom=0.3 / height,
    )
    for line, (kind, grey, mask) in enumerate(zip(rows.index, images, rows["mask"], strict=True)):
        axes = figure.add_subplot(grid[line, 0])
        show(axes, np.stack([grey] * 3, -1), "image" if line == 0 else "")
        axes.text(-0.06, 0.5, kind, fontsize=15, rotation=90, ha="right", va="center", transform=axes.transAxes)
        if mask:
            changed = np.pad(np.asarray(Image.open(mask).convert("L")), 1)  # closed also at the border
            along = (np.arange(-1, side + 1) for side in reversed(grey.shape))
            axes.contour(*along, changed, [127], colors=OUTLINE, linewidths=2).set_clip_on(False)
    for column, run in enumerate(runs, 1):
        detector = loligo.load(run)
        for line, (grey, found) in enumerate(zip(images, detector.predict(list(rows["path"])), strict=True)):
            heat = np.zeros(grey.shape) if found.map is None else detector.calibration.heat(found.map)
            axes = figure.add_subplot(grid[line, column])
            show(axes, overlay(grey, heat), detector.settings.method if line == 0 else "")
            axes.set_xlabel(f"p = {found.p_value:.3f}{', flagged' if found.flag else ''}", fontsize=11, labelpad=2)
    bar = figure.add_subplot(grid[len(rows), :])
    bar.imshow(ramp(400, 14), aspect="auto")
    bar.set(yticks=[], xticks=[0, 399])
    bar.set_xticklabels([f"hottest place of a {ENDS[0]}", f"of {ENDS[1]}"], fontsize=11)
    bar.get_xticklabels()[0].set_ha("left")
    bar.get_xticklabels()[1].set_ha("right")
    figure.savefig(out, **({"pil_kwargs": {"quality": 85, "optimize": True}} if out.suffix == ".jpg" else {}))
    plt.close(figure)


def show(axes: plt.Axes, pixels: np.ndarray, title: str) -> None:
    axes.imshow(pixels, interpolation="nearest")
    axes.set_title(title, fontsize=15)
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)


if __name__ == "__main__":
    main()
