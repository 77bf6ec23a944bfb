"""Map the intensities of volumes to the [0, 1] that every method sees, and back.

Both ways in use are a window: ``low`` becomes 0, ``high`` becomes 1, linear between and clipped beyond. For MRI,
whose units are arbitrary, the window is each volume's own: z-scores of the brain in [-a, a], as VQ-VAE restoration
has them, are ``2 a x - a`` of the x in [0, 1] here. For CT it is fixed: that of soft tissue where the volume is in HU,
all of [0, 1] where it was mapped to that before, as the MOOD challenge's abdomens are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from loligo.config import WindowName
from loligo.io.content import UnreadableImage
from loligo.types import Volume

FOREGROUND = 0.1
"""Part of the way from the darkest voxel to the bright ones (99th percentile) above which a voxel is foreground."""
TAILS = (1.0, 99.0)
"""Percentiles of the foreground beyond which it counts neither for mean nor for deviation, lest a lesion shift them."""


@dataclass(frozen=True)
class Window:
    """A linear map of intensities to [0, 1]. Raises ``ValueError`` unless both are finite and low is below high."""

    low: float
    """Becomes 0, in the volume's units."""
    high: float
    """Becomes 1."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"window from {self.low} to {self.high}: both must be finite, and the first the lower")

    def apply(self, voxels: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Map intensities of any shape to float32 in [0, 1]."""
        scaled = (np.asarray(voxels, dtype=np.float32) - np.float32(self.low)) / np.float32(self.high - self.low)
        return np.clip(scaled, 0, 1, out=scaled)

    def invert(self, values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Map values in [0, 1] back to intensities, float32; what `apply` clipped comes back as low or high."""
        return np.asarray(values, dtype=np.float32) * np.float32(self.high - self.low) + np.float32(self.low)


SOFT_TISSUE = Window(-160.0, 240.0)
"""The usual window of abdominal CT, in HU."""
UNIT = Window(0.0, 1.0)
"""The window of CT that was mapped to [0, 1] before; what it cut off is not known any more."""
AIR = -500.0
"""HU below which there is air and no tissue."""
FAT = -50.0
"""HU above which there is no fat; some of it is in every body."""
OVERSHOOT = 0.5
"""How far beyond [0, 1] resampling and noise may lead, which is cut off."""


def ct(volume: Volume) -> Window:
    """Return the window of a CT in HU, `SOFT_TISSUE`. Raises ``UnreadableImage`` for values that are not in HU."""
    if not (volume.voxels.min() < FAT and volume.voxels.max() > 1):
        repair = "if it was mapped to [0, 1] before, set preprocessing.window=unit"
        raise _unfit(volume, f"a CT in HU has fat and air below {FAT:g}", repair)
    return SOFT_TISSUE


def unit(volume: Volume) -> Window:
    """Return the window of what was mapped to [0, 1] before, `UNIT`.

    Raises ``UnreadableImage`` for values that lie elsewhere by more than `OVERSHOOT`, and where there is but one.
    """
    low, high = float(volume.voxels.min()), float(volume.voxels.max())
    if not (-OVERSHOOT <= low < high <= 1 + OVERSHOOT):
        raise _unfit(volume, "they are to lie in [0, 1]", "if it is a CT in HU, set preprocessing.window=ct")
    return UNIT


def _unfit(volume: Volume, wanted: str, repair: str) -> UnreadableImage:
    low, high = float(volume.voxels.min()), float(volume.voxels.max())
    return UnreadableImage(
        volume.source,
        f"its values run from {low:g} to {high:g}; {wanted}: {repair}, or convert it again from its DICOM files, with"
        " their rescale intercept",
    )


def brain(volume: Volume, limit: float = 3.0) -> Window:
    """Return the window of a brain MRI that maps z-scores of its foreground in [-limit, limit] to [0, 1].

    Mean and deviation are those of the `foreground` within its `TAILS`. Raises ``ValueError`` for a limit that is
    not above 0, and ``UnreadableImage`` where the foreground is empty or of one value, and for a CT in HU, which the
    air around it (`AIR`) gives away.
    """
    if not limit > 0:
        raise ValueError(f"limit {limit} of the z-scores must be above 0")
    if (dark := float(np.percentile(volume.voxels[::4, ::4, ::4], 5))) < AIR:
        raise UnreadableImage(
            volume.source,
            f"a twentieth of its values lie at {dark:g} or below, as air does in HU; set preprocessing.window=ct",
        )
    inside = volume.voxels[foreground(volume.voxels)]
    if inside.size:
        low, high = np.percentile(inside, TAILS)
        inside = inside[(inside >= low) & (inside <= high)]
    if not inside.size or not (deviation := float(inside.std(dtype=np.float64))):
        value = float(volume.voxels.max())
        raise UnreadableImage(volume.source, f"all of its foreground has the value {value:g}; there is no brain in it")
    mean = float(inside.mean(dtype=np.float64))
    return Window(mean - limit * deviation, mean + limit * deviation)


def dark_background(voxels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return voxels (X, Y, Z) whose background is darker than all tissue, where it is one value that lies among it.

    Tissue that was brought to mean 0 and deviation 1 by itself leaves such a background, 0. It is the value of at least
    half of the voxels on the faces, and becomes black in any window.
    """
    faces = np.concatenate([np.take(voxels, (0, -1), axis).ravel() for axis in range(3)])
    values, counts = np.unique(faces, return_counts=True)
    background = values[counts.argmax()]
    if 2 * counts.max() < faces.size or background == voxels.min():
        return voxels
    around = voxels == background
    tissue = voxels[~around]
    low, high = np.percentile(tissue, TAILS)
    if background <= low + FOREGROUND * (high - low):  # dark enough: an edge that rings lies below it
        return voxels
    return np.where(around, np.float32(2 * tissue.min() - high), voxels)


def foreground(voxels: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Tell tissue from background, for voxels (X, Y, Z) with a dark background, whether exactly 0 or noise.

    Tissue is what exceeds the darkest voxel by more than `FOREGROUND` of what the bright ones do.
    """
    darkest = voxels.min()
    above = voxels[voxels > darkest]
    if not above.size:
        return np.zeros(voxels.shape, bool)
    return np.asarray(voxels > darkest + FOREGROUND * (np.percentile(above, 99) - darkest))


WINDOWS: dict[WindowName, Callable[[Volume], Window]] = {"brain": brain, "ct": ct, "unit": unit}
"""The window of a volume, by name."""
