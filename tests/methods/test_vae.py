"""The variational autoencoder against its definition."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from loligo.methods.vae import Vae, VaeConfig, gaussian_divergence

TINY = dict(Vae.presets["tiny"])
X = torch.rand(3, 1, 64, 64, generator=torch.Generator().manual_seed(0))


def vae(**options: object) -> Vae:
    torch.manual_seed(0)
    return Vae(VaeConfig(**{**TINY, **options}))


def test_divergence_agrees_with_torch() -> None:
    mean, log_variance = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0))
    expected = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(gaussian_divergence(mean, log_variance), expected)


def test_the_score_is_minus_the_elbo_at_the_mean_code_in_nats() -> None:
    model = vae(deviation=0.2).eval()
    with torch.no_grad():
        mean, log_variance = model.encode(X)
        reconstruction = model.decode(mean, None)
        likelihood = Normal(reconstruction, 0.2).log_prob(X).sum((1, 2, 3))
        expected = gaussian_divergence(mean, log_variance) - likelihood
        scores = model(X)
        torch.testing.assert_close(scores.image, expected)
        torch.testing.assert_close(scores.map, (X - reconstruction) ** 2)
        squared = vae(deviation=0.2, score="reconstruction").eval()(X)
        torch.testing.assert_close(squared.image, (X - squared.reconstruction).square().mean((1, 2, 3)))


def test_the_loss_is_the_bound_a_pixel_without_its_constant() -> None:
    model = vae(deviation=0.2).eval()
    torch.manual_seed(1)
    losses = model.losses(X, "elbo", {})
    with torch.no_grad():
        torch.manual_seed(1)
        mean, log_variance = model.encode(X)
        reconstruction = model.decode(mean + torch.randn_like(mean) * (log_variance / 2).exp(), None)
        constant = math.log(2 * math.pi * 0.2**2) / 2
        likelihood = Normal(reconstruction, 0.2).log_prob(X).mean() + constant
        expected = gaussian_divergence(mean, log_variance).mean() / 64**2 - likelihood
    torch.testing.assert_close(losses["elbo"], expected)
    torch.testing.assert_close(losses["elbo"], losses["reconstruction"] / (2 * 0.2**2) + losses["divergence"])


def test_the_position_of_a_slice_is_given_to_the_decoder() -> None:
    model = vae(position=True).eval()
    low, high = (torch.cat([X, torch.full_like(X, p)], 1) for p in (-0.5, 0.5))
    with torch.no_grad():
        assert model(low).reconstruction.shape == X.shape
        z = model.encode(low)[0]
        assert not torch.allclose(*(model.decode(z, model.config.split(x)[1]) for x in (low, high)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 60}, "size 60 must be a multiple of 2"),
        ({"deviation": 0.0}, "deviation is 0.0; it must be more than 0"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vae(**options)
