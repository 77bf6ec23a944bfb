"""Make the pictures of a sheet: the image, its heat map with numbered outlines, small ones, the chart of scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import PIL.Image
from scipy.ndimage import binary_dilation

from loligo.calibration import Calibration
from loligo.io.overlay import levels
from loligo.reports.common.figures import panels, svg
from loligo.reports.common.pictures import OUTLINE, Grey, Heat, heated, uri
from loligo.reports.sheet.regions import Region

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LARGE, SMALL = (90.0, 74.0), (44.0, 34.0)
"""Largest (width, height) of a picture on paper, in mm."""
PER_MM = 9
"""Pixels of a picture a mm: some 230 dpi."""
LINE = 3
"""Width in pixels of an outline, which runs around its region, and of the dark line around that, for grey paper."""
BAR = 0.04
"""Anomaly score that a bar of the chart spans."""
BADGE = 4.4
"""Diameter of a region's number in mm."""


@dataclass(frozen=True)
class Print:
    """A picture with its size on paper."""

    uri: str
    """Data URI."""
    alt: str
    """What it shows."""
    width: float
    """In mm."""
    height: float
    """In mm."""


def fitted(shape: tuple[int, int], box: tuple[float, float]) -> tuple[float, float]:
    """Return (width, height) in mm of an image of (H, W) pixels that just fits a box of (width, height) in mm."""
    height, width = shape
    scale = min(box[0] / width, box[1] / height)
    return width * scale, height * scale


def grey(pixels: npt.NDArray[np.float32], size: tuple[float, float]) -> Grey:
    """Return (C, H, W) float32 in [0, 1] as (h, w) uint8 that fills a (width, height) in mm."""
    image = PIL.Image.fromarray(pixels.mean(axis=0, dtype=np.float32).clip(0, 1))
    return levels(np.asarray(image.resize(_in_pixels(size), PIL.Image.Resampling.LANCZOS)))


def printed(pixels: npt.NDArray[np.float32], alt: str, box: tuple[float, float], shape: tuple[int, int]) -> Print:
    """Return (C, H, W) float32 in [0, 1] as a picture of the aspect ratio of ``shape`` (H, W)."""
    size = fitted(shape, box)
    return Print(uri(grey(pixels, size), "JPEG"), alt, *size)


def outlined(pixels: npt.NDArray[np.float32], heat: Heat, scale: float, regions: Sequence[Region], alt: str) -> Print:
    """Return a heat map (h, w), from 0 to ``scale``, over an image (C, H, W), with the regions' outlines."""
    size = fitted((pixels.shape[1], pixels.shape[2]), LARGE)
    picture = heated(grey(pixels, size), heat, scale)
    for region in regions:
        inside = _enlarged(region.mask, _in_pixels(size))
        around = binary_dilation(inside, iterations=LINE)
        picture[binary_dilation(around, iterations=LINE) & ~around] = 0
        picture[around & ~inside] = OUTLINE
    return Print(uri(picture, "JPEG"), alt, *size)


