"""What all objects have in common: identifiers, the equipment, the notice, and dates that a repeat has too."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from highdicom import ContributingEquipment
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes as public

from loligo import NOTICE
from loligo.dicom.about import About
from loligo.dicom.subject import Subject

MAKER = "loligo"
SERIES = {
    "sr": (9001, "Anomaly report"),
    "pm": (9002, "Anomaly map"),
    "seg": (9003, "Anomaly regions"),
    "ko": (9004, "Flagged images"),
    "pdf": (9005, "Anomaly sheet"),
    "sc": (9006, "Anomaly overlay"),
}
"""Series Number of each kind, high, so that it stands behind the images, and how its series is described."""
RESEARCH = "research use only"
SYNTAX = "1.2.840.10008.1.2.1"
"""Explicit VR Little Endian."""


def uid(*parts: str) -> str:
    """Return the UID that follows from texts: 2.25 and the number of a name-based UUID (version 5)."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, chr(10).join(('loligo', *parts))).int}"


def identifiers(
    about: About, when: datetime, kind: str, series: str, instances: Sequence[str], number: int = 1
) -> dict[str, Any]:
    """Return the arguments of highdicom that identify an object of ``instances``, in the series that it forms."""
    place, title = SERIES[kind]
    return {
        "series_instance_uid": uid("series", kind, about.identity, series),
        "series_number": place,
        "series_description": f"{title}, {RESEARCH}",
        "sop_instance_uid": uid("instance", kind, about.identity, *instances),
        "instance_number": number,
        "manufacturer": MAKER,
        "manufacturer_model_name": model(about),
        "software_versions": about.version,
        "device_serial_number": about.digest,
        "content_date": when.date(),
        "content_time": when.time(),
    }


def of(subject: Subject, kind: str) -> dict[str, Any]:
    """Return the identifying arguments of an object of one image or volume, in one series with its neighbours'."""
    source = subject.source
    series = str(source.first.SeriesInstanceUID)
    return identifiers(subject.about, subject.when, kind, series, source.instances, source.number)


def model(about: About) -> str:
    """Name the model as equipment."""
    return f"{MAKER} {about.method}"


def device(about: About) -> str:
    """Return the UID of the model as a device: it follows from its weights."""
    return uid("device", about.digest)


def told(about: About) -> str:
    """Return the notice and whom the model was trained on, for people to read."""
    return f"{NOTICE} Trained on {about.population}."


def finished(made: Dataset, about: About, when: datetime) -> Dataset:
    """Complete an object: dates that a repeat has too, and the model as contributing equipment with its UID."""
    made.InstanceCreationDate, made.InstanceCreationTime = when.strftime("%Y%m%d"), when.strftime("%H%M%S")
    equipment = ContributingEquipment(
        MAKER,
        public.DCM.ProcessingEquipment,
        manufacturer_model_name=model(about),
        software_versions=about.version,
        device_serial_number=about.digest,
        contribution_description=told(about),
    )
    equipment.DeviceUID = device(about)
    made.ContributingEquipmentSequence = [equipment]  # in place of highdicom's own, which has the time of day
    return made


def image(made: Dataset, subject: Subject) -> Dataset:
    """Complete an object that is an image: the notice, and one dimension organisation, whose UID a repeat has too."""
    made.ImageComments = told(subject.about)
    organisation = uid("dimensions", str(made.SOPInstanceUID))
    for item in [*made.get("DimensionOrganizationSequence", []), *made.get("DimensionIndexSequence", [])]:
        item.DimensionOrganizationUID = organisation
    return finished(made, subject.about, subject.when)
