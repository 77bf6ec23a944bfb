"""MNAD: an autoencoder guided by a memory of prototypical normal features (Park et al., CVPR 2020, 2003.13228).

The code at each place, of unit length, is joined with what a memory of few items holds for it, and both are decoded.
Items move towards the codes that they are the nearest of. Compactness draws codes to the nearest item, separateness
away from the second nearest, so that the items differ. An abnormal image is reconstructed badly, and its codes lie far
from any item; the score is of both.

This is the paper's variant that reconstructs, of still images: the U-Net-like network without skip connections.
Departures: at test time the authors go on updating the items by frames that look normal, so that a score depends on
what was scored before; here the memory is frozen after training. They scale PSNR and distance by the least and the
greatest of a video; images have no such range, so that both are standardised over training images. Losses are means
over places and pixels, as in the authors' code, whose compactness is a squared distance; here it is the paper's, not
squared. Items start in all directions.

A smooth image has a high PSNR whatever it shows. ``radiograph`` scores by how far error and distance lie from those of
normal images, to either side (`loligo.nn.typicality`): chosen without labels, not the paper's.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from loligo.methods.configs import MethodConfig
from loligo.methods.contract import ALONE, Group, Method, Phase, Reduce, Step, Turn
from loligo.methods.optimisation import Cosine
from loligo.nn.conv import ConvNorm, UpConvNorm
from loligo.nn.memory import MemoryPrototypes, Reading, compactness_and_separateness, unit_distance
from loligo.nn.places import Places
from loligo.nn.standard import Standard
from loligo.nn.typicality import FLOOR, Typicality
from loligo.types import Inspection, Scores


@dataclass(frozen=True)
class MnadConfig(MethodConfig):
    """Options of MNAD."""

    size: int = 256
    """Height and width of the images that it sees, in pixels."""
    widths: tuple[int, ...] = (64, 128, 256, 512)
    """Channels at each resolution, that of the image first, that of the code last; the decoder mirrors them."""
    items: int = 10
    """Items of the memory; at least 2."""
    compactness_weight: float = 0.01
    """Weight of the codes' distance from the nearest item; the squared error, of pixels in [-1, 1], has 1."""
    separateness_weight: float = 0.01
    """Weight of how far the second nearest item is from lying ``margin`` farther off."""
    margin: float = 1.0
    """By which the second nearest item is to be farther than the nearest; distances of unit vectors are 2 at most."""
    psnr_weight: float = 0.7
    """Weight of PSNR in the score ``abnormality``, from 0 to 1; the rest is the distance from the nearest item."""
    score: Literal["abnormality", "local", "typicality"] = "abnormality"
    """Image score: PSNR and mean distance from the nearest item, weighed, in standard deviations; or, for small
    anomalies, the least structural similarity of any window of a third of the image's side, as unusual as it is there;
    or how far error and distance lie from those of normal images, place by place, to either side."""
    learning_rate: float = 2e-5
    """Adam's rate, falling to nought by a cosine."""