def _enlarged(mask: npt.NDArray[np.bool_], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return a mask at (width, height) pixels with its corners rounded; where so small that it vanishes, as it is."""
    smooth = PIL.Image.fromarray(mask.astype(np.float32)).resize(size, PIL.Image.Resampling.BICUBIC)
    inside: npt.NDArray[np.bool_] = np.asarray(smooth) > 0.5
    return inside if inside.any() else np.asarray(PIL.Image.fromarray(mask).resize(size, PIL.Image.Resampling.NEAREST))


def badges(regions: Sequence[Region], size: tuple[float, float]) -> list[tuple[float, float]]:
    """Return where the numbers of regions stand in a picture of (width, height) in mm: centres (x, y) in mm.

    Each stands beside its region, inside the picture, off other numbers and, where it can, off what is outlined.
    """
    placed: list[tuple[float, float]] = []
    hot = np.any([region.mask for region in regions], axis=0) if regions else np.zeros((1, 1), bool)
    for region in regions:
        options = [_inside(option, size) for option in _beside(region.mask, size)]
        placed.append(min(options, key=lambda at: 2 * _collisions(at, placed) + _covered(at, hot, size)))
    return placed


def _beside(mask: npt.NDArray[np.bool_], size: tuple[float, float]) -> list[tuple[float, float]]:
    """Return points next to the top, the bottom, the left and the right end of a mask, in mm."""
    rows, columns = np.nonzero(mask)
    y, x = (rows + 0.5) * size[1] / mask.shape[0], (columns + 0.5) * size[0] / mask.shape[1]
    ends = [(y == y.min(), 0, -1), (y == y.max(), 0, 1), (x == x.min(), -1, 0), (x == x.max(), 1, 0)]
    off = 0.7 * BADGE
    return [(float(x[end].mean()) + dx * off, float(y[end].mean()) + dy * off) for end, dx, dy in ends]


def _inside(at: tuple[float, float], size: tuple[float, float]) -> tuple[float, float]:
    """Move a number into the picture."""
    x, y = (min(max(value, BADGE / 2), max(side - BADGE / 2, BADGE / 2)) for value, side in zip(at, size, strict=True))
    return x, y


def _collisions(at: tuple[float, float], placed: Sequence[tuple[float, float]]) -> int:
    return sum(np.hypot(at[0] - x, at[1] - y) < BADGE for x, y in placed)


def _covered(at: tuple[float, float], hot: npt.NDArray[np.bool_], size: tuple[float, float]) -> float:
    """Return the fraction of a number that would hide outlined places."""
    (r0, r1), (c0, c1) = (
        (int((at[i] - BADGE / 2) * n / size[i]), int(np.ceil((at[i] + BADGE / 2) * n / size[i])))
        for i, n in ((1, hot.shape[0]), (0, hot.shape[1]))
    )
    part = hot[max(r0, 0) : r1, max(c0, 0) : c1]
    return float(part.mean()) if part.size else 0.0


@svg
def chart(calibration: Calibration, score: float) -> Figure:
    """Draw the anomaly scores of held-out normals, the threshold, and where this image stands."""
    normals = calibration.anomaly_score(calibration.scores)
    threshold, here = (float(calibration.anomaly_score(x)) for x in (calibration.threshold, score))
    figure, (axes,) = panels(1, 1, 3.1, 1.5)
    first = threshold % BAR - BAR + 1e-9  # an edge is the threshold, a hair above the last normal score below it
    edges = first + BAR * np.arange(1 / BAR + 2)
    heights, *_ = axes.hist(normals, bins=edges.tolist(), color="#b4b8bd")
    top = float(np.max(heights))
    axes.plot((threshold, threshold), (0, 1.08 * top), color="#333", linewidth=1, linestyle="--")
    axes.plot((here, here), (0, 1.08 * top), color="#a33f00", linewidth=2.2)
    axes.plot(here, 1.14 * top, marker="v", color="#a33f00", markersize=7, clip_on=False)
    for x, text, height, colour in (
        (here, "this image", 1.3, "#a33f00"),
        (threshold, "flagged from here", 1.62, "#333"),
    ):
        side = "right" if x > 0.75 else "left" if x < 0.25 else "center"
        weight = "bold" if x == here else "normal"
        axes.text(x, height * top, text, ha=side, va="bottom", fontsize=7.5, color=colour, weight=weight)
    axes.set(xlim=(0, 1), ylim=(0, 2 * top), yticks=[])
    axes.set_xlabel("anomaly score", fontsize=8)
    axes.tick_params(labelsize=7.5)
    axes.spines["left"].set_visible(False)
    return figure


def _in_pixels(size: tuple[float, float]) -> tuple[int, int]:
    """Return (width, height) in pixels of a picture of (width, height) in mm."""
    return max(1, round(size[0] * PER_MM)), max(1, round(size[1] * PER_MM))
