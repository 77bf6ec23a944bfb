"""The flagged images of a study as Key Object Selection: a list that a viewer opens, which changes no image's order.

Of a volume it lists the slices in which a region lies, or all of them where none is outlined.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import numpy as np
from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
from highdicom.sr import DeviceObserverIdentifyingAttributes, ObserverContext
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes as public

from loligo.dicom.about import About
from loligo.dicom.common import MAKER, SYNTAX, device, finished, identifiers, model, told
from loligo.dicom.subject import Subject


def listed(subject: Subject) -> list[Dataset]:
    """Return the headers of what a flagged image or volume has in the list."""
    every = list(subject.source.datasets)
    if len(every) == 1 or not subject.findings or not subject.findings.labels.any():
        return every
    return [every[k] for k in np.flatnonzero(subject.findings.labels.any(axis=(1, 2)))]


def make(flagged: Sequence[Dataset], about: About, when: datetime) -> Dataset:
    """Return the list of images of one study, given their headers; ValueError where they are of several."""
    studies = {str(one.StudyInstanceUID) for one in flagged}
    if len(studies) != 1:
        raise ValueError(f"a list of key objects is of one study; images of {len(studies)} were given")
    instances = sorted(str(one.SOPInstanceUID) for one in flagged)
    observer = DeviceObserverIdentifyingAttributes(device(about), model(about), MAKER, model(about), about.digest)
    content = KeyObjectSelection(
        public.DCM.OfInterest,
        flagged,
        observer_device_context=ObserverContext(public.DCM.Device, observer),
        description=f"Flagged by {model(about)}: the score reaches the threshold of the false-alarm rate"
        f" {about.calibration.false_alarm_rate:.3g}. {told(about)}",
    )
    made = KeyObjectSelectionDocument(
        list(flagged), content, transfer_syntax_uid=SYNTAX, **identifiers(about, when, "ko", min(studies), instances)
    )
    return finished(made, about, when)
