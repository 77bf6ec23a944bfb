"""The result as Comprehensive 3D SR by TID 1500: the numbers of the image, and a measurement group a region.

Regions of an image are closed polylines on its pixels (SCOORD); those of a volume are stacks of polygons in the patient
(SCOORD3D).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from highdicom import sr
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes as public

from loligo.dicom import algorithms, codes
from loligo.dicom.common import MAKER, SYNTAX, device, finished, model, of, told
from loligo.dicom.findings import Line, Place
from loligo.dicom.subject import Subject
from loligo.types import VolumeHeader

MOST_POINTS = 4096
"""Of a polygon: a value in the file has fewer than 65,536 bytes. Of a longer line every second, third ... stays."""
Group = (
    sr.MeasurementsAndQualitativeEvaluations
    | sr.PlanarROIMeasurementsAndQualitativeEvaluations
    | sr.VolumetricROIMeasurementsAndQualitativeEvaluations
)


def make(subject: Subject) -> Dataset:
    """Return the structured report."""
    about = subject.about
    observer = sr.DeviceObserverIdentifyingAttributes(
        uid=device(about),
        name=model(about),
        manufacturer_name=MAKER,
        model_name=model(about),
        serial_number=about.digest,
    )
    report = sr.MeasurementReport(
        sr.ObservationContext(observer_device_context=sr.ObserverContext(public.DCM.Device, observer)),
        procedure_reported=public.SCT.ImagingProcedure,
        imaging_measurements=[_whole(subject), *_regions(subject)],
        title=public.DCM.ImagingMeasurementReport,
    )
    made = sr.Comprehensive3DSR(
        list(subject.source.datasets), report[0], is_complete=True, transfer_syntax_uid=SYNTAX, **of(subject, "sr")
    )
    made.CodingSchemeIdentificationSequence = [codes.scheme()]
    return finished(made, about, subject.when)


def _whole(subject: Subject) -> Group:
    """Return what is said of the image as a whole."""
    found, calibration = subject.prediction, subject.about.calibration
    numbers = (
        (codes.SCORE, found.score),
        (codes.THRESHOLD, calibration.threshold),
        (codes.P_VALUE, found.p_value),
        (codes.RATE, calibration.false_alarm_rate),
        (codes.ANOMALY_SCORE, found.anomaly_score),
    )
    sources = [
        sr.SourceImageForMeasurementGroup(one.SOPClassUID, one.SOPInstanceUID) for one in subject.source.datasets
    ]
    group = sr.MeasurementsAndQualitativeEvaluations(
        algorithms.tracking(subject),
        algorithm_id=algorithms.in_report(subject.about),
        measurements=[sr.Measurement(name, value, codes.ONE) for name, value in numbers],
        qualitative_evaluations=[
            sr.QualitativeEvaluation(codes.FLAG, codes.FLAGGED if found.flag else codes.NOT_FLAGGED)
        ],
        source_images=sources,
    )
    said = [told(subject.about), subject.findings.remark if subject.findings else ""]
    said += [f"Warnings of the input: {', '.join(found.warnings)}."] if found.warnings else []
    return _commented(group, filter(None, said))


def _regions(subject: Subject) -> list[Group]:
    """Return a group for each region, and for each part of one that hangs together by a corner alone."""
    if not subject.findings:
        return []
    groups: list[Group] = []
    for number, place in enumerate(subject.findings.places, 1):
        shared: dict[str, Any] = {
            "tracking_identifier": algorithms.tracking(subject, number),
            "finding_category": codes.ABNORMAL,
            "finding_type": codes.REGION,
            "algorithm_id": algorithms.in_report(subject.about),
            "measurements": [sr.Measurement(codes.HEAT, place.peak, codes.ONE, derivation=public.SCT.Maximum)],
        }
        volume = isinstance(subject.source.geometry, VolumeHeader)
        made = _in_space(subject, place, shared) if volume else _on_image(subject, place, shared)
        groups += [_commented(group, [place.where]) for group in made]
    return groups


def _on_image(subject: Subject, place: Place, shared: dict[str, Any]) -> list[Group]:
    """Return the groups of a region of an image."""
    first = subject.source.first
    image = sr.SourceImageForRegion(first.SOPClassUID, first.SOPInstanceUID)
    return [
        sr.PlanarROIMeasurementsAndQualitativeEvaluations(
            referenced_region=sr.ImageRegion("POLYLINE", _thinned(outline.points)[:, ::-1], image), **shared
        )
        for outline in place.outlines
    ]


def _in_space(subject: Subject, place: Place, shared: dict[str, Any]) -> list[Group]:
    """Return the group of a region of a volume."""
    source = subject.source
    lines = [source.in_patient(outline.plane, _thinned(outline.points)) for outline in place.outlines]
    if len(lines) == 1:
        region = sr.ImageRegion3D("POLYGON", lines[0], source.frame_of_reference)
        return [sr.PlanarROIMeasurementsAndQualitativeEvaluations(referenced_region=region, **shared)]
    series = sr.SourceSeriesForSegmentation(source.first.SeriesInstanceUID)
    surface = sr.VolumeSurface("POLYGON", lines, source.frame_of_reference, source_series=series)
    return [sr.VolumetricROIMeasurementsAndQualitativeEvaluations(referenced_volume_surface=surface, **shared)]


def _thinned(points: Line) -> Line:
    """Return a closed line of `MOST_POINTS` points at most."""
    step = math.ceil(len(points) / MOST_POINTS)
    return points if step == 1 else np.vstack([points[:-1:step], points[:1]])


def _commented(group: Group, said: Iterable[str]) -> Group:
    """Add texts to a group for people to read."""
    for text in said:
        group[0].ContentSequence.append(sr.TextContentItem(public.DCM.Comment, text, relationship_type="CONTAINS"))
    return group
