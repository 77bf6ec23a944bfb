"""Make the pictures of a sheet: the image, its heat map with numbered outlines, small ones, the chart of scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import PIL.Image

from loligo.calibration import Calibration
from loligo.io.overlay import annotated, levels
from loligo.io.regions import Hot
from loligo.reports.common.figures import panels, svg
from loligo.reports.common.pictures import Grey, Heat, resized_heat, uri

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HALF, WHOLE, SMALL = (89.0, 92.0), (186.0, 76.0), (43.5, 36.0)
"""Largest (width, height) of a picture on paper, in mm: beside another, above another, in the last row."""
BROAD = 1.45
"""Width to height from which two pictures are larger above each other."""
PLANE = 59.0
"""Largest side of a plane of a volume, in mm."""
PER_MM = 9
"""Pixels of a picture a mm: some 230 dpi."""
FARTHEST = 8.0
"""Deviations from the mean of normals that the chart reaches at least where the image lies beyond."""


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


def fitted(shape: tuple[int, ...], box: tuple[float, float]) -> tuple[float, float]:
    """Return (width, height) in mm of an image of (H, W) pixels that just fits a box of (width, height) in mm."""
    height, width = shape
    scale = min(box[0] / width, box[1] / height)
    return width * scale, height * scale


def large(shape: tuple[int, ...]) -> tuple[float, float]:
    """Return the box of the picture of an image of (H, W) pixels, and of its heat map."""
    return WHOLE if shape[1] > BROAD * shape[0] else HALF


def grey(pixels: npt.NDArray[np.float32], size: tuple[float, float]) -> Grey:
    """Return (C, H, W) float32 in [0, 1] as (h, w) uint8 that fills a (width, height) in mm."""
    image = PIL.Image.fromarray(pixels.mean(axis=0, dtype=np.float32).clip(0, 1))
    wanted = (max(1, round(size[0] * PER_MM)), max(1, round(size[1] * PER_MM)))
    return levels(np.asarray(image.resize(wanted, PIL.Image.Resampling.LANCZOS)))


def printed(pixels: npt.NDArray[np.float32], alt: str, box: tuple[float, float], shape: tuple[int, ...]) -> Print:
    """Return (C, H, W) float32 in [0, 1] as a picture of the aspect ratio of ``shape`` (H, W)."""
    size = fitted(shape, box)
    return Print(uri(grey(pixels, size), "JPEG"), alt, *size)


def heated(pixels: npt.NDArray[np.float32], heat: Heat, hot: Hot, alt: str) -> Print:
    """Return heat (H, W), in parts of the colours' range, over an image (C, H, W), with what stands out of it."""
    size = fitted(pixels.shape[1:], large(pixels.shape[1:]))
    picture = grey(pixels, size)
    return Print(uri(annotated(picture, resized_heat(heat, picture), hot), "JPEG"), alt, *size)


def plane(picture: Grey, alt: str, longest: int) -> Print:
    """Return the picture (h, w, 3) of a plane, of which ``longest`` pixels take `PLANE`."""
    height, width = (side * PLANE / longest for side in picture.shape[:2])
    return Print(uri(picture, "JPEG"), alt, width, height)


@svg
def chart(calibration: Calibration, score: float, noun: str = "image") -> Figure:
    """Draw the scores of held-out normals, the threshold, and where this image stands, in deviations of the normals.

    The scale ends where normals and threshold are well seen; an image beyond stands at its end, with its number.
    """
    normals, threshold, here = (
        (np.asarray(x) - calibration.mean) / calibration.std for x in (calibration.scores, calibration.threshold, score)
    )
    low, high = min(normals.min(), here, -2.0) - 0.3, max(normals.max(), threshold) + 1.5
    high = max(high, min(float(here) + 0.5, FARTHEST))
    low = max(low, min(normals.min(), -2.0) - 2.0)
    figure, (axes,) = panels(1, 1, 3.1, 1.5)
    step = (high - low) / 40
    first, last = np.floor((low - threshold) / step), np.ceil((high - threshold) / step)
    edges = threshold + step * np.arange(first, last + 1)  # one is the threshold: no bar is flagged in part
    heights, *_ = axes.hist(normals, bins=edges.tolist(), color="#b4b8bd")
    top = float(np.max(heights))
    axes.plot((threshold, threshold), (0, 1.08 * top), color="#333", linewidth=1, linestyle="--")
    seen = float(np.clip(here, low, high))
    axes.plot((seen, seen), (0, 1.08 * top), color="#a33f00", linewidth=2.2)
    marker = ">" if here > high else "<" if here < low else "v"
    axes.plot(seen, 1.14 * top, marker=marker, color="#a33f00", markersize=7, clip_on=False)
    beyond = f" at {float(here):.3g}" if seen != here else ""
    for x, text, height, colour, weight in (
        (seen, f"this {noun}{beyond}", 1.3, "#a33f00", "bold"),
        (float(threshold), "flagged from here", 1.62, "#333", "normal"),
    ):
        part = (x - low) / (high - low)
        side = "right" if part > 0.75 else "left" if part < 0.25 else "center"
        axes.text(x, height * top, text, ha=side, va="bottom", fontsize=7.5, color=colour, weight=weight)
    axes.set(xlim=(low, high), ylim=(0, 2 * top), yticks=[])
    axes.set_xlabel("score, in deviations from the mean of normals", fontsize=8)
    axes.tick_params(labelsize=7.5)
    axes.spines["left"].set_visible(False)
    return figure
