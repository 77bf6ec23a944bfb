"""Insert the six kinds of synthetic anomaly of the MOOD challenge (Zimmerer et al. 2022), with their masks.

The challenge names the kinds and keeps its code; how large and how strong they are is chosen here, such that most can
be seen. The examples that it hands out to try a program on are easier: a ball of one grey, a third of a brain across.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from loligo.data.brains import Floats, smooth_field

Bools = npt.NDArray[np.bool_]

RADII = (0.05, 0.11)
"""Radius of a region as a part of the brain's longest side: 8 to 18 mm of 165. Participants who rebuild the challenge's
anomalies take 0.05 to 0.10 of a volume's side, which a brain nearly fills."""
BALL = "ball"
"""The kind of the challenge's examples, which is none of `KINDS`."""
BALL_RADIUS = 0.16
"""Radius of such a ball as a part of the brain's longest side, as in the pictures of Marimont & Tarroni's program."""
BALL_GREY = np.float32(0.35)
"""Its grey as a part of white matter: darker than grey matter, as theirs."""
SMALLEST = 2.0
"""Least radius in voxels."""
INSIDE = 0.9
"""Part of a region, before it is cut to the brain, that must lie in it."""
PLAIN = 0.08
"""Mean change within the mask, as a part of white matter, that makes a region worth taking; noise is 0.01 to 0.025."""
TRIES = 20
"""Regions that are tried; the one with the largest change is taken where none reaches `PLAIN`."""
UNEVEN = np.float32(0.2)
"""Deviation of the logarithm of a blob's radius, of which two are allowed."""

_LEAST = 0.05  # of white matter: what is brain stays above 0


@dataclass(frozen=True)
class Region:
    """A ball, or a blob like it, within a box of an anatomy (S, S, S)."""

    box: tuple[slice, slice, slice]
    """Where the box (A, B, C) lies."""
    offset: Floats
    """(3, A, B, C) float32: each voxel's place from the region's centre, in voxels."""
    depth: Floats
    """(A, B, C) float32: 0 in the centre, 1 at the surface."""
    radius: float
    """In voxels, of a ball; a blob's is about that."""
    mask: Bools
    """(A, B, C) bool: what lies in the region and in the brain."""


def insert(anatomy: Floats, kind: str, rng: np.random.Generator) -> tuple[Floats, Bools]:
    """Return a changed copy of an anatomy (S, S, S), white matter near 1, and the mask (S, S, S) bool of the change.

    Outside the mask nothing changes, and brain stays above 0. Raises ``ValueError`` for an unknown kind, and for an
    anatomy without a brain or without room in it.
    """
    if kind not in _CHANGES:
        raise ValueError(f"kind is {kind!r}; allowed: {', '.join(_CHANGES)}")
    best, most = None, -1.0
    for region in _regions(anatomy, kind == BALL, rng):
        before = anatomy[region.box]
        after = np.maximum(_CHANGES[kind](anatomy, region, rng), _LEAST)
        change = float(np.abs(after - before)[region.mask].mean())
        if change > most:
            best, most = (region, after), change
        if change >= PLAIN:
            break
    if best is None:
        raise ValueError(f"no room for an anomaly in {np.count_nonzero(anatomy)} voxels of brain")
    region, after = best
    changed, mask = anatomy.copy(), np.zeros(anatomy.shape, bool)
    changed[region.box][region.mask] = after[region.mask]
    mask[region.box] = region.mask
    return changed, mask


def _regions(anatomy: Floats, ball: bool, rng: np.random.Generator) -> Iterator[Region]:
    """Sample `TRIES` regions that lie almost wholly in the brain; fewer where there is hardly room."""
    brain = anatomy > 0
    places = np.argwhere(brain)
    if not len(places):
        return
    longest = float(np.ptp(places, axis=0).max()) + 1
    found = 0
    for _ in range(20 * TRIES):
        region = _region(brain, places[rng.integers(len(places))], longest, ball, rng)
        if np.count_nonzero(region.mask) >= INSIDE * np.count_nonzero(region.depth < 1):
            yield region
            found += 1
        if found == TRIES:
            return


