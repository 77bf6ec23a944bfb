"""Change a radiograph as another acquisition would: scanner, exposure, processing, positioning.

`change` mixes several ordinary changes, for training and calibration. `corrupt` makes one change in five severities,
for the robustness of a benchmark (Hendrycks & Dietterich, ICLR 2019, do so for photographs). Both work on images as the
network sees them, at its size, and both call the same small function of each kind. Inversion is none of the kinds: a
file says whether it is inverted.

Every number comes from the generator that is passed in, so the same seed gives the same image in any batch.
"""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Callable, Iterable
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage, special

Floats: TypeAlias = npt.NDArray[np.float32]
Matrix: TypeAlias = npt.NDArray[np.float64]
Bools: TypeAlias = npt.NDArray[np.bool_]

ORDINARY: dict[str, tuple[float, float]] = {
    "rotation": (1, 6),
    "zoom": (1.01, 1.1),
    "shift": (0.005, 0.05),
    "field": (0.04, 0.2),
    "contrast": (0.7, 1.3),
    "gamma": (1.05, 1.5),
    "blur": (0.003, 0.005),
    "sharpen": (0.15, 0.8),
    "resample": (1.1, 2),
    "noise": (0.003, 0.02),
    "collimation": (0.01, 0.06),
    "jpeg": (45, 95),
}
"""Range of each kind's amount that is ordinary, from least to most, in the order in which `change` applies the kinds.

None was chosen on a test set: the ends are the literature's, brought in where normal radiographs of a training set, so
changed, no longer looked to us like ones that are accepted for reading. By kind:

- rotation, degrees, either way. Our judgement: a patient who leans. TorchIO's `RandomAffine` has 10 by default.
- zoom, factor or its inverse. MONAI's `RandZoom` and TorchIO's `RandomAffine` have 0.9 to 1.1.
- shift, part of the height, any direction. The augmentation of SQUID (Xiang et al., CVPR 2023) has 0.05 an axis.
- field, largest logarithm of a factor. Our judgement: the heel effect and scatter change displayed values by tenths.
- contrast, factor about the image's mean. nnU-Net's code (Isensee et al., Nature Methods 2021) has 0.75 to 1.25; a bit
  more is our judgement. From 1.5, lungs go black and the spine white.
- gamma, exponent or its inverse. nnU-Net has 0.7 to 1.5.
- blur, Gaussian sigma as a part of the height. nnU-Net has 0.5 to 1 pixels, which is this of about 200 a side.
- sharpen, gain of an unsharp mask. Our judgement, after the edge enhancement of digital radiography.
- resample, factor by which the resolution falls. nnU-Net has 1 to 2.
- noise, standard deviation at a value of 0.5. nnU-Net's code adds up to 0.1 deviations of the image, TorchIO's
  `RandomNoise` up to 0.25: that is 0.024 and 0.06 of a chest radiograph. From 0.04, soft tissue is hard to read.
- collimation, largest width of the border as a part of the side. Our judgement.
- jpeg, quality. 45 is a ratio of 12 at 224 pixels; 10 is accepted of radiographs (Loose et al., RöFo 2009).
"""

KINDS: tuple[str, ...] = tuple(ORDINARY)
"""The kinds of change, in the order in which `change` applies them."""

STEPS: dict[str, tuple[float, ...]] = {
    "noise": (0.02, 0.04, 0.06, 0.09, 0.13),
    "blur": (0.004, 0.008, 0.012, 0.018, 0.026),
    "contrast": (0.85, 0.7, 0.55, 0.4, 0.25),
    "rotation": (2, 4, 7, 11, 16),
    "jpeg": (70, 45, 25, 15, 8),
    "zoom": (1.04, 1.08, 1.12, 1.2, 1.3),
    "shift": (0.02, 0.04, 0.06, 0.1, 0.15),
    "field": (0.08, 0.15, 0.25, 0.4, 0.6),
    "gamma": (1.2, 1.4, 1.6, 2, 2.6),
    "sharpen": (0.3, 0.6, 0.9, 1.5, 2.5),
    "resample": (1.3, 1.7, 2.2, 3, 4),
    "collimation": (0.03, 0.05, 0.07, 0.11, 0.16),
}
"""Each kind's amount by severity: 1 and 2 are ordinary, 3 is about the end of it, 4 and 5 are beyond. The steps of the
first five are those of the committed results; of noise and blur they are harsh, and only 1 is ordinary. A kind's place
is part of its seed, so that new ones come last."""

SEVERITIES = (1, 2, 3, 4, 5)
SHARPENED = 0.01
"""Sigma of the unsharp mask, of the image's side."""


