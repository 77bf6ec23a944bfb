"""Implicit fields for anomaly detection, in 2-D (Naval Marimont & Tarroni, MICCAI 2021, 2106.05214).

A perceptron maps the coordinates of a pixel and a code of the image to the probabilities of classes of intensity: an
auto-decoder, which has no encoder. A new image's code is found by gradient descent with the network frozen; what it
decodes to is the normal image most like it, and a pixel scores by the negative log-likelihood of its own class there.
Maps are min-filtered and averaged.

Departures: the paper keeps a code for each training image, moves it once a step beside the network, and needs 2,000
epochs. Here a code lives for one step only: it starts at zero and takes a few steps of descent, through which the
network is trained, so that it learns to be found fast (gradient origin networks, Bond-Taylor & Willcocks 2021; learnt
step sizes, Meta-SGD, Li et al. 2017). A new image's code is found by the very same steps, always from zero and on the
same pixels, so that scores depend on nothing else; their gradient is written out, so that scoring needs no autograd.
Classes are equal intervals of [0, 1], not clusters of all intensities, and no filter comes before them. No dropout, no
weight normalisation, no penalty on the code. The paper localises; an image's score is the mean of its map here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from loligo.config import Pooling
from loligo.methods.configs import MethodConfig
from loligo.methods.contract import Group, Method, Phase, Step, Turn
from loligo.methods.optimisation import Cosine
from loligo.nn.heat import pool, smooth
from loligo.types import Scores


@dataclass(frozen=True)
class ImplicitFieldConfig(MethodConfig):
    """Options of the implicit field."""

    classes: int = 10
    """Classes of intensity, equal intervals of [0, 1]."""
    latent: int = 256
    """Values of the code."""
    width: int = 512
    """Values of each hidden layer."""
    layers: int = 8
    """Hidden layers; code and coordinates enter the first and the middle one."""
    frequencies: int = field(default=10, metadata={"least": 0})
    """Octaves of sines and cosines that describe a coordinate."""
    points: int = 1024
    """Pixels of each image that a training step looks at, chosen at random."""
    steps: int = 3
    """Steps of descent by which a code is found, in training and in scoring."""
    step_size: float = 10.0
    """Size of these steps before training, which learns it for each value of the code."""
    stride: int = 2
    """Scoring finds the code by every so-many-th pixel along both sides."""
    mean_filter_size: int = 15
    """Side in pixels of the window that the map is averaged over; odd."""
    image_score: Pooling = "mean"
    """How a map becomes an image's score: its maximum, its mean, or the mean of its highest hundredth."""
    learning_rate: float = 5e-4
    """Adam's rate, falling to a tenth by a cosine."""


class Field(nn.Module):
    """Map codes and coordinates to logits of classes; in float32 where not under autocast."""

    exact = True
    octaves: Tensor

    def __init__(self, config: ImplicitFieldConfig) -> None:
        super().__init__()
        self.middle = config.layers // 2
        self.register_buffer("octaves", math.pi * 2.0 ** torch.arange(config.frequencies), persistent=False)
        self.codes = nn.ModuleList(nn.Linear(config.latent, config.width) for _ in range(2))
        self.places = nn.ModuleList(nn.Linear(4 * config.frequencies, config.width, bias=False) for _ in range(2))
        self.hidden = nn.ModuleList(nn.Linear(config.width, config.width) for _ in range(config.layers - 1))
        self.out = nn.Linear(config.width, config.classes)
        self.log_steps = nn.Parameter(torch.full((config.latent,), math.log(config.step_size)))
        for layer in (*self.codes, *self.places, *self.hidden):
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")

    def forward(self, z: Tensor, coordinates: Tensor) -> Tensor:
        """Map codes (N, D) and coordinates (P, 2) in [-1, 1] to logits (N, P, classes) float32."""
        logits: Tensor = self.out(self._hidden(z, coordinates)[-1])
        return logits.float()

    def _hidden(self, z: Tensor, coordinates: Tensor) -> list[Tensor]:
        """Return what each hidden layer gives, (N, P, width)."""
        angles = (coordinates[:, :, None] * self.octaves).flatten(1)
        place = torch.cat([angles.sin(), angles.cos()], 1)
        found = [F.relu(self.codes[0](z)[:, None] + self.places[0](place))]
        for i, layer in enumerate(self.hidden, start=1):
            y = layer(found[-1])
            if i == self.middle:
                y = y + self.codes[1](z)[:, None] + self.places[1](place)
            found.append(F.relu(y))
        return found

    def gradient(self, z: Tensor, target: Tensor, coordinates: Tensor) -> Tensor:
        """Return the gradient (N, D) by codes of the mean `nll` of classes (N, P) at coordinates (P, 2)."""
        hidden = self._hidden(z, coordinates)
        probabilities = self.out(hidden[-1]).float().softmax(2)
        back = (probabilities - F.one_hot(target, self.out.out_features)) / target.shape[1] @ self.out.weight
        by_middle, through_relu = torch.zeros_like(z), torch.ops.aten.threshold_backward
        for i in reversed(range(1, len(hidden))):
            back = through_relu(back, hidden[i], 0)
            if i == self.middle:
                by_middle = back.sum(1) @ self.codes[1].weight
            back = back @ self.hidden[i - 1].weight
        found: Tensor = by_middle + through_relu(back, hidden[0], 0).sum(1) @ self.codes[0].weight
        return found

    def find(self, target: Tensor, coordinates: Tensor, steps: int) -> Tensor:
        """Return codes (N, D) that decode to classes (N, P) at coordinates (P, 2)."""
        z = self.log_steps.new_zeros(target.shape[0], len(self.log_steps))
        for _ in range(steps):
            z = z - self.log_steps.exp() * self.gradient(z, target, coordinates)
        return z


