"""Write DICOM files for tests: radiographs, and slices that lie where they are told to."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset

NAME, PATIENT = "PLANTED^NAME", "PLANTEDID"
ROOT = "1.2.826.0.1.3680043.10.999."
"""Beginning of all UIDs."""


def dataset(
    stored: np.ndarray, bits: int = 12, storage: str = uid.ComputedRadiographyImageStorage, **tags: Any
) -> Dataset:
    """Return a data set of stored values (rows, columns), or (frames, rows, columns)."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = storage
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = uid.generate_uid(ROOT)
    ds.StudyInstanceUID, ds.SeriesInstanceUID = uid.generate_uid(ROOT), uid.generate_uid(ROOT)
    ds.Modality, ds.PatientName, ds.PatientID = "CR", NAME, PATIENT
    ds.Rows, ds.Columns = stored.shape[-2:]
    if stored.ndim == 3:
        ds.NumberOfFrames = len(stored)
    ds.BitsAllocated = 8 if bits <= 8 else 16
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation = bits, bits - 1, int(stored.dtype.kind == "i")
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    for name, value in tags.items():
        setattr(ds, name, value)
    kind = f"<{'i' if ds.PixelRepresentation else 'u'}{ds.BitsAllocated // 8}"
    raw = stored.astype(kind).tobytes()
    ds.PixelData = raw + b"\0" * (len(raw) % 2)
    ds["PixelData"].VR = "OB" if ds.BitsAllocated == 8 else "OW"
    return ds


def write(path: Path, stored: np.ndarray, bits: int = 12, **tags: Any) -> Path:
    """Write a CR, unless tags say otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset(stored, bits, **tags).save_as(path, enforce_file_format=True)
    return path


def lut(first: int, entries: np.ndarray, bits: int) -> Dataset:
    """Return an item of a LUT sequence."""
    item = Dataset()
    item.add_new(0x00283002, "SS" if first < 0 else "US", [len(entries) % 65536, first, bits])
    item.add_new(0x00283006, "OW", entries.astype("<u2").tobytes())
    return item


def series(
    folder: Path,
    voxels: np.ndarray,
    *,
    directions: Any = (1, 0, 0, 0, 1, 0),
    origin: Any = (0.0, 0.0, 0.0),
    spacing: tuple[float, float] = (1.0, 1.0),
    step: Any = (0.0, 0.0, 2.0),
    modality: str = "CT",
    **tags: Any,
) -> list[Path]:
    """Write voxels (slices, rows, columns) int16 as a series; file names run against the slices."""
    folder.mkdir(parents=True, exist_ok=True)
    own = {"SeriesInstanceUID": uid.generate_uid(ROOT), "StudyInstanceUID": uid.generate_uid(ROOT)}
    own |= {"FrameOfReferenceUID": uid.generate_uid(ROOT), "Modality": modality, "SliceThickness": 2.0}
    own |= {"RescaleSlope": 1, "RescaleIntercept": -1024} if modality == "CT" else {}
    storage = uid.CTImageStorage if modality == "CT" else uid.MRImageStorage
    paths = []
    for k, one in enumerate(voxels):
        place = [float(a) for a in np.asarray(origin) + k * np.asarray(step)]
        path = folder / f"IM{len(voxels) - k:04d}"
        where = {"ImagePositionPatient": place, "ImageOrientationPatient": list(directions)}
        where |= {"PixelSpacing": list(spacing), "InstanceNumber": k + 1}
        paths.append(write(path, one, 16, storage=storage, **(own | where | tags)))
    return paths


def tool(name: str, *arguments: Any) -> None:
    """Run a program of dcmtk; skip where it is missing."""
    if shutil.which(name) is None:
        pytest.skip(f"{name} of dcmtk is not installed")
    subprocess.run([name, *map(str, arguments)], check=True, capture_output=True)
