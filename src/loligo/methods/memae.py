"""MemAE: an autoencoder whose decoder sees what a memory holds of the code, not the code (Gong et al., ICCV 2019).

An autoencoder may reconstruct abnormal images as well as normal ones. Here the code at each place addresses a memory,
learnt with the rest, by cosine similarity; weights below a threshold become 0, so that few slots are combined, and an
entropy loss makes them fewer. The memory holds normal patterns, so that an abnormal image is reconstructed as something
normal; the squared error is the score.

Departures (1904.02639): the network is the paper's for CIFAR-10, on larger images of one channel, so that the code has
8x8 places at 128 pixels; epochs and batch are those of the authors' code for video. The reconstruction error is a mean
over pixels and the entropy a mean over places, as in that code; it addresses by dot products, this by cosine similarity
as the paper. Reconstructions are limited to [0, 1] for scoring.

A smooth image has a small error whatever it shows. ``radiograph`` scores by how far error and distance from the nearest
slot lie from those of normal images, to either side (`loligo.nn.typicality`): chosen without labels, not the paper's.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from loligo.methods.configs import MethodConfig
from loligo.methods.contract import ALONE, Group, Method, Phase, Reduce, Step, Turn
from loligo.nn.conv import ConvNorm, UpConvNorm
from loligo.nn.memory import MemoryMatrix, Reading, entropy, unit_distance
from loligo.nn.places import Places
from loligo.nn.typicality import Typicality
from loligo.types import Inspection, Scores


@dataclass(frozen=True)
class MemaeConfig(MethodConfig):
    """Options of MemAE."""

    widths: tuple[int, ...] = (64, 128, 128, 256)
    """Channels of the encoder, whose layers each halve height and width; the decoder mirrors them. For MNIST the paper
    has 16, 32, 64."""
    slots: int = 500
    """Slots of the memory; for MNIST the paper has 100."""
    threshold: float = 1.0
    """Addressing weights up to so many times 1 / slots become 0; from 0 to 3, in the paper from 1 on."""
    entropy_weight: float = 0.0002
    """Weight of the entropy, in nats, of the addressing weights; the squared error has 1."""
    score: Literal["reconstruction", "local", "typicality"] = "reconstruction"
    """Image score: the mean squared error; or, for small anomalies, the least structural similarity of any window of a
    third of the image's side, as unusual as it is there; or how far error and distance from the memory lie from those
    of normal images, place by place, to either side."""
    learning_rate: float = 1e-4
    """Adam's rate."""


class Memae(Method):
    """See the module's docstring."""

    Config = MemaeConfig
    least = 2
    training_defaults: ClassVar = {"epochs": 100, "batch_size": 10}
    presets: ClassVar = {
        "radiograph": {"score": "typicality", "learning_rate": 1e-3, "train.epochs": 15, "train.batch_size": 16},
        "digits": {
            **{"size": 48, "widths": (32, 64, 128), "score": "local", "learning_rate": 1e-3},
            **{"train.epochs": 6, "train.batch_size": 16, "train.augment": False},
        },
        "tiny": {"size": 64, "widths": (8, 16, 32), "slots": 40, "learning_rate": 1e-2},
    }
    config: MemaeConfig

    def __init__(self, config: MemaeConfig) -> None:
        super().__init__(config)
        check(config)
        c, deepest, shallow = config, config.widths[-1], config.widths[1:]
        self.encoder = nn.Sequential(
            *(ConvNorm(a, b, stride=2) for a, b in itertools.pairwise((c.channels, *c.widths)))
        )
        self.memory = MemoryMatrix(c.slots, deepest, 1, "hard", threshold=c.threshold / c.slots, cosine=True)
        self.decoder = nn.Sequential(
            *(UpConvNorm(a, b) for a, b in itertools.pairwise((deepest, *reversed(shallow)))),
            nn.ConvTranspose2d(shallow[0] if shallow else deepest, c.channels, 3, 2, 1, output_padding=1),
        )
        self.places = Places(c.size, c.size // 3)
        self.typicality = Typicality(c.size, c.size >> len(c.widths))

    def phases(self) -> tuple[Phase, ...]:
        """Train everything on one loss."""
        group = Group(("encoder", "memory", "decoder"), self.config.learning_rate)
        return (Phase("reconstruction", (Turn("total", (group,)),)),)

    def losses(self, x: Tensor, turn: str, step: Step) -> dict[str, Tensor]:
        """Return the mean squared error, the entropy of the addressing, and their sum, weighed."""
        reconstruction, _, reading = self._reconstruct(x)
        losses = {"reconstruction": F.mse_loss(reconstruction, x), "entropy": entropy(reading.weights)}
        return {"total": losses["reconstruction"] + self.config.entropy_weight * losses["entropy"], **losses}

    def _reconstruct(self, x: Tensor) -> tuple[Tensor, Tensor, Reading]:
        """Return reconstructions (N, C, H, W), not limited to [0, 1], codes (N, D, h, w), and what memory held."""
        z = self.encoder(x)
        reading = self.memory.look(z.flatten(2).mT)
        return self.decoder(reading.values.mT.reshape(z.shape)).float(), z, reading

    def _compared(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return reconstructions in [0, 1], and the distance (N, 1, h, w) of codes from the nearest slot."""
        reconstruction, z, reading = self._reconstruct(x)
        nearest = unit_distance(reading.similarity.amax(-1))
        return reconstruction.clamp(0, 1), nearest.view(z.shape[0], 1, *z.shape[2:])

    def fit(self, batches: Iterable[Tensor], reduce: Reduce = ALONE) -> None:
        """Measure at each place what the score of normal images is made of."""
        if self.config.score == "local":
            self.places.fit(self.places(x, self._compared(x)[0]) for x in batches)
        elif self.config.score == "typicality":
            self.typicality.fit(((x, *self._compared(x)) for x in reduce.shard(batches)), reduce.sum)

    def forward(self, x: Tensor) -> Scores:
        """Score by the squared error, which is also the map, or by how unusual it is."""
        reconstruction, nearest = self._compared(x)
        if self.config.score == "local":
            return self.places.score(x, reconstruction)
        if self.config.score == "typicality":
            return self.typicality.score(x, reconstruction, nearest)
        error = (x - reconstruction).square().mean(1, keepdim=True)
        return Scores(error.mean((1, 2, 3)), error, reconstruction)

    def inspect(self, x: Tensor) -> Inspection:
        """Return reconstructions, and the codes of places beside the memory."""
        reconstruction, z, reading = self._reconstruct(x)
        slots = self.memory.slots.expand(z[0, 0].numel(), -1, -1)
        return Inspection({"reconstruction": reconstruction.clamp(0, 1)}, z.flatten(2).mT, reading.values, slots)


def check(config: MemaeConfig) -> None:
    """Raise ValueError where the options do not fit each other."""
    step = 1 << len(config.widths)
    if not config.widths or config.size % step:
        raise ValueError(
            f"size {config.size} must be a multiple of {step}, 2 to the number of widths; name one or more"
        )
    if not 0 <= config.threshold <= 3:
        raise ValueError(f"threshold is {config.threshold}; it must lie in [0, 3]")
