"""Read and check the headers of NIfTI-1 and NIfTI-2 files, before any voxel is decoded.

nibabel mends some headers without a word (a spacing of 0 becomes 1 mm) and parses extensions that we do not need;
here the fixed part alone is read, as it stands, and what is wrong with it is said.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from nibabel.orientations import aff2axcodes, axcodes2ornt, inv_ornt_aff, ornt_transform

from loligo import files
from loligo.io.content import UnreadableImage, opened
from loligo.types import VolumeHeader

MAX_VOXELS = 2**29
"""Largest volume that is decoded: 512 x 512 x 2048 voxels, 2 GiB as float32."""
SHEAR_TOLERANCE = 1e-3
"""Largest cosine of the angle between two axes that counts as upright: 0.06 degrees, 0.5 mm on 500."""
PIXDIM_TOLERANCE = 0.01
"""Part of itself by which a spacing in ``pixdim`` may differ from that of the affine."""
FORMS_TOLERANCE = 0.5
"""Part of a voxel by which qform and sform may lie apart: a qform's numbers are rounded."""
SPACINGS = (0.001, 100.0)
"""Smallest and largest spacing in mm; others are in another unit."""
DENSE = 200
"""Bytes of voxels a byte of gzip, above which a file of `SMALL` bytes of voxels or more holds no image."""
SMALL = 2**26
"""Bytes of voxels that any file may become: masks are packed tightly."""

