"""Make the pictures of one volume: three planes through its true mask, or else through its hottest voxel."""

from __future__ import annotations

from pathlib import Path

from loligo import io
from loligo.calibration import Calibration
from loligo.io import regions
from loligo.reports.common import planes
from loligo.reports.common.pictures import SIDE, Picture, reason, uri
from loligo.reports.run.pictures import Sources
from loligo.types import Volume


def pictures(files: Sources, colours: Calibration) -> tuple[Picture, ...]:
    """Return the three planes bare, and with heat by the colours of a calibration; or say why there is none.

    Without a mask and a map the planes are those through the middle, bare.
    """
    from loligo.io import nifti

    name = files.image.name
    try:
        volume = _volume(files.image)
        heat = colours.heat(regions.smooth(nifti.read(files.map).voxels)) if files.map else None
        mask = nifti.read_mask(files.mask, volume) if files.mask else None
        if heat is not None and heat.shape != volume.shape:
            raise ValueError(f"its map has shape {heat.shape}, not {volume.shape}")
    except Exception as error:  # whatever a reader raises on a broken file: it must not cost the report
        return (Picture("input", "", f"cannot be read: {reason(error, files.image)}"),)
    if mask is not None and mask.any():
        at = planes.middle(mask)
    elif heat is not None:
        at = planes.hottest(heat)
    else:
        at = (volume.shape[0] // 2, volume.shape[1] // 2, volume.shape[2] // 2)
    shown = planes.through(volume, at, SIDE // 2, heat, mask)
    found = [Picture(plane.title, uri(plane.bare, "JPEG"), f"{name}, {plane.title}") for plane in shown]
    if heat is None:
        return tuple(found)
    marked = ", true mask outlined" if mask is not None and mask.any() else ""
    alts = [f"heat over {name}, {plane.title}{marked}" for plane in shown]
    pairs = zip(shown, alts, strict=True)
    return (*found, *(Picture(f"heat, {plane.axis}", uri(plane.marked, "JPEG"), alt) for plane, alt in pairs))


def _volume(path: Path) -> Volume:
    if not isinstance(volume := io.load(path), Volume):
        raise io.UnreadableImage(path, "is an image where a volume is needed")
    return volume
