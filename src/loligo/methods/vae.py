"""Variational autoencoder (Kingma & Welling, 1312.6114), the baseline of density and reconstruction methods.

An image is encoded to a Gaussian over a short vector and reconstructed from a sample of it; training maximises the
evidence lower bound (ELBO). What was never seen is unlikely: its bound is low and it is reconstructed badly. Layout as
in Baur et al. 2021 (2004.03271), with batch norm; pixels have a Gaussian of fixed deviation, so that the bound is in
nats.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from loligo.methods.configs import SliceConfig
from loligo.methods.contract import Group, Method, Phase, Step, Turn
from loligo.methods.optimisation import Cosine
from loligo.nn.conv import ConvNorm, upsample
from loligo.types import Scores


@dataclass(frozen=True)
class VaeConfig(SliceConfig):
    """Options of the variational autoencoder."""

    widths: tuple[int, ...] = (16, 32, 64, 128, 128)
    """Channels at each resolution, that of the image first."""
    latent: int = 128
    """Values of the vector."""
    deviation: float = 0.1
    """Standard deviation of a pixel about its reconstruction; smaller weighs errors above the prior."""
    score: Literal["elbo", "reconstruction"] = "elbo"
    """Image score: minus the ELBO in nats with the likelihood at the mean code, or the mean squared error."""
    learning_rate: float = 1e-3
    """Adam's rate, falling to a tenth by a cosine."""


class Vae(Method):
    """See the module's docstring."""

    Config = VaeConfig
    presets: ClassVar = {
        "digits": {"size": 48, "widths": (16, 32, 64, 128), "train.epochs": 10, "train.augment": False},
        "tiny": {"size": 64, "widths": (8, 8, 16, 16), "latent": 16, "learning_rate": 3e-3},
    }
    config: VaeConfig

    def __init__(self, config: VaeConfig) -> None:
        super().__init__(config)
        check(config)
        widths, pairs = config.widths, list(itertools.pairwise(config.widths))
        self.side = config.size >> len(pairs)
        self.encoder = nn.Sequential(
            ConvNorm(config.channels, widths[0]), *(ConvNorm(a, b, stride=2) for a, b in pairs), nn.Flatten()
        )
        flat = widths[-1] * self.side**2
        self.moments = nn.Linear(flat, 2 * config.latent)
        self.bottom = nn.Linear(config.latent + config.position, flat)
        self.ups = nn.ModuleList(ConvNorm(b, a) for a, b in reversed(pairs))
        self.out = nn.Conv2d(widths[0], 1, 3, padding=1)

    def phases(self) -> tuple[Phase, ...]:
        """Train everything on the bound."""
        group = Group(("encoder", "moments", "bottom", "ups", "out"), self.config.learning_rate)
        return (Phase("elbo", (Turn("elbo", (group,), schedule=Cosine(0.1)),)),)

    def losses(self, x: Tensor, turn: str, step: Step) -> dict[str, Tensor]:
        """Return minus the bound a pixel, in nats up to a constant, and its parts."""
        mean, log_variance = self.encode(x)
        z = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        image, position = self.config.split(x)
        square = (image - self.decode(z, position)).square()
        pixels = image[0].numel()
        divergence = gaussian_divergence(mean, log_variance).mean() / pixels
        return {
            "elbo": square.mean() / (2 * self.config.deviation**2) + divergence,
            "reconstruction": square.mean(),
            "divergence": divergence,
        }

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and logarithm of the variance, (N, latent) float32."""
        mean, log_variance = self.moments(self.encoder(x)).float().chunk(2, 1)
        return mean, log_variance.clamp(-20, 20)

    def decode(self, z: Tensor, position: Tensor | None) -> Tensor:
        """Map (N, latent), and (N, 1) where the slice's position is given, to images (N, C, H, W) in [0, 1]."""
        z = z if position is None else torch.cat([z, position], 1)
        y = self.bottom(z).view(z.shape[0], -1, self.side, self.side)
        for up in self.ups:
            y = up(upsample(y))
        out: Tensor = self.out(y)
        return out.float().sigmoid()

    def forward(self, x: Tensor) -> Scores:
        """Score by the ELBO or the squared error, both of what the mean code decodes to; map the error.

        With the likelihood at the mean code alone, rather than over samples, the score is steady but no bound.
        """
        mean, log_variance = self.encode(x)
        image, position = self.config.split(x)
        reconstruction = self.decode(mean, position)
        error = (image - reconstruction).square().mean(1, keepdim=True)
        if self.config.score == "reconstruction":
            return Scores(error.mean((1, 2, 3)), error, reconstruction)
        variance = self.config.deviation**2
        likelihood = image[0].numel() * (error.mean((1, 2, 3)) / variance + math.log(2 * math.pi * variance)) / 2
        return Scores(likelihood + gaussian_divergence(mean, log_variance), error, reconstruction)


def gaussian_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return the KL divergence (N,) in nats of Gaussians (N, D) from the standard one."""
    return (mean.square() + log_variance.exp() - log_variance - 1).sum(1) / 2


def check(config: VaeConfig) -> None:
    """Raise ValueError where the options do not fit each other."""
    step = 1 << (len(config.widths) - 1)
    if config.size % step:
        raise ValueError(f"size {config.size} must be a multiple of 2**levels = {step}")
    if config.deviation <= 0:
        raise ValueError(f"deviation is {config.deviation}; it must be more than 0")
