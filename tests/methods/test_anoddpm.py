"""AnoDDPM: its noise, its way there and back, and its options."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from conftest import anatomy, dataset
from loligo.config import TrainConfig, build
from loligo.methods.anoddpm import Anoddpm, AnoddpmConfig
from loligo.nn import simplex
from loligo.training.loop import fit

TINY = {k: v for k, v in Anoddpm.presets["tiny"].items() if not k.startswith("train.")}


def method(**options: object) -> Anoddpm:
    torch.manual_seed(0)
    return Anoddpm(build(AnoddpmConfig, {**TINY, **options})).eval()


class Does(nn.Module):
    """Stands for a network."""

    def __init__(self, what: Callable[..., Tensor]) -> None:
        super().__init__()
        self.what = what

    def forward(self, *given: Any) -> Tensor:
        return self.what(*given)


class Oracle(nn.Module):
    """Finds exactly the noise between an image that it knows and what it is given."""

    def __init__(self, own: Anoddpm, image: Tensor) -> None:
        super().__init__()
        self.schedule, self.image = own.schedule, image

    def forward(self, y: Tensor, t: int) -> Tensor:
        kept = self.schedule.kept[t]
        return (y - kept.sqrt() * self.image) / (1 - kept).sqrt()


def test_defaults_are_the_papers() -> None:
    config = AnoddpmConfig()
    assert (config.size, config.level, config.diffusion_steps, config.steps) == (256, 250, 1000, 250)
    assert (config.octaves, config.persistence, config.wavelength) == (6, 0.8, 64.0)
    assert Anoddpm.training_defaults == {"steps": 300_000, "batch_size": 1}


def test_with_the_true_noise_the_image_that_is_known_comes_back() -> None:
    own, known = method(steps=5), torch.rand(1, 1, 64, 64)
    own.fit([])
    own.denoiser = Oracle(own, 2 * known - 1)
    other = torch.rand(3, 1, 64, 64)
    torch.testing.assert_close(own.reconstruct(other), known.expand(3, -1, -1, -1), atol=1e-4, rtol=0)


def test_the_noise_of_scoring_is_simplex_noise_kept_with_the_weights() -> None:
    own = method(steps=20)
    assert not own.noise.any()
    own.fit([])
    corners = torch.tensor([[0.0, 0.0, 97.0 * i] for i in range(20)])
    torch.testing.assert_close(own.noise, simplex.octaves(corners, 64, own.order, own.config.octaves, 0.8, 16.0))
    assert {"noise", "order"} <= own.state_dict().keys()
    correlation = np.corrcoef(own.noise.flatten(1).numpy())
    assert abs(correlation.diagonal(1).mean()) < 0.15  # a few cells a field: single ones are alike by chance
    assert correlation.diagonal(1).max() < 0.8


def test_the_loss_is_the_squared_error_of_the_noise() -> None:
    own, x = method(), torch.rand(4, 1, 64, 64)
    own.denoiser = Does(lambda y, t: torch.zeros_like(y))
    torch.manual_seed(1)
    found = own.losses(x, "noise", {})["noise"]
    torch.manual_seed(1)
    torch.randint(1, 251, (4,))
    expected = own._noise(torch.rand(4, 3) * simplex.SPAN).square().mean()
    torch.testing.assert_close(found, expected)


def test_training_draws_from_the_steps_that_it_is_told() -> None:
    own, seen = method(trained=260), []
    own._noise = lambda origin: torch.zeros(len(origin), 1, 64, 64)  # type: ignore[method-assign]
    own.denoiser = Does(lambda y, t: seen.append(t) or y)
    for _ in range(30):
        own.losses(torch.rand(32, 1, 64, 64), "noise", {})
    drawn = torch.cat(seen)
    assert int(drawn.min()) <= 5
    assert 255 <= int(drawn.max()) <= 260


@pytest.mark.parametrize(("how", "fitted"), [("error", False), ("local", True), ("unusual", True)])
def test_scores_that_ask_for_it_are_measured_on_normal_images(how: str, fitted: bool) -> None:
    own = method(image_score=how)
    fit(own, dataset(anatomy(16, 64)), TrainConfig(1, batch_size=16, precision="float32", device="cpu"), progress=False)
    assert bool(own.comparison.places.mean.any()) == fitted


@pytest.mark.parametrize("wrong", [{"steps": 300}, {"level": 400, "trained": 300}, {"trained": 2000}])
def test_steps_that_do_not_fit_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must not decrease in this order"):
        AnoddpmConfig(**wrong)
