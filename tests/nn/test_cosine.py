"""Distances of feature maps against plain numpy."""

from __future__ import annotations

import numpy as np
import torch

from loligo.nn.cosine import place_distance, summed, whole_distance
from loligo.nn.heat import blur

RANDOM = np.random.default_rng(0)
A, B = (RANDOM.normal(size=(2, 5, 3, 4)) for _ in range(2))


def apart(a: np.ndarray, b: np.ndarray) -> float:
    return 1 - float(a @ b / np.sqrt((a @ a) * (b @ b)))


def test_distance_of_places_and_of_wholes_is_one_minus_the_cosine() -> None:
    a, b = torch.from_numpy(A), torch.from_numpy(B)
    places, wholes = place_distance(a, b), whole_distance(a, b)
    assert places.shape == (2, 1, 3, 4)
    assert places.dtype == wholes.dtype == torch.float32
    for n in range(2):
        assert abs(float(wholes[n]) - apart(A[n].ravel(), B[n].ravel())) < 1e-6
        for i in range(3):
            for j in range(4):
                assert abs(float(places[n, 0, i, j]) - apart(A[n, :, i, j], B[n, :, i, j])) < 1e-6


def test_summed_adds_maps_of_all_sizes() -> None:
    flat = [torch.full((1, 1, side, side), value) for side, value in ((4, 1.0), (8, 0.5))]
    torch.testing.assert_close(summed(flat, 16, 2.0), torch.full((1, 1, 16, 16), 1.5))
    own = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(summed([own], 16, 2.0), blur(own, 2.0))
