"""De-identify a data set by the Basic Application Level Confidentiality Profile of DICOM PS3.15.

Which element gets which action is the standard's table E.1-1 of 2026c, as the package dicom-anonymizer has it. What is
done is done here: that package leaves nested sequences alone, and its new UIDs and patients differ from run to run.
Where the table leaves a choice, the image stays valid whatever type the element has in its class: Z of X/Z, D of the
others. Beyond the table go private elements, those of unknown form, and names, dates and times that it does not list.
"""

from __future__ import annotations

import hashlib
import hmac
import uuid
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

EDITION = "2026c"
METHOD = "PS3.15 Basic Application Level Confidentiality Profile"
_ACTIONS = {"X": "X", "Z": "Z", "X_Z": "Z", "U": "U", "X_Z_U_STAR": "U", "D": "D", "Z_D": "D", "X_D": "D", "X_Z_D": "D"}
_DUMMIES: dict[str, Any] = {
    **dict.fromkeys(("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT"), "REMOVED"),
    **dict.fromkeys(("FD", "FL", "SL", "SS", "SV", "UL", "US", "UV", "DS", "IS"), 0),
    **{"AS": "000Y", "DA": "19000101", "DT": "19000101000000", "TM": "000000"},
}
"""What stands for a value that must not be empty; of other forms the element goes."""
_UNLISTED = ("PN", "DA", "DT", "TM", "UN")


def new_uid(uid: str, secret: bytes) -> str:
    """Return the UID that stands for another: the same for the same, and it tells nothing of it without the key."""
    keyed = hmac.new(secret, uid.encode(), hashlib.sha256).digest()
    return f"2.25.{uuid.UUID(bytes=keyed[:16], version=4).int}"


def apply(dataset: Dataset, patient: str, secret: bytes) -> None:
    """Change a data set: UIDs for others by a key, and the name ``patient`` for Patient ID and Patient's Name."""
    _clean(dataset, lambda uid: new_uid(uid, secret))
    dataset.PatientID = dataset.PatientName = patient
    dataset.PatientIdentityRemoved, dataset.LongitudinalTemporalInformationModified = "YES", "REMOVED"
    dataset.DeidentificationMethod = METHOD
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator = "113100", "DCM"
    code.CodeMeaning = "Basic Application Confidentiality Profile"
    dataset.DeidentificationMethodCodeSequence = [code]


def _clean(dataset: Dataset, renamed: Callable[[str], str]) -> None:
    """Apply the table to each element, and to those in sequences that stay."""
    for tag in list(dataset.keys()):
        try:
            element = dataset[tag]
        except Exception:  # what pydicom happens to raise of a broken value
            del dataset[tag]
            continue
        done = action(element)
        if done == "X" or (element.VR == "SQ" and done == "D"):
            del dataset[tag]
        elif element.VR == "SQ" and done != "Z":
            for item in element.value:
                _clean(item, renamed)
        elif done == "U" or (done == "D" and element.VR == "UI"):
            element.value = [renamed(str(uid)) for uid in _each(element.value)]
        elif done == "Z":
            element.clear()
        elif done == "D":
            _replace(dataset, element)


def _replace(dataset: Dataset, element: DataElement) -> None:
    """Put a dummy in place of a value, or remove the element where its form has none."""
    if element.VR in _DUMMIES:
        element.value = _DUMMIES[element.VR]
    else:
        del dataset[element.tag]


def _each(value: Any) -> list[Any]:
    return [value] if isinstance(value, str) else list(value or ())


def action(element: DataElement) -> str:
    """Return what is to be done with an element: X (remove), Z (empty), D (dummy), U (another UID), or K (keep)."""
    exact, masked = _table()
    if element.tag.is_private:
        return "X"
    if found := exact.get(element.tag) or next((a for tag, mask, a in masked if element.tag & mask == tag), ""):
        return found
    return "X" if element.VR in _UNLISTED else "K"


def check() -> None:
    """Raise ValueError where the package that holds the table is missing."""
    _table()


@cache
def _table() -> tuple[dict[BaseTag, str], list[tuple[int, int, str]]]:
    """Return the action by tag, and by tag and mask of repeating groups; ValueError where the package is missing."""
    try:
        listed = import_module(f"dicomanonymizer.dicom_anonymization_databases.dicomfields_{EDITION}")
    except ImportError as error:
        raise ValueError("de-identification needs the standard's table: pip install 'loligo[dicom]'") from error
    exact: dict[BaseTag, str] = {}
    masked: list[tuple[int, int, str]] = []
    for name, done in _ACTIONS.items():
        for group, number, *mask in getattr(listed, f"{name}_TAGS"):
            if mask:
                masked.append((group << 16 | number, mask[0] << 16 | mask[1], done))
            else:
                exact[BaseTag(group << 16 | number)] = done
    return exact, masked
