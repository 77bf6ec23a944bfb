"""Convolutional autoencoder, the oldest baseline (Sakurada & Yairi 2014; Baur et al. 2021, 2004.03271).

The image is squeezed through a narrow code and reconstructed; what was never seen in training is reconstructed badly,
so the squared error is the score. Departure from any one paper: none is canonical; this is Baur's spatial-code layout
with batch norm.
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
from loligo.methods.optimisation import Cosine
from loligo.nn.conv import ConvNorm, upsample
from loligo.nn.places import Places
from loligo.types import Scores


@dataclass(frozen=True)
class AutoencoderConfig(MethodConfig):
    """Options of the autoencoder."""

    width: int = 16
    """Channels at full size; each level doubles them."""
    levels: int = 4
    """Halvings of height and width."""
    code: int = 16
    """Channels of the code, which has size / 2**levels pixels a side."""
    score: Literal["reconstruction", "local"] = "reconstruction"
    """Image score: the mean squared error; or, for small anomalies, the least structural similarity of any window of a
    third of the image's side, as unusual as it is there."""
    learning_rate: float = 1e-3
    """Adam's rate, falling to a tenth by a cosine."""


class Autoencoder(Method):
    """See the module's docstring."""

    Config = AutoencoderConfig
    presets: ClassVar = {
        "digits": {"size": 48, "score": "local", "train.epochs": 6, "train.augment": False},
        "tiny": {"size": 64, "width": 4, "levels": 3, "code": 4},
    }
    config: AutoencoderConfig

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__(config)
        if config.size % (1 << config.levels):
            raise ValueError(f"size {config.size} must be a multiple of 2**levels = {1 << config.levels}")
        widths = [config.width << i for i in range(config.levels + 1)]
        pairs = list(itertools.pairwise(widths))
        self.encoder = nn.Sequential(
            ConvNorm(config.channels, config.width),
            *(ConvNorm(a, b, stride=2) for a, b in pairs),
            nn.Conv2d(widths[-1], config.code, 1),
        )
        self.bottom = ConvNorm(config.code, widths[-1], kernel=1)
        self.ups = nn.ModuleList(ConvNorm(b, a) for a, b in reversed(pairs))
        self.out = nn.Conv2d(config.width, config.channels, 3, padding=1)
        self.places = Places(config.size, config.size // 3)

    def phases(self) -> tuple[Phase, ...]:
        """Train everything on one loss."""
        group = Group(("encoder", "bottom", "ups", "out"), self.config.learning_rate)
        return (Phase("reconstruction", (Turn("reconstruction", (group,), schedule=Cosine(0.1)),)),)

    def losses(self, x: Tensor, turn: str, step: Step) -> dict[str, Tensor]:
        """Return the mean squared error."""
        return {"reconstruction": F.mse_loss(self.reconstruct(x), x)}

    def reconstruct(self, x: Tensor) -> Tensor:
        """Map images to their reconstructions, both (N, C, H, W) in [0, 1]."""
        x = self.bottom(self.encoder(x))
        for up in self.ups:
            x = up(upsample(x))
        out: Tensor = self.out(x)
        return out.float().sigmoid()

    def fit(self, batches: Iterable[Tensor], reduce: Reduce = ALONE) -> None:
        """Measure the mean and deviation of the dissimilarity at each place over normal images."""
        if self.config.score == "local":
            self.places.fit(self.places(x, self.reconstruct(x)) for x in batches)

    def forward(self, x: Tensor) -> Scores:
        """Score by the squared error, in the mean or where it is most unusual; it is also the map."""
        reconstruction = self.reconstruct(x)
        if self.config.score == "local":
            return self.places.score(x, reconstruction)
        error = (x - reconstruction).square().mean(1, keepdim=True)
        return Scores(error.mean((1, 2, 3)), error, reconstruction)
