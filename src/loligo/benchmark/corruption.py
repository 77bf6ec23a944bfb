"""Corrupt images by noise, blur, contrast, rotation and JPEG, in five severities, the same by the same seed.

Images are corrupted as the network sees them, at its size. The five severities are steps of one parameter (Hendrycks &
Dietterich 2019 do so for photographs; the steps here are our own, mild enough for radiographs to stay readable).
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

Floats = npt.NDArray[np.float32]

STEPS: dict[str, tuple[float, ...]] = {
    "noise": (0.02, 0.04, 0.06, 0.09, 0.13),  # standard deviation, of white
    "blur": (0.004, 0.008, 0.012, 0.018, 0.026),  # Gaussian sigma, of the image's side
    "contrast": (0.85, 0.7, 0.55, 0.4, 0.25),  # factor about the image's mean
    "rotation": (2, 4, 7, 11, 16),  # degrees, either way
    "jpeg": (70, 45, 25, 15, 8),  # quality
}
SEVERITIES = (1, 2, 3, 4, 5)


def corrupt(images: Floats, kind: str, severity: int, indices: npt.ArrayLike, seed: int = 0) -> Floats:
    """Return images (N, H, W) float32 in [0, 1] corrupted by ``kind``, a key of `STEPS`, at a severity of 1 to 5.

    ``indices`` (N,) number the images in their data set: with ``seed`` they decide the noise and the side that an image
    is turned to, whatever the batch. Raises ValueError for another kind or severity.
    """
    if kind not in STEPS or severity not in SEVERITIES:
        raise ValueError(f"corruption is {kind!r}, {severity!r}; allowed: {', '.join(STEPS)} and severities 1 to 5")
    step, place = STEPS[kind][severity - 1], list(STEPS).index(kind)
    randoms = (np.random.default_rng([seed, place, int(i)]) for i in np.asarray(indices))
    corrupted = [_KINDS[kind](image, step, random) for image, random in zip(images, randoms, strict=True)]
    return np.clip(np.stack(corrupted), 0, 1).astype(np.float32)


def _noise(image: Floats, deviation: float, random: np.random.Generator) -> Floats:
    return image + random.normal(0, deviation, image.shape).astype(np.float32)


def _blur(image: Floats, sigma: float, random: np.random.Generator) -> Floats:
    blurred: Floats = ndimage.gaussian_filter(image, sigma * image.shape[0], mode="nearest")
    return blurred


def _contrast(image: Floats, factor: float, random: np.random.Generator) -> Floats:
    mean = image.mean()
    faded: Floats = mean + factor * (image - mean)
    return faded


def _rotation(image: Floats, degrees: float, random: np.random.Generator) -> Floats:
    turned: Floats = ndimage.rotate(image, degrees * random.choice((-1, 1)), reshape=False, order=1)
    return turned


def _jpeg(image: Floats, quality: float, random: np.random.Generator) -> Floats:
    stream = io.BytesIO()
    Image.fromarray(np.uint8(np.rint(image * 255))).save(stream, "JPEG", quality=int(quality))
    return np.asarray(Image.open(stream), dtype=np.float32) / np.float32(255)


_KINDS: dict[str, Callable[[Floats, float, np.random.Generator], Floats]] = {
    "noise": _noise,
    "blur": _blur,
    "contrast": _contrast,
    "rotation": _rotation,
    "jpeg": _jpeg,
}
