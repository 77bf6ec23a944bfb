"""Read volumes from NIfTI-1 and NIfTI-2 files into RAS+ order, and write others onto a file's own grid.

Axes are reordered and turned so that x, y, z run to the patient's right, front and head as nearly as they can
(nibabel's ``as_closest_canonical``); nothing is resampled, so that what is written back lies voxel on voxel.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from nibabel.loadsave import save as save_image
from nibabel.nifti1 import Nifti1Header, Nifti1Image
from nibabel.orientations import apply_orientation, axcodes2ornt, ornt_transform
from nibabel.volumeutils import apply_read_scaling, array_from_file

from loligo.files import replacing
from loligo.io import VOLUME_SUFFIXES
from loligo.io.content import UnreadableImage
from loligo.io.nifti_header import claimed, distance, in_mm, load, place, reason, refuse_claim, unpacked
from loligo.names import some
from loligo.types import Volume, VolumeHeader

T = TypeVar("T", bound=np.generic)

SPACING_TOLERANCE = 0.01
"""Part of itself by which a spacing may differ from that of the other volumes of a data set."""
PLACE_TOLERANCE = 0.1
"""Part of a voxel by which a mask may lie beside its image."""
_FLOATS = 20  # bytes a voxel of the float32 arrays that follow on each other, and of what sets the window


def read(path: Path) -> Volume:
    """Decode a volume: voxels (X, Y, Z) float32 in RAS+ order, ``scl_slope`` and ``scl_inter`` applied.

    Raises ``UnreadableImage`` for what `read_header` refuses, data that are cut short or broken, and voxels that
    are NaN, infinite or beyond float32.
    """
    header = load(path)
    where = place(path, header)
    refuse_claim(path, header, mask=False)
    stored = _stored(path, header)
    if wrong := stored.size - int(np.count_nonzero(np.isfinite(stored))):
        raise UnreadableImage(
            path, f"{wrong:,} of {stored.size:,} voxels are NaN, infinite or beyond float32; give each a number"
        )
    return Volume(**vars(where), voxels=upright(stored, where))


def weigh(path: Path) -> int:
    """Return how many bytes it takes, at most, to decode a file and slice it, by its header; raises as `read`."""
    header = load(path)
    return claimed(header) + _FLOATS * math.prod(map(int, header.get_data_shape()))


def read_header(path: Path) -> VolumeHeader:
    """Read where the voxels of a file lie, without decoding them.

    Raises ``UnreadableImage`` where the file is missing, empty, not NIfTI or broken, and, naming what was found,
    for more than three axes (but for those of length 1), more than `nifti_header.MAX_VOXELS`, voxels that are not
    real numbers, units other than mm, no affine, axes that are not upright on each other, and a spacing that is
    not a positive number or not that of the affine.
    """
    return place(path, load(path))


def read_mask(path: Path, like: VolumeHeader) -> npt.NDArray[np.bool_]:
    """Read the mask of the image ``like``: (X, Y, Z) bool in RAS+ order, true wherever the voxel is above 0.

    The mask's own file may have its axes in another order. Raises ``UnreadableImage`` where it cannot be read, has
    another shape than the image, or lies elsewhere by more than `PLACE_TOLERANCE`.
    """
    header = load(path)
    mask = place(path, header)
    if mask.shape != like.shape:
        raise UnreadableImage(path, f"has shape {mask.shape} in RAS+ order, its image {like.source} {like.shape}")
    if (apart := distance(mask.affine, like.affine, like.shape)) > PLACE_TOLERANCE * min(like.spacing):
        raise UnreadableImage(path, f"lies up to {apart:.3g} mm beside its image {like.source}; save it on that grid")
    refuse_claim(path, header, mask=True)
    marked = _stored(path, header) > 0
    return np.asarray(upright(marked, mask))


def write(path: Path, voxels: npt.NDArray[Any], like: VolumeHeader) -> None:
    """Write voxels (X, Y, Z) in RAS+ order as float32 onto the own grid of the file that ``like`` was read from.

    The new file has that one's shape and order of axes, and both its affines and their codes as they stand, so that
    any viewer lays one on the other. Raises ``ValueError`` for another shape or another ending than .nii and .nii.gz,
    and ``OSError`` where it cannot be written.
    """
    if voxels.shape != like.shape:
        raise ValueError(f"{path}: voxels have shape {voxels.shape}; {like.source} has {like.shape} in RAS+ order")
    image = Nifti1Image(filed(voxels.astype(np.float32), like).reshape(like.file_shape), None)
    for name, value in like.file_place.items():
        image.header[name] = value
    _save(path, image)


def save(path: Path, stored: npt.NDArray[Any], affine: npt.NDArray[np.float64], space: int) -> None:
    """Write an array (I, J, K) in its own type, sform and qform both ``affine`` (4, 4) in mm with the code ``space``.

    The same array gives the same bytes. Raises as `write` does.
    """
    image = Nifti1Image(stored, affine)
    image.set_sform(affine, space)
    image.set_qform(affine, space)
    _save(path, image)


def _save(path: Path, image: Nifti1Image) -> None:
    """Write an image whose header says where it lies, in mm."""
    if not path.name.lower().endswith(VOLUME_SUFFIXES):
        raise ValueError(f"{path}: the name of a volume ends in {' or '.join(VOLUME_SUFFIXES)}")
    image.header.set_xyzt_units("mm")
    with replacing(path) as new:
        save_image(image, new)


def check_spacing(headers: Iterable[VolumeHeader], expected: Sequence[float] | None = None) -> tuple[float, ...]:
    """Return the spacing (X, Y, Z) in mm that all volumes of a data set share, within `SPACING_TOLERANCE`.

    It is ``expected`` or else the most frequent one. Raises ``ValueError`` where there is no volume, and, naming
    file and value, for volumes whose spacing differs.
    """
    found = list(headers)
    if not found:
        raise ValueError("there are no volumes whose spacing could be compared")
    counts = Counter(tuple(round(side, 3) for side in header.spacing) for header in found)
    shared = tuple(expected or counts.most_common(1)[0][0])
    odd = [header for header in found if not _close(header.spacing, shared)]
    if odd:
        listed = some(f"{header.source} ({in_mm(header.spacing)})" for header in odd)
        raise ValueError(
            f"{len(odd)} of {len(found)} volumes have another spacing than {in_mm(shared)}: {listed};"
            " resample them or leave them out"
        )
    return shared


def _stored(path: Path, header: Nifti1Header) -> npt.NDArray[np.float32]:
    """Decode the voxels in the file's own shape and order of axes, its scaling applied; raise for broken data."""
    slope, inter = header.get_slope_inter()
    shape, kind = header.get_data_shape(), header.get_data_dtype()
    try:
        with unpacked(path) as stream:  # not mapped into memory: a file that shrinks would end the process
            raw = array_from_file(shape, kind, stream, header.get_data_offset(), mmap=False)
            stream.read(1)  # gzip compares its checksum only at the end
        with np.errstate(over="ignore"):
            scaled = apply_read_scaling(raw, slope or 1.0, inter or 0.0)
            return np.asarray(scaled, dtype=np.float32)
    except MemoryError:
        raise
    except Exception as error:  # OSError, EOFError, zlib.error, ValueError, ... of broken files
        raise UnreadableImage(path, f"its voxels cannot be decoded ({reason(error)})") from error


def upright(stored: npt.NDArray[T], where: VolumeHeader) -> npt.NDArray[T]:
    """Return voxels of the file's own shape and order of axes as (X, Y, Z) in RAS+ order."""
    turned = apply_orientation(stored.reshape(where.file_shape[:3]), _turn(where.file_axes))
    return np.ascontiguousarray(turned)


def _turn(found: tuple[str, ...], wanted: tuple[str, ...] = ("R", "A", "S")) -> npt.NDArray[Any]:
    """Return how nibabel is to turn an array of axes ``found`` to axes ``wanted``."""
    return np.asarray(ornt_transform(axcodes2ornt(found), axcodes2ornt(wanted)))


def filed(voxels: npt.NDArray[T], where: VolumeHeader) -> npt.NDArray[T]:
    """Return voxels (X, Y, Z) in RAS+ order as (I, J, K) in the file's own order of axes."""
    turned = apply_orientation(voxels, _turn(("R", "A", "S"), where.file_axes))
    return np.ascontiguousarray(turned)


def _close(spacing: Sequence[float], other: Sequence[float]) -> bool:
    """Compare two spacings."""
    return all(math.isclose(a, b, rel_tol=SPACING_TOLERANCE) for a, b in zip(spacing, other, strict=True))
