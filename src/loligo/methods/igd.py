"""IGD: deep one-class classification via interpolated Gaussian descriptor (Chen et al., AAAI 2022, 2101.10043).

An image is encoded to a short vector by an ImageNet-pretrained backbone and a linear layer, and reconstructed from it.
A Gaussian describes the vectors of normal images: training draws them to its centre, and every ten epochs centre and
variance are measured anew (expectation and maximisation). A critic learns to tell from a decoded mixture of two
images' vectors how far it is mixed, and the encoder learns against it, so that what lies between training images is as
normal as they are. The score is half the reconstruction's error, by MS-SSIM and absolute difference, and half one minus
the likelihood under the Gaussian.

The encoder learns with the decoder: a pretrained backbone and a linear layer ``project``. With an ``encoder_rate`` of 0
the linear layer alone does, as in the program that the authors show for patches, and as in the presets.

Departures: the backbone is a timm network, where the authors distil one of their own from ImageNet features. One model
of whole images; the authors average it with one of patches. Critic and decoder are plain stacks of convolutions. Centre
and variance come from the vectors of an epoch's steps, and at the end from those of all training images in eval mode;
in the first epoch there are none, and the likelihood is one. The variance is a mean over the vectors without the lower
bound of one that the authors' code sets, and the centre's values are as they are, where that code keeps them from zero.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from loligo.config import Pooling
from loligo.methods.configs import STAGES, FeatureConfig
from loligo.methods.contract import ALONE, UNMEASURED, Group, Method, Phase, Reduce, Step, Turn
from loligo.methods.optimisation import Clock, Cosine, adam
from loligo.nn.conv import ConvNorm, upsample
from loligo.nn.discriminator import Discriminator
from loligo.nn.heat import pool
from loligo.nn.similarity import ms_ssim, scales, ssim
from loligo.types import Scores

SIMILARITY = 0.85
"""Fraction of MS-SSIM in the reconstruction's error; the rest is absolute difference."""
SHARPEN = 0.2
"""Fraction of the image in what the critic must call unmixed; the rest is its reconstruction."""
LEAST_VARIANCE = 1e-12
"""Of vectors: where all images are the same they have none, and the likelihood is still a number."""


@dataclass(frozen=True)
class IgdConfig(FeatureConfig):
    """Options of IGD; the defaults are the paper's but for the network."""

    layers: tuple[int, ...] = field(default=(4,), metadata=STAGES)
    """The stage whose features are encoded; one."""
    image_score: Literal[Pooling, "descriptor"] = "descriptor"  # type: ignore[assignment]  # one more than others have
    """Image score: error and one minus likelihood; or the map's maximum, mean, or the mean of its highest hundredth."""
    latent: int = 128
    """Values of the vector."""
    widths: tuple[int, ...] = (32, 64, 128, 256, 256)
    """Channels of the decoder at each resolution, half the image's first, the features' last."""
    interpolation: float = 0.1
    """Weight of the critic's output on mixtures in the encoder's loss."""
    gaussian: float = 0.5
    """Fraction of the Gaussian in the score ``descriptor``; the rest is the reconstruction's error."""
    every: int = 10
    """Epochs from one measurement of centre and variance to the next."""
    learning_rate: float = 1e-4
    """Adam's rate for all but the backbone."""
    encoder_rate: float = 1e-4
    """Adam's rate of the backbone; 0 leaves it as it was pretrained."""
    schedule: Literal["polynomial", "cosine"] = "polynomial"
    """How the rate falls: by step to nought, by a power of 0.9 as the authors', or by epoch to a hundredth."""


