"""The heat map as Parametric Map: 32-bit floats on the source's own grid, and what they mean in calibrated heat.

A volume's frames have the planes and the frame of reference of its slices. A projection lies nowhere in the patient,
but a parametric map needs a plane. It gets one in a frame of reference of its own, so that no viewer lays it on
anything but the image that it names as its source, pixel on pixel: it begins at 0, its axes run as Patient Orientation
says (else as those of an axial slice), and pixels of unknown spacing count as 1 mm.
"""

from __future__ import annotations

import copy

import numpy as np
from highdicom import VOILUTTransformation
from highdicom.pm import ParametricMap, RealWorldValueMapping
from pydicom.dataset import Dataset
from pydicom.valuerep import format_number_as_ds

from loligo.dicom import codes
from loligo.dicom.common import image, of, uid
from loligo.dicom.subject import Subject
from loligo.types import Geometry, VolumeHeader

LABEL, MEANING = "HEAT", "0: hottest place of a typical normal, 1: of 19 in 20"
_WAYS = {
    "L": (1, 0, 0),
    "R": (-1, 0, 0),
    "P": (0, 1, 0),
    "A": (0, -1, 0),
    "H": (0, 0, 1),
    "F": (0, 0, -1),
}
"""Directions of Patient Orientation in DICOM's LPS."""


def make(subject: Subject) -> Dataset | None:
    """Return the parametric map; None where the method has no map."""
    if subject.map is None:
        return None
    source, volume = subject.source, isinstance(subject.source.geometry, VolumeHeader)
    values = source.sliced(np.asarray(subject.map, np.float32))
    low, high = subject.about.calibration.typical_peak, subject.about.calibration.map_scale
    made = ParametricMap(
        list(source.datasets) if volume else [_laid(subject)],
        values,
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[_mapping(values, low, high)],
        voi_lut_transformations=[VOILUTTransformation((low + high) / 2, high - low, voi_lut_function="LINEAR_EXACT")],
        content_label="ANOMALY",
        content_description="Heat of anomalies, research use only",
        **of(subject, "pm"),
    )
    made.CodingSchemeIdentificationSequence = [codes.scheme()]
    made.Laterality = source.first.get("Laterality") or ""
    if not volume:
        del made.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness
        made.SeriesInstanceUID = uid("series", "pm", subject.about.identity, *source.instances)  # of one frame
    return image(made, subject)


def _mapping(values: np.ndarray, low: float, high: float) -> RealWorldValueMapping:
    """Return how stored values become heat, which is 0 at ``low`` and 1 at ``high``."""
    return RealWorldValueMapping(
        lut_label=LABEL,
        lut_explanation=MEANING,
        unit=codes.ONE,
        value_range=(float(values.min()), float(values.max())),
        slope=1 / (high - low),
        intercept=-low / (high - low),
        quantity_definition=codes.HEAT,
    )


def _laid(subject: Subject) -> Dataset:
    """Return the header of a projection with the plane of its map: see above."""
    source = subject.source
    laid, spacing = copy.copy(source.first), source.geometry.spacing or (1.0, 1.0)
    laid.FrameOfReferenceUID = uid("frame of reference", *source.instances)
    laid.PixelSpacing = [format_number_as_ds(side) for side in spacing]
    laid.ImagePositionPatient, laid.ImageOrientationPatient = [0, 0, 0], _directions(source.geometry)
    laid.SliceThickness = 1
    return laid


def _directions(geometry: Geometry | VolumeHeader) -> list[int]:
    """Return where rows and columns run to, as Image Orientation (Patient) has it; see above."""
    said = geometry.orientation if isinstance(geometry, Geometry) else None
    ways = [_WAYS[way[0]] for way in said or () if way[0] in _WAYS]
    if len(ways) != 2 or any(a * b for a, b in zip(*ways, strict=True)):
        ways = [_WAYS["L"], _WAYS["P"]]
    return [*ways[0], *ways[1]]