def change(
    image: Floats,
    rng: np.random.Generator,
    kinds: Iterable[str] = KINDS,
    count: tuple[int, int] = (1, 4),
    mask: Bools | None = None,
) -> tuple[Floats, Bools | None]:
    """Change an image (H, W) float32 in [0, 1] by some of ``kinds``, by ordinary amounts; return it and the mask.

    How many is sampled from ``count``, both ends included; all, where ``kinds`` are fewer. Amounts are sampled from
    `ORDINARY`, evenly by their logarithm, so that small ones are more frequent. What comes into view by rotation, zoom
    and shift has the value of the nearest pixel of the edge: a scanner would show more of the body, or more of a
    border that is there already.

    A mask (H, W) bool is moved with the image, by the nearest pixel. It is false where it came into view and where a
    border hides the image, so it may be left empty. Raises ValueError for unknown kinds and for shapes that differ.
    """
    wanted, (least, most) = set(kinds), count
    if unknown := sorted(wanted - set(KINDS)):
        raise ValueError(f"kinds of change are {', '.join(unknown)}; allowed: {', '.join(KINDS)}")
    if image.ndim != 2 or (mask is not None and mask.shape != image.shape):
        raise ValueError(f"image is {image.shape}, mask {None if mask is None else mask.shape}; both are (H, W)")
    if not 0 <= least <= most:
        raise ValueError(f"count is {count!r}; allowed: two numbers from 0, the lesser first")
    allowed = [kind for kind in KINDS if kind in wanted]
    number = min(int(rng.integers(least, most + 1)), len(allowed))
    places = sorted(rng.choice(len(allowed), number, replace=False)) if number else []
    amounts = {allowed[i]: _ordinary(allowed[i], rng) for i in places}
    moved = [_GEOMETRY[kind](amount, rng) for kind, amount in amounts.items() if kind in _GEOMETRY]
    if moved:
        matrix = functools.reduce(np.matmul, moved)
        image = _warp(image, matrix)
        mask = None if mask is None else _warp(mask.astype(np.float32), matrix, order=0, mode="constant") > 0
    for kind, amount in amounts.items():
        if kind == "collimation":
            image, hidden = _collimation(image, amount, rng)
            mask = None if mask is None else mask & ~hidden
        elif kind not in _GEOMETRY:
            image = np.clip(_CHANGES[kind](image, amount, rng), 0, 1)
    return image.astype(np.float32), mask


def corrupt(images: Floats, kind: str, severity: int, indices: npt.ArrayLike, seed: int = 0) -> Floats:
    """Return images (N, H, W) float32 in [0, 1] corrupted by ``kind``, one of `KINDS`, at a severity of 1 to 5.

    ``indices`` (N,) number the images in their data set: with ``seed`` they decide the noise, the side that an image is
    turned to and the like, whatever the batch and the severity. Noise is white here, and what comes into view by
    rotation is black, as in the results that are committed. Raises ValueError for another kind or severity.
    """
    if kind not in STEPS or severity not in SEVERITIES:
        raise ValueError(f"corruption is {kind!r}, {severity!r}; allowed: {', '.join(STEPS)} and severities 1 to 5")
    amount, place = STEPS[kind][severity - 1], list(STEPS).index(kind)
    rngs = (np.random.default_rng([seed, place, int(i)]) for i in np.asarray(indices))
    corrupted = [_corrupted(image, kind, amount, rng) for image, rng in zip(images, rngs, strict=True)]
    return np.clip(np.stack(corrupted), 0, 1).astype(np.float32)


def _corrupted(image: Floats, kind: str, amount: float, rng: np.random.Generator) -> Floats:
    if kind in _GEOMETRY:
        return _warp(image, _GEOMETRY[kind](amount, rng), mode="constant" if kind == "rotation" else "nearest")
    return (_white if kind == "noise" else _CHANGES[kind])(image, amount, rng)


def _ordinary(kind: str, rng: np.random.Generator) -> float:
    low, high = map(math.log, ORDINARY[kind])
    return math.exp(rng.uniform(low, high))


def _either(factor: float, rng: np.random.Generator) -> float:
    """Return a factor or its inverse."""
    return float(factor ** float(rng.choice((-1, 1))))


def _rotation(degrees: float, rng: np.random.Generator) -> Matrix:
    """Return the matrix (3, 3) from where a pixel is to where it was, in heights from the centre; so do the next."""
    angle = degrees * rng.choice((-1, 1))
    c, s = special.cosdg(angle), special.sindg(angle)
    return np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])


def _zoom(factor: float, rng: np.random.Generator) -> Matrix:
    scale = _either(factor, rng)
    return np.diag([scale, scale, 1])


def _shift(length: float, rng: np.random.Generator) -> Matrix:
    angle = rng.uniform(0, 2 * math.pi)
    return np.array([[1, 0, length * math.sin(angle)], [0, 1, length * math.cos(angle)], [0, 0, 1]])


