"""Implicit fields for anomaly detection, in 2-D (Naval Marimont & Tarroni, MICCAI 2021, 2106.05214).

A perceptron maps the coordinates of a pixel and a code of the image to the probabilities of classes of intensity: an
auto-decoder (DeepSDF, Park et al. 2019), which has no encoder. Each training image has a code, moved by gradient beside
the network; a new image's code is found by gradient descent with the network frozen. What it decodes to is the normal
image most like it, and a pixel scores by the negative log-likelihood of its own class there, min-filtered and averaged.

Network, classes, losses, rates and schedule are those of the paper and its authors' program: 8 weight-normalised layers
of 512 with dropout, classes by k-means of all intensities, codes within a ball and lightly penalised.

Departures: 2-D, so that coordinates have 40 sines and cosines rather than 60; the images of a batch share their random
pixels, none twice; the penalty is there from the start, not raised over 100 epochs; no mode filter smooths the classes.
The search starts at the zero code, rather than a random one, and sees the same pixels at each step, those of a grid,
rather than 10,000 and then 50,000 of a volume at random, so that a score depends on the image alone; its gradient is
written out, so that scoring needs no autograd and can be exported. Codes of training images are let go once training
ends. The paper localises; an image's score is the mean of its map here, or, with ``deviation``, how far the map lies
from those of normal images in either direction: an image that is likelier than normal ones everywhere is no more normal
for that.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from loligo.config import Pooling
from loligo.methods.configs import MethodConfig
from loligo.methods.contract import ALONE, Group, Method, Phase, Reduce, Step, Turn
from loligo.methods.optimisation import Clock
from loligo.nn.auto_decoder import Field, nll
from loligo.nn.heat import pool, smooth
from loligo.nn.places import Deviations
from loligo.types import Scores

BOUND, PENALTY = 1.0, 1e-4
"""Of the authors: the largest norm of a code, and the weight of its norm in the loss."""
BINS = 256
"""Of the histogram that classes are made of."""
AT_ONCE = 8
"""Images whose codes are searched together; their hidden layers are large."""


@dataclass(frozen=True)
class ImplicitFieldConfig(MethodConfig):
    """Options of the implicit field."""

    classes: int = 10
    """Classes of intensity, by k-means of those of the training images."""
    latent: int = 256
    """Values of the code."""
    width: int = 512
    """Values of each hidden layer; in that before the middle, code and coordinates take their part of them."""
    layers: int = 8
    """Hidden layers; code and coordinates enter the first and the middle one."""
    frequencies: int = field(default=10, metadata={"least": 0})
    """Octaves of sines and cosines that describe a coordinate."""
    points: int = 16384
    """Pixels of each image that a training step looks at, chosen at random."""
    steps: int = 600
    """Steps of Adam by which a new image's code is found."""
    step_size: float = 1e-3
    """Adam's rate in that search."""
    stride: int = 2
    """The search looks at every so-many-th pixel along both sides."""
    mean_filter_size: int = 15
    """Side in pixels of the window that the map is averaged over; odd."""
    image_score: Literal[Pooling, "deviation"] = "mean"
    """How a map becomes an image's score: its maximum, its mean, the mean of its highest hundredth, or the root mean
    square of its deviations from normal maps, in standard deviations of each pixel."""
    learning_rate: float = 5e-4
    """Adam's rate of the network, halved after each quarter of the epochs."""
    code_rate: float = 1e-3
    """Adam's rate of the training images' codes, halved likewise."""