class Igd(Method):
    """See the module's docstring."""

    Config = IgdConfig
    least = 2
    training_defaults: ClassVar = {"epochs": 256}
    presets: ClassVar = {
        "radiograph": {
            **{"size": 128, "widths": (16, 32, 64, 128, 256), "learning_rate": 5e-4, "every": 4},
            **{"encoder_rate": 0.0, "schedule": "cosine", "train.epochs": 10},
        },
        "digits": {
            **{"size": 96, "learning_rate": 1e-3, "encoder_rate": 0.0, "every": 2, "schedule": "cosine"},
            **{"train.epochs": 8, "train.augment": False},
        },
        "tiny": {
            **{"size": 64, "latent": 16, "widths": (8, 8, 16, 16, 16), "every": 2},
            **{"learning_rate": 1e-2, "encoder_rate": 0.0},
        },
    }
    config: IgdConfig
    epochs: Tensor
    centre: Tensor
    variance: Tensor
    count: Tensor
    mean: Tensor
    scatter: Tensor

    def __init__(self, config: IgdConfig) -> None:
        super().__init__(config)
        self.backbone = config.extractor(frozen=not config.encoder_rate)
        check(config, self.backbone.strides)
        c, self.side = config, config.size // self.backbone.strides[0]
        self.project = nn.Linear(self.backbone.channels[0], c.latent)
        self.bottom = nn.Linear(c.latent, c.widths[-1] * self.side**2)
        pairs = itertools.pairwise((c.widths[0], *c.widths))
        self.ups = nn.ModuleList(ConvNorm(b, a) for a, b in reversed(list(pairs)))
        self.out = nn.Conv2d(c.widths[0], c.channels, 3, padding=1)
        self.critic = Discriminator(c.size, c.channels)
        self.register_buffer("epochs", torch.zeros((), dtype=torch.long))
        self.register_buffer("centre", torch.zeros(c.latent))
        self.register_buffer("variance", torch.tensor(UNMEASURED))  # the likelihood is one
        self.register_buffer("count", torch.zeros(()), persistent=False)  # moments of the epoch's vectors until now
        self.register_buffer("mean", torch.zeros(c.latent), persistent=False)
        self.register_buffer("scatter", torch.zeros(()), persistent=False)

    def phases(self) -> tuple[Phase, ...]:
        """Train adversarially, the encoder first, so that both share its forward pass."""
        rate, betas = self.config.learning_rate, (0.0, 0.9)
        falling = Cosine(0.01) if self.config.schedule == "cosine" else polynomial
        groups = [Group(("project", "bottom", "ups", "out"), rate)]
        if self.config.encoder_rate:
            groups.append(Group(("backbone",), self.config.encoder_rate))
        encoder = Turn("encoder", tuple(groups), adam(betas, 1e-6), falling)
        return (Phase("adversarial", (encoder, Turn("critic", (Group(("critic",), rate),), adam(betas), falling))),)

    def losses(self, x: Tensor, turn: str, step: Step) -> dict[str, Tensor]:
        """Return the losses of a turn; the encoder's leaves its images for the critic's of the same step."""
        if turn == "encoder":
            return self._encoder_losses(x, step)
        if "decoded" not in step:
            with torch.no_grad():
                step["decoded"] = self._mix(x)[1:]
        reconstruction, mixed, weight = step["decoded"]
        unmixed = self.critic(reconstruction + SHARPEN * (x - reconstruction)).square().mean()
        return {"critic": (self.critic(mixed) - weight[:, 0]).square().mean() + unmixed}

    def _encoder_losses(self, x: Tensor, step: Step) -> dict[str, Tensor]:
        z, reconstruction, mixed, weight = self._mix(x)
        step["codes"], step["decoded"] = z.detach(), (reconstruction.detach(), mixed.detach(), weight)
        parts = {"reconstruction": error(x, reconstruction).mean(), "interpolation": self.critic(mixed).square().mean()}
        parts["gaussian"] = one_minus_likelihood(z, self.centre, self.variance).mean()
        total = parts["reconstruction"] + parts["gaussian"] + self.config.interpolation * parts["interpolation"]
        return {"encoder": total, **parts}

    def _mix(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the vectors of images, what they and mixtures of them decode to, and the mixtures' weights (N, 1)."""
        backbone = self.backbone if self.config.encoder_rate else self.backbone.teach
        z = self._encode(backbone(x)[0])
        weight = torch.rand(len(x), 1, device=x.device) / 2
        reconstruction, mixed = self.decode(torch.cat([z, interpolate(z, weight)])).chunk(2)
        return z, reconstruction, mixed, weight

    def _encode(self, features: Tensor) -> Tensor:
        """Map the mean of the backbone's features over all places to (N, latent) float32."""
        z: Tensor = self.project(features.mean((2, 3)))
        return z.float()

    def decode(self, z: Tensor) -> Tensor:
        """Map (N, latent) to images (N, C, H, W) in [0, 1]."""
        y = self.bottom(z).view(z.shape[0], -1, self.side, self.side)
        for up in self.ups:
            y = up(upsample(y))
        out: Tensor = self.out(y)
        return out.float().sigmoid()

    def after_step(self, turn: str, step: Step, reduce: Reduce = ALONE) -> None:
        """Add the batch's vectors to the epoch's moments (Chan, Golub & LeVeque 1979)."""
        if turn != "encoder":
            return
        count, mean, scatter = moments(step["codes"], reduce)
        whole, shift = self.count + count, mean - self.mean
        self.scatter += scatter + shift.square().sum() * self.count * count / whole
        self.mean += shift * count / whole
        self.count.copy_(whole)

    def after_epoch(self, progress: float) -> None:
        """Take centre and variance from the epoch's vectors, the first time and every so-many epochs."""
        if self.epochs % self.config.every == 0:
            self._measure(self.count, self.mean, self.scatter)
        self.epochs += 1
        for moment in (self.count, self.mean, self.scatter):
            moment.zero_()

    def _measure(self, count: Tensor, mean: Tensor, scatter: Tensor) -> None:
        """Take centre and variance from moments; the variance is that of all values together."""
        self.centre.copy_(mean)
        self.variance.copy_((scatter / count).clamp_min(LEAST_VARIANCE))

    def fit(self, batches: Iterable[Tensor], reduce: Reduce = ALONE) -> None:
        """Measure centre and variance once more."""
        backbone = self.backbone.ready(self.centre.device)
        codes = [self._encode(backbone(x)[0]) for x in reduce.shard(batches)]
        self._measure(*moments(torch.cat([self.centre[None][:0], *codes]), reduce))

    def forward(self, x: Tensor) -> Scores:
        """Score by reconstruction and Gaussian, or by the map: the reconstruction's error at one scale."""
        z = self._encode(self.backbone(x)[0])
        reconstruction = self.decode(z)
        difference = (x - reconstruction).abs().mean(1, keepdim=True)
        similarity = ssim(x, reconstruction).mean(1, keepdim=True)
        heat = SIMILARITY * (1 - similarity) + (1 - SIMILARITY) * difference
        if self.config.image_score != "descriptor":
            return Scores(pool(heat, self.config.image_score), heat, reconstruction)
        weight, unlikely = self.config.gaussian, one_minus_likelihood(z, self.centre, self.variance)
        return Scores((1 - weight) * error(x, reconstruction) + weight * unlikely, heat, reconstruction)


def polynomial(clock: Clock) -> float:
    """Let the rate fall to nought by a power of 0.9 of the steps that are left."""
    return float((1 - clock.step / clock.steps) ** 0.9)


def error(x: Tensor, reconstruction: Tensor) -> Tensor:
    """Return how far images (N, C, H, W) are from their reconstructions, (N,) from 0 to 1."""
    difference = (x - reconstruction).abs().mean((1, 2, 3))
    return SIMILARITY * (1 - ms_ssim(x, reconstruction)) + (1 - SIMILARITY) * difference


def one_minus_likelihood(z: Tensor, centre: Tensor, variance: Tensor) -> Tensor:
    """Return one minus the likelihood, as a fraction of the largest, of vectors (N, D): (N,) from 0 to 1."""
    return 1 - (-(z - centre).square().sum(1) / variance).exp()


def interpolate(z: Tensor, weight: Tensor) -> Tensor:
    """Mix each vector (N, D), by its weight (N, 1), with one of another image."""
    return weight * z + (1 - weight) * z.roll(1, 0)


def moments(z: Tensor, reduce: Reduce) -> tuple[Tensor, Tensor, Tensor]:
    """Return count, mean (D,) and summed squared distance from it of the vectors (N, D) of all processes."""
    count = reduce.sum(z.new_tensor(float(len(z))))
    mean = reduce.sum(z.sum(0)) / count
    return count, mean, reduce.sum((z - mean).square().sum())


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
