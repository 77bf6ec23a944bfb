"""Simulated changes of structure that any image may have, whatever it shows.

Each kind takes a `Scene` and a generator, and returns the changed image (H, W) float32; `findings.insert` finds the
mask. They lie in the foreground. Brightness is relative to the image's contrast, size to its shorter side.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy import ndimage

from loligo.data.scene import Scene
from loligo.data.shapes import Floats, Stroke, blob, blurred, curve, ellipse, fade, grid, ink, noise, upsampled, warped

SIZE = (0.03, 0.22)  # radius of a change, uniform in its logarithm
STRENGTH = (0.12, 0.7)  # change of brightness, part of the contrast, uniform in its logarithm
COARSE = 48  # pixels a side that a hole is filled at


def opacity(scene: Scene, rng: np.random.Generator) -> Floats:
    """Brighten a spot, smooth or ragged: a mass, a calcification, a haemorrhage."""
    weight = _inside(scene) * _spot(scene, rng) * np.float32(_strength(scene, rng))
    return scene.image + weight * _room(scene.range[1] - scene.image, scene)


def lucency(scene: Scene, rng: np.random.Generator) -> Floats:
    """Darken a spot, smooth or ragged: a cyst, a lysis, gas where there should be none."""
    weight = _inside(scene) * _spot(scene, rng) * np.float32(_strength(scene, rng))
    return scene.image - weight * _room(scene.image - scene.range[0], scene)


def missing(scene: Scene, rng: np.random.Generator) -> Floats:
    """Take a part away: what surrounds it continues smoothly over it."""
    weight = _spot(scene, rng, smooth=True)
    every = max(1, min(scene.shape) // COARSE)
    known = (weight[::every, ::every] == 0).astype(np.float32)
    values, filled = scene.image[::every, ::every] * known, np.zeros(known.shape, np.float32)
    done = known > 0
    np.copyto(filled, values, where=done)
    for radius in (1, 2, 4, 8, 16, 32):  # nearer surroundings first
        total = ndimage.uniform_filter(np.stack([values, known]), (0, 2 * radius + 1, 2 * radius + 1), mode="nearest")
        now = ~done & (total[1] > 0.1)
        np.copyto(filled, total[0] / np.maximum(total[1], 1e-3), where=now)
        done |= now
    smooth = upsampled(ndimage.gaussian_filter(filled, 1, mode="nearest"), scene.shape)
    return scene.image + weight * (smooth - scene.image)


def misplaced(scene: Scene, rng: np.random.Generator) -> Floats:
    """Put a part of the image, or of the donor, where it does not belong, with soft edges."""
    at, radius, side = scene.place(rng), _size(rng), min(scene.shape)
    taken = scene.donor if rng.random() < 0.5 else scene.image
    margin = min(1.6 * radius, 0.45)  # of a source that is whole
    source = [min(max(a, margin), n / side - margin) for a, n in zip(scene.place(rng), scene.shape, strict=True)]
    moved = np.roll(taken, [round((a - b) * side) for a, b in zip(at, source, strict=True)], (0, 1))
    return scene.image + _spot(scene, rng, at, radius) * (moved - scene.image)


def mirrored(scene: Scene, rng: np.random.Generator) -> Floats:
    """Flip a part in place, or turn it by a quarter or a half."""
    at, radius, shape = scene.place(rng), _size(rng), scene.shape
    side = min(shape)
    half = max(3, round(radius * side))
    row, column = (min(max(int(a * side), half), n - half - 1) if n > 2 * half else n // 2 for a, n in
                   zip(at, shape, strict=True))  # fmt: skip
    half = min(half, row, column, shape[0] - row - 1, shape[1] - column - 1)
    box = slice(row - half, row + half + 1), slice(column - half, column + half + 1)
    part = scene.image[box]
    turned = (part[:, ::-1], part[::-1], np.rot90(part), np.rot90(part, 2))[int(rng.integers(4))]
    away = np.abs(np.linspace(-1, 1, 2 * half + 1, dtype=np.float32))
    distance = np.hypot(away[:, None], away) if rng.random() < 0.5 else np.maximum(away[:, None], away)
    weight = fade((1 - distance) / np.float32(rng.uniform(0.1, 0.4)))
    after = scene.image.copy()
    after[box] = part + weight * (turned - part)
    return after


def foreign(scene: Scene, rng: np.random.Generator) -> Floats:
    """Lay a line, a curve, a ring or a polygon over the image, as sharp as its own edges."""
    at, size = scene.place(rng), 1.5 * _size(rng)
    turn, width = rng.uniform(0, 2 * math.pi), rng.uniform(0.006, 0.03)
    corners = int(rng.integers(3, 8)) if rng.random() < 0.5 else 32  # a polygon or a ring
    angles = turn + np.sort(rng.uniform(0, 2 * np.pi, corners)) if corners < 32 else np.linspace(0, 2 * np.pi, corners)
    outline = np.add(at, size / 1.5 * np.stack([np.cos(angles), np.sin(angles)], 1) * rng.uniform(0.6, 1, 2))
    way = np.multiply(size, (math.cos(turn), math.sin(turn)))
    kind = int(rng.integers(4))
    if kind < 2:
        strokes = [Stroke(curve([np.subtract(at, way), np.add(at, way)], (0, 0.3 * size)[kind], rng), width)]
    else:
        strokes = [Stroke(np.concatenate([outline, outline[:2]]), (width, 0)[kind - 2])]
    weight = ndimage.gaussian_filter(ink(scene.shape, strokes), _softness(scene), truncate=3)
    lacks = np.maximum(np.float32(scene.range[0] + scene.contrast * rng.uniform(0.6, 1.1)) - scene.image, 0)
    laid: Floats = scene.image + weight * np.float32(rng.uniform(0.3, 1)) * lacks
    return laid


def deformed(scene: Scene, rng: np.random.Generator) -> Floats:
    """Bulge, pinch, twist or shift a part."""
    at, radius = scene.place(rng), 1.3 * _size(rng)
    distance = ellipse(scene.shape, at, (radius, radius))
    weight = fade(1 - distance)
    rows, columns = grid(scene.shape)
    down, right = rows - np.float32(at[0]), columns - np.float32(at[1])
    amount = np.float32(rng.uniform(0.25, 0.75) * rng.choice((-1, 1)))
    kind = rng.random()
    if kind < 0.6:  # towards the centre or away from it
        return warped(scene.image, -amount * weight * down, -amount * weight * right)
    if kind < 0.8:
        return warped(scene.image, 2 * amount * weight * right, -2 * amount * weight * down)
    turn = rng.uniform(0, 2 * math.pi)
    reach = np.float32(0.6 * radius) * amount
    return warped(scene.image, reach * weight * np.float32(math.cos(turn)), reach * weight * np.float32(math.sin(turn)))


def texture(scene: Scene, rng: np.random.Generator) -> Floats:
    """Change the texture of a part: blurred, sharpened, grainy or cloudy."""
    weight, x = _spot(scene, rng, radius=max(0.06, _size(rng))), scene.image
    kind = int(rng.integers(4))
    if kind < 2:
        detail = x - blurred(x, rng.uniform(0.01, 0.04))
        sharper: Floats = x + weight * np.float32((-1, rng.uniform(0.7, 2))[kind]) * detail
        return sharper
    cells = min(scene.shape) / rng.uniform(1.5, 3) if kind == 2 else rng.uniform(20, 60)
    grain = noise(scene.shape, cells, rng)
    return x + weight * grain * np.float32(scene.contrast * rng.uniform(0.02, 0.08))


def _spot(
    scene: Scene,
    rng: np.random.Generator,
    at: tuple[float, float] | None = None,
    radius: float | None = None,
    smooth: bool = False,
) -> Floats:
    """Return the weight (H, W) of a spot in the foreground, smooth or ragged, of a size and at a place sampled here."""
    at, radius = scene.place(rng) if at is None else at, _size(rng) if radius is None else radius
    rough = None
    if not smooth and rng.random() < 0.6:
        rough = np.float32(rng.uniform(0.1, 0.3)) * noise(scene.shape, 1.2 / radius, rng, octaves=3)
    edge = rng.uniform(0.1, 0.4) if smooth else math.exp(rng.uniform(math.log(0.1), 0))
    return blob(scene.shape, at, radius, rng, edge=edge, rough=rough)


def _inside(scene: Scene) -> Floats:
    """Return a weight (H, W): 1 in the foreground, softly 0 outside."""
    return blurred(scene.anatomy.foreground.astype(np.float32), 0.015)


def _size(rng: np.random.Generator) -> float:
    return math.exp(rng.uniform(*np.log(SIZE)))


def _strength(scene: Scene, rng: np.random.Generator) -> float:
    return math.exp(rng.uniform(*np.log(STRENGTH))) * scene.contrast


def _room(left: Floats, scene: Scene) -> Floats:
    """Return how much of a change fits: none at the end of the image's range, all a third of it before."""
    fits: Floats = np.clip(3 * left / max(scene.contrast, 1e-6), 0, 1)
    return fits


def _softness(scene: Scene) -> float:
    """Return the blur of the image's own edges, in pixels: the deviation at which a step has their steepest slope."""
    every = scene.image[:: scene.step]
    slope = float(np.percentile(np.abs(np.diff(every, axis=1)), 99.5))
    most = max(0.4, 0.012 * min(scene.shape))
    return min(max(0.4, 0.5 * scene.contrast / max(slope, 1e-6) / math.sqrt(2 * math.pi)), most)


KINDS: dict[str, Callable[[Scene, np.random.Generator], Floats]] = {
    "opacity": opacity,
    "lucency": lucency,
    "missing": missing,
    "misplaced": misplaced,
    "mirrored": mirrored,
    "foreign": foreign,
    "deformed": deformed,
    "texture": texture,
}
"""Each kind by its name."""
