"""Tell what a DICOM file is by its header: an image, a slice of a volume, or what is not read, and why."""

from __future__ import annotations

import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

from pydicom.uid import UID

from loligo.io import content, dicom_header, sniff_dicom
from loligo.io.content import UnreadableImage
from loligo.io.dicom_header import Header, tag
from loligo.types import OLDEST, Acquisition

IMAGES = ("CR", "DX", "IO", "MG", "PX", "RF", "XA")
"""Modalities of single projections."""
VOLUMES = ("CT", "MR")
"""Modalities of volumes."""

_STORAGE = "1.2.840.10008.5.1.4.1.1."
_CLASSES: dict[str, Literal["image", "volume"]] = {
    **dict.fromkeys(("1", "1.1", "1.2", "1.3", "12.1", "12.2"), "image"),  # CR, DX, MG, IO, XA, RF
    **dict.fromkeys(("2", "2.1", "2.2", "4", "4.1", "4.4"), "volume"),  # CT and MR: plain, enhanced, converted
}
_RAW = tuple(f"{_STORAGE}{number}" for number in ("1.1.1", "1.2.1", "1.3.1"))
_SECONDARY, _DIRECTORY = f"{_STORAGE}7", "1.2.840.10008.1.3.10"
_YEARS = {"Y": 1.0, "M": 12.0, "W": 52.18, "D": 365.25, "": 1.0}
_VIEWS = {
    **dict.fromkeys(("399348003", "R-10206"), "AP"),
    **dict.fromkeys(("272479007", "R-10214"), "PA"),
    **dict.fromkeys(("399067008", "R-10236"), "LATERAL"),
    **dict.fromkeys(("399162004", "R-10242"), "CC"),
    **dict.fromkeys(("399368009", "R-10226"), "MLO"),
}
"""Codes of View Code Sequence (SNOMED CT, and SRT before it) as View Position has them."""


class Kind(NamedTuple):
    """What a file is."""

    kind: Literal["", "image", "volume"]
    """Empty where it is not read."""
    reason: str
    """Why not; empty where it is."""
    series: str = ""
    """Series Instance UID: for memory alone, never to be written."""
    patient: str = ""
    """What tells patients apart: for memory alone, never to be written but as a keyed hash."""
    acquisition: Acquisition | None = None


def look(path: Path) -> Kind:
    """Tell what a file is; it never raises ``UnreadableImage``, and reads a file that did not change once."""
    try:
        about = path.stat()
    except (OSError, ValueError):
        return Kind("", "cannot be read")
    return _look(os.fspath(path), about.st_mtime_ns, about.st_size)


@lru_cache(maxsize=1 << 17)
def _look(path: str, changed: int, size: int) -> Kind:
    """Read the header of a file of a state."""
    try:
        if not sniff_dicom(content.head(Path(path))):
            return Kind("", "its content is not DICOM")
        header = dicom_header.load(Path(path))
        kind = classify(header)
        return Kind(kind, "", header.text("SeriesInstanceUID"), _patient(header), acquisition(header))
    except UnreadableImage as error:
        return Kind("", str(error).removeprefix(f"{path}: "))


def classify(header: Header) -> Literal["image", "volume"]:
    """Return what a file holds; raise ``UnreadableImage``, with tag, value and what is allowed, for the rest."""
    found, modality = header.text("SOPClassUID"), header.text("Modality")
    if found == _DIRECTORY:
        raise header.refuse("is a DICOM directory, no image; give the folder that it lies in")
    kind = _CLASSES.get(found.removeprefix(_STORAGE))
    if not found or (found == _SECONDARY and modality in IMAGES and header.text("ViewPosition")):
        kind = "image" if modality in IMAGES else "volume" if modality in VOLUMES else None
    if found in _RAW or header.text("PresentationIntentType") == "FOR PROCESSING":
        raise header.refuse(
            f"its {tag('PresentationIntentType')} is FOR PROCESSING, the detector's raw values; FOR PRESENTATION is"
            " allowed"
        )
    if not kind:
        raise header.refuse(
            f"its {tag('SOPClassUID')} is {_name(found)} (Modality {header.code('Modality')}); images of CR, DX, MG,"
            " XA and RF, series of CT and MR, and secondary captures of a radiograph that say its View Position are"
            " allowed"
        )
    if modality not in (allowed := IMAGES if kind == "image" else VOLUMES):
        raise header.refuse(f"its {tag('Modality')} is {header.code('Modality')}; {', '.join(allowed)} are allowed")
    if "LOCALIZER" in (types := header.texts("ImageType")) or "SCOUT" in types:
        raise header.refuse(f"its {tag('ImageType')} says LOCALIZER; original and derived slices are allowed")
    return kind


def acquisition(header: Header) -> Acquisition:
    """Return how an image was taken."""
    return Acquisition(
        modality=header.text("Modality"),
        view=_plain(header.text("ViewPosition")) or _VIEWS.get(header.item("ViewCodeSequence").text("CodeValue"), ""),
        laterality=_plain(header.text("ImageLaterality") or header.text("Laterality")),
        body_part=_plain(header.text("BodyPartExamined")),
        age=_age(header.text("PatientAge")),
        manufacturer=_plain(header.text("Manufacturer")),
        spacing_at=spacing(header)[1] if header.text("Modality") in IMAGES else "",
    )


def spacing(header: Header) -> tuple[tuple[float, float] | None, Literal["", "body", "detector"]]:
    """Return (row, column) spacing of a projection in mm, and where it holds; None where the file does not say.

    Pixel Spacing counts for the body where it differs from Imager Pixel Spacing, which is the detector's.
    """
    own, imager = _sides(header, "PixelSpacing"), _sides(header, "ImagerPixelSpacing")
    found = own or imager or _sides(header, "NominalScannedPixelSpacing")
    return found, "" if not found else "body" if own and imager and own != imager else "detector"


def _sides(header: Header, keyword: str) -> tuple[float, float] | None:
    """Return a spacing, None where there is none that is above 0."""
    found = header.numbers(keyword)
    return (found[0], found[1]) if len(found) == 2 and min(found) > 0 else None


def _age(text: str) -> float | None:
    """Return years of such as 062Y or 006M; a bare number is of years."""
    found = re.fullmatch(r"(\d{1,3})([YMWD]?)", text)
    return min(OLDEST, round(int(found[1]) / _YEARS[found[2]], 2)) if found else None


def _patient(header: Header) -> str:
    """Return what tells patients apart: their id and its issuer, else name and date of birth, else the study."""
    for words in (("PatientID", "IssuerOfPatientID"), ("PatientName", "PatientBirthDate"), ("StudyInstanceUID",)):
        if header.text(words[0]):
            return "\n".join([words[0], *map(header.text, words)])
    return ""


def _name(found: str) -> str:
    """Return the name of a class of the standard."""
    name = UID(found).name if found else "missing"
    return name if name != found else "none of the standard's"


def _plain(text: str) -> str:
    """Return a text in one line of 64 letters at most."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text[:64]).split())
