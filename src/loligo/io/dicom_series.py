"""Read CT and MR as volumes: the files of a series in one folder, or one file of many frames.

Slices are sorted by where they lie, never by name or number, and must fill one upright grid: gaps, slices in one
place, a tilted gantry and several directions are refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from nibabel.nifti1 import Nifti1Header

from loligo.io import dicom_grey, dicom_header, dicom_kind, dicom_pixels, nifti, nifti_header
from loligo.io.content import UnreadableImage
from loligo.io.dicom_header import Header, Values, tag
from loligo.io.nifti_header import SPACINGS
from loligo.types import Volume, VolumeHeader

MAX_SLICES = 4096
"""Files that a series may have."""
EVEN = 0.2
"""Part of their distance by which slices may lie beside an even grid: positions are rounded in headers."""
SAME = 1e-3
"""Largest difference of direction cosines, or of spacings as a part of themselves, that counts as none."""

_LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])
_SCANNER = 1  # NIfTI's code of a form that leads to the scanner's own space
_FLOATS = 20  # bytes a voxel, as of NIfTI
_FARTHEST = 1e5  # mm from the scanner's centre
_MAX_SIDE = 32_767  # voxels that NIfTI's header holds


class Plane(NamedTuple):
    """Where a slice lies, as its own header says it: a grid is only nearly even."""

    path: Path
    frame: int
    """Which of its file, from 0 on."""
    position: npt.NDArray[np.float64]
    """(3,) mm: the centre of its first pixel in DICOM's LPS."""
    directions: npt.NDArray[np.float64]
    """(2, 3): where columns count to, then rows."""
    spacing: tuple[float, float]
    """(row, column) in mm."""


@dataclass(frozen=True)
class _Slice:
    """One slice: which frame of which file it is, where it lies, and what its numbers mean."""

    header: Header
    frame: int
    position: npt.NDArray[np.float64]
    """(3,) mm: the centre of its first pixel in DICOM's LPS."""
    directions: npt.NDArray[np.float64]
    """(2, 3): where columns count to, then rows."""
    spacing: tuple[float, float]
    """(row, column) in mm."""
    thickness: float
    """Distance of slices as the file says, in mm; 0 where it does not."""
    slope: float
    intercept: float


def files(path: Path) -> tuple[Path, ...]:
    """Return the files of the volume that a file is of, in order of path: those of its series in its folder.

    A file that is no slice of a volume is by itself; files of the series that are not read, such as localizers, are
    not among them.
    """
    own = dicom_kind.look(path)
    if own.kind != "volume" or not own.series:
        return (path,)
    beside = (other for other in path.parent.iterdir() if other.is_file())
    found = [other for other in beside if other != path and dicom_kind.look(other)[:3] == own[:3]]
    return tuple(sorted([path, *found]))


def read(path: Path) -> Volume:
    """Decode a volume: voxels (X, Y, Z) float32 in RAS+ order, rescaled: HU of a CT.

    Padding has the value of the lowest voxel. Raises ``UnreadableImage`` for what `read_header` refuses, and for pixels
    that cannot be decoded.
    """
    slices = _slices(path, pixels=True)
    where = _place(path, slices)
    stored = np.empty(where.file_shape, np.float32)
    for index, one in enumerate(slices):
        stored[:, :, index] = _decoded(one).T
    outside = np.isnan(stored)
    if outside.any():
        stored[outside] = 0 if outside.all() else np.nanmin(stored)
    acquisition = dicom_kind.acquisition(slices[0].header)
    return Volume(**vars(where), voxels=nifti.upright(stored, where), acquisition=acquisition)


def read_header(path: Path) -> VolumeHeader:
    """Read where the voxels of a volume lie, without decoding them.

    Raises ``UnreadableImage``, naming what was found, for slices of several sizes or directions, without a place, in
    one place, at uneven distances or beside each other, and for a CT whose values are not HU.
    """
    return _place(path, _slices(path, pixels=False))


def planes(path: Path) -> list[Plane]:
    """Return where each slice of a volume lies, in the order of its last `file_axes`; raises as `read_header`."""
    slices = _slices(path, pixels=False)
    _place(path, slices)
    return [Plane(one.header.path, one.frame, one.position, one.directions, one.spacing) for one in slices]


def weigh(path: Path) -> int:
    """Return how many bytes it takes, at most, to decode a volume and slice it, by its headers; raises as `read`."""
    header, count = dicom_header.load(path), len(files(path))
    layout = dicom_pixels.layout(header, nifti_header.MAX_VOXELS)
    packed = sum(one.stat().st_size for one in files(path))
    return packed + layout.rows * layout.columns * layout.frames * count * (_FLOATS + 4)


