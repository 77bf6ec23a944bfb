"""Find the lungs in a frontal chest radiograph by thresholds and connected components; nothing is learnt.

After the thresholding that AnatPaste (Sato et al., iScience 2023, 2205.04282) segments lungs with: even out the
contrast, threshold, keep what touches no border and is large. Where the paper takes one threshold by Otsu over the
image, which joins lungs to the air beside the body in most children, each half of the image takes of several the one
that gives it the largest part of plausible shape.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from loligo.data.preprocessing import resized

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

SIDE = 64
"""Pixels a side that images are shrunk to; an outline is as fine as that."""
WINDOW = 0.25
"""Side of the window that contrast is evened out over, as a part of the image's."""
THRESHOLDS = (-0.8, -0.6, -0.4, -0.2, 0.0, 0.2, 0.4)
"""Darker than these is lung, perhaps; in standard deviations of a pixel's surroundings from their mean."""
AREA = (0.02, 0.14)
"""Of one lung, as a part of the image."""
HEIGHT = 0.25
"""Least height of a lung, as a part of the image's."""
LOWEST = 0.65
"""Where the middle of a lung lies at most, from the top: below is gas in the bowel."""
FULLNESS = 0.3
"""Least part of its bounding box that a lung fills."""

_OVERLAP = 2  # columns that each half reaches beyond the middle
_CROSS = ndimage.generate_binary_structure(2, 1)[None]  # (1, 3, 3): planes of a stack do not touch


def segment(image: Floats) -> Bools:
    """Return where the lungs are in an image (H, W) float32, air dark: (H, W) bool, nowhere if none is found."""
    even = _even(resized(image[None], (SIDE, SIDE))[0])
    middle = SIDE // 2
    halves = np.stack([even[:, : middle + _OVERLAP], even[:, : middle - _OVERLAP - 1 : -1]])  # the second is mirrored
    found = np.zeros((SIDE, SIDE), bool)
    for half, lung in zip((found, found[:, ::-1]), _largest(halves), strict=True):
        half[:, : middle + _OVERLAP] |= lung
    if not found.any():
        return np.zeros(image.shape, bool)
    filled = ndimage.binary_closing(np.pad(found, 3), iterations=2)[3:-3, 3:-3]  # vessels at the rim
    lungs: Floats = ndimage.binary_fill_holes(filled).astype(np.float32)
    whole: Bools = resized(lungs[None], (image.shape[0], image.shape[1]))[0] > 0.5
    return whole


def _even(x: Floats) -> Floats:
    """Subtract the mean of each pixel's surroundings and divide by their deviation."""
    x = ndimage.gaussian_filter(x, 1)
    moments = np.stack([x, x * x])
    for _ in range(2):
        moments = ndimage.uniform_filter(moments, (0, *(int(WINDOW * SIDE) | 1,) * 2))
    even: Floats = (x - moments[0]) / np.sqrt(np.maximum(moments[1] - moments[0] ** 2, 1e-4))
    return even


def _largest(halves: Floats) -> Bools:
    """Return in each half (2, H, W), its side of the body on the left, the largest part that may be a lung."""
    dark = halves[:, None] < np.array(THRESHOLDS, np.float32)[:, None, None]  # (2, T, H, W)
    stack = ndimage.binary_opening(dark.reshape(-1, *halves.shape[1:]), _CROSS)
    labels, count = ndimage.label(stack, np.pad(_CROSS, ((1, 1), (0, 0), (0, 0))))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    for edge in (labels[:, 0], labels[:, -1], labels[:, :, 0], labels[:, :, -1]):
        sizes[edge] = 0
    low, high = (part * SIDE * SIDE for part in AREA)
    boxes = ndimage.find_objects(labels)
    lungs = np.zeros(halves.shape, bool)
    for label in sorted(np.flatnonzero((sizes >= low) & (sizes <= high)), key=lambda i: -sizes[i]):
        plane, rows, columns = boxes[label - 1]
        half = plane.start // len(THRESHOLDS)
        tall, wide = rows.stop - rows.start, columns.stop - columns.start
        plausible = tall >= HEIGHT * SIDE and rows.start + rows.stop <= 2 * LOWEST * SIDE
        if plausible and sizes[label] >= FULLNESS * tall * wide and not lungs[half].any():
            lungs[half] = labels[plane.start] == label
    return lungs