def _region(
    brain: Bools, centre: npt.NDArray[np.int64], longest: float, ball: bool, rng: np.random.Generator
) -> Region:
    """Sample a ball or, as often, a blob around a voxel; or the ball of the challenge's examples."""
    radius = max(SMALLEST, (BALL_RADIUS if ball else rng.uniform(*RADII)) * longest)
    reach = int(radius * np.exp(2 * UNEVEN)) + 1  # of the largest blob
    blob = not ball and rng.random() < 0.5
    uneven = UNEVEN * smooth_field(2 * reach + 1, 3, rng).clip(-2, 2) if blob else np.float32(0)
    low, high = np.maximum(centre - reach, 0), np.minimum(centre + reach + 1, brain.shape)
    box = _box(low, high)
    offset = np.stack(np.meshgrid(*map(np.arange, low - centre, high - centre), indexing="ij")).astype(np.float32)
    depth = np.linalg.norm(offset, axis=0) / np.float32(radius)
    depth *= np.broadcast_to(np.exp(uneven), (2 * reach + 1,) * 3)[_box(low - centre + reach, high - centre + reach)]
    parts, _ = ndimage.label(depth < 1)
    own = parts == parts[tuple(centre - low)]
    return Region(box, offset, np.where(own, depth, np.maximum(depth, 1)), radius, own & brain[box])


def _box(low: npt.NDArray[np.int64], high: npt.NDArray[np.int64]) -> tuple[slice, slice, slice]:
    """Cut from corner to corner (3,)."""
    return slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2])


def _uniform_addition(anatomy: Floats, region: Region, rng: np.random.Generator) -> Floats:
    """Add a constant, or take it away."""
    return anatomy[region.box] + np.float32(rng.choice((-1, 1)) * rng.uniform(0.15, 0.4))


def _noise_addition(anatomy: Floats, region: Region, rng: np.random.Generator) -> Floats:
    """Add noise, voxel by voxel."""
    noise = rng.standard_normal(region.depth.shape, dtype=np.float32)
    return anatomy[region.box] + np.float32(rng.uniform(0.1, 0.3)) * noise


def _sink_deformation(anatomy: Floats, region: Region, rng: np.random.Generator) -> Floats:
    """Draw the tissue in towards the centre."""
    return _radial(anatomy, region, rng.uniform(0.2, 0.4))


def _source_deformation(anatomy: Floats, region: Region, rng: np.random.Generator) -> Floats:
    """Push the tissue out from the centre."""
    return _radial(anatomy, region, rng.uniform(2, 3))


def _ball(anatomy: Floats, region: Region, rng: np.random.Generator) -> Floats:
    """Paint all of it in one grey."""
    return np.full_like(region.depth, BALL_GREY)


def _radial(anatomy: Floats, region: Region, power: float) -> Floats:
    """Show at each depth what lay at that depth to a power: 1 changes nothing, and the surface stays in place."""
    pull: Floats = np.power(np.maximum(region.depth, np.float32(1e-3)), np.float32(power - 1))
    return _seen_from(anatomy, region, region.offset * pull)


def _uniform_shift(anatomy: Floats, region: Region, rng: np.random.Generator) -> Floats:
    """Show tissue from beside the region."""
    direction = rng.standard_normal(3)
    step = direction / np.linalg.norm(direction) * region.radius * rng.uniform(0.6, 1.4)
    return _seen_from(anatomy, region, region.offset + step.astype(np.float32)[:, None, None, None])


def _reflection(anatomy: Floats, region: Region, rng: np.random.Generator) -> Floats:
    """Mirror the tissue in the centre, along one axis."""
    mirrored = region.offset.copy()
    mirrored[rng.integers(3)] *= -1
    return _seen_from(anatomy, region, mirrored)


def _seen_from(anatomy: Floats, region: Region, offset: Floats) -> Floats:
    """Sample the anatomy at offsets (3, A, B, C) in voxels from the region's centre."""
    corner = np.array([edge.start for edge in region.box], np.float32) - region.offset[:, 0, 0, 0]
    seen: Floats = ndimage.map_coordinates(
        anatomy, offset + corner[:, None, None, None], order=1, output=np.float32, cval=0
    )
    return seen


_CHANGES: dict[str, Callable[[Floats, Region, np.random.Generator], Floats]] = {
    "uniform_addition": _uniform_addition,
    "noise_addition": _noise_addition,
    "sink_deformation": _sink_deformation,
    "source_deformation": _source_deformation,
    "uniform_shift": _uniform_shift,
    "reflection": _reflection,
    BALL: _ball,
}
KINDS = tuple(kind for kind in _CHANGES if kind != BALL)
"""The kinds of anomaly, as the challenge names them."""
