"""Bring images and volumes to the square grid of a network, and what it says of them back to their own grid.

Both ways lay the centres of pixels on each other: pixel i of n lies at (i + 0.5) / n of the side.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import PIL.Image

from loligo.config import Aspect, Axis, WindowName
from loligo.data import normalise
from loligo.data.header_scope import ANY, HeaderScope
from loligo.io import planes
from loligo.types import Geometry, Image, Volume, VolumeHeader

T = TypeVar("T", bound=np.generic)
Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
Levels = npt.NDArray[np.uint16]

WHITE = 65535
"""16-bit grey that stands for 1."""


@dataclass(frozen=True)
class Preprocessing:
    """How images and volumes become what a network sees: squares of grey levels. ValueError for a size below 1."""

    size: int
    """Pixels a side, S."""
    aspect: Aspect = "squash"
    """Squash to a square, or pad the shorter side with black around the image; pixels count, not millimetres."""
    axis: Axis = "axial"
    """Direction in which volumes are sliced."""
    window: WindowName = "brain"
    """What of a volume becomes black and white: z-scores of each brain, the soft tissue of a CT in HU, or 0 and 1."""
    position: bool = False
    """Give each slice's position, from -0.5 to 0.5, as a channel of its own."""
    spacing: tuple[float, ...] | None = None
    """Distance of voxels along X, Y, Z in mm that a volume must have; None takes any."""
    voi: int = 1
    """Number of the VOI LUT or window of a DICOM radiograph; 0 is its full range."""
    headers: HeaderScope = ANY
    """What a DICOM file may say of itself."""

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size {self.size} is not a positive number of pixels")

    def image(self, image: Image) -> Levels:
        """Return the levels (1, 1, S, S) uint16 of an image of one channel; ValueError for another number of them.

        Reduction is bilinear with antialiasing, in float32, rounded to 16 bit at last.
        """
        if len(image.pixels) != 1:
            raise ValueError(
                f"an image of shape {image.pixels.shape} has {len(image.pixels)} channels, not one of grey"
            )
        return self._levels(image.pixels)

    def volume(self, volume: Volume) -> Levels:
        """Return the levels (slices, 1, S, S) uint16 of a volume.

        Raises ``UnreadableImage`` for values that do not fit the window, and ``ValueError`` for another spacing.
        """
        if self.spacing:
            from loligo.io import nifti  # here: it imports slowly, and images need it not

            nifti.check_spacing([volume], self.spacing)
        if self.window == "brain":
            volume = replace(volume, voxels=normalise.dark_background(volume.voxels))
        window = normalise.WINDOWS[self.window](volume)
        return self._levels(planes.slices(window.apply(volume.voxels), self.axis))

    def mask(self, mask: Bools) -> Bools:
        """Return the mask (H, W) of an image as (S, S), by the nearest pixel; a tiny one keeps a pixel."""
        top, left, height, width = self._box(mask.shape)
        square = np.zeros((self.size, self.size), bool)
        square[top : top + height, left : left + width] = resized_mask(mask, (width, height))
        return square

    def restore(self, maps: Floats, geometry: Geometry | VolumeHeader) -> Floats:
        """Return what a network says of an image (S, S), or of a volume's slices (slices, S, S), on its own grid.

        That is (H, W) or (X, Y, Z) float32, interpolated bilinearly. Raises ``ValueError`` for another shape.
        """
        volume = isinstance(geometry, VolumeHeader)
        order = planes.ORDER[self.axis] if volume else (0, 1)
        *count, height, width = (geometry.shape[i] for i in order)
        if maps.shape != (wanted := (*count, self.size, self.size)):
            raise ValueError(f"maps have shape {maps.shape}, not {wanted}")
        top, left, *inside = self._box((height, width))
        cropped = maps[..., top : top + inside[0], left : left + inside[1]]
        if not volume:
            whole: Floats = resized(cropped[None], (height, width))[0]
            return whole
        return planes.stack(resized(cropped, (height, width)), self.axis)

    def _levels(self, slices: Floats) -> Levels:
        """Lay slices (N, H, W) in [0, 1] in the network's square: (N, 1, S, S) uint16."""
        top, left, height, width = self._box(slices.shape[1:])
        square = np.zeros((len(slices), 1, self.size, self.size), np.uint16)
        inside = np.rint(np.clip(resized(slices, (height, width)), 0, 1) * WHITE)
        square[:, 0, top : top + height, left : left + width] = inside
        return square

    def _box(self, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
        """Return top, left, height and width of an image (H, W) within the square."""
        if self.aspect == "squash":
            return 0, 0, self.size, self.size
        height, width = (max(1, round(side * self.size / max(shape))) for side in shape)
        return (self.size - height) // 2, (self.size - width) // 2, height, width


def resized(slices: Floats, shape: tuple[int, int]) -> Floats:
    """Resize slices (N, H, W) to (N, *shape), bilinear, antialiased where that is smaller."""
    size = shape[::-1]  # Pillow's order
    if slices.shape[1:] == shape:
        return slices
    return np.stack([np.asarray(PIL.Image.fromarray(s).resize(size, PIL.Image.Resampling.BILINEAR)) for s in slices])


def resized_mask(mask: Bools, size: tuple[int, int]) -> Bools:
    """Return a mask (H, W) at ``size`` (w, h), its nearest pixels; one so small that it would vanish keeps a pixel."""
    small: Bools = np.array(PIL.Image.fromarray(mask).resize(size, PIL.Image.Resampling.NEAREST))
    if not small.any() and mask.any():
        row, column = (int(places.mean()) for places in np.nonzero(mask))
        small[row * size[1] // mask.shape[0], column * size[0] // mask.shape[1]] = True
    return small
