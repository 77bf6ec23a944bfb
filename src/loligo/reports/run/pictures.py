"""Make the pictures of one image: input, reconstruction, heat map over it; or say why one is missing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image

from loligo import io
from loligo.calibration import Calibration
from loligo.io import regions
from loligo.io.overlay import annotated, outline
from loligo.reports.common.pictures import (
    MASK,
    Grey,
    Heat,
    Picture,
    mask_lines,
    reason,
    resized_heat,
    size,
    thumbnail,
    uri,
)


@dataclass(frozen=True)
class Sources:
    """The files of one image; None where there is none."""

    image: Path
    reconstruction: Path | None
    map: Path | None
    mask: Path | None
    overlay: Path | None = None
    voi: int = 1
    """Number of the VOI LUT or window of a DICOM radiograph."""


def pictures(files: Sources, colours: Calibration) -> tuple[Picture, ...]:
    """Return the pictures that there are, heat by the colours of a calibration; one that cannot be made says why."""
    name = files.image.name
    try:
        grey = thumbnail(io.read(files.image, files.voi).pixels)
    except Exception as error:  # whatever a decoder raises on a broken file: it must not cost the report
        missing = Picture("input", "", f"cannot be read: {reason(error, files.image)}")
        return (missing, *(_written(files.overlay, name) if files.overlay else ()))
    found = [Picture("input", uri(grey, "JPEG"), f"input image {name}")]
    if files.reconstruction:
        found.append(_reconstruction(files.reconstruction, grey, name))
    if files.map:
        found.append(_heat_map(files.map, files.mask, grey, colours, name))
    return tuple(found)


def _written(overlay: Path, name: str) -> tuple[Picture, ...]:
    """Show the picture that scoring left, where the image itself has gone."""
    try:
        with PIL.Image.open(overlay) as opened:
            image = opened.convert("RGB")
            image.thumbnail((512, 512))
    except Exception:  # as above; the reason why there is no input stands there already
        return ()
    return (Picture("heat map, as scored", uri(np.asarray(image), "JPEG"), f"heat map over {name}"),)


def _reconstruction(path: Path, grey: Grey, name: str) -> Picture:
    """Show the reconstruction in the shape of its input."""
    try:
        with PIL.Image.open(path) as opened:
            image = opened.convert("L").resize(size(grey), PIL.Image.Resampling.BILINEAR)
    except Exception as error:  # as above
        return Picture("reconstruction", "", f"cannot be read: {reason(error, path)}")
    return Picture("reconstruction", uri(np.asarray(image), "JPEG"), f"reconstruction of {name}")


def _heat_map(path: Path, mask: Path | None, grey: Grey, colours: Calibration, name: str) -> Picture:
    """Show the map over its input, and the outline of the mask where there is one that can be read."""
    heat = read_map(path)
    if heat is None:
        return Picture("heat map", "", f"{path.name} is missing or not a finite (H, W) array")
    scaled = resized_heat(colours.heat(heat), grey)
    picture, alt = annotated(grey, scaled, regions.find(scaled)), f"heat map over {name}"
    if mask:
        try:
            image = PIL.Image.fromarray(picture)
            for line in mask_lines(io.read(mask).pixels[0] > 0):
                outline(image, line, MASK, 2)
            picture, alt = np.asarray(image), f"{alt}, true mask outlined"
        except Exception as error:  # as above
            alt += f"; its mask cannot be read: {reason(error, mask)}"
    return Picture("heat map", uri(picture, "JPEG"), alt)


def read_map(path: Path) -> Heat | None:
    """Read a map (H, W) float32; None where it is missing, not finite or of another shape."""
    try:
        heat = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    usable = isinstance(heat, np.ndarray) and heat.ndim == 2 and heat.dtype.kind == "f"
    return heat.astype(np.float32) if usable and np.isfinite(heat).all() else None
