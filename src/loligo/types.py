"""The nouns that every layer shares: they carry geometry, units and source, and import no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class Again(Generic[T]):
    """What may be gone through more than once, and is made anew each time rather than kept."""

    make: Callable[[], Iterator[T]]
    """Begins at the first."""

    def __iter__(self) -> Iterator[T]:
        """Begin anew."""
        return self.make()


@dataclass(frozen=True)
class Image:
    """One image with where it came from and what its numbers mean."""

    pixels: npt.NDArray[np.float32]
    """(C, H, W) float32 in [0, 1]; 0 is black."""
    source: Path
    """The file that it was read from."""
    spacing: tuple[float, float] | None = None
    """(row, column) distance of pixel centres in mm; None where the file does not say."""


@dataclass(frozen=True)
class VolumeHeader:
    """What a NIfTI file says of its voxels, without them: all that is needed to write others onto its grid.

    World coordinates are in mm and run to the patient's right, front and head (RAS+).
    """

    source: Path
    """The file that it was read from."""
    shape: tuple[int, int, int]
    """(X, Y, Z) voxels to the right, to the front and up, as `Volume.voxels` has them."""
    affine: npt.NDArray[np.float64]
    """(4, 4) float64: world coordinates of the centre of voxel (x, y, z) are ``affine @ (x, y, z, 1)``."""
    spacing: tuple[float, float, float]
    """Distance of voxel centres along (X, Y, Z) in mm."""
    file_shape: tuple[int, ...]
    """The file's own shape; axes after the third have length 1."""
    file_axes: tuple[str, str, str]
    """Where the file's own i, j and k run to, such as ("L", "P", "S")."""
    file_place: dict[str, npt.NDArray[Any]]
    """The fields of its header that place it in the world, as they stand: pixdim, qform and sform with their codes."""


@dataclass(frozen=True)
class Volume(VolumeHeader):
    """One volume, its axes in the order and direction of RAS+, whatever those of its file."""

    voxels: npt.NDArray[np.float32]
    """(X, Y, Z) float32 in the file's own units, its scaling applied."""


@dataclass(frozen=True)
class Scores:
    """What a method says of a batch of N images. Higher is more abnormal; raw and unbounded."""

    image: Tensor
    """(N,) float32: one score an image."""
    map: Tensor | None = None
    """(N, 1, H, W) float32: how abnormal each place is."""
    reconstruction: Tensor | None = None
    """(N, C, H, W) float32 in [0, 1]: the normal image that the method sees in each."""


@dataclass(frozen=True)
class Inspection:
    """How a method sees a batch of N images, for the figures of a report."""

    rebuilt: dict[str, Tensor]
    """(N, C, H, W) float32 in [0, 1] by generator, such as teacher and student."""
    features: Tensor | None = None
    """(N, L, D): what the encoder makes of each of L patches, in raster order."""
    inpainted: Tensor | None = None
    """(N, L, D): the same after in-painting from memory."""
    memory: Tensor | None = None
    """(L, m, D): the slots of each patch's memory."""
