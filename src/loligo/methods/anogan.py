"""AnoGAN: unsupervised anomaly detection with generative adversarial networks (Schlegl et al., IPMI 2017, 1703.05921).

A generator learns to make normal images from noise, against a discriminator. Of a new image the code is searched, step
by step of gradient descent, whose generated image is most like it, in its pixels and in the features that the
discriminator has of it. What cannot be generated is abnormal: what is left of the same two differences is the score.

The networks are DCGAN's with 5x5 kernels, for 64x64 pixels and half its channels, as in the paper. Its 20 epochs are
here their number of steps on the paper's million patches. Decided here, where the paper is silent: batch size, Adam's
rate and momenta and the 100 uniform values of a code are DCGAN's; the search is Adam's, its rate falls to nought.
Departures: the search begins at the mean code, where the paper draws one, so that a score depends on the image alone.
All images of a batch are searched at once, each by its own gradient, which is written out for DCGAN's layers and
computed in float32. Exported, the search is a graph of all its steps.

A smooth image has a small error whatever it shows. ``radiograph`` scores by how far the errors of pixels and features
lie from those of normal images, to either side (`loligo.nn.typicality`): chosen without labels, not the paper's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from loligo.methods.configs import MethodConfig
from loligo.methods.contract import ALONE, Group, Method, Phase, Reduce, Step, Turn
from loligo.methods.optimisation import adam
from loligo.nn.adversarial import discriminator_loss, feature_error, generator_loss
from loligo.nn.dcgan import Downward, Upward, check_size, outputs_of, pulled_back
from loligo.nn.places import Places
from loligo.nn.typicality import Typicality
from loligo.types import Scores

MOMENTUM, SQUARES, TINY = 0.9, 0.999, 1e-8
"""Adam's decays of the gradient and of its square, and what keeps it from dividing by nought."""


@dataclass(frozen=True)
class AnoganConfig(MethodConfig):
    """Options of AnoGAN."""

    size: int = 64
    """Height and width of the images that it sees, in pixels."""
    widths: tuple[int, ...] = (64, 128, 256, 512)
    """Channels after each halving of height and width in the discriminator; the generator mirrors them."""
    latent: int = 100
    """Values of a code, uniform in [-1, 1] in training."""
    steps: int = 500
    """Steps of the search for an image's code."""
    step_size: float = 0.05
    """Adam's rate in the search, at its beginning; it falls to nought."""
    feature_weight: float = 0.1
    """Weight of the features' absolute difference in search and score, from 0 to 1; that of the pixels has the rest."""
    score: Literal["residual", "local", "typicality"] = "residual"
    """Image score: the weighted differences, sums over pixels in [-1, 1] and features; or, for small anomalies, the
    least structural similarity of any window of a third of the image's side, as unusual as it is there; or how far the
    errors of pixels and features lie from those of normal images, place by place, to either side."""
    learning_rate: float = 2e-4
    """Adam's rate for generator and discriminator."""


