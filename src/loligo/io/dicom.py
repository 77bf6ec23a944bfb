"""Read DICOM files: radiographs as images, CT and MR series as volumes.

`dicom_kind` tells which a file is, `dicom_pixels` decodes stored values, `dicom_grey` makes grey of a radiograph's, and
`dicom_series` puts slices together.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from loligo.io import dicom_grey, dicom_header, dicom_kind, dicom_pixels, dicom_series
from loligo.io.content import UnreadableImage
from loligo.io.dicom_header import Header, tag
from loligo.io.dicom_kind import Kind, look
from loligo.types import Image, Volume, VolumeHeader

_WAYS = re.compile("[LRAPHFT]{1,3}")  # such as L, or AF
_FLOATS = 12  # bytes a pixel of what is decoded, of float32, and of what it is made small by


def kind(path: Path) -> str:
    """Tell whether a file holds an image or a slice of a volume; raises ``UnreadableImage`` for what is not read."""
    return _known(path).kind


def read(path: Path, voi: int = 1) -> Image | Volume:
    """Read a radiograph, or the volume that a slice is of.

    Pixels are (1, H, W) float32 in [0, 1], 0 black: Modality LUT or rescale, then the VOI LUT or window of the number
    ``voi`` (see `dicom_grey.grey`), MONOCHROME1 inverted, padding black. Spacing is Pixel Spacing, else that of the
    detector (see `Acquisition.spacing_at`). Volumes are as `dicom_series.read` says, and have no use for ``voi``.

    Raises ``UnreadableImage`` for what is not read, several frames of a radiograph, and broken or missing pixels.
    """
    if _known(path).kind == "volume":
        return dicom_series.read(path)
    header = dicom_header.load(path, pixels=True)
    layout = _single(header)
    grey = dicom_grey.grey(header, layout, voi)
    pixels = grey.levels[dicom_pixels.frame(header, layout) - layout.least]
    return Image(
        pixels=np.ascontiguousarray(pixels[None]),
        source=path,
        spacing=dicom_kind.spacing(header)[0],
        orientation=_orientation(header),
        acquisition=dicom_kind.acquisition(header),
        remarks=grey.remarks,
    )


def read_header(path: Path) -> VolumeHeader:
    """Read where the voxels of a volume lie; raises as `dicom_series.read_header`, and for an image."""
    if _known(path).kind != "volume":
        raise UnreadableImage(path, "is an image where a volume is needed")
    return dicom_series.read_header(path)


def weigh(path: Path) -> int:
    """Return how many bytes it takes, at most, to decode what a file is of, by its header; raises as `read`."""
    if _known(path).kind == "volume":
        return dicom_series.weigh(path)
    layout = _single(dicom_header.load(path))
    return 2 * path.stat().st_size + layout.rows * layout.columns * 2 * _FLOATS


def files(path: Path) -> tuple[Path, ...]:
    """Return the files that hold what a file is of; see `dicom_series.files`."""
    return dicom_series.files(path)


def _known(path: Path) -> Kind:
    """Return what a file is, or raise."""
    found = look(path)
    if not found.kind:
        raise UnreadableImage(path, found.reason)
    return found


def _single(header: Header) -> dicom_pixels.Layout:
    """Return how the values of a single frame lie."""
    layout = dicom_pixels.layout(header)
    if layout.frames > 1:
        raise header.refuse(
            f"its {tag('NumberOfFrames')} is {layout.frames}, a film or tomosynthesis; 1 is allowed of"
            f" {header.code('Modality')}"
        )
    return layout


def _orientation(header: Header) -> tuple[str, str] | None:
    """Return Patient Orientation, None where it is not of two directions."""
    found = header.texts("PatientOrientation")
    return (found[0], found[1]) if len(found) == 2 and all(map(_WAYS.fullmatch, found)) else None
