"""Insert synthetic anomalies with known masks into normal images, to learn from or to test on.

| kind | what | paper |
|---|---|---|
| ``cutpaste`` | a rectangle from elsewhere | CutPaste, Li et al., CVPR 2021, 2104.04015 |
| ``cutpaste_scar`` | a thin one, turned | the same |
| ``perlin`` | a texture where Perlin noise is high | DRAEM, Zavrtanik et al., ICCV 2021, 2108.07610 |
| ``nsa`` | a resized rectangle from elsewhere, blended by its gradients | NSA, Schlüter et al., ECCV 2022, 2109.15222 |
| ``fpi`` | a rectangle, interpolated with the same place of another image | FPI, Tan et al., 2020, 2011.04197 |
| ``pii`` | the same of gradients | PII, Tan et al., MICCAI 2021, 2107.02622 |
| ``anatpaste`` | an ellipse or rectangle with soft edges, in the lungs | AnatPaste, Sato et al., 2023, 2205.04282 |

Sizes are the papers', as parts of the image's side where they count pixels of 256. What the papers take at random is
taken at random, uniformly unless the name of a constant says otherwise. One difference holds for all: an anomaly that
can hardly be seen, such as black on black or lung on lung, is sampled again. NSA's authors insert up to three or four
patches in an image of MVTec; here it is one, resized by a factor that is uniform (theirs is normal and cut off),
wherever it falls (theirs overlaps the body).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from loligo.data import lungs, poisson
from loligo.data.preprocessing import resized

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
Box = tuple[slice, slice, slice]
Patch = tuple[Box, Floats, Bools]
"""What becomes of an image (C, H, W): a box in it, the box's new content (C, h, w), and where (h, w) that is meant."""

VISIBLE = 1 / 255
"""A pixel is changed where some channel differs by this much, a grey level of 8 bit."""
CHANGED = 0.5
"""Part of a region that must be changed; where it is not, another is tried."""
PLAIN = 0.04
"""Mean change over a region, as a part of the image's contrast (its 1st to 99th percentile), that a reader sees; where
it is less, another is tried."""
TRIES = 20
"""Regions that are tried; where all are too faint, the image stays as it is."""
SMALLEST = 8
"""Least side of an image in pixels."""

PATCH_AREA, PATCH_ASPECT = (0.02, 0.15), (0.3, 1 / 0.3)  # part of the image; height by width, uniform in its logarithm
TONE = 0.1  # by how much a patch's brightness and contrast change at most
SCAR_WIDTH, SCAR_LENGTH, SCAR_TURN = (2, 16), (10, 25), 45  # pixels of 256, degrees
PERLIN_CELLS, PERLIN_LEVEL = 5, 0.5  # up to 2**5 cells a side; noise above it, of some +-1, is anomalous
OPACITY = (0.2, 1.0)  # of a texture
NSA_SIDE, NSA_SHAPE, NSA_SCALE = (0.06, 0.8), 2.0, 0.1  # of a patch by the image's: the least and a gamma
NSA_RESIZE = (0.7, 1.3)
FPI_SIDE, FPI_SHARE = (0.1, 0.4), (0.05, 0.95)  # of a patch by the image's; of the other image
ANAT_OPACITY, ANAT_BLUR, ANAT_MARGIN = (150 / 255, 1.0), (0, 15), 10  # blur and margin in pixels of 256
ANAT_LEAST = 0.05  # opacity where a soft edge ends

_UNIT = 256  # pixels a side of the images that the papers count pixels of


def insert(image: Floats, kind: str, rng: np.random.Generator, donor: Floats | None = None) -> tuple[Floats, Bools]:
    """Return a changed copy of an image (C, H, W) or (H, W) float32 in [0, 1], and the mask (H, W) of the change.

    ``donor`` is another normal image of the same shape, which the patch is taken from; by default that is the image
    itself. Outside the mask nothing changes. The mask is where a pixel changed by `VISIBLE` or more, with small gaps
    closed; smaller changes are taken back. Over the region the image changes by `PLAIN` of its contrast in the mean;
    where no try does, as in an image of one grey, the mask is empty. The same generator state gives the same bytes.

    Raises ValueError for an unknown kind, a side below `SMALLEST`, a donor of another shape, and for a kind of
    `WITH_DONOR` without one.
    """
    check(image, kind, donor, KINDS, (3, 2))
    if donor is None and kind in WITH_DONOR:
        raise ValueError(f"{kind} interpolates with a second image: give a donor")
    x = image.reshape(-1, *image.shape[-2:])
    other = x if donor is None else donor.reshape(x.shape)
    after, mask = x.copy(), np.zeros(x.shape[1:], bool)
    low, high = np.percentile(x, (1, 99))
    least = max(VISIBLE, PLAIN * (high - low))
    for _ in range(TRIES):
        box, patch, inside = _KINDS[kind](x, other, rng)
        patch = np.clip(patch, 0, 1)
        seen, fraction, change = visible(x[box], patch, inside)
        if fraction >= CHANGED and change >= least:
            np.copyto(after[box], patch, where=seen)
            mask[box[1:]] = seen
            break
    return after.reshape(image.shape), mask