class ImplicitField(Method):
    """See the module's docstring."""

    Config = ImplicitFieldConfig
    presets: ClassVar = {
        "radiograph": {
            **{"width": 256, "layers": 6, "points": 512, "steps": 2, "stride": 4},
            **{"train.epochs": 12, "learning_rate": 1e-3},
        },
        "digits": {
            **{"size": 96, "width": 256, "layers": 6, "points": 512, "steps": 2, "mean_filter_size": 9},
            **{"train.epochs": 6, "train.augment": False, "learning_rate": 1e-3},
        },
        "tiny": {
            **{"size": 64, "latent": 32, "width": 64, "layers": 4, "frequencies": 5, "points": 512, "steps": 2},
            **{"mean_filter_size": 7, "learning_rate": 5e-3},
        },
    }
    config: ImplicitFieldConfig
    grid: Tensor

    def __init__(self, config: ImplicitFieldConfig) -> None:
        super().__init__(config)
        check(config)
        self.field = Field(config)
        along = (torch.arange(config.size) + 0.5) / config.size * 2 - 1
        grid = torch.stack(torch.meshgrid(along, along, indexing="ij"), -1)
        self.register_buffer("grid", grid, persistent=False)  # (H, W, 2)

    def phases(self) -> tuple[Phase, ...]:
        """Train the network on one loss."""
        group = Group(("field",), self.config.learning_rate)
        return (Phase("reconstruction", (Turn("reconstruction", (group,), schedule=Cosine(0.1)),)),)

    def losses(self, x: Tensor, turn: str, step: Step) -> dict[str, Tensor]:
        """Return the cross-entropy of some pixels' classes, in nats, by codes that these pixels gave."""
        chosen = torch.randperm(self.config.size**2, device=x.device)[: self.config.points]
        target, coordinates = self._classes(x).flatten(1)[:, chosen], self.grid.flatten(0, 1)[chosen]
        z = self.field.find(target, coordinates, self.config.steps)
        return {"reconstruction": nll(self.field(z, coordinates), target).mean()}

    def _classes(self, x: Tensor) -> Tensor:
        """Return the classes (N, H, W) of images (N, 1, H, W) in [0, 1]."""
        return (x[:, 0] * self.config.classes).long().clamp(0, self.config.classes - 1)

    def forward(self, x: Tensor) -> Scores:
        """Score by the negative log-likelihood of what is seen, given the normal image that is most like it."""
        parts = [x] if torch.compiler.is_compiling() else torch.split(x, 1)  # one by one: hidden layers are large
        found = [self._restore(part) for part in parts]
        nats, reconstruction = (torch.cat(parts) for parts in zip(*found, strict=True))
        heat = smooth(nats, 3, self.config.mean_filter_size)
        return Scores(pool(heat, self.config.image_score), heat, reconstruction)

    def _restore(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the `nll` of an image's pixels, and the image that its code decodes to, (1, 1, H, W) each."""
        stride, classes = self.config.stride, self._classes(x)
        coordinates = self.grid[::stride, ::stride].flatten(0, 1)
        z = self.field.find(classes[:, ::stride, ::stride].flatten(1), coordinates, self.config.steps)
        logits = self.field(z, self.grid.flatten(0, 1))
        centres = (torch.arange(self.config.classes, device=x.device) + 0.5) / self.config.classes
        return nll(logits, classes.flatten(1)).view_as(x), (logits.softmax(2) * centres).sum(2).view_as(x)


def nll(logits: Tensor, target: Tensor) -> Tensor:
    """Return the negative log-likelihood of classes (N, P) by logits (N, P, classes): (N, P)."""
    return F.cross_entropy(logits.mT, target, reduction="none")


def check(config: ImplicitFieldConfig) -> None:
    """Raise ValueError where the options do not fit each other."""
    if config.mean_filter_size % 2 == 0:
        raise ValueError(f"mean_filter_size {config.mean_filter_size} must be odd, so that it has a middle")
    for name in ("layers", "steps", "stride"):
        if getattr(config, name) < 1:
            raise ValueError(f"{name} is {getattr(config, name)}; it must be at least 1")
    if not 1 <= config.points <= config.size**2:
        raise ValueError(f"points is {config.points}; an image of size {config.size} has {config.size**2}")
