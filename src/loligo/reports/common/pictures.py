"""Encode pictures for the pages, with heat and outlines over them."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image

from loligo import files
from loligo import io as images
from loligo.data.preprocessing import resized_mask
from loligo.io.overlay import levels, overlay

Grey = npt.NDArray[np.uint8]
Heat = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

SIDE = 256
"""Longest side of a picture in pixels."""
OUTLINE = (0, 229, 255)
"""Cyan: nowhere on the heat map's scale, and distinct from it for the colour-blind."""
QUALITY = 88


@dataclass(frozen=True)
class Picture:
    """One picture, or why it is not there."""

    title: str
    uri: str
    """Data URI; empty where there is none."""
    alt: str
    """What it shows, or the reason for its absence."""


def is_volume(image: Path, heat: Path | None = None) -> bool:
    """Tell whether a file is a volume: by the suffix of its map, which is ours, where it has one."""
    if heat:
        return heat.name.endswith(".nii.gz")
    try:
        return images.kind(image) == "volume"
    except ValueError:  # whoever draws it says why it cannot be read
        return False


def heated(grey: Grey, heat: Heat, scale: float) -> Grey:
    """Blend a map (H, W), from 0 to ``scale``, over a picture (h, w): (h, w, 3) uint8."""
    resized = PIL.Image.fromarray(heat).resize(size(grey), PIL.Image.Resampling.BILINEAR)
    return overlay(grey, np.asarray(resized) / scale)


def colour_bar() -> str:
    """Return the heat map's colours as they look over mid grey, from 0 at the left to full: a data URI."""
    ramp = np.tile(np.linspace(0, 1, SIDE, dtype=np.float32), (12, 1))
    return uri(overlay(np.full(ramp.shape, 110, np.uint8), ramp), "PNG")


def thumbnail(pixels: npt.NDArray[np.float32]) -> Grey:
    """Shrink (C, H, W) float32 in [0, 1] to (h, w) uint8, SIDE at most; the mean of several channels."""
    image = PIL.Image.fromarray(levels(pixels.mean(0)))
    image.thumbnail((SIDE, SIDE), PIL.Image.Resampling.LANCZOS)
    return np.asarray(image)


def outline(mask: Mask, size: tuple[int, int]) -> Mask:
    """Return where the border of a mask (H, W) runs in a picture of ``size`` (w, h): (h, w) bool, 2 px."""
    from scipy.ndimage import binary_erosion

    inside = resized_mask(mask, size)
    return inside & ~np.asarray(binary_erosion(inside, iterations=2))


def reason(error: Exception, path: Path) -> str:
    """Say what went wrong without the folders, whose names may identify a patient."""
    return files.reason(error).replace(str(path), path.name)


def uri(pixels: Grey, kind: str) -> str:
    """Encode (h, w) or (h, w, 3) uint8 as data URI: PNG, or JPEG with colour at full resolution."""
    stream = io.BytesIO()
    options: dict[str, Any] = {"quality": QUALITY, "subsampling": 0} if kind == "JPEG" else {"optimize": True}
    PIL.Image.fromarray(pixels).save(stream, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"


def size(picture: Grey) -> tuple[int, int]:
    """Return (width, height), the order that Pillow wants."""
    return picture.shape[1], picture.shape[0]
