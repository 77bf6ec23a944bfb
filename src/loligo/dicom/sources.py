"""The images that objects are of: their headers, complete enough for highdicom, in the order of their slices."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pydicom.valuerep import DA, TM, format_number_as_ds

from loligo import io
from loligo.io import dicom_header, dicom_series, nifti
from loligo.io.content import UnreadableImage
from loligo.io.dicom_header import Header, tag
from loligo.io.dicom_series import Plane
from loligo.types import Geometry, VolumeHeader

T = TypeVar("T", bound=np.generic)
EPOCH = datetime(1970, 1, 1)
"""When an image was made whose header does not say."""

_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("StudyID", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName"),
)  # what must be there, and may be empty
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
_PLACE = ("FrameOfReferenceUID", "ImagePositionPatient", "ImageOrientationPatient", "PositionReferenceIndicator")
_MADE = ("Content", "Acquisition", "Series", "Study")
_TIME = re.compile(r"\d{6}")


@dataclass(frozen=True)
class Source:
    """A DICOM image, or the slices of a volume."""

    path: Path
    """Its file, or one of the series'."""
    datasets: tuple[Dataset, ...]
    """Headers without pixels: one file, or one a slice in order of place."""
    planes: tuple[Plane, ...]
    """Where each slice of a volume lies, in the order of `datasets`, or of the frames of one file; none of an image."""
    order: tuple[int, ...]
    """Of a volume: which slice in order of place each of ``planes`` is."""
    geometry: Geometry | VolumeHeader
    frame_of_reference: str
    """Its UID; empty where the file has none."""

    @property
    def first(self) -> Dataset:
        """Return the header that tells of patient and study."""
        return self.datasets[0]

    @property
    def instances(self) -> tuple[str, ...]:
        """Return the SOP Instance UIDs."""
        return tuple(str(one.SOPInstanceUID) for one in self.datasets)

    @property
    def number(self) -> int:
        """Return the Instance Number of the first image, 1 where it has none."""
        found = str(self.first.get("InstanceNumber") or "")
        return int(found) if found.isdecimal() and 0 < int(found) < 2**31 else 1

    @property
    def when(self) -> datetime:
        """Return when the image was made, as far as its header says."""
        for word in _MADE:
            if day := str(self.first.get(f"{word}Date") or ""):
                time = _TIME.match(str(self.first.get(f"{word}Time") or ""))
                with suppress(ValueError):  # such as a leap second
                    return datetime.strptime(day + (time[0] if time else "000000"), "%Y%m%d%H%M%S")
        return EPOCH

    def sliced(self, values: npt.NDArray[T]) -> npt.NDArray[T]:
        """Return values of its own grid, (H, W) or (X, Y, Z), as (N, rows, columns): a file or frame each, in order."""
        if not isinstance(self.geometry, VolumeHeader):
            return values[None]
        return np.ascontiguousarray(nifti.filed(values, self.geometry).transpose(2, 1, 0)[list(self.order)])

    def frame(self, plane: int) -> tuple[Dataset, int | None]:
        """Return the header of a plane, and the number of its frame, from 1 on, where its file has several."""
        return (self.datasets[plane], None) if len(self.datasets) > 1 else (self.first, self._number(plane))

    def _number(self, plane: int) -> int | None:
        return plane + 1 if "NumberOfFrames" in self.first and self.planes else None

    def in_patient(self, plane: int, points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return points (n, 2) of a plane, (row, column) in pixels from its upper left corner, as (n, 3) mm in LPS."""
        at = self.planes[plane]
        along = (points - 0.5) * at.spacing
        return np.asarray(at.position + along[:, 1:] * at.directions[0] + along[:, :1] * at.directions[1])


def load(path: Path, geometry: Geometry | VolumeHeader) -> Source:
    """Read the headers of an image, or of the series that a slice is of, which has the grid ``geometry``.

    Raises ``UnreadableImage`` for what is not read, a file of another size, and one that lacks what its objects must
    repeat.
    """
    found = io.about(path)
    if found is None:
        raise UnreadableImage(path, "is not DICOM; objects are made of DICOM images alone")
    if found.kind == "volume" and isinstance(geometry, VolumeHeader):
        return _volume(path, geometry)
    header = dicom_header.load(path, every=True)
    if geometry.shape != (size := (header.whole("Rows"), header.whole("Columns"))):
        raise header.refuse(f"is of {size[0]} x {size[1]} pixels, its map of {geometry.shape}: it changed since")
    dataset = _complete(header)
    frame = str(dataset.get("FrameOfReferenceUID") or "")
    for word in _PLACE:  # a projection lies nowhere, and highdicom would place it
        dataset.pop(word, None)
    return Source(path, (dataset,), (), (), geometry, frame)


def _volume(path: Path, geometry: VolumeHeader) -> Source:
    """Read the headers of a series in order of place."""
    planes = dicom_series.planes(path)
    if len(planes) != geometry.file_shape[2]:
        raise UnreadableImage(path, f"has {len(planes)} slices, its map {geometry.file_shape[2]}: it changed since")
    paths = list(dict.fromkeys(plane.path for plane in planes))
    if 1 < len(paths) != len(planes):
        raise UnreadableImage(path, f"its series has {len(planes)} frames in {len(paths)} files; one file is needed")
    datasets = tuple(_complete(dicom_header.load(one, every=True)) for one in paths)
    for one in datasets:
        if "NumberOfFrames" not in one and not one.get("SliceThickness"):
            one.SliceThickness = format_number_as_ds(float(geometry.file_place["pixdim"][3]))
    if not (frame := str(datasets[0].get("FrameOfReferenceUID") or "")):
        raise UnreadableImage(path, f"has no {tag('FrameOfReferenceUID')}, which says what its place is relative to")
    order = np.argsort([plane.frame for plane in planes], kind="stable")  # all are 0 where a file is a slice
    return Source(path, datasets, tuple(planes[k] for k in order), tuple(map(int, order)), geometry, frame)


def _complete(header: Header) -> Dataset:
    """Return a header with all that highdicom takes for granted; what is no date, time or sex becomes empty."""
    dataset = header.dataset
    for key in list(dataset.keys()):
        try:
            dataset[key]
        except Exception:  # what pydicom happens to raise of a broken value
            del dataset[key]
    for word in _UIDS:
        if not UID(header.text(word)).is_valid:
            raise header.refuse(f"has no valid {tag(word)}, which its objects must repeat")
    dataset.decode()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    for word in _EMPTY:
        if dataset.get(word) is None:
            setattr(dataset, word, "")
    if header.text("PatientSex") not in ("M", "F", "O"):
        dataset.PatientSex = ""
    for element in dataset:
        if element.VR in ("DA", "TM") and not _is_time(element.VR, element.value):
            element.value = ""
    return dataset


def _is_time(kind: str, value: Any) -> bool:
    """Tell whether a value is one date or time."""
    try:
        return bool((DA if kind == "DA" else TM)(str(value or "")) or True)
    except (ValueError, TypeError):
        return False