class Mnad(Method):
    """See the module's docstring."""

    Config = MnadConfig
    least = 2
    training_defaults: ClassVar = {"epochs": 60, "batch_size": 4}
    presets: ClassVar = {
        "radiograph": {
            **{"size": 128, "widths": (16, 32, 64, 128), "score": "typicality", "learning_rate": 1e-3},
            **{"train.epochs": 10, "train.batch_size": 16},
        },
        "digits": {
            **{"size": 48, "widths": (16, 32, 64, 128), "score": "local", "learning_rate": 1e-3},
            **{"train.epochs": 6, "train.batch_size": 16, "train.augment": False},
        },
        "tiny": {"size": 64, "widths": (4, 8, 16), "learning_rate": 1e-2},
    }
    config: MnadConfig

    def __init__(self, config: MnadConfig) -> None:
        super().__init__(config)
        check(config)
        c, *pairs = config, *itertools.pairwise(config.widths)
        self.encoder = nn.Sequential(
            *double(c.channels, c.widths[0]),
            *(layer for a, b in pairs[:-1] for layer in (nn.MaxPool2d(2), *double(a, b))),
            *(nn.MaxPool2d(2), ConvNorm(*pairs[-1]), nn.Conv2d(c.widths[-1], c.widths[-1], 3, padding=1)),
        )
        self.memory = MemoryPrototypes(c.items, c.widths[-1])
        self.decoder = nn.Sequential(
            *double(2 * c.widths[-1], c.widths[-1]),
            *(layer for a, b in reversed(pairs) for layer in (UpConvNorm(b, b), *double(b, a))),
            nn.Conv2d(c.widths[0], c.channels, 3, padding=1),
        )
        self.standard = Standard(2)
        self.places = Places(c.size, c.size // 3)
        self.typicality = Typicality(c.size, c.size >> len(pairs))

    def phases(self) -> tuple[Phase, ...]:
        """Train encoder and decoder on one loss; the memory moves by itself."""
        group = Group(("encoder", "decoder"), self.config.learning_rate)
        return (Phase("reconstruction", (Turn("total", (group,), schedule=Cosine(0.0)),)),)

    def losses(self, x: Tensor, turn: str, step: Step) -> dict[str, Tensor]:
        """Return the mean squared error of pixels in [-1, 1], compactness, separateness, and their sum, weighed."""
        reconstruction, queries, reading = self._reconstruct(x)
        step["queries"] = queries.detach()
        error = F.mse_loss(2 * reconstruction, 2 * x)
        compactness, separateness = compactness_and_separateness(reading.similarity, self.config.margin)
        total = error + self.config.compactness_weight * compactness + self.config.separateness_weight * separateness
        return {"total": total, "reconstruction": error, "compactness": compactness, "separateness": separateness}

    def after_step(self, turn: str, step: Step, reduce: Reduce = ALONE) -> None:
        """Move the items towards the codes of the batch."""
        self.memory.write(reduce.gather(step["queries"]))

    def _reconstruct(self, x: Tensor) -> tuple[Tensor, Tensor, Reading]:
        """Return reconstructions (N, C, H, W) in [0, 1], the unit codes (N, L, D) of places, and what memory held."""
        z = self.encoder(2 * x - 1)
        queries = F.normalize(z.flatten(2).mT.float(), dim=-1)
        reading = self.memory.look(queries)
        joined = torch.cat([queries, reading.values], -1).mT.reshape(z.shape[0], -1, *z.shape[2:])
        return (self.decoder(joined.to(z.dtype)).float().tanh() + 1) / 2, queries, reading

    def _compared(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return reconstructions, and the distance (N, 1, h, w) of codes from the nearest item."""
        reconstruction, _, reading = self._reconstruct(x)
        side = self.typicality.side
        return reconstruction, unit_distance(reading.similarity.amax(-1)).view(x.shape[0], 1, side, side)

    def _parts(self, x: Tensor, reconstruction: Tensor, nearest: Tensor) -> Tensor:
        """Return the parts (N, 2) of the score: minus the PSNR in dB, and the mean distance from the nearest item."""
        error = (x - reconstruction).square().mean((1, 2, 3))
        return torch.stack([10 * (error + FLOOR).log10(), nearest.mean((1, 2, 3))], 1)

    def fit(self, batches: Iterable[Tensor], reduce: Reduce = ALONE) -> None:
        """Measure what the score of normal images is made of."""
        if self.config.score == "local":
            self.places.fit(self.places(x, self._compared(x)[0]) for x in batches)
        elif self.config.score == "typicality":
            self.typicality.fit(((x, *self._compared(x)) for x in reduce.shard(batches)), reduce.sum)
        else:
            self.standard.fit((self._parts(x, *self._compared(x)) for x in reduce.shard(batches)), reduce.gather)

    def forward(self, x: Tensor) -> Scores:
        """Score by PSNR and distance, with the squared error as map, or by how unusual they are."""
        reconstruction, nearest = self._compared(x)
        if self.config.score == "local":
            return self.places.score(x, reconstruction)
        if self.config.score == "typicality":
            return self.typicality.score(x, reconstruction, nearest)
        worse, farther = self.standard(self._parts(x, reconstruction, nearest)).unbind(1)
        score = self.config.psnr_weight * worse + (1 - self.config.psnr_weight) * farther
        return Scores(score, (x - reconstruction).square().mean(1, keepdim=True), reconstruction)

    def inspect(self, x: Tensor) -> Inspection:
        """Return reconstructions, and the codes of places beside the memory."""
        reconstruction, queries, reading = self._reconstruct(x)
        slots = self.memory.slots.expand(queries.shape[1], -1, -1)
        return Inspection({"reconstruction": reconstruction}, queries, reading.values, slots)


def double(inputs: int, outputs: int) -> tuple[ConvNorm, ConvNorm]:
    """Return two convolutions, each with batch norm and ReLU."""
    return ConvNorm(inputs, outputs), ConvNorm(outputs, outputs)


def check(config: MnadConfig) -> None:
    """Raise ValueError where the options do not fit each other."""
    if len(config.widths) < 2 or config.items < 2:
        raise ValueError(f"widths {config.widths} and items {config.items} must be two or more")
    step = 1 << (len(config.widths) - 1)
    if config.size % step:
        raise ValueError(f"size {config.size} must be a multiple of {step}, 2 to the number of widths less one")
    if not 0 <= config.psnr_weight <= 1:
        raise ValueError(f"psnr_weight is {config.psnr_weight}; it must lie in [0, 1]")
