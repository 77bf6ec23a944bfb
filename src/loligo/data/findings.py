"""Insert simulated findings with known masks into normal images, to teach a detector what a finding looks like.

``RADIOGRAPHIC`` ones imitate the signs of a chest radiograph (`loligo.data.radiographic`); ``STRUCTURAL`` ones are what
may be wrong with any image (`loligo.data.structural`). They imitate signs, not diseases: for research alone.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from loligo.data import radiographic, structural, synthetic
from loligo.data.scene import Anatomy, Bools, Scene, anatomy
from loligo.data.shapes import Floats

__all__ = ["FROM_OTHERS", "KINDS", "RADIOGRAPHIC", "STRUCTURAL", "Anatomy", "anatomy", "insert", "taught"]

RADIOGRAPHIC: tuple[str, ...] = tuple(radiographic.KINDS)
"""Findings of chest radiographs; placed in the foreground where no lungs are found."""
STRUCTURAL: tuple[str, ...] = tuple(structural.KINDS)
"""Changes of structure of any image."""
KINDS = RADIOGRAPHIC + STRUCTURAL
FROM_OTHERS = ("misplaced",)
"""Kinds that may take what they insert from another image."""

PLAIN = 0.03
"""Mean change in the mask, as a part of the image's contrast, that a reader sees; if less, another is sampled."""
LEAST = 0.0004
"""Part of the image that a mask takes at least, and four pixels."""
DENSE = 1 / 32
"""Side of a square, as a part of the image's, of which half is changed: its middle belongs to the mask."""
TRIES = 10
"""Findings that are tried; where all are too faint, the image stays as it is."""


def insert(
    image: Floats, kind: str, rng: np.random.Generator, anatomy: Anatomy | None = None, donor: Floats | None = None
) -> tuple[Floats, Bools]:
    """Return a changed copy of an image (H, W) float32 in [0, 1], and the mask (H, W) of where it changed.

    ``anatomy`` is that of the image, found here by default. ``donor`` is another normal image of the same shape, for
    what is ``misplaced``; by default that is the image itself. Outside the mask nothing changes: it is where a pixel
    changed by `synthetic.VISIBLE` or more, with small gaps closed; smaller changes are taken back. Where no try can be
    seen, as in an image of one grey, the mask is empty. The same generator state gives the same bytes.

    Raises ValueError for an unknown kind, an image that is not (H, W) or has a side below `synthetic.SMALLEST`, and a
    donor of another shape.
    """
    synthetic.check(image, kind, donor, KINDS, (2,))
    scene = Scene(image, anatomy_of(image) if anatomy is None else anatomy, image if donor is None else donor)
    least, everywhere = max(synthetic.VISIBLE, PLAIN * scene.contrast), np.ones(image.shape, bool)
    for _ in range(TRIES):
        after = np.clip(_CHANGES[kind](scene, rng), 0, 1)
        mask, fraction, change = synthetic.visible(image[None], after[None], everywhere)
        if fraction >= max(4 / image.size, LEAST) and change >= least * fraction:
            mask |= ndimage.uniform_filter(mask.astype(np.float32), round(DENSE * min(image.shape)) | 1) > 0.5
            return np.where(mask, after, image), mask
    return image.copy(), np.zeros(image.shape, bool)


def taught(anatomy: Anatomy) -> tuple[str, ...]:
    """Return the kinds that a detector learns from: all but devices where two lungs were found, else `STRUCTURAL`."""
    return STRUCTURAL if anatomy.lungs is None else tuple(kind for kind in KINDS if kind != "device")


anatomy_of = anatomy
_CHANGES = radiographic.KINDS | structural.KINDS
