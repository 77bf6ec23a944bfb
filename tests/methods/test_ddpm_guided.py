"""The guided DDPM: encoding and decoding, the classifier's gradient, and what each phase learns from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from loligo.config import build
from loligo.methods.ddpm_guided import DdpmGuided, DdpmGuidedConfig

TINY = {k: v for k, v in DdpmGuided.presets["tiny"].items() if not k.startswith("train.")}


def method(**options: object) -> DdpmGuided:
    torch.manual_seed(0)
    return DdpmGuided(build(DdpmGuidedConfig, {**TINY, **options})).eval()


class Does(nn.Module):
    """Stands for a network."""

    def __init__(self, what: Callable[..., Tensor]) -> None:
        super().__init__()
        self.what = what

    def forward(self, *given: Any) -> Tensor:
        return self.what(*given)


class Constant(nn.Module):
    """Finds the same noise in every image, so that DDIM is exact."""

    def __init__(self) -> None:
        super().__init__()
        self.noise = 0.5 * torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))

    def forward(self, y: Tensor, t: int) -> Tensor:
        return self.noise.expand_as(y)


class Bright(nn.Module):
    """Calls an image more normal the brighter it is: its gradient is the same everywhere."""

    def forward(self, y: Tensor, t: int) -> Tensor:
        logit = y.mean((1, 2, 3)) * y[0].numel()
        return torch.stack([logit, -logit], 1)


def test_defaults_are_the_papers() -> None:
    config = DdpmGuidedConfig()
    assert (config.size, config.level, config.diffusion_steps, config.scale) == (256, 500, 1000, 100.0)
    assert DdpmGuided.training_defaults == {"steps": 70_000, "batch_size": 10}


def test_without_guidance_an_image_comes_back() -> None:
    own = method(scale=0.0, steps=5)
    own.denoiser, x = Constant(), torch.rand(2, 1, 64, 64)
    torch.testing.assert_close(own.reconstruct(x), x, atol=1e-4, rtol=0)


def test_guidance_leads_to_what_the_classifier_calls_normal() -> None:
    own = method(scale=0.01, steps=5)
    own.denoiser, own.classifier, x = Constant(), Bright(), torch.full((2, 1, 64, 64), 0.4)
    assert (own.reconstruct(x) > x + 0.001).all()


def test_one_step_back_follows_the_gradient_by_the_papers_formula() -> None:
    own, x = method(scale=0.05, steps=1), torch.full((1, 1, 64, 64), 0.5)
    own.denoiser, own.classifier = Constant(), Bright()
    kept = own.schedule.kept[250].double()
    noise = own.denoiser(x, 0).double()
    y = kept.sqrt() * (2 * x - 1) + (1 - kept).sqrt() * noise
    guided = noise - 0.05 * (1 - kept).sqrt() * torch.ones_like(noise)  # the gradient of a sum of pixels is 1
    expected = (((y - (1 - kept).sqrt() * guided) / kept.sqrt()).clamp(-1, 1) + 1) / 2
    torch.testing.assert_close(own.reconstruct(x).double(), expected, atol=1e-5, rtol=0)


def test_the_gradient_is_autograds_and_is_taken_without_one_being_recorded() -> None:
    own, y = method(), torch.rand(2, 1, 64, 64)
    given = y.clone().requires_grad_()
    expected = torch.autograd.grad(own.classifier(given, 30)[:, 0].sum(), given)[0]
    with torch.inference_mode():
        found = own._slope(y, 30)
    torch.testing.assert_close(found, expected)
    assert expected.any()


def test_the_diffusion_model_learns_both_kinds_and_the_classifier_their_labels() -> None:
    own, normal, abnormal = method(), torch.rand(3, 1, 64, 64), torch.rand(3, 1, 64, 64)
    seen = []
    own.denoiser = Does(lambda y, t: seen.append(y) or torch.zeros_like(y))
    loss = own.losses(normal, "noise", {"abnormal": abnormal})["noise"]
    assert seen[0].shape == (6, 1, 64, 64)
    assert 0.9 < float(loss) < 1.1  # nothing found: the variance of the noise
    known = torch.tensor([[0.9, 0.1]] * 3 + [[0.4, 0.6]] * 3).log()
    own.classifier = Does(lambda y, t: known)
    loss = own.losses(normal, "classification", {"abnormal": abnormal})["classification"]
    torch.testing.assert_close(loss, -(torch.tensor(0.9).log() + torch.tensor(0.6).log()) / 2)


def test_steps_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"steps 500, level 400, trained 1000 .* must not decrease in this order"):
        DdpmGuidedConfig(level=400)
    with pytest.raises(ValueError, match=r"classifier_fraction is 0\.0; it must be more than 0"):
        DdpmGuidedConfig(classifier_fraction=0.0)
