"""What of a heat map stands out, as objects hold it: the regions of the sheet, on the pixels of the source."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from loligo.calibration import Calibration
from loligo.dicom.sources import Source
from loligo.io import regions
from loligo.io.overlay import REGIONS
from loligo.reports.sheet import volume
from loligo.types import Floats, Geometry

Labels = npt.NDArray[np.uint8]
Line = npt.NDArray[np.float64]


class Outline(NamedTuple):
    """A closed line around a place in one plane."""

    plane: int
    """Which file or frame of the source, from 0 on."""
    points: Line
    """(n, 2): (row, column) in pixels from the upper left corner of the upper left pixel; the last is the first."""


@dataclass(frozen=True)
class Place:
    """One region that is hotter than what 19 of 20 normal images reach anywhere."""

    peak: float
    """Its heat: above 1."""
    outlines: tuple[Outline, ...]
    """Around it, without holes."""
    where: str
    """In the words of the sheet, such as "upper zone, image left"."""


@dataclass(frozen=True)
class Findings:
    """The regions of a result, the one with most heat first."""

    places: tuple[Place, ...]
    labels: Labels
    """(N, rows, columns): which place, from 1 on, each pixel of each plane lies in; 0 in none."""
    remark: str
    """What is not outlined; empty where nothing is left out."""


def find(heat: Floats, source: Source, calibration: Calibration) -> Findings:
    """Return what stands out of a map on the source's own grid, (H, W) or (X, Y, Z), as the sheet of it shows."""
    if isinstance(source.geometry, Geometry):
        return _of_image(calibration.heat(heat), source.geometry.shape)
    return _of_volume(calibration.heat(regions.smooth(heat)), source)


def _of_image(heat: Floats, shape: tuple[int, int]) -> Findings:
    """Find the regions of an image's heat (H, W)."""
    hot = regions.find(heat)
    labels, places = np.zeros((1, *shape), np.uint8), []
    for number, region in enumerate(hot.regions[:REGIONS], 1):
        lines = [line * shape for line in region.outline]
        labels[0][filled(lines, shape)] = number
        places.append(Place(region.peak, tuple(Outline(0, line) for line in outer(lines)), region.place))
    spread = f"{hot.fraction:.0%} of the image is hot, so that no region is outlined." if hot.widespread else ""
    return Findings(tuple(places), labels, spread or _left(len(hot.regions)))


def _of_volume(heat: Floats, source: Source) -> Findings:
    """Find the hot places of a volume's heat (X, Y, Z)."""
    found, large = regions.connected(heat, volume.LEAST)
    kept = large[:REGIONS]
    number_of = np.zeros(int(found.max()) + 1, np.uint8)
    number_of[kept] = np.arange(1, len(kept) + 1)
    labels, planes = source.sliced(number_of[found]), source.sliced(heat)
    places = []
    for number in range(1, len(kept) + 1):
        mask = labels == number
        within = np.flatnonzero(mask.any(axis=(1, 2))).tolist()
        lines = [Outline(k, line) for k in within for line in _around(mask[k])]
        where = f"slices {within[0] + 1} to {within[-1] + 1} of {len(mask)}"
        places.append(Place(float(planes[mask].max()), tuple(lines), where))
    return Findings(tuple(places), labels, _left(len(large)))


def _left(count: int) -> str:
    return f"{count - REGIONS} more regions, of less heat, are not outlined." if count > REGIONS else ""


def _around(mask: npt.NDArray[np.bool_]) -> list[Line]:
    """Return the lines around a mask (rows, columns), along the edges of its pixels."""
    return outer([line * mask.shape for line in regions.contours(mask.astype(np.float32), 0.5)])


def outer(lines: list[Line]) -> list[Line]:
    """Return those of the lines around one region that are not around its holes: they run the other way round."""
    areas = [_area(line) for line in lines]
    way = max(areas, key=abs, default=0.0)
    return [line for line, area in zip(lines, areas, strict=True) if area * way > 0]


def _area(line: Line) -> float:
    """Return the area within a closed line, negative where it runs the other way."""
    rows, columns = line.T
    return float(rows[:-1] @ columns[1:] - rows[1:] @ columns[:-1]) / 2


def filled(lines: list[Line], shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return (H, W) bool: the pixels whose centres lie within closed lines, holes left out."""
    flips = np.zeros((shape[0], shape[1] + 1), np.int32)
    for line in lines:
        for (top, left), (bottom, right) in pairwise(line - 0.5):
            low, high = min(top, bottom), max(top, bottom)
            rows = np.arange(max(0, int(np.ceil(low))), min(shape[0], int(np.ceil(high))))
            columns = left + (rows - top) * (right - left) / (bottom - top) if len(rows) else rows
            np.add.at(flips, (rows, np.ceil(columns).astype(int).clip(0, shape[1])), 1)
    return np.asarray(flips[:, :-1].cumsum(axis=1) % 2 == 1)
