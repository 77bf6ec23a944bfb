"""f-AnoGAN: fast unsupervised anomaly detection with GANs (Schlegl et al., Medical Image Analysis 54, 2019).

A generator learns to make normal images from Gaussian noise, against a Wasserstein critic with gradient penalty. Then
an encoder learns which code an image has: the image that the frozen generator makes of it is to be the same, in pixels
and in the critic's features (``izi_f``). What an abnormal image has and a normal one has not is lost on the way; the
two differences are the score.

Networks and rates are those of the authors' code: residual ones of 64x64 pixels, five steps of the critic to one of the
generator, 50,000 steps of the encoder by RMSProp. The steps of the WGAN depend on their data (7 epochs); here they are
as many. Departure: batch norms of the generator move their running statistics in the critic's turns, too.

A smooth image has a small error whatever it shows. ``radiograph`` scores by how far the errors of pixels and features
lie from those of normal images, to either side (`loligo.nn.typicality`): chosen without labels, not the paper's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from loligo.methods.configs import MethodConfig, check_fractions
from loligo.methods.contract import ALONE, Group, Method, Phase, Reduce, Step, Turn
from loligo.methods.optimisation import adam, rmsprop
from loligo.nn.adversarial import feature_error, gradient_penalty
from loligo.nn.places import Places
from loligo.nn.typicality import Typicality
from loligo.nn.wgan import DOWN, Downward, Upward, layer_norm
from loligo.types import Scores


@dataclass(frozen=True)
class FanoganConfig(MethodConfig):
    """Options of f-AnoGAN; the defaults are those of the authors' code."""

    size: int = 64
    """Height and width of the images that it sees, in pixels; a multiple of 16."""
    width: int = 64
    """Channels at full size; critic and encoder reach eight times as many, the generator begins with these."""
    latent: int = 128
    """Values of a code."""
    critic_steps: int = 5
    """Steps of the critic to one of the generator."""
    penalty_weight: float = 10.0
    """Weight of the gradient penalty in the critic's loss."""
    feature_weight: float = 1.0
    """Weight, in the encoder's loss and the score, of the squared difference of the critic's features (kappa)."""
    wgan_fraction: float = 0.5
    """Fraction of the epochs in which generator and critic learn, relative to the encoder's."""
    encoder_fraction: float = 0.5
    """Fraction of the epochs in which the encoder learns, relative to the WGAN's."""
    score: Literal["residual", "local", "typicality"] = "residual"
    """Image score: the squared differences of pixels in [-1, 1] and of features, means; or, for small anomalies, the
    least structural similarity of any window of a third of the image's side, as unusual as it is there; or how far the
    errors of pixels and features lie from those of normal images, place by place, to either side."""
    learning_rate: float = 1e-4
    """Adam's rate for generator and critic."""
    encoder_rate: float = 5e-5
    """RMSProp's rate for the encoder."""