def _slices(path: Path, pixels: bool) -> list[_Slice]:
    """Read the slices of a volume, in order of place along the normal of the first."""
    paths = files(path)
    if len(paths) > MAX_SLICES:
        raise UnreadableImage(path, f"its series has {len(paths):,} files in this folder; {MAX_SLICES:,} are allowed")
    found: list[_Slice] = []
    voxels = 0
    for one in paths:
        header = dicom_header.load(one, pixels)
        layout = dicom_pixels.layout(header, nifti_header.MAX_VOXELS)
        voxels += layout.rows * layout.columns * layout.frames
        if voxels > nifti_header.MAX_VOXELS or max(layout.rows, layout.columns) > _MAX_SIDE:
            raise UnreadableImage(path, f"its series has more than {nifti_header.MAX_VOXELS:,} voxels")
        found += _of_file(header, layout.frames)
    _refuse_mixed(path, found)
    normal = np.cross(*found[0].directions)
    return sorted(found, key=lambda one: float(one.position @ normal))


def _of_file(header: Header, frames: int) -> Iterator[_Slice]:
    """Yield the slices of a file: itself, or its frames by their functional groups."""
    each = header.items("PerFrameFunctionalGroupsSequence")
    if frames == 1 and not each:
        yield _slice(header, 0, header, header, header, header)
        return
    if len(each) != frames:
        raise header.refuse(
            f"its {tag('NumberOfFrames')} is {frames}, and {tag('PerFrameFunctionalGroupsSequence')} says where"
            f" {len(each)} of them lie; a film is not read, and each frame of a volume needs its place"
        )
    shared = header.item("SharedFunctionalGroupsSequence")
    for index, own in enumerate(each):
        groups = (
            next(
                (one for source in (own, shared) if (one := source.item(f"{word}Sequence")).dataset),
                Values(header.path, own.dataset),
            )
            for word in ("PlanePosition", "PlaneOrientation", "PixelMeasures", "PixelValueTransformation")
        )
        yield _slice(header, index, *groups)


def _slice(
    header: Header, frame: int, place: Values, orientation: Values, measures: Values, transformation: Values
) -> _Slice:
    """Return a slice by the data sets that say where it lies and what its numbers mean."""
    position = place.numbers("ImagePositionPatient", 3)
    cosines = orientation.numbers("ImageOrientationPatient", 6)
    spacing = measures.numbers("PixelSpacing", 2)
    for keyword, value in (
        ("ImagePositionPatient", position),
        ("ImageOrientationPatient", cosines),
        ("PixelSpacing", spacing),
    ):
        if not value:
            raise header.refuse(f"has no {tag(keyword)}, so that it has no place in a volume")
    if min(spacing) <= 0:
        raise header.refuse(f"its {tag('PixelSpacing')} is {nifti_header.in_mm(spacing)}; more than 0 is allowed")
    directions = np.array(cosines).reshape(2, 3)
    if not np.allclose(directions @ directions.T, np.eye(2), rtol=0, atol=SAME):
        raise header.refuse(f"its {tag('ImageOrientationPatient')} is not of two upright directions of length 1")
    if header.text("Modality") == "CT":
        _refuse_not_hu(header, transformation)
    apart = (measures.numbers(word) for word in ("SpacingBetweenSlices", "SliceThickness"))
    thickness = next((abs(value[0]) for value in apart if value), 0.0)
    slope, intercept = dicom_grey.rescale(transformation)
    return _Slice(header, frame, np.array(position), directions, (spacing[0], spacing[1]), thickness, slope, intercept)


def _refuse_not_hu(header: Header, transformation: Values) -> None:
    """Raise for a CT whose values cannot be told to be HU."""
    if not (transformation.numbers("RescaleIntercept") and transformation.numbers("RescaleSlope")):
        raise header.refuse(f"has no {tag('RescaleIntercept')} and Slope, so that its values are not HU")
    if (kind := transformation.text("RescaleType")) not in ("", "HU"):
        raise header.refuse(
            f"its {tag('RescaleType')} is {transformation.code('RescaleType') if kind else kind}; HU is allowed"
        )


