"""SynDiff: its losses by hand, its way from noise to an image, and its networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from loligo.config import build
from loligo.methods.syndiff import Syndiff, SyndiffConfig, Translator

TINY = {k: v for k, v in Syndiff.presets["tiny"].items() if not k.startswith("train.")}


class Does(nn.Module):
    """Stands for a network."""

    def __init__(self, what: Callable[..., Tensor]) -> None:
        super().__init__()
        self.what = what

    def forward(self, *given: Any) -> Tensor:
        return self.what(*given)


def method(**options: object) -> Syndiff:
    torch.manual_seed(0)
    return Syndiff(build(SyndiffConfig, {**TINY, **options}))


X, ABNORMAL = torch.rand(2, 3, 1, 64, 64, generator=torch.Generator().manual_seed(0))


def test_defaults_are_the_papers() -> None:
    config = SyndiffConfig()
    assert (config.size, config.steps, config.weight) == (256, 4, 0.5)
    assert (config.learning_rate, config.critic_rate, config.ema) == (1.6e-4, 1e-4, 0.999)
    assert Syndiff.training_defaults == {"epochs": 50, "batch_size": 1}


def test_what_the_generator_sees_at_last_is_what_comes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    own, seen = method(steps=4), []

    def restored(y: Tensor, source: Tensor, t: int) -> Tensor:
        seen.append((t, source))
        return torch.full_like(y, 0.5)

    monkeypatch.setattr(own, "_restored", restored)
    torch.testing.assert_close(own.reconstruct(X), torch.full_like(X, 0.75))
    assert [t for t, _ in seen] == [4, 3, 2, 1]
    assert all(torch.equal(source, 2 * X - 1) for _, source in seen)


def test_each_step_follows_the_posterior(monkeypatch: pytest.MonkeyPatch) -> None:
    own, given = method(steps=2), []

    def restored(y: Tensor, source: Tensor, t: int) -> Tensor:
        given.append(y)
        return torch.zeros_like(y)

    monkeypatch.setattr(own, "_restored", restored)
    own.reconstruct(X)
    mean, deviation = own.schedule.posterior(torch.zeros_like(X), own.noise[:1], 2, 1)
    torch.testing.assert_close(given[0], own.noise[:1].expand_as(X))
    torch.testing.assert_close(given[1], mean + deviation * own.noise[1:])


def test_a_generators_loss_is_the_sum_of_its_parts() -> None:
    own = method().eval()
    torch.manual_seed(0)
    found = own.losses(X, "generator", {"abnormal": ABNORMAL})
    expected = found["adversarial"] + 10.0 * (found["cycle"] + found["reconstruction"])
    torch.testing.assert_close(found["generator"], expected)
    normal, abnormal = 2 * X - 1, 2 * ABNORMAL - 1
    cycle = (own.to_normal(own.to_abnormal(normal)) - normal).abs().mean()
    cycle = cycle + (own.to_abnormal(own.to_normal(abnormal)) - abnormal).abs().mean()
    torch.testing.assert_close(found["cycle"], cycle)


def test_the_gradients_penalty_is_that_of_a_linear_critic(monkeypatch: pytest.MonkeyPatch) -> None:
    own = method(penalty=0.5)
    monkeypatch.setattr(own, "_judged", lambda early, late, t: 3 * early.sum((1, 2, 3)) / 64)
    t, early, fake = torch.ones(3), X.clone(), ABNORMAL.clone()
    found = own._told_apart(early, fake, X, t)
    logits, fooled = 3 * X.sum((1, 2, 3)) / 64, 3 * ABNORMAL.sum((1, 2, 3)) / 64
    squared = (3 / 64) ** 2 * 64 * 64
    torch.testing.assert_close(found, F.softplus(-logits).mean() + F.softplus(fooled).mean() + 0.5 * squared)


def test_translated_images_are_told_from_real_ones() -> None:
    own = method()
    own.abnormal_critic = Does(lambda x: 2 * x.mean((1, 2, 3)))
    own.normal_critic = Does(lambda x: -x.mean((1, 2, 3)))
    own.to_normal = Does(lambda x: x / 2)
    normal, abnormal, source = 2 * X - 1, 2 * ABNORMAL - 1, X
    expected = F.softplus(-2 * abnormal.mean((1, 2, 3))).mean() + F.softplus(2 * source.mean((1, 2, 3))).mean()
    expected = expected + F.softplus(normal.mean((1, 2, 3))).mean() + F.softplus(-abnormal.mean((1, 2, 3)) / 2).mean()
    torch.testing.assert_close(own._told(normal, abnormal, source), expected)


def test_a_translator_keeps_the_size_and_the_range() -> None:
    network = Translator(1, 4, 2)
    found = network(2 * X - 1)
    assert found.shape == X.shape
    assert float(found.detach().abs().max()) <= 1
    assert [tuple(conv.weight.shape[:2]) for conv in (network.down[0].conv, network.down[2].conv, network.out)] == [
        (4, 1),
        (16, 8),
        (1, 4),
    ]
