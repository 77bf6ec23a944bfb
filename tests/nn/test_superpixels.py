"""SLIC against plain loops over pixels."""

from __future__ import annotations

import numpy as np
import torch

from conftest import anatomy
from loligo.nn.superpixels import pool_regions, slic


def plain(image: np.ndarray, side: int, contrast: float, iterations: int) -> np.ndarray:
    """Assign each pixel to the nearest of the centres around its square, then move the centres; over and over."""
    size, grid = len(image), len(image) // side
    labels = np.array([[(r // side) * grid + c // side for c in range(size)] for r in range(size)])
    centres = {}
    for _ in range(iterations):
        for label in np.unique(labels):
            rows, columns = np.nonzero(labels == label)
            centres[label] = image[rows, columns].mean(), rows.mean(), columns.mean()
        moved = labels.copy()
        for r in range(size):
            for c in range(size):
                near = [
                    i * grid + j
                    for i in range(max(0, r // side - 1), min(grid, r // side + 2))
                    for j in range(max(0, c // side - 1), min(grid, c // side + 2))
                ]
                moved[r, c] = min(
                    near,
                    key=lambda k: (
                        ((image[r, c] - centres[k][0]) / contrast) ** 2
                        + ((r - centres[k][1]) ** 2 + (c - centres[k][2]) ** 2) / side**2
                    ),
                )
        labels = moved
    return labels


def test_slic_is_that_of_plain_loops() -> None:
    images = anatomy(2, 24)
    found = slic(torch.from_numpy(images), 6, 0.1, 4).view(2, 24, 24).numpy()
    expected = np.stack([plain(image[0].astype(float), 6, 0.1, 4) for image in images])
    assert (found == expected).mean() > 0.995  # ties are decided by rounding


def test_superpixels_follow_an_edge_that_their_squares_cross() -> None:
    x = torch.zeros(1, 1, 32, 32)
    x[..., 19:] = 1
    regions = slic(x, 8, 0.1)
    assert len(regions.unique()) > 8
    torch.testing.assert_close(pool_regions(x, regions, 16), x)  # none has pixels of both sides


def test_pooling_gives_each_pixel_the_mean_of_its_region() -> None:
    regions = torch.tensor([[0, 2, 2, 0], [3, 3, 3, 3]])
    maps = torch.tensor([[1.0, 2.0, 4.0, 7.0], [1.0, 2.0, 3.0, 6.0]]).view(2, 1, 2, 2)
    expected = torch.tensor([[4.0, 3.0, 3.0, 4.0], [3.0, 3.0, 3.0, 3.0]]).view(2, 1, 2, 2)
    torch.testing.assert_close(pool_regions(maps, regions, 4), expected)


def test_a_centre_without_pixels_stays_and_does_no_harm() -> None:
    x = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    regions = slic(x, 2, 0.01)
    assert len(regions.unique()) < 256
    assert torch.isfinite(pool_regions(x, regions, 256)).all()
