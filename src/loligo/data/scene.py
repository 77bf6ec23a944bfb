"""What a simulated finding is placed by: lungs, foreground, brightness and size of one image."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from loligo.data import body, lungs
from loligo.data.preprocessing import resized
from loligo.data.shapes import Floats, upsampled

Bools = npt.NDArray[np.bool_]

SIDE = 64
"""Pixels a side that places are found at."""
PLAIN = 0.1
"""Range of grey along the border, as a part of the contrast, below which the border is background."""
LEAST = 0.02
"""Part of an image that a foreground takes at least; else all of it is."""
ROUND = 2
"""Pixels of `SIDE` by which thin ends of a lung, such as gas in the bowel below it, are cut."""
SPECK = 0.2
"""Size of a part of the lungs, by the largest one, below which it is none."""
GAP = 0.25
"""Least step from lung to soft tissue, as a part of the contrast."""


class Anatomy(NamedTuple):
    """Where findings may lie in an image (H, W)."""

    lungs: Bools | None
    """Both lungs, (H, W); None where not both are found."""
    foreground: Bools
    """The body, or what is not background, (H, W)."""


def anatomy(image: Floats) -> Anatomy:
    """Find lungs and foreground of an image (H, W) float32 in [0, 1]; nothing is learnt."""
    small = resized(image[None], (body.SIDE, body.SIDE))[0]
    both, whole = lungs.segment(small), body.segment(small)
    middle = body.SIDE // 2
    found = bool(both[:, :middle].any() and both[:, middle:].any())
    found = found and (whole is None or bool(both[whole].sum() > body.INSIDE * both.sum()))
    outline = _not_background(small) if whole is None else whole | (both & found)
    return Anatomy(_whole(both, image.shape) if found else None, _whole(outline, image.shape))


def _not_background(x: Floats) -> Bools:
    """Return what differs from a border (H, W) of one grey, and a little around it; all where there is none."""
    border = np.concatenate([x[0], x[-1], x[:, 0], x[:, -1]])
    low, level, high = np.percentile(border, (10, 50, 90))
    contrast = np.ptp(np.percentile(x, (1, 99)))
    if high - low > PLAIN * contrast:
        return np.ones(x.shape, bool)
    found = ndimage.binary_closing(np.abs(x - level) > PLAIN * contrast, iterations=2)
    return found if found.mean() > LEAST else np.ones(x.shape, bool)


def _whole(mask: Bools, shape: tuple[int, ...]) -> Bools:
    """Return a mask at the size of the image."""
    large: Bools = upsampled(mask.astype(np.float32), (shape[0], shape[1])) > 0.5
    return large


def _rounded(mask: Bools) -> Bools:
    """Return lungs (SIDE, SIDE) without thin ends, specks and jags."""
    opened: Bools = ndimage.binary_opening(mask, iterations=ROUND)
    smooth: Bools = ndimage.gaussian_filter(opened.astype(np.float32), 1) > 0.5
    labels, count = ndimage.label(smooth)
    sizes = [int((labels == i).sum()) for i in range(1, count + 1)]
    for i, size in enumerate(sizes, 1):
        if size < SPECK * max(sizes):
            smooth &= labels != i
    return smooth


def _to_chest_wall(mask: Bools, lateral: int) -> Bools:
    """Fill each row of a lung (SIDE, SIDE) out to where any row above reaches: ribs leave gaps, a chest widens down."""
    outwards = mask[:, ::lateral]
    columns = np.arange(SIDE)
    rows: Bools = np.asarray(outwards.any(axis=1))
    inner = outwards.argmax(1)
    outer = np.maximum.accumulate(np.where(rows, SIDE - 1 - outwards[:, ::-1].argmax(1), 0))
    filled: Bools = rows[:, None] & (columns >= inner[:, None]) & (columns <= outer[:, None])
    return filled[:, ::lateral]


@dataclass(frozen=True)
class Lung:
    """One lung or, where none was found, half of the foreground. Lengths are in parts of the shorter side."""

    mask: Bools
    """(SIDE, SIDE), over the whole image."""
    unit: tuple[float, float]
    """Height and width of one of its pixels."""
    lateral: int
    """Which way the chest wall is: -1 in the left half of the image, 1 in the right."""

    @cached_property
    def box(self) -> tuple[float, float, float, float]:
        """Top, bottom, left and right."""
        rows, columns = np.flatnonzero(self.mask.any(1)), np.flatnonzero(self.mask.any(0))
        (high, wide) = self.unit
        return rows[0] * high, (rows[-1] + 1) * high, columns[0] * wide, (columns[-1] + 1) * wide

    @property
    def hilum(self) -> tuple[float, float]:
        """The middle of the medial border."""
        top, bottom, left, right = self.box
        medial = right if self.lateral < 0 else left
        return (top + bottom) / 2, medial + self.lateral * 0.1 * (right - left)

    @cached_property
    def depth(self) -> Floats:
        """Distance (SIDE, SIDE) to the outline, positive within."""
        mask = np.pad(self.mask, 1)
        within, beyond = (ndimage.distance_transform_edt(m, sampling=self.unit) for m in (mask, ~mask))
        signed: Floats = ndimage.gaussian_filter((within - beyond)[1:-1, 1:-1].astype(np.float32), 1, mode="nearest")
        return signed

    def place(self, rng: np.random.Generator, margin: float = 0) -> tuple[float, float]:
        """Sample a place, ``margin`` from the outline where it is that wide."""
        deep = self.mask & (self.depth >= min(margin, 0.7 * float(self.depth.max()))) if margin else self.mask
        row, column = np.unravel_index(rng.choice(np.flatnonzero(deep)), deep.shape)
        return (float(row) + rng.random()) * self.unit[0], (float(column) + rng.random()) * self.unit[1]


@dataclass(frozen=True)
class Scene:
    """An image (H, W) float32 in [0, 1], what is where in it, and another image of its shape or itself."""

    image: Floats
    anatomy: Anatomy
    donor: Floats

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.image.shape[0], self.image.shape[1]

    @cached_property
    def range(self) -> tuple[float, float]:
        """The 1st and 99th percentile of grey."""
        low, high = np.percentile(self.image[:: self.step, :: self.step], (1, 99))
        return float(low), float(high)

    @property
    def contrast(self) -> float:
        """The range of grey."""
        return self.range[1] - self.range[0]

    @property
    def step(self) -> int:
        """Take every so many-th pixel for statistics."""
        return max(1, min(self.shape) // 100)

    @cached_property
    def lungs(self) -> tuple[Lung, Lung]:
        """The lung in the left half of the image and the other; halves of the foreground where there are none."""
        found = self.anatomy.foreground if self.anatomy.lungs is None else self.anatomy.lungs
        small = resized(found[None].astype(np.float32), (SIDE, SIDE))[0] > 0.5
        if self.anatomy.lungs is not None:
            small, middle = _rounded(small), SIDE // 2
        else:
            middle = round(float(np.average(np.arange(SIDE), weights=small.sum(0)))) if small.any() else SIDE // 2
        halves = np.arange(SIDE) < middle, np.arange(SIDE) >= middle
        left, right = (small & half if (small & half).any() else np.ones_like(small) & half for half in halves)
        if self.anatomy.lungs is not None:
            left, right = _to_chest_wall(left, -1), _to_chest_wall(right, 1)
        high, wide = (n / min(self.shape) / SIDE for n in self.shape)
        return Lung(left, (high, wide), -1), Lung(right, (high, wide), 1)

    @cached_property
    def levels(self) -> tuple[float, float]:
        """Grey of lung and of the soft tissue beside it."""
        every = slice(None, None, self.step)
        x, body_ = self.image[every, every], self.anatomy.foreground[every, every]
        inside = body_ if self.anatomy.lungs is None else self.anatomy.lungs[every, every]
        rest = body_ & ~inside
        lung = float(np.median(x[inside])) if inside.any() else float(np.median(x))
        tissue = float(np.percentile(x[rest], 60)) if rest.any() else lung
        return lung, max(tissue, lung + GAP * self.contrast)

    def within(self, lung: Lung, reach: float = 0.0, edge: float = 0.03) -> Floats:
        """Return a weight (H, W): 1 in a lung, 0 from ``reach`` beyond its outline, over ``edge``."""
        weight: Floats = np.clip((self.depth(lung) + np.float32(reach)) / np.float32(edge), 0, 1)
        return weight

    def depth(self, lung: Lung) -> Floats:
        """Return the distance (H, W) to the outline of a lung, positive within."""
        return upsampled(lung.depth, self.shape)

    def some(self, rng: np.random.Generator, both: float) -> list[Lung]:
        """Sample one lung or, with a probability, both."""
        return list(self.lungs) if rng.random() < both else [self.lungs[int(rng.integers(2))]]

    def place(self, rng: np.random.Generator) -> tuple[float, float]:
        """Sample a place of the foreground."""
        mask = self.anatomy.foreground
        places = np.flatnonzero(mask) if mask.any() else np.arange(mask.size)
        row, column = divmod(int(rng.choice(places)), mask.shape[1])
        return (row + 0.5) / min(self.shape), (column + 0.5) / min(self.shape)
