"""The heat over an image as Secondary Capture, for viewers that show nothing else; never made unless asked for."""

from __future__ import annotations

from highdicom.sc import SCImage
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from loligo import io, scoring
from loligo.dicom.common import image, of
from loligo.dicom.subject import Subject
from loligo.types import Image

NOWHERE = ("L", "F")
"""What highdicom is told where the header does not say how an image lies; it is taken away again."""


def make(subject: Subject) -> Dataset | None:
    """Return the overlay of an image; None of a volume, and where the method has no map."""
    read = io.load(subject.source.path, subject.about.voi)
    if subject.map is None or not isinstance(read, Image):
        return None
    first, named = subject.source.first, of(subject, "sc")
    made = SCImage.from_ref_dataset(
        first,
        scoring.picture(read.pixels[:1], subject.prediction, subject.about.calibration),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=read.orientation or NOWHERE,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **named,
    )
    if not read.orientation:
        made["PatientOrientation"].value = ""
    made.Laterality = first.get("Laterality") or ""
    made.BurnedInAnnotation = first.get("BurnedInAnnotation") or "NO"
    return image(made, subject)
