"""The nouns that every layer shares: they carry geometry, units and source, and import no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
Floats = npt.NDArray[np.float32]
OLDEST = 90.0
"""Years of age of all who are as old or older, of whom there are few enough to be recognised."""


@dataclass(frozen=True)
class Again(Generic[T]):
    """What may be iterated more than once, and is computed anew each time rather than kept."""

    make: Callable[[], Iterator[T]]
    """Begins at the first."""

    def __iter__(self) -> Iterator[T]:
        """Begin anew."""
        return self.make()


@dataclass(frozen=True)
class Geometry:
    """Where the pixels of an image lie: all that is needed to put a map onto its grid."""

    shape: tuple[int, int]
    """(H, W) pixels."""
    spacing: tuple[float, float] | None = None
    """(row, column) distance of pixel centres in mm; None where the file does not say."""
    orientation: tuple[str, str] | None = None
    """Where rows and columns run to in the patient, as DICOM's Patient Orientation, such as ("L", "F"); None where the
    file does not say."""
    source: Path | None = None
    """The file that it was read from; None for an array."""


@dataclass(frozen=True)
class Acquisition:
    """How an image was taken, as far as its DICOM header says so; what it does not say is empty or None."""

    modality: str
    """Such as CR, DX, MG, CT or MR."""
    view: str = ""
    """Such as PA, AP, LL, CC or MLO."""
    laterality: str = ""
    """R, L, U (unpaired) or B (both)."""
    body_part: str = ""
    """Such as CHEST."""
    age: float | None = None
    """The patient's, in years; `OLDEST` for all who are older."""
    manufacturer: str = ""
    """Of the device."""
    spacing_at: Literal["", "body", "detector"] = ""
    """Where the spacing of a projection holds: in the body, to which it was calibrated, or at the detector, which
    shows the body larger than it is."""


@dataclass(frozen=True)
class Image:
    """One image with where it came from and what its numbers mean."""

    pixels: npt.NDArray[np.float32]
    """(C, H, W) float32 in [0, 1]; 0 is black."""
    source: Path | None = None
    """The file that it was read from; None for an array."""
    spacing: tuple[float, float] | None = None
    """(row, column) distance of pixel centres in mm; None where the file does not say."""
    orientation: tuple[str, str] | None = None
    """Where rows and columns run to in the patient; see `Geometry`."""
    acquisition: Acquisition | None = None
    """How it was taken; None where its file has no such header."""
    remarks: tuple[str, ...] = ()
    """Names of warnings that its file gives cause to; see `loligo.data.checks.WARNINGS`."""

    @property
    def geometry(self) -> Geometry:
        """Return where its pixels lie."""
        height, width = self.pixels.shape[1:]
        return Geometry((height, width), self.spacing, self.orientation, self.source)


@dataclass(frozen=True)
class VolumeHeader:
    """What a NIfTI file or a DICOM series says of its voxels, without them: enough to write others onto its grid.

    A series counts as the NIfTI file that holds its slices one behind the other.

    World coordinates are in mm and run to the patient's right, front and head (RAS+).
    """

    source: Path
    """The file that it was read from; of a DICOM series, one of its files."""
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
    acquisition: Acquisition | None = None
    """How it was taken; None where its file has no such header."""

    @property
    def geometry(self) -> VolumeHeader:
        """Return where its voxels lie, without them."""
        return VolumeHeader(**{field.name: getattr(self, field.name) for field in fields(VolumeHeader)})


class Scores(NamedTuple):
    """What a method says of a batch of N images, tensors alone. Higher is more abnormal; raw and unbounded."""

    image: Tensor
    """(N,) float32: one score an image."""
    map: Tensor | None = None
    """(N, 1, H, W) float32: how abnormal each place is."""
    reconstruction: Tensor | None = None
    """(N, C, H, W) float32 in [0, 1]: the normal image that the method sees in each."""


class Scored(NamedTuple):
    """The same `Scores` as arrays, whatever computed them."""

    image: Floats
    map: Floats | None = None
    reconstruction: Floats | None = None


@dataclass(frozen=True)
class Prediction:
    """What a detector says of one image or volume."""

    score: float
    """Raw score; higher is more abnormal."""
    p_value: float
    """(1 + normals held out for calibration that score as high) / (1 + all of them), in (0, 1]."""
    flag: bool
    """Whether the score reaches the threshold of the stated false-alarm rate."""
    anomaly_score: float
    """Sigmoid of the score standardised by the calibration normals, in [0, 1]."""
    warnings: tuple[str, ...]
    """Names of what is odd about the image as it is given; see `loligo.data.checks.WARNINGS`."""
    geometry: Geometry | VolumeHeader
    """The grid of the image, and of its map."""
    network_map: Floats | None
    """(S, S) float32 as the network gave it, or (slices, S, S) of a volume; None where the method has no map."""
    network_reconstruction: Floats | None
    """The same of the normal image that the method sees in it, in [0, 1]; None for a volume."""
    restore: Callable[[Floats, Geometry | VolumeHeader], Floats]
    """Takes such an array from the grid of the network to that of the image; see `data.preprocessing`."""

    @cached_property
    def map(self) -> Floats | None:
        """How abnormal each place is, on the image's own grid: (H, W) float32, or (X, Y, Z) of a volume."""
        return None if self.network_map is None else self.restore(self.network_map, self.geometry)

    @cached_property
    def reconstruction(self) -> Floats | None:
        """The normal image that the method sees in it, on the image's own grid: (H, W) float32 in [0, 1]."""
        return None if self.network_reconstruction is None else self.restore(self.network_reconstruction, self.geometry)


@dataclass(frozen=True)
class Inspection:
    """How a method sees a batch of N images, for the figures of a report."""

    reconstructions: dict[str, Tensor]
    """(N, C, H, W) float32 in [0, 1] by generator, such as teacher and student."""
    features: Tensor | None = None
    """(N, L, D): what the encoder makes of each of L patches, in raster order."""
    inpainted: Tensor | None = None
    """(N, L, D): the same after in-painting from memory."""
    memory: Tensor | None = None
    """(L, m, D): the slots of each patch's memory."""
