"""The sheet of an image as Encapsulated PDF, without the normal images of other patients that a sheet else shows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from highdicom import SOPClass
from pydicom.dataset import Dataset
from pydicom.uid import EncapsulatedPDFStorage

from loligo import io
from loligo.dicom.common import SYNTAX, finished, of
from loligo.dicom.subject import Subject
from loligo.reports.sheet import page
from loligo.reports.sheet.case import Case

NAME = Path("DICOM image")
"""What a sheet calls its image: file names stay where they are."""


def make(subject: Subject) -> Dataset:
    """Return the sheet; raises ValueError, which says what to install, where PDF cannot be printed."""
    content, first, named = page.pdf(_case(subject)), subject.source.first, of(subject, "pdf")
    made = SOPClass(
        study_instance_uid=first.StudyInstanceUID,
        sop_class_uid=EncapsulatedPDFStorage,
        modality="DOC",
        transfer_syntax_uid=SYNTAX,
        patient_id=first.PatientID,
        patient_name=first.PatientName,
        patient_birth_date=first.PatientBirthDate,
        patient_sex=first.PatientSex,
        accession_number=first.AccessionNumber,
        study_id=first.StudyID,
        study_date=first.StudyDate,
        study_time=first.StudyTime,
        referring_physician_name=first.ReferringPhysicianName,
        specific_character_set=first.SpecificCharacterSet,
        **named,
    )
    made.copy_patient_and_study_information(first)
    made.ConversionType = "WSD"
    made.AcquisitionDateTime = ""
    made.BurnedInAnnotation = first.get("BurnedInAnnotation") or "NO"
    made.SourceInstanceSequence = [_reference(one) for one in subject.source.datasets]
    made.DocumentTitle = named["series_description"]
    made.ConceptNameCodeSequence = []
    made.MIMETypeOfEncapsulatedDocument = "application/pdf"
    made.EncapsulatedDocument = content + b"\0" * (len(content) % 2)
    made.EncapsulatedDocumentLength = len(content)
    return finished(made, subject.about, subject.when)


def _case(subject: Subject) -> Case:
    """Return what the sheet shows: the image and its heat, and nothing of any other image."""
    found, about = subject.prediction, subject.about
    return Case(
        image=replace(io.load(subject.source.path, about.voi), source=NAME),
        method=about.method,
        run=about.digest[:12],
        written=subject.when.date(),
        calibration=about.calibration,
        score=found.score,
        map=subject.map,
        reconstruction=found.reconstruction,
        warnings=found.warnings,
    )


def _reference(one: Dataset) -> Dataset:
    """Name an image that the sheet is of."""
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = one.SOPClassUID, one.SOPInstanceUID
    return item
