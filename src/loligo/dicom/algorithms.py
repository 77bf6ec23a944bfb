"""The model as an algorithm: name, version, hash of its weights, and identifiers of what it found."""

from __future__ import annotations

from highdicom import AlgorithmIdentificationSequence
from highdicom.sr import AlgorithmIdentification, TrackingIdentifier
from pydicom.sr.codedict import codes as public

from loligo.dicom.about import About
from loligo.dicom.common import MAKER, model, uid
from loligo.dicom.subject import Subject


def in_report(about: About) -> AlgorithmIdentification:
    """Return the model as a report names it."""
    parameters = [f"SHA-256 of the weights: {about.digest}", f"Trained on {about.population}"]
    return AlgorithmIdentification(
        name=model(about),
        version=about.version,
        manufacturer=MAKER,
        parameters=parameters,
        family=public.DCM.ArtificialIntelligence,
    )


def in_segment(about: About) -> AlgorithmIdentificationSequence:
    """Return the model as a segment names it."""
    return AlgorithmIdentificationSequence(
        name=model(about),
        family=public.DCM.ArtificialIntelligence,
        version=about.version,
        source=MAKER,
        parameters={"weights_sha256": about.digest},
    )


def tracking(subject: Subject, number: int = 0) -> TrackingIdentifier:
    """Return what a region is recognised by in all objects, from 1 on; 0 is the image as a whole."""
    name = f"Anomaly {number}" if number else "Image"
    return TrackingIdentifier(
        uid=uid("tracking", subject.about.identity, str(number), *subject.source.instances), identifier=name
    )
