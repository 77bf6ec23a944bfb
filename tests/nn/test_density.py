"""A Gaussian of features: against scikit-learn's covariance, and its distance place by place."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.covariance import OAS
from sklearn.neighbors import KernelDensity

from loligo.nn.density import GaussianDensity, shrunk


def maps(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(6, 6, generator=torch.Generator().manual_seed(9))
    return torch.einsum("ndhw,de->nehw", torch.randn(count, 6, 3, 4, generator=generator), mix) + 2


def fitted(count: int = 50) -> GaussianDensity:
    density = GaussianDensity(6, (3, 4))
    density.fit(maps(count).split(8))
    return density


def unit(features: torch.Tensor) -> np.ndarray:
    pooled = features.mean((2, 3)).double().numpy()
    return pooled / np.linalg.norm(pooled, axis=1, keepdims=True)


@pytest.mark.parametrize("count", [4, 50])
def test_distances_are_those_of_the_shrunk_covariance(count: int) -> None:
    oracle = OAS().fit(unit(maps(count)))
    new = maps(7, seed=1)
    distance, _ = fitted(count)(new)
    np.testing.assert_allclose(distance.numpy(), oracle.mahalanobis(unit(new)) / 6, rtol=1e-3)


def test_without_covariance_it_orders_as_a_wide_kernel_density() -> None:
    density, new = GaussianDensity(6, (3, 4), covariance=False), maps(40, seed=1)
    density.fit(maps(50).split(8))
    distance, parts = density(new)
    normal = unit(maps(50))
    np.testing.assert_allclose(distance.numpy(), ((unit(new) - normal.mean(0)) ** 2).mean(1), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(parts.mean((1, 2, 3)), distance)
    kernels = KernelDensity(bandwidth=1.0).fit(normal).score_samples(unit(new))
    assert spearmanr(distance.numpy(), -kernels).statistic > 0.99
    assert spearmanr(distance.numpy(), fitted()(new)[0].numpy()).statistic < 0.9


def test_the_distance_is_the_mean_of_what_places_add() -> None:
    new = maps(5, seed=2)
    distance, parts = fitted()(new)
    assert parts.shape == (5, 1, 3, 4)
    torch.testing.assert_close(parts.mean((1, 2, 3)), distance)
    new[:, :, 1, 2] += 8 * torch.randn(6, generator=torch.Generator().manual_seed(3))
    assert (fitted()(new)[1].flatten(1).argmax(1) == 1 * 4 + 2).all()


def test_usual_anatomy_adds_nothing() -> None:
    same = maps(1).expand(20, -1, -1, -1) + 0.01 * maps(20)
    density = GaussianDensity(6, (3, 4))
    density.fit([same])
    distance, parts = density(same.mean(0, keepdim=True))
    assert float(distance) < 0.01 and float(parts.abs().max()) < 0.1


def test_the_same_image_again_and_again_can_be_inverted() -> None:
    assert torch.isfinite(torch.linalg.inv(shrunk(torch.zeros(5, 5), 3))).all()
    with pytest.raises(ValueError, match="2 normal images or more; it got 1"):
        GaussianDensity(6, (3, 4)).fit([maps(1)])
