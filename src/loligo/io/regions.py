"""Find the regions of a heat map that stand out, and say where they lie in the words of a radiologist."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
from scipy.ndimage import binary_dilation, find_objects, gaussian_filter, label

Heat = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Line = npt.NDArray[np.float64]
"""Points (n, 2) of a closed line: (row, column) as parts of the image's height and width."""

SIDE = 256
"""Longest side in pixels at which a map is searched."""
SMALLEST = 0.001
"""Fraction of the image below which a hot spot is no region."""
SMOOTHING = 1 / 128
"""Standard deviation of the smoothing, as a fraction of the map's side: lone hot pixels are noise."""
BORDER = 1 / 64
"""Fraction of the map's side within which a region counts as touching the border."""
LEAST_PART = 0.1
"""Fraction of a region that must lie in a zone or side for it to be named: an edge just crossed says nothing."""
WIDESPREAD = 1 / 3
"""Fraction of the image above the limit from which no place stands out, and none is outlined."""

ZONES = ("upper", "middle", "lower")
SIDES = ("left", "right")


@dataclass(frozen=True)
class Region:
    """One connected place that is hotter than the limit."""

    mask: Mask
    """(h, w) bool, on the grid that the map was searched on."""
    outline: tuple[Line, ...]
    """Its border, a line for the outer one and for each hole."""
    at: tuple[float, float]
    """Its hottest place: (row, column) as parts of the image's height and width."""
    peak: float
    """Its heat there, smoothed: above 1."""
    zones: tuple[str, ...]
    """Thirds of the image's height that it lies in: upper, middle, lower."""
    sides: tuple[str, ...]
    """Halves of the image's width as shown that it lies in: left, right."""
    at_border: bool
    """Whether it touches the border of the image."""

    @property
    def fraction(self) -> float:
        """Return how much of the image's area it takes, in (0, 1]."""
        return float(self.mask.mean())

    @property
    def size(self) -> tuple[float, float]:
        """Return (height, width) of the box around it as parts of the image's."""
        (rows, columns), (height, width) = find_objects(self.mask.astype(np.uint8))[0], self.mask.shape
        return (rows.stop - rows.start) / height, (columns.stop - columns.start) / width

    @property
    def place(self) -> str:
        """Return where it lies: "upper zone, image left", "upper and middle zone, both sides"."""
        zones = "all zones" if len(self.zones) == len(ZONES) else f"{' and '.join(self.zones)} zone"
        return f"{zones}, {'both sides' if len(self.sides) == len(SIDES) else f'image {self.sides[0]}'}"


@dataclass(frozen=True)
class Hot:
    """What of a heat map stands out."""

    regions: tuple[Region, ...]
    """The one with most heat first; none where the heat is `widespread`."""
    fraction: float
    """Of the image that is hotter than the limit, in [0, 1]."""
    at: tuple[float, float]
    """The hottest place: (row, column) as parts of the image's height and width."""
    peak: float
    """The heat there, smoothed."""

    @property
    def widespread(self) -> bool:
        """Say whether so much is hot that no place stands out."""
        return self.fraction > WIDESPREAD


def find(heat: Heat) -> Hot:
    """Return what stands out of a map (H, W) in parts of the colours' range, as `Calibration.heat` gives it.

    A region is a connected place of at least `SMALLEST` of the image where the lightly smoothed map lies above 1; its
    heat is the sum of what lies above, so that area and height count together. Raises ValueError where the map is not
    finite or not (H, W).
    """
    if heat.ndim != 2 or not np.isfinite(heat).all():
        raise ValueError(f"a map of shape {heat.shape} is not a finite (H, W) array")
    smoothed = smooth(_small(heat))
    hot = Hot((), float((smoothed > 1).mean()), _hottest(smoothed), float(smoothed.max()))
    if hot.widespread:
        return hot
    labels, large = connected(smoothed, SMALLEST * smoothed.size)
    return Hot(tuple(_region(labels == i, smoothed) for i in large), hot.fraction, hot.at, hot.peak)


