"""GANomaly: semi-supervised anomaly detection via adversarial training (Akcay et al., ACCV 2018, 1805.06725).

An encoder maps an image to a short code, a decoder the code to an image, and a second encoder that image to a code
again. On normal images the image learns to be the same in its pixels (contextual loss), the codes to be equal (encoder
loss), and the features that a discriminator has of both images to be equal (adversarial loss, by feature matching). An
abnormal image is not reconstructed with its anomaly, so that its two codes differ: their distance is the score.

The networks are DCGAN's with 4x4 kernels, for 32x32 pixels as in the paper; for other sizes give more or fewer
``widths``. The paper's 15 epochs are here their number of steps on MNIST's 54,000 images. Departures: Adam's rate is
2e-4 as in the authors' code, where the paper says 2e-3. The generator learns before the discriminator in each step, so
that both share its forward pass, and the discriminator is not drawn anew where its loss comes near 0. Batch norms score
by their running statistics, where the authors' code scores by those of the test batch; nor are scores scaled to 0 and 1
by the lowest and highest of the test set, which changes no order. The map is the contextual error of each pixel.

A smooth image has a small error whatever it shows. ``radiograph`` scores by how far the errors of pixels and of the
discriminator's features lie from those of normal images, to either side (`loligo.nn.typicality`): chosen without
labels, not the paper's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor

from loligo.methods.configs import MethodConfig
from loligo.methods.contract import ALONE, Group, Method, Phase, Reduce, Step, Turn
from loligo.methods.optimisation import adam
from loligo.nn.adversarial import discriminator_loss, feature_error
from loligo.nn.dcgan import Downward, Upward, check_size
from loligo.nn.places import Places
from loligo.nn.typicality import Typicality
from loligo.types import Scores


@dataclass(frozen=True)
class GanomalyConfig(MethodConfig):
    """Options of GANomaly; the defaults are the paper's for MNIST and CIFAR-10."""

    size: int = 32
    """Height and width of the images that it sees, in pixels."""
    widths: tuple[int, ...] = (64, 128, 256)
    """Channels after each halving of height and width, in encoders and discriminator; the decoder mirrors them."""
    latent: int = 100
    """Values of the code."""
    adversarial_weight: float = 1.0
    """Weight of the squared difference between the discriminator's features of image and reconstruction."""
    contextual_weight: float = 50.0
    """Weight of the absolute difference between image and reconstruction, of pixels in [-1, 1]."""
    encoder_weight: float = 1.0
    """Weight of the squared difference between the codes."""
    score: Literal["code", "local", "typicality"] = "code"
    """Image score: the mean absolute difference of the codes; or, for small anomalies, the least structural similarity
    of any window of a third of the image's side, as unusual as it is there; or how far the errors of pixels and of the
    discriminator's features lie from those of normal images, place by place, to either side."""
    learning_rate: float = 2e-4
    """Adam's rate for generator and discriminator."""


class Ganomaly(Method):
    """See the module's docstring."""

    Config = GanomalyConfig
    least = 2
    training_defaults: ClassVar = {"steps": 12_500, "batch_size": 64, "augment": False}
    presets: ClassVar = {
        "radiograph": {
            **{"size": 64, "widths": (16, 32, 64, 128), "learning_rate": 1e-3, "score": "typicality"},
            **{"train.epochs": 30, "train.batch_size": 16, "train.augment": True},
        },
        "digits": {
            **{"size": 48, "widths": (16, 32, 64, 128), "learning_rate": 1e-3, "score": "local"},
            **{"train.epochs": 20, "train.batch_size": 16},
        },
        "tiny": {"size": 64, "widths": (4, 8, 8, 16), "latent": 16, "learning_rate": 5e-3},
    }
    config: GanomalyConfig

    def __init__(self, config: GanomalyConfig) -> None:
        super().__init__(config)
        check_size(config.size, config.widths)
        shape = (config.size, config.channels, config.widths)
        self.encoder = Downward(*shape, config.latent)
        self.decoder = Upward(*shape, config.latent)
        self.second = Downward(*shape, config.latent)
        self.discriminator = Downward(*shape, 1)
        self.places = Places(config.size, config.size // 3)
        self.typicality = Typicality(config.size, config.size >> len(config.widths))

    def phases(self) -> tuple[Phase, ...]:
        """Train adversarially, the generator first, so that both share its forward pass."""
        rate, momenta = self.config.learning_rate, adam((0.5, 0.999))
        generator = Turn("generator", (Group(("encoder", "decoder", "second"), rate),), momenta)
        return (Phase("adversarial", (generator, Turn("discriminator", (Group(("discriminator",), rate),), momenta))),)

    def losses(self, x: Tensor, turn: str, step: Step) -> dict[str, Tensor]:
        """Return the losses of a turn; the generator's leaves its images for the discriminator's of the same step."""
        x = 2 * x - 1
        if turn == "generator":
            return self._generator_losses(x, step)
        fake = step["fake"] if "fake" in step else self._translate(x)[1].detach()
        return {"discriminator": discriminator_loss(self.discriminator(x)[1], self.discriminator(fake)[1])}

    def _generator_losses(self, x: Tensor, step: Step) -> dict[str, Tensor]:
        c, (z, fake, again) = self.config, self._translate(x)
        step["fake"] = fake.detach()
        features, matched = self.discriminator(x)[0], self.discriminator(fake)[0]
        parts = {
            "adversarial": c.adversarial_weight * F.mse_loss(matched, features),
            "contextual": c.contextual_weight * (x - fake).abs().mean(),
            "encoder": c.encoder_weight * F.mse_loss(again, z),
        }
        return {"generator": sum(parts.values(), x.new_zeros(())), **parts}

    def _translate(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return of images (N, C, H, W) in [-1, 1] codes (N, latent), reconstructions, and codes of these."""
        z = self.encoder(x)[1]
        fake = self.decoder(z)
        return z, fake, self.second(fake)[1]

    def fit(self, batches: Iterable[Tensor], reduce: Reduce = ALONE) -> None:
        """Measure what is normal at each place, where the score asks for it."""
        if self.config.score == "local":
            self.places.fit(self.places(x, self._compared(x)[0]) for x in batches)
        elif self.config.score == "typicality":
            self.typicality.fit(((x, *self._compared(x)) for x in reduce.shard(batches)), reduce.sum)

    def _compared(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return reconstructions of images (N, C, H, W) in [0, 1], and the features' squared error (N, 1, h, w)."""
        fake = self._translate(2 * x - 1)[1]
        return fake / 2 + 0.5, feature_error(self.discriminator, 2 * x - 1, fake)

    def forward(self, x: Tensor) -> Scores:
        """Score by the distance of the codes, which maps the absolute difference, or by what is unusual at a place."""
        if self.config.score == "local":
            return self.places.score(x, self._compared(x)[0])
        if self.config.score == "typicality":
            return self.typicality.score(x, *self._compared(x))
        z, fake, again = self._translate(2 * x - 1)
        reconstruction = fake / 2 + 0.5
        heat = (x - reconstruction).abs().mean(1, keepdim=True)
        return Scores((z - again).abs().mean(1), heat, reconstruction)
