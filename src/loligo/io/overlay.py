"""Blend a heat map over an image: arrays in, arrays out."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

OPACITY = 0.75
"""Of the hottest colour over the image."""


def overlay(grey: npt.NDArray[np.uint8], heat: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.uint8]:
    """Blend heat (h, w) in [0, 1] over (h, w) uint8, the more opaque the hotter: (h, w, 3) uint8."""
    from matplotlib import colormaps

    colour = colormaps["inferno"](0.3 + 0.7 * heat)[..., :3]
    alpha = OPACITY * heat[..., None]
    blended: npt.NDArray[np.uint8] = np.rint(255 * alpha * colour + (1 - alpha) * grey[..., None]).astype(np.uint8)
    return blended


def levels(pixels: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.uint8]:
    """Round values, those beyond [0, 1] to its ends, to 8 bit: uint8 of the same shape."""
    return np.asarray(np.rint(pixels.clip(0, 1) * 255).astype(np.uint8))
