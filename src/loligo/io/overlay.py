"""Blend a heat map over an image: arrays in, arrays out."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

OPACITY = 0.75
"""Of the hottest colour over the image."""
TYPICAL = 1 / 3
"""Part of the scale that the peak of a typical normal image reaches: what is no hotter stays uncoloured."""


def overlay(grey: npt.NDArray[np.uint8], heat: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.uint8]:
    """Blend heat (h, w), hottest at 1, over (h, w) uint8, more opaque the further beyond `TYPICAL`: (h, w, 3) uint8."""
    from matplotlib import colormaps

    heat = ((heat - TYPICAL) / (1 - TYPICAL)).clip(0, 1)
    colour = colormaps["inferno"](0.3 + 0.7 * heat)[..., :3]
    alpha = OPACITY * np.sqrt(heat[..., None])  # a little hotter than normal is to be seen
    blended: npt.NDArray[np.uint8] = np.rint(255 * alpha * colour + (1 - alpha) * grey[..., None]).astype(np.uint8)
    return blended


def levels(pixels: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.uint8]:
    """Round values, those beyond [0, 1] to its ends, to 8 bit: uint8 of the same shape."""
    return np.asarray(np.rint(pixels.clip(0, 1) * 255).astype(np.uint8))
