"""Tell what of a radiograph is the body, and what black corners, collimated borders and markers; nothing is learnt."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from loligo.data import lungs
from loligo.data.preprocessing import resized
from loligo.io.regions import Hot

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

SIDE = 128
"""Pixels a side that images are shrunk to."""
DARK = 0.1
"""Grey, as a part of the bright end of the image, below which what reaches the border is air."""
FLAT = 0.004
"""Range of grey within 3 x 3 pixels below which what reaches the border is a collimated or padded one, of any grey."""
OPENED = 2
"""Pixels by which thin bridges, such as to a marker, are cut."""
LEAST, ONE = 0.15, 0.8
"""Part of the image that a body takes at least, and part of all that is no background: else it is none, or many."""
NEAR = 3
"""Pixels beyond the outline that still count as the body."""


class Place(NamedTuple):
    """What a place of an image lies in, as far as it can be told; None where it cannot."""

    body: bool | None
    lungs: bool | None
    """Air-filled lung; opaque lung is not found."""


def place(image: Floats, at: tuple[float, float]) -> Place:
    """Return what a place (row, column), in parts of the sides of an image (H, W) in [0, 1], lies in."""
    small = resized(image[None], (SIDE, SIDE))[0]
    body, both = segment(small), lungs.segment(small)
    halves = both[:, : SIDE // 2].any() and both[:, SIDE // 2 :].any()
    row, column = (min(SIDE - 1, int(part * SIDE)) for part in at)
    near = None if body is None else ndimage.binary_dilation(body, iterations=NEAR)
    return Place(
        body=None if near is None else bool(near[row, column]),
        lungs=bool(both[row, column]) if halves else None,
    )


def remark(image: Floats, hot: Hot) -> str:
    """Say in a few words what a reader of the heat over an image (H, W) must know first; mostly nothing."""
    if hot.widespread:
        return f"{hot.fraction:.0%} of the image is that hot: nothing is outlined"
    outside = hot.peak > 0 and place(image, hot.at).body is False
    return "the hottest place lies outside of the body" if outside else ""


def segment(image: Floats) -> Bools | None:
    """Return where the body is in an image (H, W) of some `SIDE` pixels in [0, 1]: bool, or None if it is not found."""
    smooth = ndimage.gaussian_filter(image, 1)
    span = ndimage.maximum_filter(image, 3) - ndimage.minimum_filter(image, 3)
    dark = smooth < DARK * np.percentile(image, 98)
    labels, _ = ndimage.label(dark | (span < FLAT))
    border = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    rest = ndimage.binary_opening(np.pad(~np.isin(labels, border[border > 0]), OPENED, "edge"), iterations=OPENED)
    parts, count = ndimage.label(rest[OPENED:-OPENED, OPENED:-OPENED])
    areas = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    if not count or areas.max() < max(LEAST * image.size, ONE * areas.sum()):
        return None
    body: Bools = ndimage.binary_fill_holes(parts == 1 + int(areas.argmax()))
    return body