def _warp(
    image: Floats, matrix: Matrix, order: Literal[0, 1] = 1, mode: Literal["nearest", "constant"] = "nearest"
) -> Floats:
    turn, centre = matrix[:2, :2], (np.array(image.shape) - 1) / 2
    offset = centre - turn @ centre + matrix[:2, 2] * image.shape[0]
    warped: Floats = ndimage.affine_transform(image, turn, offset, order=order, mode=mode)
    return warped


def _field(image: Floats, most: float, rng: np.random.Generator) -> Floats:
    """Multiply by exp of a slope (the heel effect) and a bulge (scatter), of random weights and direction."""
    rows, columns = (np.linspace(-1, 1, n, dtype=np.float32) for n in image.shape)
    slope, bulge, angle = rng.uniform(0.3, 1), rng.uniform(-1, 1), rng.uniform(0, 2 * math.pi)
    down = slope * math.sin(angle) * rows + bulge * (rows**2 - 1 / 3)
    right = slope * math.cos(angle) * columns + bulge * (columns**2 - 1 / 3)
    field = np.add.outer(down, right)
    changed: Floats = image * np.exp(field * np.float32(most / np.abs(field).max()))
    return changed


def _contrast(image: Floats, factor: float, rng: np.random.Generator) -> Floats:
    mean = image.mean()
    faded: Floats = mean + factor * (image - mean)
    return faded


def _gamma(image: Floats, exponent: float, rng: np.random.Generator) -> Floats:
    changed: Floats = image ** _either(exponent, rng)
    return changed


def _blur(image: Floats, sigma: float, rng: np.random.Generator) -> Floats:
    blurred: Floats = ndimage.gaussian_filter(image, sigma * image.shape[0], mode="nearest")
    return blurred


def _sharpen(image: Floats, gain: float, rng: np.random.Generator) -> Floats:
    return image + gain * (image - _blur(image, SHARPENED, rng))


def _resample(image: Floats, factor: float, rng: np.random.Generator) -> Floats:
    """Reduce by a triangle as wide as two small pixels, so without aliasing, and enlarge by cubic interpolation."""
    height, width = image.shape
    size = max(1, round(width / factor)), max(1, round(height / factor))
    small = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def _white(image: Floats, deviation: float, rng: np.random.Generator) -> Floats:
    return image + rng.normal(0, deviation, image.shape).astype(np.float32)


def _noise(image: Floats, deviation: float, rng: np.random.Generator) -> Floats:
    """Add noise that is larger where fewer quanta arrived, so where the image is bright, and mildly correlated.

    Its deviation is half as large at 0 and half as large again at 1. Neighbours correlate by up to 0.5, at random: the
    detector's blur and the reduction to the network's size both do so.
    """
    weight = rng.uniform(0, 0.3)
    noise = rng.standard_normal(image.shape, np.float32)
    for axis in (0, 1):
        noise = ndimage.correlate1d(noise, [weight, 1, weight], axis, mode="wrap")
    return image + (noise * (0.5 + image) * (deviation / (1 + 2 * weight**2))).astype(np.float32)


def _collimation(image: Floats, width: float, rng: np.random.Generator) -> tuple[Floats, Bools]:
    """Hide the image under a border on one to four sides, black or dark grey; return also where, (H, W) bool."""
    shape = image.shape
    widths = width * rng.uniform(0.5, 1, 4)
    widths[rng.permutation(4)[rng.integers(1, 5) :]] = 0
    top, bottom, left, right = np.ceil(widths * [shape[0], shape[0], shape[1], shape[1]]).astype(int)
    hidden = np.ones(shape, np.bool_)
    hidden[top : shape[0] - bottom, left : shape[1] - right] = False
    return np.where(hidden, np.float32(rng.uniform(0, 0.3) * rng.integers(2)), image), hidden


def _jpeg(image: Floats, quality: float, rng: np.random.Generator) -> Floats:
    stream = io.BytesIO()
    Image.fromarray(np.uint8(np.rint(image * 255))).save(stream, "JPEG", quality=int(quality))
    return np.asarray(Image.open(stream), dtype=np.float32) / np.float32(255)


_GEOMETRY: dict[str, Callable[[float, np.random.Generator], Matrix]] = {
    "rotation": _rotation,
    "zoom": _zoom,
    "shift": _shift,
}

_CHANGES: dict[str, Callable[[Floats, float, np.random.Generator], Floats]] = {
    "field": _field,
    "contrast": _contrast,
    "gamma": _gamma,
    "blur": _blur,
    "sharpen": _sharpen,
    "resample": _resample,
    "noise": _noise,
    "collimation": lambda image, width, rng: _collimation(image, width, rng)[0],
    "jpeg": _jpeg,
}
