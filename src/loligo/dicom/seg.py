"""The outlined regions as Segmentation, a segment each, on the source's own grid.

A projection has no frame of reference to place segments in. As the standard has it (PS3.3 A.51.5.1), each pixel then
corresponds to one of the image that the segmentation is derived from, which it names.
"""

from __future__ import annotations

from highdicom.seg import Segmentation, SegmentDescription
from pydicom.dataset import Dataset

from loligo.dicom import algorithms, codes
from loligo.dicom.common import image, of
from loligo.dicom.subject import Subject


def make(subject: Subject) -> Dataset | None:
    """Return the segmentation; None where no region is outlined."""
    if not subject.findings or not subject.findings.labels.any():
        return None
    made = Segmentation(
        list(subject.source.datasets),
        subject.findings.labels,
        segmentation_type="BINARY",
        segment_descriptions=[_segment(subject, i + 1) for i in range(len(subject.findings.places))],
        content_label="ANOMALY",
        content_description="Regions of high anomaly heat, research use only",
        **of(subject, "seg"),
    )
    made.CodingSchemeIdentificationSequence = [codes.scheme()]
    if not subject.source.planes:
        made.PatientOrientation = subject.source.first.get("PatientOrientation") or ""
        made.SharedFunctionalGroupsSequence[0].pop("PixelMeasuresSequence", None)  # it measures a frame of reference
    return image(made, subject)


def _segment(subject: Subject, number: int) -> SegmentDescription:
    """Describe a region."""
    tracking = algorithms.tracking(subject, number)
    return SegmentDescription(
        segment_number=number,
        segment_label=f"Anomaly {number}",
        segmented_property_category=codes.ABNORMAL,
        segmented_property_type=codes.REGION,
        algorithm_type="AUTOMATIC",
        algorithm_identification=algorithms.in_segment(subject.about),
        tracking_uid=tracking[1].value,
        tracking_id=tracking[0].value,
    )
