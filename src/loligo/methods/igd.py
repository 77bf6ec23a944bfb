"""IGD: deep one-class classification via interpolated Gaussian descriptor (Chen et al., AAAI 2022, 2101.10043).

An image is encoded to a short vector by a network trained on photographs and a linear layer, and rebuilt from it. A
Gaussian describes the vectors of normal images: training draws them to its centre, and every ten epochs centre and
variance are measured anew (expectation and maximisation). A critic learns to tell by how much a vector is a mixture of
two images' from what is decoded of it; the encoder learns to leave it no clue, so that what lies between training
images is as normal as they are. The score is half the reconstruction's error, by MS-SSIM and absolute difference, and
half the improbability under the Gaussian.

Departures: the frozen encoder is a timm network where the authors distilled their own from one. One model of whole
images; the authors average it with one of patches. Critic and decoder are plain stacks of convolutions. Adam's rate
falls by a cosine. Centre and variance come from the vectors that an epoch has met, and at the end from those of all
training images in eval mode; in the first epoch there are none, and nothing is improbable. The variance is a
mean over the vectors without the lower bound of one that the authors' code sets, and the centre's values are as they
are, where that code keeps them from zero.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from loligo.methods.configs import STAGES, FeatureConfig
from loligo.methods.contract import Method, Phase, Turn
from loligo.nn.conv import ConvNorm, upsample
from loligo.nn.discriminator import Discriminator
from loligo.nn.heat import Pooling, pool
from loligo.nn.similarity import ms_ssim, scales, ssim
from loligo.types import Scores

SIMILARITY = 0.85
"""Share of MS-SSIM in the reconstruction's error; the rest is absolute difference."""
SHARPEN = 0.2
"""Share of the image in what the critic must call unmixed; the rest is its reconstruction."""


@dataclass(frozen=True)
class IgdConfig(FeatureConfig):
    """Options of IGD; the defaults are the paper's but for the network."""

    layers: tuple[int, ...] = field(default=(4,), metadata=STAGES)
    """The stage whose features are encoded; one."""
    image_score: Literal[Pooling, "descriptor"] = "descriptor"  # type: ignore[assignment]  # one more than others have
    """Image score: error and improbability; or the map's maximum, its mean, or the mean of its highest hundredth."""
    latent: int = 128
    """Values of the vector."""
    widths: tuple[int, ...] = (32, 64, 128, 256, 256)
    """Channels of the decoder at each resolution, half the image's first, the features' last."""
    interpolation: float = 0.1
    """Weight of what the critic sees of mixtures in the encoder's loss."""
    gaussian: float = 0.5
    """Share of the Gaussian in the score ``descriptor``; the rest is the reconstruction's error."""
    every: int = 10
    """Epochs from one measurement of centre and variance to the next."""
    learning_rate: float = 1e-4
    """Adam's rate for all, falling to a hundredth by a cosine."""


