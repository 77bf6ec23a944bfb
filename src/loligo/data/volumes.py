"""Cut volumes into the slices that a method sees, and put what it says of them on the volume's own grid again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL.Image

from loligo.config import Axis, WindowName
from loligo.data import normalise
from loligo.io import planes
from loligo.types import VolumeHeader

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Cut:
    """How volumes become images."""

    axis: Axis = "axial"
    """Which way they are sliced."""
    window: WindowName = "brain"
    """What becomes black and white: z-scores of each brain, the soft tissue of a CT in HU, or 0 and 1."""
    position: bool = False
    """Give each slice's place, from -0.5 to 0.5, as a channel of its own."""
    spacing: tuple[float, ...] | None = None
    """Distance of voxels along X, Y, Z in mm that a volume must have; None takes any."""


def decode(path: Path, mask: str, size: int, cut: Cut) -> Floats:
    """Read a volume's slices as (N, 1, size, size) float32 in [0, 1], squashed as images are.

    Raises ``UnreadableImage`` for what `io.nifti.read` refuses, for values that do not fit the window, and for a mask
    that does not lie on the volume, and ``ValueError`` for another spacing than that of the cut.
    """
    from loligo.io import nifti  # here: it imports slowly, and images need it not

    volume = nifti.read(path)
    if cut.spacing:
        nifti.check_spacing([volume], cut.spacing)
    if mask:
        nifti.read_mask(Path(mask), volume)
    window = normalise.WINDOWS[cut.window](volume)
    return resized(planes.slices(window.apply(volume.voxels), cut.axis), (size, size))[:, None]


def spacing(paths: Iterable[str]) -> tuple[float, ...]:
    """Return the spacing in mm that all volumes share whose headers can be read; ValueError names those of another."""
    from loligo.io import nifti

    headers = []
    for path in paths:
        with contextlib.suppress(OSError, ValueError):  # loading lists it with the reason
            headers.append(nifti.read_header(Path(path)))
    return nifti.check_spacing(headers) if headers else ()


def resized(slices: Floats, shape: tuple[int, int]) -> Floats:
    """Resize slices (N, H, W) to (N, *shape), bilinear, antialiased where that is smaller."""
    size = shape[::-1]  # Pillow's order
    if slices.shape[1:] == shape:
        return slices
    return np.stack([np.asarray(PIL.Image.fromarray(s).resize(size, PIL.Image.Resampling.BILINEAR)) for s in slices])


def shape(header: VolumeHeader, axis: Axis) -> tuple[int, int, int]:
    """Return the number, height and width of a volume's slices."""
    n, h, w = (header.shape[i] for i in planes.ORDER[axis])
    return n, h, w
