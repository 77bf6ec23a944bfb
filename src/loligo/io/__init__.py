"""Read image files of every supported kind, recognised by their content, into the nouns ``Image`` and ``Volume``.

A kind of file is one entry of `READERS`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from loligo.io import content, raster
from loligo.io.content import UnreadableImage, opened
from loligo.types import Image, Volume

__all__ = [
    "READERS",
    "VOLUME_SUFFIXES",
    "Kind",
    "Reader",
    "UnreadableImage",
    "describe",
    "kind",
    "load",
    "opened",
    "read",
    "reader",
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
    kind: Kind
    sniff: Callable[[bytes], bool]
    """Tells by the first `content.HEAD` bytes of a file whether it is one of these."""
    read: Callable[[Path], Image | Volume]
    """Raises ``UnreadableImage`` for a file that is broken or cannot be used."""
    weigh: Callable[[Path], int]
    """Returns how many bytes of memory that takes, at most, by the file's header; raises alike."""


def _sniff_nifti(first: bytes) -> bool:
    """Tell NIfTI-1 and NIfTI-2, plain or in gzip, by their first number, the length of the header."""
    if first[:2] == b"\x1f\x8b":
        try:
            first = zlib.decompressobj(31).decompress(first, 4)
        except zlib.error:
            return False
    return any(int.from_bytes(first[:4], order) in (348, 540) for order in ("little", "big"))


def _read_nifti(path: Path) -> Volume:
    from loligo.io import nifti  # here: it imports slowly, and images need it not

    return nifti.read(path)


def _weigh_nifti(path: Path) -> int:
    from loligo.io import nifti  # as above

    return nifti.weigh(path)


READERS = (
    Reader("PNG, JPEG, BMP, TIFF", "image", raster.sniff, raster.read, raster.weigh),
    Reader("NIfTI", "volume", _sniff_nifti, _read_nifti, _weigh_nifti),
)
"""All kinds of files that can be read; the first whose sniff takes a file reads it."""


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
    """Tell whether a file holds an image or a volume; raises as `reader`."""
    return reader(path).kind


def describe(path: Path) -> str:
    """Name a file's content in a word or two, such as DICOM; it never raises."""
    try:
        first = content.head(path)
    except UnreadableImage:
        return "unreadable"
    found = _taking(first)
    return found.name if found else content.foreign(first)[0] or "unknown content"


def load(path: Path) -> Image | Volume:
    """Read an image or a volume; raises as `reader`, and ``UnreadableImage`` for a file that cannot be used."""
    return reader(path).read(path)


def read(path: Path) -> Image:
    """Read one image; raises as `load`, and ``UnreadableImage`` for a volume."""
    found = reader(path)
    image = found.read(path) if found.kind == "image" else None
    if not isinstance(image, Image):
        raise UnreadableImage(path, f"is a volume ({found.name}) where an image is needed")
    return image


def stem(path: Path) -> str:
    """Return a file's name without its ending, such as .png or .nii.gz."""
    name = path.name.lower()
    return path.name[: name.rindex(".nii")] if name.endswith(VOLUME_SUFFIXES) else path.stem


def _taking(first: bytes) -> Reader | None:
    """Return the reader that takes a file with these first bytes."""
    return next((one for one in READERS if one.sniff(first)), None)
