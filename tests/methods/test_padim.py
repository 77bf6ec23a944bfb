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
    coarse_first = np.argsort([-stride for stride in stride_of(fitted)], kind="stable")
    for place in (0, 77, 255):
        own = features.reshape(40, 12, -1)[:, :, place][:, coarse_first]
        inverse = np.linalg.inv(np.cov(own.T) + 0.01 * np.eye(12))
        whitening = fitted._whole(2, torch.tensor([place]))[0].double().numpy()
        count = fitted.levels[2].count
        mean = fitted.levels[2].mean[place].numpy()
        np.testing.assert_allclose(mean, own.mean(0)[-count:], rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(whitening.T @ whitening, inverse, rtol=2e-2, atol=2e-2 * inverse.max())


def stride_of(padim: Padim) -> np.ndarray:
    """Return the stride of the stage that each chosen feature comes from."""
    return np.repeat(padim.backbone.strides, padim.backbone.channels)[padim.chosen.numpy()]


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
    with pytest.raises(ValueError, match=r"need 2\d\d MiB .* memory_limit is 150MB"):
        Padim(PadimConfig(dimensions=173, memory_limit="150MB"))


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
    (found,) = padim._describe(IMAGES[:2], padim.backbone)
    side = padim.levels[0].side
    assert found.shape == (side**2, 2, 1)
    padim.fit([IMAGES])
    assert padim(IMAGES[:2]).map.shape == (2, 1, 64, 64)  # type: ignore[union-attr]


@pytest.mark.parametrize("size", [100, 129])
@torch.no_grad()
def test_a_size_that_strides_do_not_divide_gives_nested_grids(size: int) -> None:
    torch.manual_seed(1)
    padim = Padim(PadimConfig(size=size, dimensions=30, weights="random", sigma=0)).eval()
    images = torch.rand(12, 1, size, size, generator=torch.Generator().manual_seed(0))
    padim.fit([images[:10]])
    *_, (level, train) = padim._centred(images[:10], padim.backbone)
    *_, (_, new) = padim._centred(images[10:], padim.backbone)
    place = 3 * level.side + 5
    inverse = np.linalg.inv(np.cov(train[place].double().T) + 0.01 * np.eye(30))
    expected = np.sqrt(np.einsum("nd,de,ne->n", new[place].double(), inverse, new[place].double()))
    whitened = padim._whole(2, torch.tensor([place]))[0] @ new[place].mT
    np.testing.assert_allclose(whitened.square().sum(0).sqrt().numpy(), expected, rtol=2e-3)


@torch.no_grad()
def test_loading_takes_the_features_that_were_chosen_and_refuses_others(fitted: Padim) -> None:
    torch.manual_seed(99)
    other, saved = Padim(fitted.config).eval(), fitted.state_dict()
    assert not other.chosen.equal(fitted.chosen)
    other.load_state_dict(saved)
    torch.testing.assert_close(other(IMAGES[:3]).image, fitted(IMAGES[:3]).image, rtol=0, atol=0)
    for wrong in (saved["chosen"] + 1000, saved["chosen"] - 1000, saved["chosen"].flip(0), saved["chosen"].float()):
        with pytest.raises(RuntimeError, match="chosen must be whole numbers from 0 to 175"):
            other.load_state_dict(saved | {"chosen": wrong})


def test_the_preset_radiograph_takes_less_than_150_megabytes() -> None:
    config = PadimConfig(**(Padim.presets["radiograph"] | {"weights": "random"}))
    assert sum(t.numel() * t.element_size() for t in Padim(config).state_dict().values()) < 140e6
