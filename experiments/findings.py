"""Draw the picture of the documentation: each simulated finding in a normal image, its mask outlined.

    python -m experiments.findings chest_xray/

The chest is one normal image of the ZhangLab training split, the digits are DigitAnatomy's. One seed makes them all.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np

from loligo import io
from loligo.data import digit_anatomy, findings
from loligo.data.preprocessing import resized
from loligo.data.sources import zhanglab

COLUMNS, SIDE = 7, 224


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the ZhangLab set, with train/ and test/")
    parser.add_argument("--image", type=int, default=647, help="which of the normal training images")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("docs/findings.jpg"))
    given = parser.parse_args()
    rows = zhanglab.index(given.data)
    normal = rows[(rows["split"] == "train") & (rows["label"] == 0)].sort_values("path")
    path = normal["path"].iloc[given.image]
    chest = resized(io.read(Path(path)).pixels[:1], (SIDE, SIDE))[0]
    digits = digit_anatomy.generate(digit_anatomy.pool(), "normal", np.random.default_rng(given.seed))[0]
    tiles = [(chest, "normal"), *((chest, kind) for kind in findings.KINDS)]
    tiles += [(digits, "normal"), *((digits, kind) for kind in findings.STRUCTURAL)]
    draw(tiles, given.seed, given.out)
    print(f"{given.out}: {given.out.stat().st_size / 1000:.0f} kB; {path}")


def draw(tiles: list[tuple[np.ndarray, str]], seed: int, out: Path) -> None:
    """Write the picture: in each tile an image (H, W), with the finding that names it."""
    matplotlib.use("Agg")
    lines = -(-len(tiles) // COLUMNS)
    figure, axes = plt.subplots(lines, COLUMNS, figsize=(2 * COLUMNS, 2.2 * lines), dpi=100, squeeze=False)
    for i, (at, (image, kind)) in enumerate(zip(axes.flat, tiles, strict=True)):
        if kind != "normal":
            image, mask = findings.insert(image, kind, np.random.default_rng([seed, i]))
            at.contour(mask, [0.5], colors="#ff6a00", linewidths=0.9)
        at.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="lanczos")
        at.set_title(kind, fontsize=12)
        at.set_axis_off()
    figure.subplots_adjust(left=0.003, right=0.997, top=0.955, bottom=0.003, wspace=0.02, hspace=0.14)
    figure.savefig(out, pil_kwargs={"quality": 80, "optimize": True})


if __name__ == "__main__":
    main()
