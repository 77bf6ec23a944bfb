"""Random fields, outlines, strokes and warps that simulated findings are made of.

Lengths and places are in parts of the image's shorter side, places as (row, column), so that nothing depends on the
number of pixels. Weights are float32 in [0, 1] and exactly 0 away from what they outline.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import PIL.Image
import PIL.ImageDraw
from scipy import ndimage

Floats = npt.NDArray[np.float32]
Points = npt.NDArray[np.float64]
"""Places (n, 2)."""

FINE = 2
"""Pixels of the canvas per pixel of the image, for smooth strokes."""


class Stroke(NamedTuple):
    """A line through points or, of width 0, the polygon that they enclose."""

    points: Points
    width: float


def upsampled(grid: Floats, shape: tuple[int, int]) -> Floats:
    """Return a coarse grid (h, w) at ``shape``, smooth (bicubic)."""
    large = PIL.Image.fromarray(grid.astype(np.float32)).resize(shape[::-1], PIL.Image.Resampling.BICUBIC)
    found: Floats = np.asarray(large)
    return found


def noise(shape: tuple[int, int], cells: float, rng: np.random.Generator, octaves: int = 1) -> Floats:
    """Return smooth noise (H, W), mean 0, deviation 1, of ``cells`` bumps a side; octaves halve in height and width."""
    side, total = min(shape), np.zeros(shape, np.float32)
    for octave in range(octaves):
        count = [max(2, min(n, round(cells * 2**octave * n / side))) for n in shape]
        total += upsampled(rng.standard_normal(count, np.float32), shape) * np.float32(0.5**octave)
    total -= total.mean()
    total /= max(float(total.std()), 1e-6)
    return total


def fade(t: npt.NDArray[np.floating[Any]]) -> Floats:
    """Go smoothly from 0, at 0 and below, to 1, at 1 and above."""
    t = np.clip(t, 0, 1).astype(np.float32, copy=False)
    faded: Floats = t * t * (3 - 2 * t)
    return faded


def grid(shape: tuple[int, int]) -> tuple[Floats, Floats]:
    """Return rows (H, 1) and columns (1, W) of the pixels' centres."""
    rows, columns = (((np.arange(n) + 0.5) / min(shape)).astype(np.float32) for n in shape)
    return rows[:, None], columns[None]


def ellipse(shape: tuple[int, int], at: Sequence[float], radii: Sequence[float], turn: float = 0) -> Floats:
    """Return the distance (H, W) from a centre, 1 on an ellipse whose first radius is ``turn`` from downwards."""
    rows, columns = grid(shape)
    down, right = rows - np.float32(at[0]), columns - np.float32(at[1])
    cos, sin = np.float32(math.cos(turn)), np.float32(math.sin(turn))
    along, across = (down * cos + right * sin) / radii[0], (right * cos - down * sin) / radii[1]
    distance: Floats = np.sqrt(along * along + across * across).astype(np.float32)
    return distance


def blob(
    shape: tuple[int, int],
    at: Sequence[float],
    radius: float,
    rng: np.random.Generator,
    *,
    edge: float,
    rough: Floats | None = None,
) -> Floats:
    """Return the weight (H, W) of an oval spot, soft over ``edge`` of a radius; ``rough`` (H, W) shifts its outline."""
    stretch = rng.uniform(0.75, 1.33)
    distance = ellipse(shape, at, (radius * stretch, radius / stretch), rng.uniform(0, math.pi))
    if rough is not None:
        distance -= rough
    return fade((1 - distance) / np.float32(edge))


def blurred(x: Floats, radius: float) -> Floats:
    """Return an image (H, W) blurred by a triangle of about ``radius`` to each side, a pixel at least."""
    size = max(3, round(radius * min(x.shape)) * 2 - 1)
    once = ndimage.uniform_filter(x, size, mode="nearest")
    twice: Floats = ndimage.uniform_filter(once, size, mode="nearest")
    return twice


def ink(shape: tuple[int, int], strokes: Sequence[Stroke]) -> Floats:
    """Return how much of each pixel (H, W) the strokes cover, each a pixel wide at least."""
    side = min(shape) * FINE
    canvas = PIL.Image.new("L", (shape[1] * FINE, shape[0] * FINE))
    pen = PIL.ImageDraw.Draw(canvas)
    for points, width in strokes:
        path = [(x * side, y * side) for y, x in points.tolist()]
        if width:
            pen.line(path, fill=255, width=max(FINE, round(width * side)), joint="curve")
        else:
            pen.polygon(path, fill=255)
    covered: Floats = np.asarray(canvas.reduce(FINE), np.float32) / np.float32(255)
    return covered


def branches(
    start: npt.ArrayLike, turn: float, length: float, width: float, rng: np.random.Generator, forks: int = 3
) -> list[Stroke]:
    """Return a tree that starts in a direction, radians from downwards, and forks into shorter, thinner branches."""
    bend = turn + rng.normal(0, 0.2)
    middle = np.add(start, np.multiply(length / 2, (math.cos(turn), math.sin(turn))))
    end = middle + np.multiply(length / 2, (math.cos(bend), math.sin(bend)))
    tree = [Stroke(np.array([start, middle, end]), width)]
    if forks:
        for way in (-1, 1):
            tree += branches(end, bend + way * rng.uniform(0.2, 0.8), length * rng.uniform(0.5, 0.9), width * 0.7, rng,
                             forks - 1)  # fmt: skip
    return tree


def curve(ends: Sequence[npt.ArrayLike], bend: float, rng: np.random.Generator, count: int = 24) -> Points:
    """Return points on a smooth curve between two places, that leaves the straight way by about ``bend``."""
    first, last = (np.array(end, float) for end in ends)
    t = np.linspace(0, 1, count)[:, None]
    normal = (last - first)[::-1] * (1, -1) / max(float(np.hypot(*(last - first))), 1e-6)
    once, twice = rng.normal(0, bend, 2)
    points: Points = (
        first + t * (last - first) + normal * (once * np.sin(np.pi * t) + twice / 2 * np.sin(2 * np.pi * t))
    )
    return points


def warped(x: Floats, down: Floats, right: Floats) -> Floats:
    """Return an image (H, W) whose pixels are taken from elsewhere: ``down`` and ``right`` of them, (H, W)."""
    moved = (down != 0) | (right != 0)
    after, side = x.copy(), np.float32(min(x.shape))
    if not moved.any():
        return after
    rows, columns = np.flatnonzero(moved.any(1)), np.flatnonzero(moved.any(0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    y, x_ = (np.arange(b.start, b.stop, dtype=np.float32) for b in box)
    places = np.stack([y[:, None] + down[box] * side, x_[None] + right[box] * side])
    after[box] = ndimage.map_coordinates(x, places, order=1, mode="nearest")
    np.copyto(after, x, where=~moved)
    return after