class Igd(Method):
    """See the module's docstring."""

    Config = IgdConfig
    presets: ClassVar = {
        "paper": {"train.epochs": 256},
        "radiograph": {
            **{"size": 128, "widths": (16, 32, 64, 128, 256), "learning_rate": 5e-4, "every": 4},
            **{"train.epochs": 10},
        },
        "digits": {"size": 96, "learning_rate": 1e-3, "every": 2, "train.epochs": 8, "train.augment": False},
        "tiny": {"size": 64, "latent": 16, "widths": (8, 8, 16, 16, 16), "learning_rate": 1e-2, "every": 2},
    }
    config: IgdConfig
    epochs: Tensor
    centre: Tensor
    variance: Tensor

    def __init__(self, config: IgdConfig) -> None:
        super().__init__(config)
        self.backbone = config.extractor()
        check(config, self.backbone.strides)
        c, self.side = config, config.size // self.backbone.strides[0]
        self.code = nn.Linear(self.backbone.channels[0], c.latent)
        self.bottom = nn.Linear(c.latent, c.widths[-1] * self.side**2)
        pairs = itertools.pairwise((c.widths[0], *c.widths))
        self.ups = nn.ModuleList(ConvNorm(b, a) for a, b in reversed(list(pairs)))
        self.out = nn.Conv2d(c.widths[0], c.channels, 3, padding=1)
        self.critic = Discriminator(c.size, c.channels)
        self.register_buffer("epochs", torch.zeros((), dtype=torch.long))
        self.register_buffer("centre", torch.zeros(c.latent))
        self.register_buffer("variance", torch.tensor(torch.inf))  # until it is measured: nothing is improbable
        self._met: list[Tensor] = []
        self._decoded: tuple[Tensor, Tensor, Tensor] | None = None

    def phases(self) -> tuple[Phase, ...]:
        """Train adversarially, the encoder first, so that both share its forward pass."""
        rate, betas = self.config.learning_rate, (0.0, 0.9)
        modules = ("code", "bottom", "ups", "out")
        encoder = Turn("encoder", modules, 1, rate, betas, weight_decay=1e-6, final_rate=0.01)
        return (Phase("adversarial", (encoder, Turn("critic", ("critic",), 1, rate, betas, final_rate=0.01))),)

    def losses(self, x: Tensor, turn: str) -> dict[str, Tensor]:
        """Return the losses of a turn; the encoder's leaves its images for the critic's of the same step."""
        if turn == "critic":
            if self._decoded is None:
                raise RuntimeError("the critic's turn needs the images of the encoder's before it")
            (rebuilt, mixed, share), self._decoded = self._decoded, None
            unmixed = self.critic(rebuilt + SHARPEN * (x - rebuilt)).square().mean()
            return {"critic": (self.critic(mixed) - share).square().mean() + unmixed}
        z = self._encode(self.backbone.teach(x)[0])
        self._met.append(z.detach())
        share = torch.rand(len(x), 1, device=x.device) / 2
        rebuilt, mixed = self.decode(torch.cat([z, interpolate(z, share)])).chunk(2)
        self._decoded = rebuilt.detach(), mixed.detach(), share[:, 0]
        parts = {"reconstruction": error(x, rebuilt).mean(), "interpolation": self.critic(mixed).square().mean()}
        parts["gaussian"] = improbability(z, self.centre, self.variance).mean()
        total = parts["reconstruction"] + parts["gaussian"] + self.config.interpolation * parts["interpolation"]
        return {"encoder": total, **parts}

    def _encode(self, features: Tensor) -> Tensor:
        """Map the mean of the backbone's features over all places to (N, latent) float32."""
        z: Tensor = self.code(features.mean((2, 3)))
        return z.float()

    def decode(self, z: Tensor) -> Tensor:
        """Map (N, latent) to images (N, C, H, W) in [0, 1]."""
        y = self.bottom(z).view(len(z), -1, self.side, self.side)
        for up in self.ups:
            y = up(upsample(y))
        out: Tensor = self.out(y)
        return out.float().sigmoid()

    def after_epoch(self, progress: float) -> None:
        """Measure centre and variance of what the epoch has met, the first time and every so-many epochs."""
        if self.epochs % self.config.every == 0:
            self._measure(torch.cat(self._met))
        self.epochs += 1
        self._met.clear()

    def _measure(self, z: Tensor) -> None:
        """Take centre and variance from vectors (N, latent); the variance is that of all values together."""
        self.centre.copy_(z.mean(0))
        self.variance.copy_((z - self.centre).square().sum(1).mean())

    def fit(self, batches: Iterable[Tensor]) -> None:
        """Measure centre and variance once more."""
        self._measure(torch.cat([self._encode(self.backbone.teach(x)[0]) for x in batches]))

    def score(self, x: Tensor) -> Scores:
        """Score by reconstruction and Gaussian, or by the map: the reconstruction's error at one scale."""
        z = self._encode(self.backbone(x)[0])
        rebuilt = self.decode(z)
        apart = (x - rebuilt).abs().mean(1, keepdim=True)
        alike = ssim(x, rebuilt).mean(1, keepdim=True)
        heat = SIMILARITY * (1 - alike) + (1 - SIMILARITY) * apart
        if self.config.image_score != "descriptor":
            return Scores(pool(heat, self.config.image_score), heat, rebuilt)
        share = self.config.gaussian
        image = (1 - share) * error(x, rebuilt) + share * improbability(z, self.centre, self.variance)
        return Scores(image, heat, rebuilt)


def error(x: Tensor, rebuilt: Tensor) -> Tensor:
    """Return how far images (N, C, H, W) are from what was rebuilt of them, (N,) from 0 to 1."""
    apart = (x - rebuilt).abs().mean((1, 2, 3))
    return SIMILARITY * (1 - ms_ssim(x, rebuilt)) + (1 - SIMILARITY) * apart


def improbability(z: Tensor, centre: Tensor, variance: Tensor) -> Tensor:
    """Return one minus the likelihood, as a part of the largest, of vectors (N, D): (N,) from 0 to 1."""
    return 1 - (-(z - centre).square().sum(1) / variance).exp()


def interpolate(z: Tensor, share: Tensor) -> Tensor:
    """Mix each vector (N, D), by its share (N, 1), with one of another image."""
    return share * z + (1 - share) * z.roll(1, 0)


def check(config: IgdConfig, strides: list[int]) -> None:
    """Raise ValueError where the options do not fit each other."""
    scales(config.size)
    if len(strides) != 1 or strides[0] != 1 << len(config.widths) or config.size % strides[0]:
        raise ValueError(
            f"layers {config.layers} have strides {strides}; igd takes one, for {len(config.widths)} widths one of "
            f"{1 << len(config.widths)} pixels, and a size ({config.size}) that is a multiple of it"
        )
    if not 0 <= config.gaussian <= 1 or config.every < 1:
        raise ValueError(f"gaussian {config.gaussian} must lie in [0, 1], and every {config.every} be at least 1")
