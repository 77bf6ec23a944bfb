"""Simplex noise against the library opensimplex."""

from __future__ import annotations

import numpy as np
import opensimplex
import torch

from loligo.nn.simplex import GRADIENTS, NEIGHBOURS, noise3, octaves, permutation


def test_noise_is_that_of_the_library() -> None:
    library = opensimplex.OpenSimplex(seed=3)
    points = np.random.default_rng(0).uniform(-40, 40, (300, 3))
    expected = np.array([library.noise3(*point) for point in points])
    found = noise3(torch.from_numpy(points).T, torch.from_numpy(library._perm)).numpy()
    # Near faces of cells the library leaves a vertex out, whose weight is small there.
    np.testing.assert_allclose(found, expected, atol=2e-4)
    assert (np.abs(found - expected) < 1e-9).mean() > 0.95
    assert expected.std() > 0.2


def test_every_vertex_that_is_near_enough_is_summed() -> None:
    inside = np.random.default_rng(0).uniform(0, 1, (4000, 3))
    vertices = np.stack(np.meshgrid(*[np.arange(-3, 5)] * 3, indexing="ij"), -1).reshape(-1, 3)
    away = inside[:, None] - vertices
    away = away + away.sum(2, keepdims=True) / 3
    near = {tuple(vertices[i]) for i in np.flatnonzero((np.square(away).sum(2) < 2).any(0))}
    assert near <= {tuple(v) for v in NEIGHBOURS}
    assert len(NEIGHBOURS) == 26
    assert len({tuple(g) for g in GRADIENTS}) == 24


def test_octaves_are_sums_of_finer_and_weaker_noise() -> None:
    order, origin = permutation(0), torch.tensor([[10.0, 20.0, 30.0], [400.0, 7.0, 90.0]], dtype=torch.float64)
    found = octaves(origin, 5, order, count=3, persistence=0.5, wavelength=16.0)
    assert found.shape == (2, 1, 5, 5)
    column, row, depth = 403.0, 9.0, 90.0  # of the second slice, row 2, column 3
    parts = [
        0.5**i * noise3(torch.tensor([[column], [row], [depth]], dtype=torch.float64) * 2**i / 16, order)
        for i in range(3)
    ]
    torch.testing.assert_close(found[1, 0, 2, 3], sum(parts)[0])


def test_the_same_seed_gives_the_same_order() -> None:
    assert torch.equal(permutation(5), permutation(5))
    assert not torch.equal(permutation(5), permutation(6))
    assert permutation(5).sort().values.tolist() == list(range(256))
