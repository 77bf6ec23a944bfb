"""Slice RAS+ voxel arrays as a radiologist hangs them, and stack slices again: an exact round trip.

Whoever looks at a slice faces the patient: columns of axial and coronal slices run from the patient's right to
the left, those of sagittal ones from front to back. Rows run from front to back (axial) or from head to feet.
Slices follow each other as the voxels do: from feet to head (axial), back to front (coronal), left to right
(sagittal).
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from loligo.config import Axis
from loligo.names import nearest

T = TypeVar("T", bound=np.generic)

ORDER = {"axial": (2, 1, 0), "coronal": (1, 2, 0), "sagittal": (0, 2, 1)}
"""Which of x, y, z becomes slice, row and column; rows and columns then run backwards."""


def slices(voxels: npt.NDArray[T], axis: Axis) -> npt.NDArray[T]:
    """Return the slices (N, H, W) of voxels (X, Y, Z) in RAS+ order: a copy of the same type.

    N, H, W are Z, Y, X (axial), Y, Z, X (coronal) or X, Z, Y (sagittal). Raises ``ValueError`` for another axis or
    an array that has not three axes.
    """
    order = _order(voxels, axis)
    return np.ascontiguousarray(voxels.transpose(order)[:, ::-1, ::-1])


def stack(slices: npt.NDArray[T], axis: Axis) -> npt.NDArray[T]:
    """Return the voxels (X, Y, Z) in RAS+ order of slices (N, H, W): the inverse of `slices`, which raises alike."""
    order = _order(slices, axis)
    return np.ascontiguousarray(slices[:, ::-1, ::-1].transpose(np.argsort(order)))


def positions(count: int) -> npt.NDArray[np.float32]:
    """Return where each of ``count`` slices lies (N,) float32: -0.5 for the first, 0.5 for the last, 0 for an only one.

    Raises ``ValueError`` for less than one slice.
    """
    if count < 1:
        raise ValueError(f"{count} slices have no positions; 1 or more is allowed")
    return np.linspace(-0.5, 0.5, count, dtype=np.float32) if count > 1 else np.zeros(1, np.float32)


def smoothed(slices: npt.NDArray[np.float32], least: int, window: int) -> npt.NDArray[np.float32]:
    """Return slices (N, H, W) after the minimum of a cube of ``least`` voxels a side, then the mean of 3 slices by
    ``window`` x ``window``, both odd; of windows that reach beyond the volume what lies in it counts."""
    lowest, size = ndimage.minimum_filter(slices, least, mode="nearest"), (3, window, window)
    inside = ndimage.uniform_filter(np.ones_like(lowest), size, mode="constant")
    return np.asarray(ndimage.uniform_filter(lowest, size, mode="constant") / inside, np.float32)


def _order(array: npt.NDArray[T], axis: str) -> tuple[int, int, int]:
    """Return the order of axes, or raise."""
    if axis not in ORDER:
        raise ValueError(f"axis {axis!r} is not one of {', '.join(ORDER)}; {nearest(axis, ORDER)}")
    if array.ndim != 3:
        raise ValueError(f"an array of shape {array.shape} has {array.ndim} axes; three are needed")
    return ORDER[axis]
