"""Read masks of images and volumes, and say of those that cannot be used why."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from loligo import io
from loligo.io import raster
from loligo.types import Geometry, VolumeHeader

OF = "as the mask of"
"""How the reason for rejecting a mask begins."""


def read(path: Path, like: Geometry | VolumeHeader | None) -> npt.NDArray[np.bool_]:
    """Read the mask of an image (H, W) or of a volume (X, Y, Z): bool, true where a pixel is above 0.

    A palette's pixels are read by their number. Raises ``UnreadableImage`` where it cannot be read, is JPEG, whose
    compression moves edges, has another size than ``like``, or, of a volume, lies elsewhere.
    """
    if isinstance(like, VolumeHeader):
        from loligo.io import nifti  # here: it imports slowly, and images need it not

        return nifti.read_mask(path, like)
    if io.kind(path) == "volume":
        raise io.UnreadableImage(path, "is a volume where the mask of an image is needed")
    mask = raster.read_labels(path)
    if like and mask.shape != like.shape:
        raise io.UnreadableImage(path, f"has (height, width) {mask.shape}, its image {like.shape}")
    return mask


def fault(mask: str, like: Geometry | VolumeHeader) -> str:
    """Say why a mask cannot be used, without its own name and folders, which may tell of a patient; empty if it can."""
    try:
        read(Path(mask), like)
        return ""
    except (ValueError, MemoryError) as error:
        name = Path(like.source or "").name
        said = str(error).removeprefix(f"{mask}: ").replace(str(like.source), name) or "there is not enough memory"
        return f"{OF} {name}, which counts as without one: {said}"