def connected(heat: Heat, least: float) -> tuple[npt.NDArray[np.integer[Any]], list[int]]:
    """Label the connected places of a map, (H, W) or (X, Y, Z), that lie above 1, from 1 on.

    Return the labels, of the map's shape, and those of ``least`` pixels or more, the one with most heat first.
    """
    labels, count = label(heat > 1, structure=np.ones((3,) * heat.ndim))
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    excess = np.bincount(labels.ravel(), weights=(heat - 1).ravel(), minlength=count + 1)
    return labels, sorted((i for i in range(1, count + 1) if areas[i] >= least), key=lambda i: -excess[i])


def peak(heat: Heat) -> float:
    """Return the heat at the hottest place of a map (H, W) or (X, Y, Z), in its own unit, as `smooth` leaves it."""
    return float(smooth(_small(heat) if heat.ndim == 2 else heat).max())


def smooth(heat: Heat) -> Heat:
    """Return a map (H, W) or (X, Y, Z) without its lone hot pixels."""
    sigmas = [SMOOTHING * side for side in heat.shape]
    smoothed: Heat = gaussian_filter(np.asarray(heat, np.float32), sigmas, mode="nearest", truncate=3)
    return smoothed


def _small(heat: Heat) -> Heat:
    """Return a map (H, W) at `SIDE` pixels at most, of the same aspect."""
    if max(heat.shape) <= SIDE:
        return heat
    height, width = (max(1, round(side * SIDE / max(heat.shape))) for side in heat.shape)
    image = PIL.Image.fromarray(np.asarray(heat, np.float32))
    return np.asarray(image.resize((width, height), PIL.Image.Resampling.BILINEAR))


def _hottest(smoothed: Heat) -> tuple[float, float]:
    row, column = np.unravel_index(int(smoothed.argmax()), smoothed.shape)
    return (float(row) + 0.5) / smoothed.shape[0], (float(column) + 0.5) / smoothed.shape[1]


def _region(mask: Mask, smoothed: Heat) -> Region:
    """Measure a region (H, W) of a smoothed map."""
    inside = np.where(mask, smoothed, -np.inf).astype(np.float32)
    return Region(
        mask=mask,
        outline=_outline(mask, smoothed),
        at=_hottest(inside),
        peak=float(inside.max()),
        zones=_parts(mask.sum(axis=1), ZONES),
        sides=_parts(mask.sum(axis=0), SIDES),
        at_border=_touches(mask),
    )


def _outline(mask: Mask, smoothed: Heat) -> tuple[Line, ...]:
    """Return the lines around a region where the smoothed map crosses the limit."""
    around = np.where(binary_dilation(mask, np.ones((3, 3), bool)), smoothed, 0)
    return contours(around.clip(0, 2), 1.0)  # else a steep peak would pull the line in


def contours(values: npt.NDArray[np.floating[Any]], level: float) -> tuple[Line, ...]:
    """Return the closed lines where (H, W) values of pixels cross a level, which lies above 0."""
    from contourpy import contour_generator  # comes with matplotlib

    lines = contour_generator(z=np.pad(values, 1)).lines(level)
    size = np.array(values.shape)
    return tuple(((np.asarray(line)[:, ::-1] - 0.5) / size).clip(0, 1) for line in lines)


def _parts(profile: npt.NDArray[np.int64], names: tuple[str, ...]) -> tuple[str, ...]:
    """Name the equal parts of an axis that hold enough of a region, of which ``profile`` (n,) counts the pixels.

    A row or column belongs to the part in which its centre lies.
    """
    part = ((np.arange(len(profile)) + 0.5) * len(names) / len(profile)).astype(int)
    held = np.bincount(part, weights=profile, minlength=len(names)) / profile.sum()
    return tuple(name for name, fraction in zip(names, held, strict=True) if fraction >= LEAST_PART)


def _touches(mask: Mask) -> bool:
    """Say whether a region reaches into the margin of the image."""
    rows, columns = (max(1, round(BORDER * side)) for side in mask.shape)
    return not bool(mask[rows:-rows, columns:-columns].sum() == mask.sum())
