"""Make the pictures of one volume: the three planes through its hottest voxel."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from loligo.config import Axis
from loligo.data.preprocessing import resized
from loligo.io import planes
from loligo.reports.common.pictures import OUTLINE, Heat, Mask, Picture, heated, outline, reason, size, thumbnail, uri
from loligo.reports.run.pictures import Sources

AXES: tuple[Axis, ...] = ("axial", "coronal", "sagittal")
SHOWN = (0.5, 99.5)
"""Percentiles of a volume's intensities that are shown black and white."""


def pictures(files: Sources, scale: float) -> tuple[Picture, ...]:
    """Return an axial slice, and heat over all three planes, from 0 to ``scale``; or say why there is none.

    Without a map the planes are those through the middle, bare.
    """
    from loligo.io import nifti

    name = files.image.name
    try:
        volume = nifti.read(files.image)
        heat = nifti.read(files.map).voxels if files.map else np.zeros(volume.shape, np.float32)
        mask = nifti.read_mask(files.mask, volume) if files.mask else np.zeros(volume.shape, bool)
        if heat.shape != volume.shape:
            raise ValueError(f"its map has shape {heat.shape}, not {volume.shape}")
    except Exception as error:  # whatever a reader raises on a broken file: it must not cost the report
        return (Picture("input", "", f"cannot be read: {reason(error, files.image)}"),)
    low, high = np.percentile(volume.voxels, SHOWN)
    grey = ((volume.voxels - low) / max(high - low, 1e-6)).clip(0, 1).astype(np.float32)
    at = np.unravel_index(int(heat.argmax()), heat.shape) if files.map else tuple(n // 2 for n in heat.shape)
    where = dict(zip(AXES, (at[2], at[1], at[0]), strict=True))
    shown = {axis: _square(planes.slices(grey, axis)[where[axis]], axis, volume.spacing) for axis in AXES}
    first = thumbnail(shown["axial"][None])
    found = [Picture("input", uri(first, "PNG"), f"axial slice {where['axial'] + 1} of {name}")]
    for axis in AXES:
        hot, marks = (planes.slices(v, axis)[where[axis]] for v in (heat, mask))
        found.append(_plane(axis, shown[axis], hot, marks, scale, f"slice {where[axis] + 1} of {name}"))
    return tuple(found)


def _square(plane: npt.NDArray[np.float32], axis: Axis, spacing: tuple[float, ...]) -> npt.NDArray[np.float32]:
    """Resize a slice (H, W) of a volume with such a spacing, so that a pixel is as high as it is wide."""
    _, *sides = (spacing[i] for i in planes.ORDER[axis])
    height, width = (round(n * side / min(sides)) for n, side in zip(plane.shape, sides, strict=True))
    square: npt.NDArray[np.float32] = resized(plane[None], (height, width))[0]
    return square


def _plane(axis: str, grey: npt.NDArray[np.float32], heat: Heat, mask: Mask, scale: float, what: str) -> Picture:
    """Show heat over a slice whose pixels are square, with the outline of its mask: both as the volume's voxels are."""
    small = thumbnail(grey[None])
    picture = heated(small, heat, scale)
    if mask.any():
        picture[outline(mask, size(small))] = OUTLINE
    marked = ", true mask outlined" if mask.any() else ""
    return Picture(f"heat map, {axis}", uri(picture, "JPEG"), f"heat map over {axis} {what}{marked}")