PLACE = (
    *("pixdim", "qform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("sform_code", "srow_x", "srow_y", "srow_z"),
)
"""The fields that place a file in the world; viewers differ in which of the two forms they follow."""

RAS = axcodes2ornt(("R", "A", "S"))
"""The orientation of voxel arrays in memory, as nibabel writes orientations."""

_CLASSES: dict[int, Any] = {348: Nifti1Header, 540: Nifti2Header}  # by the header's length, its first number
_MAGIC = (b"n+1", b"n+2")
_MAX_OFFSET = 2**27  # bytes of header and extensions before the voxels
_TEMPLATES = (3, 4, 5)  # codes of forms that lead to Talairach's, the MNI's or another template's space
_MAX_PACKING = 1_040  # bytes that a byte of gzip can become, at most


@contextmanager
def unpacked(path: Path) -> Iterator[Any]:
    """Open a file, through gzip where its content is packed; raises as `content.opened`."""
    with opened(path) as stream:
        packed = stream.read(2) == b"\x1f\x8b"
        stream.seek(0)
        yield gzip.GzipFile(fileobj=stream) if packed else stream


def load(path: Path) -> Nifti1Header:
    """Read the fixed part of a header (NIfTI-2's class is a subclass) and refuse what rules decoding out.

    Raises ``UnreadableImage`` as `nifti.read_header` says.
    """
    try:
        with unpacked(path) as stream:
            block = stream.read(max(_CLASSES))
    except UnreadableImage:
        raise
    except Exception as error:  # OSError, EOFError, zlib.error of a broken gzip file
        raise UnreadableImage(path, f"cannot be read ({reason(error)})") from error
    header = _parse(path, block)
    try:
        _refuse_voxels(path, header)
    except UnreadableImage:
        raise
    except Exception as error:  # nibabel's own errors of header fields
        raise UnreadableImage(path, f"its header cannot be understood ({reason(error)})") from error
    return header


@np.errstate(over="ignore", invalid="ignore")  # what is not finite is refused by name
def place(path: Path, header: Nifti1Header) -> VolumeHeader:
    """Compute where the voxels of a loaded header lie. Raises ``UnreadableImage`` for what is no upright grid."""
    affine = _affine(path, header)
    shape = tuple(int(n) for n in header.get_data_shape())
    axes = aff2axcodes(affine)
    turn = ornt_transform(axcodes2ornt(axes), RAS)
    x, y, z = (int(axis) for axis in np.argsort(turn[:, 0]))  # the file's axes that become x, y and z
    sides = [float(side) for side in _spacing(affine)]
    return VolumeHeader(
        source=path,
        shape=(shape[x], shape[y], shape[z]),
        affine=affine @ inv_ornt_aff(turn, shape[:3]),
        spacing=(sides[x], sides[y], sides[z]),
        file_shape=shape,
        file_axes=axes,
        file_place={name: header[name].copy() for name in PLACE},
    )


def reason(error: Exception) -> str:
    """Say in one line what went wrong without the path, which the message already begins with."""
    return " ".join(files.reason(error).split())


def in_mm(spacing: Any) -> str:
    """Write a spacing for a message, such as 0.7 x 0.7 x 1 mm."""
    return " x ".join(f"{side:.5g}" for side in spacing) + " mm"


def _parse(path: Path, block: bytes) -> Nifti1Header:
    """Tell NIfTI-1, NIfTI-2 and their byte order by the first number and the magic letters."""
    for order in ("little", "big"):
        kind = _CLASSES.get(int.from_bytes(block[:4], order))
        if kind and len(block) >= kind.sizeof_hdr:
            header: Nifti1Header = kind(block[: kind.sizeof_hdr], order, check=False)
            if header["magic"].item() in _MAGIC:
                return header
            if header["magic"].item()[:2] == b"ni":
                raise UnreadableImage(path, "is the header of a pair of files; save it as one .nii or .nii.gz")
    raise UnreadableImage(path, "its content is not NIfTI")


def _refuse_voxels(path: Path, header: Nifti1Header) -> None:
    """Raise for voxels that cannot be one volume of real numbers in mm."""
    shape = header.get_data_shape()
    if not 3 <= (count := int(header["dim"][0])) <= 7:
        raise UnreadableImage(path, f"says that it has {count} axes, where one volume of three is allowed")
    if any(n != 1 for n in shape[3:]):
        raise UnreadableImage(path, f"has shape {_times(shape)} where one volume of three axes is allowed; split it")
    if min(shape) < 1:
        raise UnreadableImage(path, f"has shape {_times(shape)}; a side must be 1 or more")
    if math.prod(shape) > MAX_VOXELS:
        raise UnreadableImage(path, f"{_times(shape)} is more than {MAX_VOXELS:,} voxels; crop or resample it")
    if (kind := header.get_data_dtype()).kind not in "iuf":
        raise UnreadableImage(path, f"voxels of type {kind} are not one real number each; save them as such")
    if not header.sizeof_hdr <= (offset := float(header["vox_offset"])) <= _MAX_OFFSET:
        raise UnreadableImage(path, f"its voxels begin at byte {offset:g}; {header.sizeof_hdr} or more is allowed")
    if (unit := header.get_xyzt_units()[0]) not in ("mm", "unknown"):
        raise UnreadableImage(path, f"its spacing is in {unit}; only mm is allowed, so that a size means a size")


def claimed(header: Nifti1Header) -> int:
    """Return how many bytes of voxels there are by a header."""
    return math.prod(map(int, header.get_data_shape())) * int(header.get_data_dtype().itemsize)


def refuse_claim(path: Path, header: Nifti1Header, mask: bool) -> None:
    """Raise for a header that claims more bytes of voxels than its file can hold, before memory is taken for them."""
    said, held = claimed(header), path.stat().st_size
    if said > (_MAX_PACKING if mask or said < SMALL else DENSE) * held:
        raise UnreadableImage(
            path, f"claims {said:,} bytes of voxels, which its {held:,} bytes cannot hold; it is empty or cut short"
        )


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _affine(path: Path, header: Nifti1Header) -> npt.NDArray[np.float64]:
    """Return the file's affine (4, 4): sform, else qform; raise where there is none or it is no upright grid."""
    if not (header["sform_code"] or header["qform_code"]):
        raise UnreadableImage(
            path,
            "has no affine (sform_code and qform_code are 0), so that left and right cannot be told;"
            " convert it again from its DICOM files or set one",
        )
    pixdim = header["pixdim"]
    sides = np.asarray(pixdim[1:4], dtype=np.float64)
    if not (np.isfinite(sides) & (sides > 0)).all():
        raise UnreadableImage(path, f"its pixdim says a spacing of {in_mm(sides)}; each must be finite and above 0")
    if pixdim[0] == 0:
        pixdim[0] = 1  # qfac; the standard reads 0 as 1
    try:
        affine = np.asarray(header.get_best_affine(), dtype=np.float64)
    except Exception as error:
        raise UnreadableImage(path, f"its affine cannot be computed ({reason(error)})") from error
    _refuse_affine(path, affine, sides)
    _refuse_forms(path, header, sides)
    return affine


def _refuse_forms(path: Path, header: Nifti1Header, sides: npt.NDArray[np.float64]) -> None:
    """Raise where qform and sform say that the voxels lie elsewhere; one that leads to a template's space may."""
    qform, sform = (int(header[name]) for name in ("qform_code", "sform_code"))
    if not (qform and sform) or (max(qform, sform) in _TEMPLATES and qform != sform):
        return
    try:
        forms = header.get_qform(), header.get_sform()
    except Exception as error:
        raise UnreadableImage(path, f"its qform cannot be computed ({reason(error)}); set its code to 0") from error
    if not (apart := distance(*forms, header.get_data_shape()[:3])) <= FORMS_TOLERANCE * sides.min():
        axes = " and ".join("".join(aff2axcodes(form)) for form in forms)
        raise UnreadableImage(
            path,
            f"its qform and sform disagree by up to {apart:.3g} mm (their axes run to {axes}), so that viewers show a"
            " place differently; correct one, or set its code to 0",
        )


def distance(affine: npt.NDArray[Any], other: npt.NDArray[Any], shape: tuple[int, ...]) -> float:
    """Return how far two affines take the corners of a grid (X, Y, Z) apart, at most, in mm."""
    corners = np.array([(x, y, z, 1) for x in (0, 1) for y in (0, 1) for z in (0, 1)]) * (*shape, 1)
    return float(np.linalg.norm(((affine - other) @ corners.T)[:3], axis=0).max())


def _refuse_affine(path: Path, affine: npt.NDArray[np.float64], sides: npt.NDArray[np.float64]) -> None:
    """Raise unless the axes are finite, upright on each other and as far apart as ``sides`` (3,) in mm say."""
    spacing = _spacing(affine)
    if not np.isfinite(affine).all() or spacing.min() <= 0:
        raise UnreadableImage(path, f"its affine {affine[:3].tolist()} is not finite or lacks an axis")
    if not SPACINGS[0] <= spacing.min() <= spacing.max() <= SPACINGS[1]:
        raise UnreadableImage(
            path, f"has a spacing of {in_mm(spacing)}; {SPACINGS[0]:g} to {SPACINGS[1]:g} are allowed; is its unit mm?"
        )
    axes = affine[:3, :3] / spacing
    for i, k in combinations(range(3), 2):
        if abs(cosine := float(axes[:, i] @ axes[:, k])) > SHEAR_TOLERANCE:
            degrees = math.degrees(math.acos(max(-1, min(1, cosine))))
            raise UnreadableImage(
                path, f"its axes {i} and {k} meet at {degrees:.2f} degrees, not 90 (a tilted gantry?); resample it"
            )
    if not np.allclose(sides, spacing, rtol=PIXDIM_TOLERANCE, atol=0):
        raise UnreadableImage(
            path, f"its pixdim says a spacing of {in_mm(sides)}, its affine {in_mm(spacing)}; correct the wrong one"
        )


def _spacing(affine: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the distance (3,) in mm of voxels along each axis of an affine."""
    return np.asarray(np.linalg.norm(affine[:3, :3], axis=0))
