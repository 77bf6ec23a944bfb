"""Find what stands out of a volume's heat, and show it in three planes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import find_objects

from loligo.io import regions
from loligo.reports.common import planes
from loligo.reports.common.pictures import Heat
from loligo.reports.common.planes import Plane
from loligo.reports.common.text import number
from loligo.reports.sheet.case import Case
from loligo.types import Volume

SIDE = 560
"""Pixels of a plane's longest side."""
LEAST = 27
"""Voxels of the smallest hot region that is listed."""


@dataclass(frozen=True)
class Spot:
    """One connected place of a volume that is hotter than the limit."""

    at: tuple[int, int, int]
    """Its hottest voxel (x, y, z)."""
    peak: float
    """The heat there, in parts of the colours' range: above 1."""
    size: tuple[float, float, float]
    """Of the box around it: mm from right to left, front to back and foot to head."""


def spots(heat: Heat, spacing: tuple[float, float, float]) -> list[Spot]:
    """Return the hot places of a map (X, Y, Z) in parts of the colours' range, the one with most heat first."""
    labels, large = regions.connected(heat, LEAST)
    boxes = find_objects(labels)
    return [_spot(labels, i, boxes[i - 1], heat, spacing) for i in large]


def _spot(
    labels: npt.NDArray[np.integer[Any]], i: int, box: tuple[slice, ...], heat: Heat, spacing: tuple[float, ...]
) -> Spot:
    inside = np.where(labels[box] == i, heat[box], -np.inf)
    hottest = np.unravel_index(int(inside.argmax()), inside.shape)
    x, y, z = (int(a) + side.start for a, side in zip(hottest, box, strict=True))
    width, depth, height = ((side.stop - side.start) * step for side, step in zip(box, spacing, strict=True))
    return Spot((x, y, z), float(inside.max()), (width, depth, height))


def shown(case: Case) -> list[Plane]:
    """Return the planes through the hottest voxel, or through the middle where there is no map."""
    assert isinstance(case.image, Volume)
    n = case.image.shape
    at = (n[0] // 2, n[1] // 2, n[2] // 2) if case.heat is None else planes.hottest(case.heat)
    return planes.through(case.image, at, SIDE, case.heat)


def row(spot: Spot) -> tuple[str, str, str]:
    """Return place, size and heat of a spot, as written on the page."""
    x, y, z = (i + 1 for i in spot.at)
    place = f"axial slice {z}, coronal {y}, sagittal {x}"
    return place, " × ".join(f"{side:.0f}" for side in spot.size) + " mm", number(spot.peak)
