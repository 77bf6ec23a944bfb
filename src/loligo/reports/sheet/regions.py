"""Find the regions of a heat map that stand out, and say where they lie in the words of a radiologist."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, label

Heat = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

SMALLEST = 0.001
"""Fraction of the image below which a hot spot is no region: a typical normal image has that much above its peak."""
SMOOTHING = 1 / 128
"""Standard deviation of the smoothing, as a fraction of the map's side: lone hot pixels are noise."""
BORDER = 1 / 64
"""Fraction of the map's side within which a region counts as touching the border."""
LEAST_PART = 0.1
"""Fraction of a region that must lie in a zone or side for it to be named: an edge just crossed says nothing."""

ZONES = ("upper", "middle", "lower")
SIDES = ("left", "right")


@dataclass(frozen=True)
class Region:
    """One connected place that is hotter than the typical peak of normal images."""

    mask: Mask
    """(H, W) bool, on the map's grid."""
    fraction: float
    """Of the image's area, in (0, 1]."""
    peak: float
    """Its hottest smoothed value, in multiples of the typical peak: above 1."""
    zones: tuple[str, ...]
    """Thirds of the image's height that it lies in: upper, middle, lower."""
    sides: tuple[str, ...]
    """Halves of the image's width as shown that it lies in: left, right."""
    at_border: bool
    """Whether it touches the border of the image."""

    @property
    def size(self) -> tuple[int, int]:
        """Return (height, width) of the box around it in pixels of the map."""
        rows, columns = (np.flatnonzero(self.mask.any(axis=axis)) for axis in (1, 0))
        return int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1

    @property
    def place(self) -> str:
        """Return where it lies: "upper zone, image left", "upper and middle zone, both sides"."""
        zones = "all zones" if len(self.zones) == len(ZONES) else f"{' and '.join(self.zones)} zone"
        return f"{zones}, {'both sides' if len(self.sides) == len(SIDES) else f'image {self.sides[0]}'}"


def find(heat: Heat, typical: float) -> list[Region]:
    """Return the regions of a map (H, W) that pass ``typical``, in the map's unit, the one with most heat first.

    ``typical`` is the value that the hottest thousandth of a typical normal image reaches. A region is a connected
    place of at least `SMALLEST` of the image where the lightly smoothed map lies above it; its heat is the sum of
    what lies above, so that area and height count together. Raises ValueError where ``typical`` is not positive or the
    map is not finite or not (H, W).
    """
    if not (np.isfinite(typical) and typical > 0):
        raise ValueError(f"the typical peak is {typical}; it must be a positive number")
    if heat.ndim != 2 or not np.isfinite(heat).all():
        raise ValueError(f"a map of shape {heat.shape} is not a finite (H, W) array")
    smoothed = smooth(heat) / typical
    labels, count = label(smoothed > 1, structure=np.ones((3, 3)))
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    excess = np.bincount(labels.ravel(), weights=(smoothed - 1).ravel(), minlength=count + 1)
    large = [i for i in range(1, count + 1) if areas[i] >= SMALLEST * heat.size]
    return [_region(labels == i, smoothed) for i in sorted(large, key=lambda i: -excess[i])]


def smooth(heat: Heat) -> Heat:
    """Return a map (H, W) without its lone hot pixels."""
    sigmas = [SMOOTHING * side for side in heat.shape]
    smoothed: Heat = gaussian_filter(heat.astype(np.float64), sigmas, mode="nearest").astype(np.float32)
    return smoothed


def _region(mask: Mask, smoothed: Heat) -> Region:
    """Measure a region (H, W) of a map that is given in multiples of the typical peak."""
    return Region(
        mask=mask,
        fraction=float(mask.mean()),
        peak=float(smoothed[mask].max()),
        zones=_parts(mask.sum(axis=1), ZONES),
        sides=_parts(mask.sum(axis=0), SIDES),
        at_border=_touches(mask),
    )


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
