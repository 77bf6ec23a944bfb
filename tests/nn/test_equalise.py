"""Histogram equalisation against ranks, numpy's interpolation and monotone changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import rankdata

from loligo.nn.equalise import BINS, equalised

IMAGES = np.random.default_rng(0).beta(2, 5, (3, 1, 64, 64)).astype(np.float32)


def test_pixels_become_their_ranks() -> None:
    found = equalised(torch.from_numpy(IMAGES)).numpy()
    for image, equal in zip(IMAGES, found, strict=True):
        assert np.abs(equal.ravel() - (rankdata(image) - 0.5) / image.size).max() < 5 / BINS


def test_agrees_with_numpy() -> None:
    counts, edges = np.histogram(IMAGES[0], BINS, (0, 1))
    darker = (np.cumsum(counts) - counts / 2) / IMAGES[0].size
    expected = np.interp(IMAGES[0].ravel(), (edges[:-1] + edges[1:]) / 2, darker)
    np.testing.assert_allclose(equalised(torch.from_numpy(IMAGES[:1])).numpy().ravel(), expected, atol=1e-5)


@pytest.mark.parametrize("curve", [lambda x: x**0.5, lambda x: 0.3 + 0.5 * x, lambda x: x**1.5])
def test_a_monotone_curve_changes_little(curve: object) -> None:
    x = torch.from_numpy(IMAGES)
    assert (equalised(curve(x)) - equalised(x)).abs().max() < 5 / BINS  # type: ignore[operator]


def test_a_blank_image_and_a_black_background_stay_flat() -> None:
    blank = equalised(torch.full((1, 1, 8, 8), 0.25))
    assert blank.unique().numel() == 1
    half = torch.zeros(1, 1, 8, 8)
    half[..., 4:] = 1
    assert torch.equal(equalised(half), torch.where(half > 0, 0.75, 0.25))


def test_an_image_alone_decides() -> None:
    x = torch.from_numpy(IMAGES)
    assert torch.equal(equalised(x)[1:2], equalised(x[1:2]))
