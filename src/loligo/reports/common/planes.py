"""Show a volume in three planes through one place, as a radiologist hangs them: sides named, pixels square."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import PIL.Image

from loligo.config import Axis
from loligo.io import planes, regions
from loligo.io.overlay import cross, letter, levels, outline, outlined
from loligo.reports.common.pictures import MASK, Grey, Heat, Mask, mask_lines, resized_heat
from loligo.types import Volume

AXES: tuple[Axis, ...] = ("axial", "coronal", "sagittal")
SIDES = {"axial": "RLAP", "coronal": "RLHF", "sagittal": "APHF"}
"""What lies at the left, the right, the top and the bottom: right, left, anterior, posterior, head, feet."""
FIRST = {"axial": "feet", "coronal": "back", "sagittal": "left"}
"""Where slices are counted from."""
_EDGES = ((0.5, 0.0), (0.5, 1.0), (0.0, 0.5), (1.0, 0.5))
SHOWN = (0.5, 99.5)
"""Percentiles of a volume's intensities that are shown black and white."""


@dataclass(frozen=True)
class Plane:
    """One slice of a volume."""

    axis: Axis
    index: int
    """Of the slice, from 0."""
    count: int
    """Of slices."""
    grey: Grey
    """(h, w) uint8, its pixels square."""
    at: tuple[float, float]
    """The place that the planes go through: (row, column) in parts of the sides."""
    heat: Heat | None
    """(h, w) in parts of the colours' range, or None."""
    mask: Mask | None
    """(H, W) as the voxels are, or None."""

    @property
    def title(self) -> str:
        """Say which slice it is, such as "axial, slice 12 of 40 from the feet"."""
        return f"{self.axis}, slice {self.index + 1} of {self.count} from the {FIRST[self.axis]}"

    @property
    def bare(self) -> Grey:
        """Return the slice with the names of its sides."""
        return self._named(PIL.Image.fromarray(self.grey).convert("RGB"))

    @property
    def marked(self) -> Grey:
        """Return the slice with its heat, hot regions, the place as a cross, and a thin line around the mask."""
        image = PIL.Image.fromarray(self.grey).convert("RGB")
        if self.heat is not None:
            image = outlined(self.grey, self.heat, regions.find(self.heat))
            cross(image, self.at)
        for line in () if self.mask is None else mask_lines(self.mask):
            outline(image, line, MASK, 1)
        return self._named(image)

    def _named(self, image: PIL.Image.Image) -> Grey:
        for side, at in zip(SIDES[self.axis], _EDGES, strict=True):
            letter(image, side, at)
        return np.asarray(image)


def through(
    volume: Volume, at: tuple[int, int, int], side: int, heat: Heat | None = None, mask: Mask | None = None
) -> list[Plane]:
    """Return the axial, coronal and sagittal slice through voxel ``at``, ``side`` pixels long at most.

    ``heat``, in parts of the colours' range, and ``mask`` are (X, Y, Z) as the voxels are.
    """
    sample = volume.voxels[tuple(slice(None, None, max(1, n // 128)) for n in volume.shape)]
    low, high = np.percentile(sample, SHOWN)

    def plane(axis: Axis) -> Plane:
        order = planes.ORDER[axis]
        index = at[order[0]]
        own, hot, marks = (None if x is None else _slice(x, axis, index) for x in (volume.voxels, heat, mask))
        assert own is not None
        grey = _square(((own - low) / max(high - low, 1e-6)).clip(0, 1), [volume.spacing[i] for i in order[1:]], side)
        place = [1 - (at[i] + 0.5) / volume.shape[i] for i in order[1:]]  # rows and columns run backwards
        return Plane(
            axis, index, volume.shape[order[0]], grey, (place[0], place[1]),
            None if hot is None else resized_heat(hot, grey), marks if marks is not None and marks.any() else None,
        )  # fmt: skip

    return [plane(axis) for axis in AXES]


def hottest(heat: Heat) -> tuple[int, int, int]:
    """Return the hottest voxel of (X, Y, Z)."""
    x, y, z = (int(i) for i in np.unravel_index(int(heat.argmax()), heat.shape))
    return x, y, z


def middle(mask: Mask) -> tuple[int, int, int]:
    """Return a voxel of a mask (X, Y, Z) in the slices that hold the most of it."""
    inside = mask
    found = []
    for axis in range(3):  # each within the slices chosen before, so that the voxel itself is of the mask
        i = int(inside.sum(axis=tuple({0, 1, 2} - {axis})).argmax())
        found.append(i)
        inside = inside & (np.arange(mask.shape[axis]) == i).reshape([-1 if a == axis else 1 for a in range(3)])
    return found[0], found[1], found[2]


def _slice(voxels: npt.NDArray[np.generic], axis: Axis, index: int) -> npt.NDArray[np.generic]:
    """Return one of `planes.slices` without making the others."""
    (one,) = planes.slices(np.take(voxels, [index], planes.ORDER[axis][0]), axis)
    return one


def _square(plane: npt.NDArray[np.floating], spacing: list[float], side: int) -> Grey:
    """Return a slice (H, W) in [0, 1], of pixels so far apart, as (h, w) uint8 whose longest side is ``side``."""
    lengths = [n * step for n, step in zip(plane.shape, spacing, strict=True)]
    height, width = (max(1, round(length * side / max(lengths))) for length in lengths)
    image = PIL.Image.fromarray(plane.astype(np.float32)).resize((width, height), PIL.Image.Resampling.BICUBIC)
    return levels(np.asarray(image))