class Fanogan(Method):
    """See the module's docstring."""

    Config = FanoganConfig
    least = 2
    training_defaults: ClassVar = {"steps": 100_000, "batch_size": 64, "augment": False}
    presets: ClassVar = {
        "radiograph": {
            **{"width": 8, "critic_steps": 2, "learning_rate": 5e-4, "encoder_rate": 5e-4},
            **{"score": "typicality", "train.epochs": 34, "train.batch_size": 16, "train.augment": True},
        },
        "digits": {
            **{"size": 48, "width": 8, "critic_steps": 2, "learning_rate": 5e-4, "encoder_rate": 5e-4},
            **{"score": "local", "train.epochs": 30, "train.batch_size": 16},
        },
        "tiny": {
            **{"width": 2, "latent": 16, "critic_steps": 1, "learning_rate": 2e-3, "encoder_rate": 2e-3},
            **{"wgan_fraction": 2.0, "encoder_fraction": 1.0},
        },
    }
    config: FanoganConfig

    def __init__(self, config: FanoganConfig) -> None:
        super().__init__(config)
        check(config)
        c = config
        self.generator = Upward(c.size, c.channels, c.width, c.latent)
        self.critic = Downward(c.size, c.channels, c.width, 1, layer_norm)
        self.encoder = Downward(c.size, c.channels, c.width, c.latent, nn.BatchNorm2d)
        self.places = Places(c.size, c.size // 3)
        self.typicality = Typicality(c.size, c.size >> len(DOWN) - 1)

    def phases(self) -> tuple[Phase, ...]:
        """Train the WGAN, then the encoder while that is frozen."""
        c, momenta = self.config, adam((0.0, 0.9))
        critic = Turn("critic", (Group(("critic",), c.learning_rate),), momenta)
        generator = Turn("generator", (Group(("generator",), c.learning_rate),), momenta, every=c.critic_steps)
        encoder = Turn("encoder", (Group(("encoder",), c.encoder_rate),), rmsprop(0.9, 1e-10))
        return (
            Phase("wgan", (critic, generator), c.wgan_fraction),
            Phase("encoder", (encoder,), c.encoder_fraction, frozen=("generator", "critic")),
        )

    def losses(self, x: Tensor, turn: str, step: Step) -> dict[str, Tensor]:
        """Return the losses of a turn."""
        x = 2 * x - 1
        if turn == "encoder":
            pixels, features = self._differences(x, self._reconstruct(x))
            parts = {"reconstruction": pixels.mean(), "features": self.config.feature_weight * features.mean()}
            return {"encoder": parts["reconstruction"] + parts["features"], **parts}
        fake = self.generator(torch.randn(len(x), self.config.latent, device=x.device))
        if turn == "generator":
            return {"generator": -self._judge(fake).mean()}
        distance = self._judge(x).mean() - self._judge(fake).mean()
        penalty = self.config.penalty_weight * gradient_penalty(self._judge, x, fake.detach())
        return {"critic": penalty - distance, "distance": distance, "penalty": penalty}

    def _judge(self, x: Tensor) -> Tensor:
        """Return the critic's value (N,) of images (N, C, H, W) in [-1, 1], higher for what looks real."""
        value: Tensor = self.critic(x)[1][:, 0]
        return value

    def _reconstruct(self, x: Tensor) -> Tensor:
        """Map images (N, C, H, W) in [-1, 1] to those that the generator makes of their codes."""
        fake: Tensor = self.generator(self.encoder(x)[1])
        return fake

    def _differences(self, x: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean squared differences (N,) of images (N, C, H, W) in [-1, 1] and of the critic's features."""
        return (x - fake).square().mean((1, 2, 3)), feature_error(self.critic, x, fake).mean((1, 2, 3))

    def fit(self, batches: Iterable[Tensor], reduce: Reduce = ALONE) -> None:
        """Measure what is normal at each place, where the score asks for it."""
        if self.config.score == "local":
            self.places.fit(self.places(x, self._compared(x)[0]) for x in batches)
        elif self.config.score == "typicality":
            self.typicality.fit(((x, *self._compared(x)) for x in reduce.shard(batches)), reduce.sum)

    def _compared(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return reconstructions of images (N, C, H, W) in [0, 1], and the features' squared error (N, 1, h, w)."""
        fake = self._reconstruct(2 * x - 1)
        return fake / 2 + 0.5, feature_error(self.critic, 2 * x - 1, fake)

    def forward(self, x: Tensor) -> Scores:
        """Score by the squared differences, mapping the absolute one of pixels, or by what is unusual at a place."""
        if self.config.score == "local":
            return self.places.score(x, self._compared(x)[0])
        if self.config.score == "typicality":
            return self.typicality.score(x, *self._compared(x))
        fake = self._reconstruct(2 * x - 1)
        reconstruction = fake / 2 + 0.5
        pixels, features = self._differences(2 * x - 1, fake)
        heat = (x - reconstruction).abs().mean(1, keepdim=True)
        return Scores(pixels + self.config.feature_weight * features, heat, reconstruction)


def check(config: FanoganConfig) -> None:
    """Raise ValueError where the options do not fit each other."""
    check_fractions(config)
    step = 1 << len(DOWN) - 1
    if config.size % step:
        raise ValueError(f"size {config.size} must be a multiple of {step}, since {len(DOWN) - 1} blocks halve it")
