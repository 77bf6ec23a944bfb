"""Heat maps against scipy and plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from loligo.nn.heat import blur, enlarge, pool


@pytest.mark.parametrize("sigma", [0.5, 1.0, 4.0])
def test_blur_is_that_of_scipy(sigma: float) -> None:
    maps = torch.rand(2, 1, 40, 56, generator=torch.Generator().manual_seed(0))
    found = blur(maps, sigma)
    for a, b in zip(found[:, 0], maps[:, 0], strict=True):
        expected = gaussian_filter(b.double().numpy(), sigma, mode="mirror", truncate=4.0)
        np.testing.assert_allclose(a.numpy(), expected, atol=1e-6)


def test_blur_of_nothing_and_of_a_map_smaller_than_its_reach() -> None:
    maps = torch.rand(1, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(blur(maps, 0.0), maps)
    wide = blur(maps, 100.0)
    assert wide.shape == maps.shape
    assert wide.std() < 0.2 * maps.std()
    torch.testing.assert_close(blur(torch.full((1, 1, 6, 6), 0.3), 100.0), torch.full((1, 1, 6, 6), 0.3))


def test_blur_stays_in_float32_under_autocast() -> None:
    maps = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        found = blur(maps, 2.0)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, blur(maps, 2.0), rtol=1e-6, atol=1e-6)


def test_enlarge_puts_a_place_where_it_is_in_the_image() -> None:
    maps = torch.zeros(1, 1, 8, 8)
    maps[0, 0, 2, 5] = 1
    big = enlarge(maps, 64, sigma=4.0)
    assert big.shape == (1, 1, 64, 64)
    row, column = divmod(int(big.argmax()), 64)
    assert abs(row - 19.5) <= 1  # the middle of rows 16 to 23
    assert abs(column - 43.5) <= 1
    torch.testing.assert_close(enlarge(torch.full((1, 1, 7, 7), 0.5), 64), torch.full((1, 1, 64, 64), 0.5))


def test_pool_against_a_plain_loop() -> None:
    maps = torch.rand(3, 1, 25, 25, generator=torch.Generator().manual_seed(0))
    for i, image in enumerate(maps):
        values = sorted(image.flatten().tolist(), reverse=True)
        count = math.ceil(len(values) / 100)
        assert float(pool(maps, "max")[i]) == pytest.approx(values[0])
        assert float(pool(maps, "mean")[i]) == pytest.approx(sum(values) / len(values), rel=1e-5)
        assert float(pool(maps, "top")[i]) == pytest.approx(sum(values[:count]) / count, rel=1e-5)
    assert float(pool(torch.tensor([[[[0.2, 0.7]]]]), "top")) == pytest.approx(0.7)  # one pixel at least
