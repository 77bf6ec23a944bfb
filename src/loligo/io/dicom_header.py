"""Read the headers of DICOM files within bounds, and ask them for values: no pixel is decoded here.

Messages name tags and codes, and never repeat what a parser complains of: that may be a patient's name or a UID.
"""

from __future__ import annotations

import logging
import math
import re
import warnings
import zlib
from collections.abc import MutableSequence
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from pydicom.datadict import dictionary_description, tag_for_keyword
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from loligo.io.content import UnreadableImage, opened

MAX_BYTES = 2**30
"""Largest file that is read."""
MAX_INFLATED = 2**28
"""Bytes that a file of the syntax Deflate may become."""

_CODE = re.compile(r"[A-Z0-9 _.\-]{1,16}")  # what may be shown of a coded value
_KEYWORDS = """
    SpecificCharacterSet ImageType SOPClassUID Modality PresentationIntentType Manufacturer AnatomicRegionSequence
    IssuerOfPatientID PatientID PatientName PatientBirthDate PatientAge BodyPartExamined ViewPosition
    ViewCodeSequence SliceThickness SpacingBetweenSlices ImagerPixelSpacing PixelSpacing NominalScannedPixelSpacing
    StudyInstanceUID SeriesInstanceUID SOPInstanceUID FrameOfReferenceUID ImagePositionPatient
    ImageOrientationPatient PatientOrientation Laterality ImageLaterality SamplesPerPixel PhotometricInterpretation
    NumberOfFrames Rows Columns BitsAllocated BitsStored HighBit PixelRepresentation PixelPaddingValue
    PixelPaddingRangeLimit RescaleIntercept RescaleSlope RescaleType ModalityLUTSequence WindowCenter WindowWidth
    VOILUTFunction VOILUTSequence PresentationLUTShape PlanarConfiguration SharedFunctionalGroupsSequence
    PerFrameFunctionalGroupsSequence ExtendedOffsetTable ExtendedOffsetTableLengths PixelData
"""
_TAGS: list[BaseTag | int] = [tag_for_keyword(word) or 0 for word in _KEYWORDS.split()]
_PIXELS = 0x7FE00001  # where the tables of frames and the pixels begin
_CHUNK = 1 << 20
_SMALL, _DENSE = 2**26, 200  # bytes that any file may become, and times its own that a larger one may


def tag(keyword: str) -> str:
    """Name an element as a message does, such as Modality (0008,0060)."""
    number = tag_for_keyword(keyword) or 0
    return f"{dictionary_description(number)} ({number >> 16:04X},{number & 0xFFFF:04X})"


class Values:
    """What a data set of a file holds; each getter raises ``UnreadableImage`` for a value of the wrong form."""

    def __init__(self, path: Path, dataset: Dataset) -> None:
        self.path, self.dataset = path, dataset

    def refuse(self, why: str) -> UnreadableImage:
        """Return the error that names the file."""
        return UnreadableImage(self.path, why)

    def each(self, keyword: str) -> list[Any]:
        """Return the values of an element, none where it is missing or empty."""
        try:
            value = self.dataset.get(keyword)
            if value is None or value == "":
                return []
            return list(value) if isinstance(value, MutableSequence) else [value]  # a name has letters, not values
        except Exception as error:  # pydicom converts late, and raises what a broken value happens to cause
            raise self.refuse(f"its {tag(keyword)} cannot be read ({type(error).__name__})") from None

    def texts(self, keyword: str) -> list[str]:
        """Return values as texts, without blanks around them."""
        return [str(value).strip(" \0") for value in self.each(keyword)]

    def text(self, keyword: str) -> str:
        """Return the first value as text, empty where there is none."""
        return next(iter(self.texts(keyword)), "")

    def code(self, keyword: str) -> str:
        """Return a coded value as a message may show it."""
        value = self.text(keyword)
        return (value if _CODE.fullmatch(value) else "no such code") if value else "empty"

    def numbers(self, keyword: str, count: int | None = None) -> tuple[float, ...]:
        """Return finite numbers, as many as there are or ``count``; none where the element is missing."""
        try:
            found = tuple(float(value) for value in self.each(keyword))
        except (TypeError, ValueError, OverflowError):
            raise self.refuse(f"its {tag(keyword)} is no number") from None
        if not all(map(math.isfinite, found)) or (found and count is not None and len(found) != count):
            wanted = f"{count} finite numbers are" if count else "finite numbers alone are"
            raise self.refuse(f"its {tag(keyword)} holds {_listed(found)}; {wanted} allowed")
        return found

    def whole(self, keyword: str, default: int | None = None) -> int:
        """Return a whole number; where the element is missing the default, or raise."""
        found = self.numbers(keyword)
        if not found and default is not None:
            return default
        if len(found) != 1 or found[0] % 1:
            raise self.refuse(f"its {tag(keyword)} holds {_listed(found)}; one whole number is needed")
        return int(found[0])

    def items(self, keyword: str) -> list[Values]:
        """Return the items of a sequence."""
        found = self.each(keyword)
        if not all(isinstance(item, Dataset) for item in found):
            raise self.refuse(f"its {tag(keyword)} is no sequence")
        return [Values(self.path, item) for item in found]

    def item(self, *keywords: str) -> Values:
        """Return the first item of a sequence in one in one; one that holds nothing where it is missing."""
        found = self
        for keyword in keywords:
            found = next(iter(found.items(keyword)), Values(self.path, Dataset()))
        return found


