"""Noise schedules against MONAI's schedulers, and its networks as they are asked for."""

from __future__ import annotations

import sys

import pytest
import torch
from monai.networks.schedulers import DDIMScheduler, DDPMScheduler

from loligo.methods.configs import DiffusionConfig
from loligo.nn.diffusion import Denoiser, NoisyClassifier, Schedule, chain, monai, options

X, NOISE = torch.rand(2, 3, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
SCHEDULE = Schedule.linear(1000)


def test_noise_is_added_as_by_monai() -> None:
    steps = torch.tensor([1, 250, 1000])
    expected = DDPMScheduler(1000, beta_start=1e-4, beta_end=0.02).add_noise(X, NOISE, steps - 1)  # counts from 0
    torch.testing.assert_close(SCHEDULE.noisy(X, steps, NOISE), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(SCHEDULE.clean(SCHEDULE.noisy(X, 250, NOISE), 250, NOISE), X, rtol=1e-4, atol=1e-5)
    assert torch.equal(SCHEDULE.noisy(X, 0, NOISE), X)


def test_a_step_back_is_that_of_ddpm() -> None:
    library = DDPMScheduler(1000, beta_start=1e-4, beta_end=0.02, clip_sample=False)
    y = SCHEDULE.noisy(X, 250, NOISE)
    expected, clean = library.step(NOISE, 249, y, generator=torch.Generator().manual_seed(1))
    mean, deviation = SCHEDULE.posterior(SCHEDULE.clean(y, 250, NOISE), y, 250, 249)
    drawn = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(clean, X, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(mean + deviation * drawn, expected, rtol=1e-4, atol=1e-5)


def test_a_step_either_way_is_that_of_ddim() -> None:
    library = DDIMScheduler(1000, beta_start=1e-4, beta_end=0.02, clip_sample=False)
    y = SCHEDULE.noisy(X, 250, NOISE)
    back, _ = library.step(NOISE * 0.9, 249, y)
    torch.testing.assert_close(SCHEDULE.follow(y, 250, 249, NOISE * 0.9), back, rtol=1e-4, atol=1e-5)
    there, _ = library.reversed_step(NOISE * 0.9, 249, y)
    torch.testing.assert_close(SCHEDULE.follow(y, 250, 251, NOISE * 0.9), there, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("schedule", [SCHEDULE, Schedule.variance_preserving(4)])
def test_large_steps_are_chains_of_small_ones(schedule: Schedule) -> None:
    """The posterior over two steps is the mean of that over the second, for what the first may lead to."""
    t, between, to = 4, 3, 1
    x, y = torch.full((1, 1, 1, 1), 0.3), torch.full((1, 1, 1, 1), -0.2)
    mean, deviation = schedule.posterior(x, y, t, between)
    draws = mean + deviation * torch.randn(200_000, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    later, spread = schedule.posterior(x, draws, between, to)
    draws = later + spread * torch.randn(200_000, 1, 1, 1, generator=torch.Generator().manual_seed(1))
    mean, deviation = schedule.posterior(x, y, t, to)
    torch.testing.assert_close(draws.mean(), mean.squeeze(), atol=5e-3, rtol=0)
    torch.testing.assert_close(draws.std(), deviation.squeeze(), rtol=2e-2, atol=0)


def test_more_noise_ends_where_all_of_it_at_once_does() -> None:
    schedule = Schedule.variance_preserving(4)
    first, second = torch.randn(2, 100_000, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    y = schedule.onwards(schedule.noisy(torch.full((100_000, 1, 1, 1), 0.5), 1, first), 1, 2, second)
    torch.testing.assert_close(y.mean(), schedule.kept[2].sqrt() * 0.5, atol=1.2e-2, rtol=0)
    torch.testing.assert_close(y.std(), schedule.deviation(2).squeeze(), rtol=1e-2, atol=0)
    assert schedule.kept[-1] < 1e-4  # nothing of the image is left


def test_a_chain_ends_at_no_noise() -> None:
    assert chain(250, 4) == [250, 188, 125, 62, 0]
    assert chain(3, 3) == [3, 2, 1, 0]


def test_networks_have_the_levels_and_the_attention_that_are_asked_for() -> None:
    given = options(256, (128, 128, 256, 256, 512, 512), 2, attention=(16, 8), heads=2)
    assert given["attention_levels"] == (False, False, False, False, True, True)  # of 16 and 8 pixels
    assert given["norm_num_groups"] == 32
    assert given["num_head_channels"][-1] == 256
    x = torch.rand(3, 2, 16, 16)
    network = Denoiser(2, 1, 16, (8, 16), 1, attention=(8,), heads=1)
    assert network(x, 5).shape == (3, 1, 16, 16)
    torch.testing.assert_close(network(x, 5), network(x, torch.tensor([5, 5, 5])))
    told = NoisyClassifier(2, 16, (8, 16), 1, attention=(8,), heads=1).eval()(x, 5)
    torch.testing.assert_close(told.exp().sum(1), torch.ones(3))


def test_the_papers_network_has_about_the_parameters_that_it_says() -> None:
    """Wolleb et al. count 113,681,160 with four channels and learnt variances; MONAI's are a few more."""
    with torch.device("meta"):
        network = Denoiser(4, 8, 256, DiffusionConfig().widths, 2, attention=(16,), heads=1)
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(113_681_160, rel=1e-3)


def test_without_monai_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "monai.networks.nets", None)
    with pytest.raises(ImportError, match="this method needs MONAI; install it with: pip install"):
        monai()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"widths": ()}, "widths is empty; name the channels of one level or more"),
        ({"size": 60, "widths": (8, 8, 8, 8)}, "size 60 must be a multiple of 8, for 4 levels of widths"),
        ({"widths": (8, 12)}, r"widths \(8, 12\): 12 must be a multiple of 8"),
        ({"widths": (8, 8), "heads": 3}, "8 must be a multiple of 8, the groups to normalise, and of heads, 3"),
    ],
)
def test_options_that_do_not_fit_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DiffusionConfig(**wrong)  # type: ignore[arg-type]
