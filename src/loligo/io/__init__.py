"""Read image files of every supported kind, recognised by their content, into the nouns ``Image`` and ``Volume``.

A kind of file is one entry of `READERS`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Literal

from loligo.io import content, raster
from loligo.io.content import UnreadableImage, opened
from loligo.types import Image, Volume, VolumeHeader

if TYPE_CHECKING:
    from loligo.io.dicom_kind import Kind as DicomKind

__all__ = [
    "READERS",
    "VOLUME_SUFFIXES",
    "Kind",
    "Reader",
    "UnreadableImage",
    "about",
    "describe",
    "files",
    "kind",
    "load",
    "opened",
    "read",
    "read_header",
    "reader",
    "sniff_dicom",
    "stem",
]

Kind = Literal["image", "volume"]
VOLUME_SUFFIXES = (".nii", ".nii.gz")
"""Endings of the names of volumes that are written; what is read is recognised by its content."""


@dataclass(frozen=True)
class Reader:
    """How one kind of file is recognised and read."""

    name: str
    """As a message lists it."""
    sniff: Callable[[bytes], bool]
    """Tells by the first `content.HEAD` bytes of a file whether it is one of these."""
    kind: Callable[[Path], Kind]
    """Tells what a file holds; raises ``UnreadableImage`` where that is neither an image nor a volume."""
    read: Callable[[Path, int], Image | Volume]
    """Takes the number of a VOI LUT or window too; raises ``UnreadableImage`` for what is broken or cannot be used."""
    weigh: Callable[[Path], int]
    """Returns how many bytes of memory that takes, at most, by the file's header; raises alike."""
    header: Callable[[Path], VolumeHeader] | None = None
    """Returns where the voxels of a volume lie without decoding them; raises alike. None where all are images."""


def _sniff_nifti(first: bytes) -> bool:
    """Tell NIfTI-1 and NIfTI-2, plain or in gzip, by their first number, the length of the header."""
    if first[:2] == b"\x1f\x8b":
        try:
            first = zlib.decompressobj(31).decompress(first, 4)
        except zlib.error:
            return False
    return any(int.from_bytes(first[:4], order) in (348, 540) for order in ("little", "big"))


def sniff_dicom(first: bytes) -> bool:
    """Tell DICOM, with its preamble or, as old files are, without."""
    if first[128:132] == b"DICM":
        return True
    explicit = first[4:6].isalpha() and first[4:6].isupper()
    if first[:2] in (b"\2\0", b"\x08\0") and first[3:4] == b"\0":
        length = int.from_bytes(first[4:8], "little")
        return explicit or (len(first) > 64 and 0 < length <= 256 and length % 2 == 0)
    return explicit and first[:3] == b"\0\x08\0"


def _nifti() -> ModuleType:
    """Import the reader of NIfTI, slowly, which images need not."""
    return import_module("loligo.io.nifti")


def _dicom() -> ModuleType:
    """Import the reader of DICOM, slowly, which other files need not."""
    return import_module("loligo.io.dicom")


READERS = (
    Reader(
        "DICOM",
        sniff_dicom,
        kind=lambda path: _dicom().kind(path),
        read=lambda path, voi: _dicom().read(path, voi),
        weigh=lambda path: _dicom().weigh(path),
        header=lambda path: _dicom().read_header(path),
    ),
    Reader(
        "PNG, JPEG, BMP, TIFF",
        raster.sniff,
        kind=lambda path: "image",
        read=lambda path, voi: raster.read(path),
        weigh=raster.weigh,
    ),
    Reader(
        "NIfTI",
        _sniff_nifti,
        kind=lambda path: "volume",
        read=lambda path, voi: _nifti().read(path),
        weigh=lambda path: _nifti().weigh(path),
        header=lambda path: _nifti().read_header(path),
    ),
)
"""All kinds of files that can be read; the first whose sniff takes a file reads it: DICOM may begin as TIFF does."""


def reader(path: Path) -> Reader:
    """Return the reader of a file, by its content.

    Raises ``UnreadableImage`` for a file that is missing, empty or no regular file, and for content that no reader
    takes, naming what it is where that is known, what can be read, and what to do.
    """
    first = content.head(path)
    if found := _taking(first):
        return found
    name, repair = content.foreign(first)
    known = " or ".join(", ".join(one.name for one in READERS).rsplit(", ", 1))
    raise UnreadableImage(path, f"its content is {f'{name}, ' if name else ''}not {known}; {repair}")


def kind(path: Path) -> Kind:
    """Tell whether a file holds an image or a volume; raises as `reader`, and for DICOM that is neither."""
    return reader(path).kind(path)


def describe(path: Path) -> str:
    """Name a file's content in a word or two, such as DICOM; it never raises."""
    try:
        first = content.head(path)
    except UnreadableImage:
        return "unreadable"
    found = _taking(first)
    return found.name if found else content.foreign(first)[0] or "unknown content"


def load(path: Path, voi: int = 1) -> Image | Volume:
    """Read an image or a volume; raises as `reader`, and ``UnreadableImage`` for a file that cannot be used.

    ``voi`` numbers the VOI LUT or window of a DICOM radiograph; see `dicom_grey.grey`.
    """
    return reader(path).read(path, voi)


def read(path: Path, voi: int = 1) -> Image:
    """Read one image; raises as `load`, and ``UnreadableImage`` for a volume."""
    found = reader(path)
    image = found.read(path, voi) if found.kind(path) == "image" else None
    if not isinstance(image, Image):
        raise UnreadableImage(path, f"is a volume ({found.name}) where an image is needed")
    return image


def read_header(path: Path) -> VolumeHeader:
    """Read where the voxels of a volume lie; raises as `load`, and ``UnreadableImage`` for an image."""
    found = reader(path)
    if found.header is None:
        raise UnreadableImage(path, f"is an image ({found.name}) where a volume is needed")
    return found.header(path)


def files(path: Path) -> tuple[Path, ...]:
    """Return the files that hold what a file is of: itself, and of a DICOM series all in its folder.

    Raises ``UnreadableImage`` where it cannot be opened.
    """
    if not sniff_dicom(content.head(path)):
        return (path,)
    found: tuple[Path, ...] = _dicom().files(path)
    return found


def about(path: Path) -> DicomKind | None:
    """Return what a DICOM header says; None for other files. Raises ``UnreadableImage`` where it cannot be opened."""
    if not sniff_dicom(content.head(path)):
        return None
    found: DicomKind = import_module("loligo.io.dicom_kind").look(path)
    return found


def stem(path: Path) -> str:
    """Return a file's name without its ending, such as .png or .nii.gz."""
    name = path.name.lower()
    return path.name[: name.rindex(".nii")] if name.endswith(VOLUME_SUFFIXES) else path.stem


def _taking(first: bytes) -> Reader | None:
    """Return the reader that takes a file with these first bytes."""
    return next((one for one in READERS if one.sniff(first)), None)