class Header(Values):
    """The data set of a file, as far as it is needed."""

    def __init__(self, path: Path, dataset: Dataset, syntax: UID) -> None:
        super().__init__(path, dataset)
        self.syntax = syntax


def load(path: Path, pixels: bool = False, every: bool = False) -> Header:
    """Read the header of a file, as far as it is needed or ``every`` element, with its encoded pixels if asked for.

    Raises ``UnreadableImage`` for a file that is missing, no DICOM or broken, larger than `MAX_BYTES` or, inflated,
    than `MAX_INFLATED`.
    """
    _hush()
    with opened(path) as stream:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise UnreadableImage(path, f"its {size:,} bytes are more than {MAX_BYTES:,}")
        try:
            return _parse(path, stream, pixels, None if every else _TAGS)
        except (UnreadableImage, MemoryError):
            raise
        except Exception as error:  # what pydicom happens to raise; RecursionError where sequences nest too deep
            raise UnreadableImage(
                path, f"cannot be parsed as DICOM ({type(error).__name__}); it is cut short or damaged"
            ) from None


def _parse(path: Path, stream: BinaryIO, pixels: bool, tags: list[BaseTag | int] | None) -> Header:
    """Read the file meta information, then the data set as its transfer syntax says."""
    stream.seek(132 if stream.read(132)[128:] == b"DICM" else 0)
    meta = read_dataset(stream, False, True, stop_when=lambda found, *_: found >> 16 != 2)
    syntax = UID(str(meta.get("TransferSyntaxUID", "")).strip(" \0"))
    if syntax == DeflatedExplicitVRLittleEndian:
        stream = BytesIO(_inflated(path, stream))
    implicit, little = syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian
    if not syntax:
        implicit, little = _guessed(stream)
        syntax = UID(f"1.2.840.10008.1.2{'' if implicit else '.1' if little else '.2'}")
    found = read_dataset(
        stream,
        implicit,
        little,
        stop_when=None if pixels else lambda tag, *_: tag >= _PIXELS,
        specific_tags=tags,
    )
    if "SOPClassUID" not in found and "MediaStorageSOPClassUID" in meta:
        found.SOPClassUID = meta.MediaStorageSOPClassUID
    if not len(found):
        raise UnreadableImage(path, "is DICOM that holds nothing of an image; it is cut short or damaged")
    found.file_meta = FileMetaDataset()
    found.file_meta.TransferSyntaxUID = syntax
    return Header(path, found, syntax)


def _guessed(stream: BinaryIO) -> tuple[bool, bool]:
    """Tell whether the first element has no VR, and whether it is little-endian."""
    first = stream.read(6)
    stream.seek(-len(first), 1)
    return not (first[4:].isalpha() and first[4:].isupper()), first[:1] != b"\0"


def _inflated(path: Path, stream: BinaryIO) -> bytes:
    """Inflate what is left of a stream, up to a bound."""
    inflate, found = zlib.decompressobj(-zlib.MAX_WBITS), bytearray()
    most = min(MAX_INFLATED, max(_SMALL, _DENSE * path.stat().st_size))
    for chunk in iter(lambda: stream.read(_CHUNK), b""):
        found += inflate.decompress(chunk, most + 1 - len(found))
        if len(found) > most:
            raise UnreadableImage(path, f"inflates to more than {most:,} bytes; save it uncompressed")
    return bytes(found)


def _listed(found: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in found[:4]) + (", ..." if len(found) > 4 else "") or "nothing"


@cache
def _hush() -> None:
    """Keep pydicom from logging and warning: it repeats values of the file, names and UIDs among them."""
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=r"pydicom(\.|$)")
