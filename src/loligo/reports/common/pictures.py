"""Make the pictures of one image: input, reconstruction, heat map over it; or say why one is missing."""

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

Grey = npt.NDArray[np.uint8]
Heat = npt.NDArray[np.float32]

SIDE = 256
"""Longest side of a picture in pixels."""
OUTLINE = (0, 229, 255)
"""Cyan: nowhere on the heat map's scale, and apart from it for the colour-blind."""
QUALITY = 88


@dataclass(frozen=True)
class Picture:
    """One picture, or why it is not there."""

    title: str
    uri: str
    """Data URI; empty where there is none."""
    alt: str
    """What it shows, or the reason for its absence."""


@dataclass(frozen=True)
class Sources:
    """The files of one image; None where there is none."""

    image: Path
    reconstruction: Path | None
    map: Path | None
    mask: Path | None


def pictures(files: Sources, scale: float) -> tuple[Picture, ...]:
    """Return the pictures that there are, heat from 0 to ``scale``; one that cannot be made says why."""
    name = files.image.name
    try:
        grey = thumbnail(images.read(files.image).pixels)
    except Exception as error:  # whatever a decoder raises on a broken file: it must not cost the report
        return (Picture("input", "", f"cannot be read: {reason(error, files.image)}"),)
    found = [Picture("input", uri(PIL.Image.fromarray(grey), "PNG"), f"input image {name}")]
    if files.reconstruction:
        found.append(_reconstruction(files.reconstruction, grey, name))
    if files.map:
        found.append(_heat_map(files.map, files.mask, grey, scale, name))
    return tuple(found)


def _reconstruction(path: Path, grey: Grey, name: str) -> Picture:
    """Show the reconstruction in the shape of its input."""
    try:
        with PIL.Image.open(path) as opened:
            image = opened.convert("L").resize(_size(grey), PIL.Image.Resampling.BILINEAR)
    except Exception as error:  # as above
        return Picture("reconstruction", "", f"cannot be read: {reason(error, path)}")
    return Picture("reconstruction", uri(image, "PNG"), f"reconstruction of {name}")


def _heat_map(path: Path, mask: Path | None, grey: Grey, scale: float, name: str) -> Picture:
    """Show the map over its input, and the outline of the mask where there is one that can be read."""
    heat = read_map(path)
    if heat is None:
        return Picture("heat map", "", f"{path.name} is missing or not a finite (H, W) array")
    resized = PIL.Image.fromarray(heat).resize(_size(grey), PIL.Image.Resampling.BILINEAR)
    picture, alt = overlay(grey, (np.asarray(resized) / scale).clip(0, 1)), f"heat map over {name}"
    if mask:
        try:
            picture[outline(images.read(mask).pixels[0] > 0, _size(grey))] = OUTLINE
            alt += ", true mask outlined"
        except Exception as error:  # as above
            alt += f"; its mask cannot be read: {reason(error, mask)}"
    return Picture("heat map", uri(PIL.Image.fromarray(picture), "JPEG"), alt)


def read_map(path: Path) -> Heat | None:
    """Read a map (H, W) float32; None where it is missing, not finite or of another shape."""
    try:
        heat = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    usable = isinstance(heat, np.ndarray) and heat.ndim == 2 and heat.dtype.kind == "f"
    return heat.astype(np.float32) if usable and np.isfinite(heat).all() else None


def colour_bar() -> str:
    """Return the heat map's colours as they look over mid grey, from 0 at the left to full: a data URI."""
    ramp = np.tile(np.linspace(0, 1, SIDE, dtype=np.float32), (12, 1))
    return uri(PIL.Image.fromarray(overlay(np.full(ramp.shape, 110, np.uint8), ramp)), "PNG")


def thumbnail(pixels: npt.NDArray[np.float32]) -> Grey:
    """Shrink (C, H, W) float32 in [0, 1] to (h, w) uint8, SIDE at most; the mean of several channels."""
    image = PIL.Image.fromarray(np.rint(pixels.mean(0).clip(0, 1) * 255).astype(np.uint8))
    image.thumbnail((SIDE, SIDE), PIL.Image.Resampling.LANCZOS)
    return np.asarray(image)


def outline(mask: npt.NDArray[np.bool_], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return where the border of a mask (H, W) runs in a picture of ``size`` (w, h): (h, w) bool, 2 px."""
    from scipy.ndimage import binary_erosion

    inside = resized_mask(mask, size)
    return inside & ~np.asarray(binary_erosion(inside, iterations=2))


def reason(error: Exception, path: Path) -> str:
    """Say what went wrong without the folders, whose names may tell of a patient."""
    return files.reason(error).replace(str(path), path.name)


def uri(image: PIL.Image.Image, kind: str) -> str:
    """Encode a picture as data URI: PNG, or JPEG with colour at full resolution."""
    stream = io.BytesIO()
    options: dict[str, Any] = {"quality": QUALITY, "subsampling": 0} if kind == "JPEG" else {"optimize": True}
    image.save(stream, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"


def _size(grey: Grey) -> tuple[int, int]:
    """Return (width, height), the order that Pillow wants."""
    return grey.shape[1], grey.shape[0]
