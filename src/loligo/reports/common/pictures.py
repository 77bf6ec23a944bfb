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
from loligo.io.overlay import levels, ramp
from loligo.io.regions import Line, contours

Grey = npt.NDArray[np.uint8]
Heat = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

SIDE = 512
"""Longest side of a picture in pixels."""
MASK = (255, 255, 255)
"""White: the line around a true mask; those around hot regions are `overlay.OUTLINE`."""
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


def resized_heat(heat: Heat, grey: Grey) -> Heat:
    """Return a map (H, W) at the size of a picture (h, w)."""
    return np.asarray(PIL.Image.fromarray(heat).resize(size(grey), PIL.Image.Resampling.BILINEAR))


def colour_bar() -> str:
    """Return the heat map's colours as they look over mid grey, from none at the left to full: a data URI."""
    return uri(ramp(256, 12), "PNG")


def thumbnail(pixels: npt.NDArray[np.float32], side: int = SIDE) -> Grey:
    """Shrink (C, H, W) float32 in [0, 1] to (h, w) uint8, ``side`` at most; the mean of several channels."""
    image = PIL.Image.fromarray(levels(pixels.mean(0)))
    image.thumbnail((side, side), PIL.Image.Resampling.LANCZOS)
    return np.asarray(image)


def mask_lines(mask: Mask) -> tuple[Line, ...]:
    """Return the lines around a mask (H, W), half a pixel outside of it."""
    return contours(mask.astype(np.float32), 0.25)


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
