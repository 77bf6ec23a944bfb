"""Draw the picture of the README: two chest X-rays of the ZhangLab test split, their heat maps, and the sheet of one.

    python -m experiments.pictures chest_xray/ --run runs/picture

The images are those whose scores are the medians of their classes, so that nobody chose them. Needs
loligo[features,pdf] and pypdfium2, which turns the sheet into pixels.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from PIL import Image

import loligo
from loligo.data.sources import zhanglab
from loligo.io import regions
from loligo.io.overlay import ENDS, annotated, ramp

SHEET_WIDTH = 900
"""Of the page in the picture, in pixels."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the ZhangLab set, with train/ and test/")
    parser.add_argument("--run", type=Path, required=True, help="run folder; trained unless it is there already")
    parser.add_argument("--out", type=Path, default=Path("docs/radiographs.jpg"))
    given = parser.parse_args()
    if not (given.run / "calibration.json").exists():
        loligo.train("padim", zhanglab.index(given.data), given.run, preset="radiograph")
    table = loligo.score(given.run, maps="none")
    rows = [median(table, label) for label in (0, 1)]
    draw(loligo.load(given.run), rows, sheet(given.run, rows[1]["path"]), given.out)
    print(f"{given.out}: {given.out.stat().st_size / 1000:.0f} kB;", *(row["path"] for row in rows))


def median(table: pd.DataFrame, label: int) -> pd.Series:
    """Return the image of a class whose score is the median; of two middle ones the lower."""
    ranked = table[table["label"] == label].sort_values("score")
    return ranked.iloc[(len(ranked) - 1) // 2]


def sheet(run: Path, path: str) -> np.ndarray:
    """Return the sheet of an image as (H, W, 3) uint8."""
    import pypdfium2

    with tempfile.TemporaryDirectory() as folder:
        page = pypdfium2.PdfDocument(loligo.sheet(run, path, Path(folder) / "case.pdf"))[0]
        return np.asarray(page.render(scale=SHEET_WIDTH / page.get_width()).to_pil().convert("RGB"))


def draw(detector: loligo.Detector, rows: list[pd.Series], page: np.ndarray, out: Path) -> None:
    """Write the picture: a row an image, input and heat map; the page beside them."""
    matplotlib.use("Agg")
    figure = plt.figure(figsize=(18.6, 12.0), dpi=100)
    grid = figure.add_gridspec(3, 3, width_ratios=(1, 1, 1.52), height_ratios=(1, 1, 0.035), wspace=0.03, hspace=0.12)
    figure.subplots_adjust(left=0.01, right=0.99, top=0.955, bottom=0.06)
    for line, (row, name) in enumerate(zip(rows, ("normal", "pneumonia"), strict=True)):
        prediction = detector.predict([row["path"]])[0]
        grey = np.asarray(Image.open(row["path"]).convert("L"))
        show(figure.add_subplot(grid[line, 0]), grey / 255, f"input: {name}")
        what = "flagged" if prediction.flag else "not flagged"
        heat = detector.calibration.heat(prediction.map)
        picture = annotated(grey, heat, regions.find(heat))
        show(figure.add_subplot(grid[line, 1]), picture, f"heat map: p = {prediction.p_value:.3f}, {what}")
    bar = figure.add_subplot(grid[2, 1])
    bar.imshow(ramp(400, 14), aspect="auto")
    bar.set(yticks=[], xticks=[0, 399])
    bar.set_xticklabels([f"hottest place of a {ENDS[0]}", f"of {ENDS[1]}"], fontsize=13)
    bar.get_xticklabels()[0].set_ha("left")
    bar.get_xticklabels()[1].set_ha("right")
    axes = figure.add_subplot(grid[:, 2])
    show(axes, page, "sheet of the pneumonia (PDF)")
    figure.savefig(out, pil_kwargs={"quality": 82, "optimize": True})


def show(axes: plt.Axes, pixels: np.ndarray, title: str) -> None:
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=1 if pixels.ndim == 2 else None, interpolation="lanczos")
    axes.set_title(title, fontsize=17)
    axes.set_axis_off()


if __name__ == "__main__":
    main()
