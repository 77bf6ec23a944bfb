"""Read one file as a network sees it, or say why it cannot be used."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from loligo import io
from loligo.data.preprocessing import Levels, Preprocessing
from loligo.io import raster
from loligo.types import Geometry, Image, Volume, VolumeHeader

_ESCAPED = re.compile(r"\\(udc[0-9a-f]{2}|r)")


def decode(path: Path, mask: str, preprocessing: Preprocessing) -> tuple[Levels, Geometry | VolumeHeader]:
    """Read an image, (1, 1, S, S), or a volume, (slices, 1, S, S), and where its pixels lie.

    Raises ``ValueError``, among them ``UnreadableImage``, for a file that cannot be used, and where its mask cannot be
    read or does not lie on it. Memory that does not suffice is a fault of the file, too.
    """
    try:
        found = io.load(path)
        if mask:
            _check_mask(Path(mask), found)
        return levels(found, preprocessing), found.geometry
    except MemoryError as error:
        raise io.UnreadableImage(path, "there is not enough memory to decode it; make it smaller") from error


def levels(found: Image | Volume, preprocessing: Preprocessing) -> Levels:
    """Return an image or a volume as a network sees it; raises as `Preprocessing.image` and `Preprocessing.volume`."""
    return preprocessing.volume(found) if isinstance(found, Volume) else preprocessing.image(found)


def read_mask(path: Path) -> npt.NDArray[np.bool_]:
    """Read a mask as (H, W) bool: true wherever the pixel is not 0.

    Raises ``ValueError`` for what ``io.read`` refuses and for JPEG, whose compression moves the edges.
    """
    if raster.is_jpeg(io.content.head(path)):
        raise io.UnreadableImage(path, "a mask cannot be JPEG, which blurs its edges; save it as PNG")
    mask: npt.NDArray[np.bool_] = io.read(path).pixels[0] > 0
    return mask


def reason(error: Exception, path: str, mask: str) -> str:
    """Say why a file was rejected without its own name, and without folders, which may tell of a patient."""
    if _ESCAPED.search(path) and not Path(path).exists():  # as `manifest.writable` writes it
        return "its name is not UTF-8 or has a carriage return, shown here as a code after a \\; rename the file"
    said = str(error).removeprefix(f"{path}: ")
    return said.replace(mask, Path(mask).name) if mask else said


def shared_spacing(paths: Iterable[str]) -> tuple[float, ...]:
    """Return the spacing in mm that all volumes among the files share; ValueError names those of another.

    It is empty where the first file that can be read is an image. Loading says what is wrong with the others.
    """
    headers = []
    for path in paths:
        with contextlib.suppress(ValueError):
            if io.kind(Path(path)) == "image":
                break
            from loligo.io import nifti  # here: it imports slowly, and images need it not

            headers.append(nifti.read_header(Path(path)))
    if not headers:
        return ()
    return nifti.check_spacing(headers)


def _check_mask(mask: Path, found: Image | Volume) -> None:
    """Raise ``ValueError`` for a mask that cannot be read or does not lie on its image."""
    if isinstance(found, Volume):
        from loligo.io import nifti  # as above

        nifti.read_mask(mask, found)
    elif (shape := read_mask(mask).shape) != found.pixels.shape[1:]:
        raise ValueError(f"its mask {mask} has (height, width) {shape}, the image {found.pixels.shape[1:]}")