def check(image: Floats, kind: str, donor: Floats | None, kinds: Sequence[str], dimensions: Sequence[int]) -> None:
    """Raise ValueError for an unknown kind, an image of other dimensions or too small, or a donor of another shape."""
    if kind not in kinds:
        raise ValueError(f"kind is {kind!r}; allowed: {', '.join(kinds)}")
    if image.ndim not in dimensions or min(image.shape[-2:]) < SMALLEST:
        allowed = " or ".join({3: "(C, H, W)", 2: "(H, W)"}[n] for n in dimensions)
        raise ValueError(f"image has shape {image.shape}; {allowed} of {SMALLEST} pixels a side is the least")
    if donor is not None and donor.shape != image.shape:
        raise ValueError(f"donor has shape {donor.shape}, the image {image.shape}; resize it")


def visible(before: Floats, patch: Floats, inside: Bools) -> tuple[Bools, float, float]:
    """Return where a change (C, h, w) is seen, what part of ``inside`` that is, and how large it is in the mean."""
    step = np.abs(patch - before).max(axis=0)
    seen = inside & (step >= VISIBLE)
    size = max(1, int(inside.sum()))
    return _closed(seen) & inside, float(seen.sum()) / size, float(step[inside].sum()) / size


def _closed(mask: Bools) -> Bools:
    """Close gaps (H, W) of a pixel or two: grow by one pixel all around, then shrink."""
    mask = np.pad(mask, 2)
    for join in (np.logical_or, np.logical_and):
        mask = join(join(mask[:-2], mask[1:-1]), mask[2:])
        mask = join(join(mask[:, :-2], mask[:, 1:-1]), mask[:, 2:])
    return mask


def _cutpaste(x: Floats, donor: Floats, rng: np.random.Generator) -> Patch:
    """Paste a rectangle, its tone changed a little."""
    shape = _patch_shape(x, rng)
    return _box(x, shape, rng), _jittered(donor[_box(x, shape, rng)], rng), np.ones(shape, bool)


def _cutpaste_scar(x: Floats, donor: Floats, rng: np.random.Generator) -> Patch:
    """Paste a thin rectangle, turned, its tone changed a little."""
    unit = min(x.shape[1:]) / _UNIT
    width, length = max(2.0, rng.uniform(*SCAR_WIDTH) * unit), max(4.0, rng.uniform(*SCAR_LENGTH) * unit)
    turn = math.radians(rng.uniform(-SCAR_TURN, SCAR_TURN))
    cos, sin = math.cos(turn), math.sin(turn)
    shape = (math.ceil(length * cos + width * abs(sin)), math.ceil(length * abs(sin) + width * cos))
    shape = (min(shape[0], x.shape[1]), min(shape[1], x.shape[2]))
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    down, right = rows - (shape[0] - 1) / 2, columns - (shape[1] - 1) / 2
    along, across = down * cos + right * sin, right * cos - down * sin  # in the upright scar
    upright = (max(3, round(length)), max(3, round(width)))
    source = _jittered(donor[_box(x, upright, rng)], rng)
    places = [along + (upright[0] - 1) / 2, across + (upright[1] - 1) / 2]
    patch = np.stack([ndimage.map_coordinates(channel, places, order=1, mode="nearest") for channel in source])
    return _box(x, shape, rng), patch, (np.abs(along) <= length / 2) & (np.abs(across) <= width / 2)


def _perlin(x: Floats, donor: Floats, rng: np.random.Generator) -> Patch:
    """Lay a texture over the image where Perlin noise is high.

    DRAEM takes textures from natural images and changes them; ours are the donor's tiles in another order, with
    changed gamma, mirrored, and as often as not turned to their negative.
    """
    noise = perlin_noise((x.shape[1], x.shape[2]), rng)
    opacity = np.float32(rng.uniform(*OPACITY))
    whole = (slice(None), slice(None), slice(None))
    return whole, x + opacity * (_texture(donor, rng) - x), noise > PERLIN_LEVEL


