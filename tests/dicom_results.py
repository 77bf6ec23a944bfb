"""Results for tests of DICOM objects: sources of all kinds with a landmark, and maps that peak exactly there."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import uid
from pydicom.dataset import Dataset

from dicom_files import PATIENT, ROOT, dataset, series, write
from loligo import io
from loligo.calibration import Calibration
from loligo.dicom import About
from loligo.types import Prediction, Volume

DIGEST = "0123456789abcdef" * 4
SHAPE, BOX = (40, 24), (slice(12, 18), slice(5, 11))
CENTRE = (14.5, 7.5)
"""(row, column) of the middle of the landmark of an image, counted in pixel centres."""
SLICES, SLAB = (6, 16, 12), (slice(2, 5), slice(6, 12), slice(3, 7))
MIDDLE = (3.0, 8.5, 4.5)
"""(slice, row, column) of that of a volume."""
TURN = np.array([[0.8, 0.6, 0.0], [0.0, 0.0, -1.0]])
STEP = 2.5 * np.cross(*TURN)
ORIGIN, SPACING = np.array([-20.0, 11.0, 5.0]), (0.7, 0.9)


@dataclass(frozen=True)
class Planted:
    """A source with its landmark."""

    path: Path
    centre: np.ndarray
    """Of the landmark: (row, column) of an image, or mm in the patient's LPS of a volume, worked out by hand."""


def image(**tags: Any) -> Callable[[Path], Planted]:
    """Return a maker of radiographs, 40 x 24 pixels."""

    def make(folder: Path) -> Planted:
        stored = np.zeros(SHAPE, np.uint16)
        stored[BOX] = 4095
        if tags.get("PhotometricInterpretation") == "MONOCHROME1":
            stored = 4095 - stored
        return Planted(write(folder / "image", stored, **tags), np.array(CENTRE))

    return make


def slab() -> np.ndarray:
    voxels = np.zeros(SLICES, np.int16)
    voxels[SLAB] = 1000
    return voxels


def in_patient(middle: tuple[float, float, float] = MIDDLE) -> np.ndarray:
    """Return where (slice, row, column) lies in the oblique series."""
    k, row, column = middle
    return ORIGIN + k * STEP + column * SPACING[1] * TURN[0] + row * SPACING[0] * TURN[1]


def volume(**tags: Any) -> Callable[[Path], Planted]:
    """Return a maker of oblique series, whose file names run against the slices."""

    def make(folder: Path) -> Planted:
        where = {"directions": TURN.ravel(), "origin": ORIGIN, "spacing": SPACING, "step": STEP}
        return Planted(series(folder / "series", slab(), **where, **tags)[0], in_patient())

    return make


def enhanced(folder: Path) -> Planted:
    """Write an oblique Enhanced MR whose frames stand in another order than they lie."""
    order = [3, 0, 5, 1, 4, 2]
    ds = dataset(slab()[order], 16, uid.EnhancedMRImageStorage, Modality="MR", PatientID=PATIENT)
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = uid.generate_uid(ROOT), ""
    shared, frames = Dataset(), []
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [Dataset()], [Dataset()]
    shared.PixelMeasuresSequence[0].PixelSpacing, shared.PixelMeasuresSequence[0].SliceThickness = list(SPACING), 2.5
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = list(TURN.ravel())
    for k in order:
        frame = Dataset()
        frame.PlanePositionSequence = [Dataset()]
        frame.PlanePositionSequence[0].ImagePositionPatient = [float(a) for a in ORIGIN + k * STEP]
        frames.append(frame)
    ds.SharedFunctionalGroupsSequence, ds.PerFrameFunctionalGroupsSequence = [shared], frames
    path = folder / "enhanced"
    ds.save_as(path, enforce_file_format=True)
    return Planted(path, in_patient())


DX = uid.DigitalXRayImageStorageForPresentation
SPACED = {"FrameOfReferenceUID": f"{ROOT}7", "PixelSpacing": [0.2, 0.3], "PatientOrientation": ["L", "F"]}
IMAGES = {
    "cr": image(),
    "cr-inverted": image(PhotometricInterpretation="MONOCHROME1", **SPACED),
    "dx": image(storage=DX, Modality="DX", PresentationIntentType="FOR PRESENTATION", Laterality="R", **SPACED),
    "dx-one-frame": image(storage=DX, Modality="DX", NumberOfFrames=1, ImagerPixelSpacing=[0.2, 0.3]),
    "capture": image(storage=uid.SecondaryCaptureImageStorage, ViewPosition="PA", ConversionType="WSD"),
}
VOLUMES = {"ct": volume(), "mr": volume(modality="MR"), "enhanced": enhanced}
SOURCES = IMAGES | VOLUMES


def about(**changed: Any) -> About:
    """Return the facts of a run whose heat is the raw map less 1."""
    calibration = Calibration(np.arange(1.0, 40.0), 0.05, typical_peak=1.0, map_scale=2.0)
    facts = {"method": "padim", "version": "0.1.0", "digest": DIGEST, "calibration": calibration}
    facts |= {"population": "39 normal images (zhanglab; CR or DX)", "identity": "f" * 64}
    return About(**(facts | changed))


def result(path: Path, *, flag: bool = True, heat: np.ndarray | None = None) -> Prediction:
    """Return a result whose raw map is 6 where the image is bright, and 0 elsewhere."""
    read = io.load(path)
    grey = read.voxels if isinstance(read, Volume) else read.pixels[0]
    bright = 6 * (grey > (grey.min() + grey.max()) / 2).astype(np.float32)
    return Prediction(
        score=41.5 if flag else 3.25,
        p_value=1 / 40 if flag else 0.9,
        flag=flag,
        anomaly_score=0.97,
        warnings=("no_window",),
        geometry=read.geometry,
        network_map=bright if heat is None else heat,
        network_reconstruction=None,
        restore=lambda values, geometry: resized(values, geometry.shape),
    )


def resized(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return values as they are: pictures of these small sources have their size."""
    assert values.shape == shape
    return values


def validated(path: Path) -> list[str]:
    """Return what dciodvfy calls an error; skip where it is missing."""
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy of dicom3tools is not installed")
    found = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, timeout=60)
    lines = (found.stdout + found.stderr).splitlines()
    assert lines, "dciodvfy says nothing"
    return [line for line in lines if line.startswith(("Error", "Abort"))]
