"""Typicality and standardised parts against scipy and numpy."""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial.distance import mahalanobis

from loligo.nn.standard import Standard
from loligo.nn.typicality import FLOOR, REGULARISATION, Typicality

SIZE, SIDE = 16, 2


def seen(count: int, error: float, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return images, reconstructions that are off by about ``error``, and distances of their codes."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(count, 1, SIZE, SIZE, generator=generator)
    each = error * (1 + 0.2 * torch.rand(count, 1, 1, 1, generator=generator))
    off = each * torch.randn(x.shape, generator=generator)
    return x, x + off, 0.5 + 0.1 * torch.rand(count, 1, SIDE, SIDE, generator=generator)


def test_the_score_is_the_mean_mahalanobis_distance_of_the_places() -> None:
    typicality, normal, new = Typicality(SIZE, SIDE), seen(30, 0.1, 0), seen(3, 0.2, 1)
    typicality.fit(zip(*(part.split(7) for part in normal), strict=True), lambda x: x)

    def at(found: tuple[torch.Tensor, ...], n: int, row: int, column: int) -> np.ndarray:
        x, y, distance = (part[n, 0].double().numpy() for part in found)
        block = slice(8 * row, 8 * row + 8), slice(8 * column, 8 * column + 8)
        return np.log(np.array([np.mean((x[block] - y[block]) ** 2), distance[row, column]]) + FLOOR)

    for n, score in enumerate(typicality.score(*new).image):
        found = []
        for row, column in np.ndindex(SIDE, SIDE):
            rows = np.stack([at(normal, i, row, column) for i in range(30)])
            covariance = np.cov(rows.T)
            covariance += REGULARISATION * np.trace(covariance) / 2 * np.eye(2)
            found.append(mahalanobis(at(new, n, row, column), rows.mean(0), np.linalg.inv(covariance)))
        np.testing.assert_allclose(float(score), np.mean(found), rtol=1e-3)


def test_what_is_reconstructed_unusually_well_scores_above_normal_as_what_is_badly() -> None:
    typicality = Typicality(SIZE, SIDE)
    typicality.fit([seen(50, 0.1, 0)], lambda x: x)
    normal, well, badly = (typicality.score(*seen(10, error, 1)) for error in (0.1, 0.03, 0.3))
    assert well.image.min() > normal.image.max() and badly.image.min() > normal.image.max()
    assert well.map.shape == (10, 1, SIZE, SIZE)


def test_parts_are_standardised_over_normal_images() -> None:
    values = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)) * 4 + 1
    standard = Standard(3)
    standard.fit([values[:7], values[7:]], lambda x: x)
    plain = values.numpy()
    expected = (plain - plain.mean(0)) / plain.std(0)
    np.testing.assert_allclose(standard(values).numpy(), expected, rtol=1e-5, atol=1e-6)
