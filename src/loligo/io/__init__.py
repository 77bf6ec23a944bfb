"""Read image files of every supported kind into the one noun ``Image``; volumes are read by `loligo.io.nifti`."""

from __future__ import annotations

from pathlib import Path

from loligo.io import raster
from loligo.io.raster import UnreadableImage
from loligo.types import Image

__all__ = ["SUFFIXES", "VOLUME_SUFFIXES", "UnreadableImage", "is_image", "is_volume", "read", "stem"]

SUFFIXES: tuple[str, ...] = raster.SUFFIXES
"""The lower-case suffixes that ``read`` takes."""
VOLUME_SUFFIXES = (".nii", ".nii.gz")
"""The lower-case endings of the names that `loligo.io.nifti` takes; it is apart because it imports slowly."""


def is_volume(path: Path) -> bool:
    """Tell a NIfTI volume by its name, in upper or lower case."""
    return path.name.lower().endswith(VOLUME_SUFFIXES)


def is_image(path: Path) -> bool:
    """Tell by its name whether a file may hold an image or a volume."""
    return path.suffix.lower() in SUFFIXES or is_volume(path)


def stem(path: Path) -> str:
    """Return a file's name without its ending, such as .png or .nii.gz."""
    return path.name[: path.name.lower().rindex(".nii")] if is_volume(path) else path.stem


def read(path: Path) -> Image:
    """Read one image file, choosing the reader by suffix (upper or lower case).

    Raises ``ValueError`` for a suffix that no reader takes, and ``UnreadableImage`` for a file that
    is missing, broken, in colour or too large.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path}: suffix {path.suffix!r} is not one of {', '.join(SUFFIXES)}; convert the file")
    return raster.read(path)