class ImplicitField(Method):
    """See the module's docstring."""

    Config = ImplicitFieldConfig
    training_defaults: ClassVar = {"epochs": 2000, "batch_size": 6, "augment": False, "intensity_augmentation": False}
    presets: ClassVar = {
        "radiograph": {
            **{"latent": 64, "width": 256, "layers": 4, "frequencies": 6, "points": 256, "image_score": "deviation"},
            **{"steps": 30, "step_size": 0.02, "stride": 8, "learning_rate": 1e-3, "code_rate": 1e-2},
            **{"train.epochs": 60, "train.batch_size": 16},
        },
        "digits": {
            **{"size": 96, "latent": 64, "width": 256, "layers": 4, "frequencies": 6, "points": 512, "steps": 30},
            **{"step_size": 0.02, "stride": 3, "mean_filter_size": 9, "learning_rate": 1e-3, "code_rate": 1e-2},
            **{"train.epochs": 20, "train.batch_size": 16},
        },
        "tiny": {
            **{"size": 64, "latent": 16, "width": 64, "layers": 3, "frequencies": 5, "points": 512, "steps": 20},
            **{"step_size": 0.02, "stride": 4, "mean_filter_size": 7, "learning_rate": 1e-2, "code_rate": 0.1},
            **{"train.augment": False},
        },
    }
    grown = ("codes.weight",)
    config: ImplicitFieldConfig
    grid: Tensor
    centres: Tensor

    def __init__(self, config: ImplicitFieldConfig) -> None:
        super().__init__(config)
        check(config)
        self.field = Field(config.latent, config.width, config.layers, config.frequencies, config.classes)
        self.codes = nn.Embedding(0, config.latent)  # one a training image, from `prepare` until `fit`
        self.register_buffer("centres", (torch.arange(config.classes) + 0.5) / config.classes)
        self.deviations = Deviations(config.size if config.image_score == "deviation" else 0)
        along = (torch.arange(config.size) + 0.5) / config.size * 2 - 1
        grid = torch.stack(torch.meshgrid(along, along, indexing="ij"), -1)
        self.register_buffer("grid", grid, persistent=False)  # (H, W, 2)

    def prepare(self, batches: Iterable[Tensor], reduce: Reduce = ALONE) -> None:
        """Find the classes of intensity, and give each training image a random code."""
        from sklearn.cluster import KMeans

        count, histogram = 0, self.centres.new_zeros(BINS)
        for x in batches:
            count += len(x)
            histogram += torch.histc(x[:, 0].float(), BINS, 0, 1)
        bins, start = (((torch.arange(n) + 0.5) / n)[:, None].numpy() for n in (BINS, len(self.centres)))
        weight = histogram.cpu().numpy() + 1e-3  # lest a class be empty
        found = KMeans(len(start), init=start, n_init=1, tol=0).fit(bins, sample_weight=weight)
        self.centres.copy_(torch.from_numpy(found.cluster_centers_[:, 0]).sort().values)
        self.codes.weight.data = self.centres.new_empty(count, self.config.latent).normal_(0, self.config.latent**-0.5)
        self._bound()

    def _bound(self) -> None:
        self.codes.weight.data.renorm_(2, 0, BOUND)

    def phases(self) -> tuple[Phase, ...]:
        """Train network and codes on one loss."""
        groups = (Group(("field",), self.config.learning_rate), Group(("codes",), self.config.code_rate))
        return (Phase("reconstruction", (Turn("total", groups, schedule=halving),)),)

    def losses(self, x: Tensor, turn: str, step: Step) -> dict[str, Tensor]:
        """Return the cross-entropy of some pixels' classes, in nats, by the images' codes, and these codes' norm."""
        chosen = torch.randperm(self.config.size**2, device=x.device)[: self.config.points]
        target, coordinates = self._classes(x).flatten(1)[:, chosen], self.grid.flatten(0, 1)[chosen]
        z = self.codes(step["index"])
        reconstruction, norm = nll(self.field(z, coordinates), target).mean(), z.norm(dim=1).mean()
        return {"total": reconstruction + PENALTY * norm, "reconstruction": reconstruction, "norm": norm}

    def after_step(self, turn: str, step: Step, reduce: Reduce = ALONE) -> None:
        """Keep codes within their ball."""
        self._bound()

    def _classes(self, x: Tensor) -> Tensor:
        """Return the classes (N, H, W) of images (N, 1, H, W) in [0, 1]: the nearest centres."""
        return torch.bucketize(x[:, 0].float().contiguous(), (self.centres[1:] + self.centres[:-1]) / 2)

    def fit(self, batches: Iterable[Tensor], reduce: Reduce = ALONE) -> None:
        """Let the codes of training images go; measure mean and deviation of the maps where the score needs them."""
        self.codes.weight.data = self.codes.weight.data[:0]
        if self.config.image_score == "deviation":
            own = [self._restore(x)[0] for x in reduce.shard(batches)]
            self.deviations.fit([reduce.gather(torch.cat([self.deviations.mean[:0], *own]))])

    def forward(self, x: Tensor) -> Scores:
        """Score by the negative log-likelihood of what is seen, given the normal image that is most like it."""
        heat, reconstruction = self._restore(x)
        if self.config.image_score != "deviation":
            return Scores(pool(heat, self.config.image_score), heat, reconstruction)
        apart = self.deviations.standardised(heat)
        return Scores(apart.square().mean((1, 2, 3)).sqrt(), apart.abs(), reconstruction)

    def _restore(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the smoothed `nll` of images' pixels, and the images that their codes decode to, (N, 1, H, W) each."""
        parts = [x] if torch.compiler.is_compiling() else torch.split(x, AT_ONCE)  # a graph knows no number of parts
        found = [self._restore_together(part) for part in parts]
        heat, reconstruction = (torch.cat(part) for part in zip(*found, strict=True))
        return heat, reconstruction

    def _restore_together(self, x: Tensor) -> tuple[Tensor, Tensor]:
        c, classes = self.config, self._classes(x)
        coordinates = self.grid[:: c.stride, :: c.stride].flatten(0, 1)
        z = self.field.find(classes[:, :: c.stride, :: c.stride].flatten(1), coordinates, c.steps, c.step_size)
        logits = self.field(z, self.grid.flatten(0, 1))
        nats = nll(logits, classes.flatten(1)).view_as(x)
        return smooth(nats, 3, c.mean_filter_size), (logits.softmax(2) * self.centres).sum(2).view_as(x)


def halving(clock: Clock) -> float:
    """Halve the rate after each quarter of the epochs: each 500 of the paper's."""
    return 0.5 ** math.floor(4 * clock.epoch / clock.epochs)


def check(config: ImplicitFieldConfig) -> None:
    """Raise ValueError where the options do not fit each other."""
    if config.mean_filter_size % 2 == 0:
        raise ValueError(f"mean_filter_size {config.mean_filter_size} must be odd, so that it has a middle")
    for name, least in (("classes", 2), ("layers", 2), ("steps", 1), ("stride", 1)):
        if getattr(config, name) < least:
            raise ValueError(f"{name} is {getattr(config, name)}; it must be at least {least}")
    if not 1 <= config.points <= config.size**2:
        raise ValueError(f"points is {config.points}; an image of size {config.size} has {config.size**2}")
    if config.width <= config.latent + 4 * config.frequencies:
        raise ValueError(
            f"width {config.width} must be more than code and coordinates, latent {config.latent} + 4 * frequencies "
            f"{config.frequencies}: they take their part of the layer before the middle"
        )