class Anogan(Method):
    """See the module's docstring."""

    Config = AnoganConfig
    least = 2
    training_defaults: ClassVar = {"steps": 156_250, "batch_size": 128, "augment": False}
    presets: ClassVar = {
        "radiograph": {
            **{"widths": (16, 32, 64, 128), "steps": 60, "step_size": 0.1, "learning_rate": 5e-4},
            **{"score": "typicality", "train.epochs": 60, "train.batch_size": 16, "train.augment": True},
        },
        "digits": {
            **{"size": 48, "widths": (16, 32, 64, 128), "steps": 60, "step_size": 0.1, "learning_rate": 5e-4},
            **{"score": "local", "train.epochs": 30, "train.batch_size": 16},
        },
        "tiny": {
            **{"widths": (8, 8, 16, 16), "latent": 16, "steps": 6, "step_size": 0.3, "learning_rate": 2e-3},
        },
    }
    config: AnoganConfig
    exact = True  # hundreds of steps in bfloat16 would end elsewhere

    def __init__(self, config: AnoganConfig) -> None:
        super().__init__(config)
        check(config)
        shape = (config.size, config.channels, config.widths)
        self.generator = Upward(*shape, config.latent, kernel=5)
        self.discriminator = Downward(*shape, 1, kernel=5)
        self.places = Places(config.size, config.size // 3)
        self.typicality = Typicality(config.size, config.size >> len(config.widths))

    def phases(self) -> tuple[Phase, ...]:
        """Train adversarially, the discriminator first."""
        turns = (
            Turn(name, (Group((name,), self.config.learning_rate),), adam((0.5, 0.999)))
            for name in ("discriminator", "generator")
        )
        return (Phase("adversarial", tuple(turns)),)

    def losses(self, x: Tensor, turn: str, step: Step) -> dict[str, Tensor]:
        """Return the loss of a turn, by images from new noise; and how far their mean is from that of real ones.

        Neither loss says whether the generator learns, as each falls where the other network is the weaker one.
        """
        x, fake = 2 * x - 1, self.generator(2 * torch.rand(len(x), self.config.latent, device=x.device) - 1)
        if turn == "generator":
            difference = (fake.mean(0) - x.mean(0)).abs().mean()
            return {"generator": generator_loss(self.discriminator(fake)[1]), "difference": difference}
        return {"discriminator": discriminator_loss(self.discriminator(x)[1], self.discriminator(fake)[1])}

    def fit(self, batches: Iterable[Tensor], reduce: Reduce = ALONE) -> None:
        """Measure what is normal at each place, where the score asks for it."""
        if self.config.score == "local":
            self.places.fit(self.places(x, self._compared(x)[0]) for x in batches)
        elif self.config.score == "typicality":
            self.typicality.fit(((x, *self._compared(x)) for x in reduce.shard(batches)), reduce.sum)

    def _compared(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return reconstructions of images (N, C, H, W) in [0, 1], and the features' squared error (N, 1, h, w)."""
        fake = self._generate_like(2 * x - 1)
        with torch.autocast(x.device.type, enabled=False):
            return fake / 2 + 0.5, feature_error(self.discriminator, 2 * x - 1, fake)

    def _generate_like(self, x: Tensor) -> Tensor:
        """Map images (N, C, H, W) in [-1, 1] to the generated ones that are found most like them, in float32."""
        with torch.autocast(x.device.type, enabled=False):
            fake: Tensor = self.generator(self.search(x))
        return fake

    def search(self, x: Tensor) -> Tensor:
        """Return the codes (N, latent) of images (N, C, H, W) in [-1, 1], each searched by its image alone."""
        z = mean = square = x.new_zeros(x.shape[0], self.config.latent)
        features = self.discriminator.layers(x)
        for t in range(self.config.steps):
            slope = self.gradient(z, x, features)
            mean, square = torch.lerp(slope, mean, MOMENTUM), torch.lerp(slope.square(), square, SQUARES)
            scale = (square / (1 - SQUARES ** (t + 1))).sqrt() + TINY
            rate = self.config.step_size * (1 - t / self.config.steps) / (1 - MOMENTUM ** (t + 1))
            z = z - rate * mean / scale
        return z

    def gradient(self, z: Tensor, x: Tensor, features: Tensor) -> Tensor:
        """Return the gradient at codes (N, latent) of what `differences` weighs, by the discriminator's features of
        the images (N, C, H, W)."""
        weight = self.config.feature_weight
        made = outputs_of(self.generator.layers, z[:, :, None, None])
        seen = outputs_of(self.discriminator.layers, made[-1])
        slope = pulled_back(self.discriminator.layers, seen, weight * (seen[-1] - features).sign())
        slope = slope + (1 - weight) * (made[-1] - x).sign()
        return pulled_back(self.generator.layers, made, slope).flatten(1)

    def differences(self, x: Tensor, fake: Tensor) -> Tensor:
        """Return the weighted sums (N,) of absolute differences, of images (N, C, H, W) in [-1, 1] and of features."""
        weight = self.config.feature_weight
        with torch.autocast(x.device.type, enabled=False):
            features, matched = (self.discriminator.layers(part) for part in (x, fake))
        return (1 - weight) * absolute(x - fake) + weight * absolute(features - matched)

    def forward(self, x: Tensor) -> Scores:
        """Score by the weighted differences, which map that of pixels, or by what is unusual at a place."""
        if self.config.score == "local":
            return self.places.score(x, self._compared(x)[0])
        if self.config.score == "typicality":
            return self.typicality.score(x, *self._compared(x))
        fake = self._generate_like(2 * x - 1)
        reconstruction = fake / 2 + 0.5
        heat = (x - reconstruction).abs().mean(1, keepdim=True)
        return Scores(self.differences(2 * x - 1, fake), heat, reconstruction)


def absolute(x: Tensor) -> Tensor:
    """Return the sum of absolute values (N,) of each of (N, ...)."""
    return x.abs().flatten(1).sum(1)


def check(config: AnoganConfig) -> None:
    """Raise ValueError where the options do not fit each other."""
    check_size(config.size, config.widths)
    if not 0 <= config.feature_weight <= 1:
        raise ValueError(f"feature_weight is {config.feature_weight}; it must lie in [0, 1]")