def _refuse_mixed(path: Path, slices: Sequence[_Slice]) -> None:
    """Raise where slices differ in size, space, direction or spacing."""
    first = slices[0]
    sizes = sorted({(one.header.whole("Rows"), one.header.whole("Columns")) for one in slices})
    if len(sizes) > 1:
        shown = ", ".join(f"{rows} x {columns}" for rows, columns in sizes[:4])
        raise UnreadableImage(path, f"its series has slices of {len(sizes)} sizes ({shown}); one is allowed")
    if (count := len({one.header.text("FrameOfReferenceUID") for one in slices} - {""})) > 1:
        said = f"its series has {count} values of {tag('FrameOfReferenceUID')}"
        raise UnreadableImage(path, f"{said}, so that its slices lie in no common space; one is allowed: split it")
    off = max(float(np.abs(one.directions - first.directions).max()) for one in slices)
    if off > SAME:
        raise UnreadableImage(
            path, f"its series has slices of several directions (cosines differ by {off:.3g}); one is allowed: split it"
        )
    if any(not np.allclose(one.spacing, first.spacing, rtol=SAME, atol=0) for one in slices):
        raise UnreadableImage(path, f"its series has several values of {tag('PixelSpacing')}; one is allowed")


def _place(path: Path, slices: Sequence[_Slice]) -> VolumeHeader:
    """Return where the voxels lie, as the NIfTI file that holds the slices in their order would say."""
    first = slices[0]
    rows, columns = first.header.whole("Rows"), first.header.whole("Columns")
    step = _step(path, slices)
    sides = (*first.spacing, float(np.linalg.norm(step)))
    if not SPACINGS[0] <= min(sides) <= max(sides) <= SPACINGS[1] or np.abs(first.position).max() > _FARTHEST:
        raise UnreadableImage(
            path,
            f"has a spacing of {nifti_header.in_mm(sides)}, {np.abs(first.position).max():.3g} mm from the scanner's"
            f" centre; {SPACINGS[0]:g} to {SPACINGS[1]:g} mm, at most {_FARTHEST:g} mm from it, are allowed",
        )
    affine = np.eye(4)
    affine[:3, 0] = first.directions[0] * first.spacing[1]
    affine[:3, 1] = first.directions[1] * first.spacing[0]
    affine[:3, 2] = step
    affine[:3, 3] = first.position
    affine[:3] *= _LPS_TO_RAS[:, None]
    header = Nifti1Header()
    header.set_data_dtype(np.float32)
    header.set_data_shape((columns, rows, len(slices)))
    header.set_sform(affine, _SCANNER)
    header.set_qform(affine, _SCANNER)
    header.set_xyzt_units("mm")
    return nifti_header.place(path, header)


def _step(path: Path, slices: Sequence[_Slice]) -> npt.NDArray[np.float64]:
    """Return the way (3,) in mm from a slice to the next; raise unless all lie evenly along the normal."""
    first, last = slices[0], slices[-1]
    normal = np.cross(*first.directions)
    if len(slices) == 1:
        if not (0 < first.thickness < math.inf):
            raise UnreadableImage(path, f"is one slice without {tag('SliceThickness')}")
        return normal * first.thickness
    places = np.array([one.position for one in slices]) - first.position
    along = places @ normal
    gaps = np.diff(along)
    if (least := float(gaps.min())) <= SAME:
        count = int((gaps <= SAME).sum()) + 1
        raise UnreadableImage(
            path,
            f"its series has {count} slices in one place (two are {least:.3g} mm apart), as of several echoes, times or"
            " copies; one slice a place is allowed: split it",
        )
    way = (last.position - first.position) / (len(slices) - 1)
    step = float(way @ normal)
    if (sideways := float(np.linalg.norm(way - step * normal))) > nifti_header.SHEAR_TOLERANCE * step:
        degrees = math.degrees(math.atan2(sideways, step))
        raise UnreadableImage(
            path, f"its slices are shifted along {degrees:.2f} degrees (a tilted gantry?); 0 is allowed: resample it"
        )
    off = places - np.arange(len(slices))[:, None] * way
    if float(np.linalg.norm(off, axis=1).max()) > EVEN * step:
        raise UnreadableImage(
            path,
            f"its {len(slices)} slices lie {float(gaps.min()):.4g} to {float(gaps.max()):.4g} mm apart (are some"
            " missing?); one distance is allowed",
        )
    return way


def _decoded(one: _Slice) -> npt.NDArray[np.float32]:
    """Return the rescaled values of a slice (rows, columns), NaN where they are padding."""
    layout = dicom_pixels.layout(one.header, nifti_header.MAX_VOXELS)
    stored = dicom_pixels.frame(one.header, layout, one.frame)
    values: npt.NDArray[np.float32] = (stored * one.slope + one.intercept).astype(np.float32)
    values[dicom_grey.padded(one.header, layout, stored)] = np.nan
    return values
