"""Read image files of every supported kind into the one noun ``Image``."""

from __future__ import annotations

from pathlib import Path

from loligo.io import raster
from loligo.io.raster import UnreadableImage
from loligo.types import Image

__all__ = ["SUFFIXES", "UnreadableImage", "read"]

SUFFIXES: tuple[str, ...] = raster.SUFFIXES
"""The lower-case suffixes that ``read`` takes."""


def read(path: Path) -> Image:
    """Read one image file, choosing the reader by suffix (upper or lower case).

    Raises ``ValueError`` for a suffix that no reader takes, and ``UnreadableImage`` for a file that
    is missing, broken, in colour or too large.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path}: suffix {path.suffix!r} is not one of {', '.join(SUFFIXES)}; convert the file")
    return raster.read(path)
