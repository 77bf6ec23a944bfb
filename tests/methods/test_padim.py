from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from conftest import anatomy
from loligo.methods.padim import Padim, PadimConfig

IMAGES = torch.from_numpy(anatomy(40, 64))


@pytest.fixture(scope="module")
def fitted() -> Padim:
    torch.manual_seed(0)
    padim = Padim(PadimConfig(size=64, dimensions=12, sigma=0)).eval()
    padim.start()
    with torch.no_grad():
        padim.fit(IMAGES.split(7))
    return padim


def described(padim: Padim, x: torch.Tensor) -> np.ndarray:
    """Return all features (N, D, h, w), those of coarse stages repeated, that were chosen."""
    with torch.no_grad():
        maps = padim.backbone(x)
    whole = torch.cat([F.interpolate(m, maps[0].shape[2:], mode="nearest") for m in maps], 1)
    return whole[:, padim.chosen].double().numpy()


def test_streaming_sums_give_the_mean_and_covariance_of_all_features(fitted: Padim) -> None:
    features = described(fitted, IMAGES)  # (N, D, h, w)
    for place in (0, 77, 255):
        own = features.reshape(40, 12, -1)[:, :, place]
        inverse = np.linalg.inv(np.cov(own.T) + 0.01 * np.eye(12))
        whitening = fitted.whitening[place].double().numpy()
        np.testing.assert_allclose(fitted.mean[place].numpy(), own.mean(0), rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(whitening.T @ whitening, inverse, rtol=2e-2, atol=2e-2 * inverse.max())


def test_the_map_is_the_mahalanobis_distance_of_each_place(fitted: Padim) -> None:
    new = torch.from_numpy(anatomy(3, 64, seed=5))
    train, features = described(fitted, IMAGES).reshape(40, 12, -1), described(fitted, new).reshape(3, 12, -1)
    expected = np.empty((3, 256))
    for place in range(256):
        inverse = np.linalg.inv(np.cov(train[:, :, place].T) + 0.01 * np.eye(12))
        apart = features[:, :, place] - train[:, :, place].mean(0)
        expected[:, place] = np.sqrt(np.einsum("nd,de,ne->n", apart, inverse, apart))
    with torch.no_grad():
        heat = fitted(new).map
    grown = F.interpolate(torch.from_numpy(expected).view(3, 1, 16, 16), (64, 64), mode="bilinear")
    torch.testing.assert_close(heat, grown.float(), rtol=2e-3, atol=2e-2)


def test_covariances_that_would_not_fit_are_refused_before_any_work() -> None:
    with pytest.raises(ValueError, match=r"need 1074 MiB .* memory_limit is 500MB"):
        Padim(PadimConfig(dimensions=173, memory_limit="500MB"))


@pytest.mark.parametrize(
    "options", [{"dimensions": 0}, {"dimensions": -5}, {"regularisation": 0.0}, {"regularisation": -1.0}]
)
def test_options_that_give_no_gaussian_are_refused(options: dict[str, float]) -> None:
    (name, value), *_ = options.items()
    with pytest.raises(ValueError, match=rf"{name} (is )?{value}.*at least 1 and more than 0 are needed"):
        Padim(PadimConfig(size=64, **options))  # type: ignore[arg-type]


@torch.no_grad()
def test_a_stage_may_be_without_features_that_were_chosen() -> None:
    padim = Padim(PadimConfig(size=64, dimensions=1)).eval()
    assert padim._describe(IMAGES[:2], padim.backbone).shape == (256, 2, 1)


def test_one_image_has_no_covariance(fitted: Padim) -> None:
    with pytest.raises(ValueError, match="2 normal images or more"):
        Padim(PadimConfig(size=64, dimensions=4)).eval().fit([IMAGES[:1]])
