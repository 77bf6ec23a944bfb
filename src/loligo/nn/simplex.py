"""OpenSimplex noise in three dimensions (Spencer 2014) in arrays: smooth, without the grid that Perlin's noise shows.

Space is a cubic lattice squeezed along its diagonal. Each vertex has one of 24 gradients, drawn by a permutation; a
point sums those of the vertices that are nearer than the square root of two. The library opensimplex walks from vertex
to vertex, point by point; here the 26 that can be near enough to any point of a cell are summed for all points at once,
which gives the same numbers.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

NEIGHBOURS = [v for v in itertools.product(range(-1, 3), repeat=3) if max(v) - min(v) <= 2 and 0 <= sum(v) <= 3]
"""Vertices, from that of the cell, that are nearer than the square root of two to some point of the cell."""
GRADIENTS = [
    [sign * (11 if axis == longest else 4) for axis, sign in enumerate((x, y, z))]
    for z, y, x in itertools.product((1, -1), (1, -1), (-1, 1))
    for longest in range(3)
]
SCALE = 1 / 103
"""Brings sums to [-1, 1]."""
CHUNK = 1 << 14
"""Pixels that are computed at once: as many as fit into a processor's cache."""
SPAN = 4096.0
"""Pixels along each axis that slices may begin at: beyond it float32 tells neighbouring pixels less and less apart."""


def permutation(seed: int) -> Tensor:
    """Return what decides the gradient of each vertex: the numbers 0 to 255 in another order, (256,) int64."""
    return torch.randperm(256, generator=torch.Generator().manual_seed(seed))


def noise3(place: Tensor, order: Tensor) -> Tensor:
    """Return the noise (N,), in [-1, 1], at places (3, N), float; ``order`` is a `permutation`."""
    cell = (place - place.sum(0) / 6).floor()
    offset = place - cell - cell.sum(0) / 3
    column, row, depth = (256 + (b.long() & 255) for b in cell)
    drawn = order.repeat(4)  # in place of a remainder at each of the sums below
    gradients = SCALE * torch.tensor(GRADIENTS, dtype=place.dtype, device=place.device)
    slopes = gradients[drawn % len(GRADIENTS)].T.contiguous()
    by_column = {a: row + drawn.index_select(0, column + a) for a in range(-1, 3)}
    by_row = {(a, b): depth + drawn.index_select(0, by_column[a] + b) for a, b in {(v[0], v[1]) for v in NEIGHBOURS}}
    total = torch.zeros_like(place[0])
    for v in NEIGHBOURS:
        away = [d - (step + sum(v) / 3) for d, step in zip(offset, v, strict=True)]
        near = (2 - away[0].square() - away[1].square() - away[2].square()).clamp_(min=0)
        index = by_row[v[0], v[1]] + v[2]
        along = [d * slope.index_select(0, index) for d, slope in zip(away, slopes, strict=True)]
        total += near.square().square() * (along[0] + along[1] + along[2])
    return total


def octaves(
    origin: Tensor, size: int, order: Tensor, count: int = 6, persistence: float = 0.8, wavelength: float = 64.0
) -> Tensor:
    """Return sums of noise at several scales, (N, 1, size, size): slices through noise in three dimensions.

    ``origin`` (N, 3) is the place of each slice's corner in pixels: column, row and depth. The first octave has the
    ``wavelength`` in pixels, each further one half of it and ``persistence`` times the amplitude of the one before.
    """
    along = torch.arange(size, dtype=origin.dtype, device=origin.device)
    rows, columns = torch.meshgrid(along, along, indexing="ij")
    pixels, found = torch.stack([columns, rows, torch.zeros_like(rows)]).flatten(1), []
    for some in torch.split(origin, max(1, CHUNK // size**2)):
        place = ((some.T[:, :, None] + pixels[:, None]) / wavelength).flatten(1)
        parts = [persistence**i * noise3(place * 2**i, order) for i in range(count)]
        found.append(torch.stack(parts).sum(0).view(-1, 1, size, size))
    return torch.cat(found)
