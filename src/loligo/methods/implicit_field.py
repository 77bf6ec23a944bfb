"""Implicit fields for anomaly detection, in 2-D (Naval Marimont & Tarroni, MICCAI 2021, 2106.05214).

A perceptron maps the coordinates of a pixel and a code of the image to the probabilities of classes of intensity: an
auto-decoder, which has no encoder. A new image's code is found by gradient descent with the network frozen; what it
decodes to is the normal image most like it, and a pixel is as abnormal as its own class is improbable there. Maps are
min-pooled and averaged.

Departures: the paper keeps a code for each training image, moves it once a step beside the network, and needs 2,000
epochs. Here a code lives for one step only: it starts at zero and takes a few steps of descent, through which the
network is trained, so that it learns to be found fast (gradient origin networks, Bond-Taylor & Willcocks 2021; learnt
step sizes, Meta-SGD, Li et al. 2017). A new image's code is found by the very same steps, always from zero and on the
same pixels, so that scores depend on nothing else. Classes are equal shares of [0, 1], not clusters of all
intensities, and no filter comes before them. No dropout, no weight normalisation, no penalty on the code. The paper
localises; an image's score is the mean of its map here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from loligo.methods.configs import MethodConfig
from loligo.methods.contract import Method, Phase, Turn
from loligo.nn.heat import Pooling, pool, smooth
from loligo.types import Scores


@dataclass(frozen=True)
class ImplicitFieldConfig(MethodConfig):
    """Options of the implicit field."""

    classes: int = 10
    """Classes of intensity, equal shares of [0, 1]."""
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
    window: int = 15
    """Pixels a side over which the map is averaged; odd."""
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
        angles = (coordinates[:, :, None] * self.octaves).flatten(1)
        place = torch.cat([angles.sin(), angles.cos()], 1)
        y = F.relu(self.codes[0](z)[:, None] + self.places[0](place))
        for i, layer in enumerate(self.hidden, start=1):
            y = layer(y)
            if i == self.middle:
                y = y + self.codes[1](z)[:, None] + self.places[1](place)
            y = F.relu(y)
        logits: Tensor = self.out(y)
        return logits.float()

    def find(self, target: Tensor, coordinates: Tensor, steps: int, train: bool) -> Tensor:
        """Return codes (N, D) that decode to classes (N, P) at coordinates (P, 2); ``train`` keeps their graph."""
        z = self.log_steps.new_zeros(len(target), len(self.log_steps)).requires_grad_()
        for _ in range(steps):
            loss = improbability(self(z, coordinates), target).mean(1).sum()
            (slope,) = torch.autograd.grad(loss, z, create_graph=train)
            z = z - self.log_steps.exp() * slope
            z = z if train else z.detach().requires_grad_()
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
            **{"size": 96, "width": 256, "layers": 6, "points": 512, "steps": 2, "window": 9},
            **{"train.epochs": 6, "train.augment": False, "learning_rate": 1e-3},
        },
        "tiny": {
            **{"size": 64, "latent": 32, "width": 64, "layers": 4, "frequencies": 5, "points": 512, "steps": 2},
            **{"window": 7, "learning_rate": 5e-3},
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
        turn = Turn("reconstruction", ("field",), learning_rate=self.config.learning_rate, final_rate=0.1)
        return (Phase("reconstruction", (turn,)),)

    def losses(self, x: Tensor, turn: str) -> dict[str, Tensor]:
        """Return the cross-entropy of some pixels' classes, in nats, by codes that these pixels gave."""
        chosen = torch.randperm(self.config.size**2, device=x.device)[: self.config.points]
        target, coordinates = self._classes(x).flatten(1)[:, chosen], self.grid.flatten(0, 1)[chosen]
        z = self.field.find(target, coordinates, self.config.steps, train=True)
        return {"reconstruction": improbability(self.field(z, coordinates), target).mean()}

    def _classes(self, x: Tensor) -> Tensor:
        """Return the classes (N, H, W) of images (N, 1, H, W) in [0, 1]."""
        return (x[:, 0] * self.config.classes).long().clamp(0, self.config.classes - 1)

    def score(self, x: Tensor) -> Scores:
        """Score by the improbability of what is seen, given the normal image that is most like it."""
        found = [self._restore(image) for image in torch.split(x, 1)]  # one by one: hidden layers are large
        surprise, rebuilt = (torch.cat(parts) for parts in zip(*found, strict=True))
        heat = smooth(surprise, 3, self.config.window)
        return Scores(pool(heat, self.config.image_score), heat, rebuilt)

    def _restore(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the improbability of an image's pixels, and the image that its code decodes to, (1, 1, H, W) each."""
        stride, size = self.config.stride, self.config.size
        with torch.inference_mode(False), torch.enable_grad():
            classes = self._classes(x.clone())
            coordinates = self.grid[::stride, ::stride].flatten(0, 1)
            z = self.field.find(classes[:, ::stride, ::stride].flatten(1), coordinates, self.config.steps, train=False)
        logits = self.field(z.detach(), self.grid.flatten(0, 1))
        centres = (torch.arange(self.config.classes, device=x.device) + 0.5) / self.config.classes
        rebuilt = (logits.softmax(2) * centres).sum(2)
        return improbability(logits, classes.flatten(1)).view(1, 1, size, size), rebuilt.view(1, 1, size, size)


def improbability(logits: Tensor, target: Tensor) -> Tensor:
    """Return minus the logarithm of the probability of classes (N, P) by logits (N, P, classes): (N, P)."""
    return F.cross_entropy(logits.mT, target, reduction="none")


def check(config: ImplicitFieldConfig) -> None:
    """Raise ValueError where the options do not fit each other."""
    if config.window % 2 == 0:
        raise ValueError(f"window {config.window} must be odd, so that it has a middle")
    for name in ("layers", "steps", "stride"):
        if getattr(config, name) < 1:
            raise ValueError(f"{name} is {getattr(config, name)}; it must be at least 1")
    if not 1 <= config.points <= config.size**2:
        raise ValueError(f"points is {config.points}; an image of size {config.size} has {config.size**2}")