def perlin_noise(shape: tuple[int, int], rng: np.random.Generator) -> Floats:
    """Sample Perlin's gradient noise (H, W) float32, 0 in the mean and from -1 to 1 about; cells are of random size."""
    cells = [2.0 ** int(power) for power in rng.integers(0, PERLIN_CELLS + 1, 2)]
    turn, shift = rng.uniform(-np.pi / 2, np.pi / 2), rng.uniform(0, 1, 2).tolist()
    rows, columns = ((np.arange(n, dtype=np.float32) / n - 0.5)[:, None] for n in shape)
    cos, sin = math.cos(turn), math.sin(turn)
    y = (rows * cos + columns.T * sin) * cells[0] + shift[0]
    x = (columns.T * cos - rows * sin) * cells[1] + shift[1]
    top, left = int(y.min() // 1), int(x.min() // 1)
    iy, ix = (np.floor(t).astype(np.int32) for t in (y, x))
    fy, fx = y - iy.astype(np.float32), x - ix.astype(np.float32)
    wide = int(x.max() // 1) - left + 2
    angle = rng.uniform(0, 2 * np.pi, (int(y.max() // 1) - top + 2) * wide).astype(np.float32)
    down, right = np.sin(angle), np.cos(angle)
    near = (iy - top) * wide + (ix - left)

    def corner(dy: int, dx: int) -> Floats:
        at = near + (dy * wide + dx)
        value: Floats = down.take(at) * (fy - dy) + right.take(at) * (fx - dx)
        return value

    along = _fade(fx)
    (a, b), (c, d) = ((corner(dy, 0), corner(dy, 1)) for dy in (0, 1))
    upper, lower = a + along * (b - a), c + along * (d - c)
    noise: Floats = math.sqrt(2) * (upper + _fade(fy) * (lower - upper))
    return noise


def _fade(t: Floats) -> Floats:
    """Go from 0 to 1 with no slope and no bend at the ends."""
    return t * t * t * (t * (t * 6 - 15) + 10)


def _texture(donor: Floats, rng: np.random.Generator) -> Floats:
    """Return a texture (C, H, W) of an image."""
    rows, columns = (np.array_split(np.arange(n), int(rng.integers(3, 9))) for n in donor.shape[1:])
    order = [np.concatenate([parts[i][:: rng.choice((-1, 1))] for i in rng.permutation(len(parts))])
             for parts in (rows, columns)]  # fmt: skip
    texture = donor[:, order[0]][:, :, order[1]] ** np.float32(rng.uniform(0.5, 2))
    return 1 - texture if rng.random() < 0.5 else texture


def _nsa(x: Floats, donor: Floats, rng: np.random.Generator) -> Patch:
    """Blend a resized rectangle into another place by its gradients or, as often, by the stronger of both."""
    sides = np.clip(NSA_SIDE[0] + rng.gamma(NSA_SHAPE, NSA_SCALE, 2), *NSA_SIDE) * x.shape[1:]
    shape = (max(4, round(sides[0])), max(4, round(sides[1])))
    zoom = rng.uniform(*NSA_RESIZE)
    taken = (min(x.shape[1], max(4, round(shape[0] / zoom))), min(x.shape[2], max(4, round(shape[1] / zoom))))
    patch = resized(donor[_box(x, taken, rng)], shape)
    return _blended(x, _box(x, shape, rng), poisson.gradients(patch), mixed=rng.random() < 0.5)


def _blended(x: Floats, box: Box, guide: poisson.Gradients, mixed: bool) -> Patch:
    """Blend gradients into a box or, ``mixed``, where they are stronger than its own."""
    before = x[box]
    inside = np.zeros(before.shape[1:], bool)
    inside[1:-1, 1:-1] = True
    guide = poisson.stronger(guide, poisson.gradients(before)) if mixed else guide
    return box, poisson.blend(before, guide), inside


def _fpi(x: Floats, donor: Floats, rng: np.random.Generator) -> Patch:
    """Mix a rectangle with the same place of another image."""
    box, fraction = _place(x, rng)
    mixed = x[box] + fraction * (donor[box] - x[box])
    return box, mixed, np.ones(mixed.shape[1:], bool)


def _pii(x: Floats, donor: Floats, rng: np.random.Generator) -> Patch:
    """Take, of the fractions of both images' gradients at the same place, the stronger ones, and blend."""
    box, fraction = _place(x, rng)
    own, other = poisson.gradients((1 - fraction) * x[box]), poisson.gradients(fraction * donor[box])
    return _blended(x, box, poisson.stronger(own, other), mixed=False)


def _place(x: Floats, rng: np.random.Generator) -> tuple[Box, np.float32]:
    """Sample a rectangle, and the fraction of the other image in it."""
    sides = rng.uniform(*FPI_SIDE, 2) * x.shape[1:]
    return _box(x, (max(4, round(sides[0])), max(4, round(sides[1]))), rng), np.float32(rng.uniform(*FPI_SHARE))


def _anatpaste(x: Floats, donor: Floats, rng: np.random.Generator) -> Patch:
    """Paste a soft-edged ellipse or rectangle around a pixel of the lungs, and there alone; anywhere if none is found.

    The fallback is that of the authors' program.
    """
    lung = lungs.segment(x[0])
    lung = lung if lung.any() else np.ones_like(lung)
    centre = np.unravel_index(rng.choice(np.flatnonzero(lung)), lung.shape)
    unit = min(x.shape[1:]) / _UNIT
    shape, blur = _patch_shape(x, rng), max(0.1, rng.uniform(*ANAT_BLUR) * unit)
    patch = _jittered(donor[_box(x, shape, rng)], rng)
    away = [np.abs(np.arange(n) - n // 2) / max(1.0, n / 2 - ANAT_MARGIN * unit) for n in shape]
    high, wide = away[0][:, None], away[1]
    outline = high**2 + wide**2 <= 1 if rng.random() < 0.5 else np.maximum(high, wide) <= 1
    soft = ndimage.gaussian_filter(outline.astype(np.float32), blur, mode="constant") * np.float32(
        rng.uniform(*ANAT_OPACITY)
    )
    start = [int(at) - n // 2 for at, n in zip(centre, shape, strict=True)]
    cut = [slice(max(0, s), min(s + n, limit)) for s, n, limit in zip(start, shape, lung.shape, strict=True)]
    within = tuple(slice(c.start - s, c.stop - s) for c, s in zip(cut, start, strict=True))
    box, soft = (slice(None), cut[0], cut[1]), soft[within]
    inside = lung[box[1:]] & (soft > ANAT_LEAST)
    return box, x[box] + soft * (patch[:, *within] - x[box]), inside


def _patch_shape(x: Floats, rng: np.random.Generator) -> tuple[int, int]:
    """Sample height and width of CutPaste's patch."""
    area = rng.uniform(*PATCH_AREA) * x.shape[1] * x.shape[2]
    aspect = math.exp(rng.uniform(*np.log(PATCH_ASPECT)))
    high, wide = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
    return min(max(2, high), x.shape[1]), min(max(2, wide), x.shape[2])


def _box(x: Floats, shape: tuple[int, int], rng: np.random.Generator) -> Box:
    """Sample where a box of a shape lies in an image."""
    top, left = (int(rng.integers(limit - n + 1)) for limit, n in zip(x.shape[1:], shape, strict=True))
    return slice(None), slice(top, top + shape[0]), slice(left, left + shape[1])


def _jittered(patch: Floats, rng: np.random.Generator) -> Floats:
    """Change brightness and contrast."""
    brightness, contrast = rng.uniform(1 - TONE, 1 + TONE, 2).astype(np.float32)
    mean = patch.mean()
    jittered: Floats = np.clip(((patch - mean) * contrast + mean) * brightness, 0, 1)
    return jittered


_KINDS: dict[str, Callable[[Floats, Floats, np.random.Generator], Patch]] = {
    "cutpaste": _cutpaste,
    "cutpaste_scar": _cutpaste_scar,
    "perlin": _perlin,
    "nsa": _nsa,
    "fpi": _fpi,
    "pii": _pii,
    "anatpaste": _anatpaste,
}
KINDS = tuple(_KINDS)
"""The kinds of anomaly, as their papers name them."""
WITH_DONOR = ("fpi", "pii")
"""Kinds that change nothing without a second image."""
FROM_OTHERS = ("perlin", "nsa", *WITH_DONOR)
"""Kinds that take what they insert from another image in their papers; the others take it from the image itself."""
