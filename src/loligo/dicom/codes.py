"""Codes of what no public scheme has a code for: the private scheme 99LOLIGO, listed in docs/dicom.md."""

from __future__ import annotations

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import CodedConcept
from pydicom.sr.codedict import codes as public

SCHEME = "99LOLIGO"

SCORE = CodedConcept("SCORE", SCHEME, "Raw anomaly score")
ANOMALY_SCORE = CodedConcept("ANOMALY", SCHEME, "Standardised anomaly score")
P_VALUE = CodedConcept("PVALUE", SCHEME, "Conformal p-value")
THRESHOLD = CodedConcept("THRESHOLD", SCHEME, "Threshold of the raw anomaly score")
RATE = CodedConcept("RATE", SCHEME, "Nominal false-alarm rate")
HEAT = CodedConcept("HEAT", SCHEME, "Calibrated anomaly heat")
FLAG = CodedConcept("FLAG", SCHEME, "Flag")
FLAGGED = CodedConcept("FLAGGED", SCHEME, "Flagged: the score reaches the threshold")
NOT_FLAGGED = CodedConcept("NOTFLAGGED", SCHEME, "Not flagged: the score is below the threshold")
REGION = CodedConcept("REGION", SCHEME, "Region of high anomaly heat")

ONE = public.UCUM.NoUnits
ABNORMAL = public.SCT.MorphologicallyAbnormalStructure


def scheme() -> CodingSchemeIdentificationItem:
    """Return what identifies the private scheme in an object."""
    return CodingSchemeIdentificationItem(SCHEME, name="Codes of loligo", responsible_organization="loligo")
