"""Reverse distillation from a one-class embedding (Deng & Li, CVPR 2022, 2201.10703).

A network trained on photographs, frozen, sees the image; its stages are fused into one narrow embedding, from which a
mirrored network rebuilds them, the deepest first. Trained on normal images, the embedding has no room for what is
abnormal, so student and teacher point apart there: the map is the sum over stages of 1 - cosine at each place.

Departures: EfficientNet-Lite0 rather than WideResNet-50, and a decoder in proportion: bilinear doubling and one
residual block a stage, of plain 3x3 convolutions, with linear outputs, as the teacher's features may be negative. The
bottleneck is smaller as well: stages keep their channels while they are brought to one size, and one unit embeds them.
The rate falls by a cosine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from loligo.methods.configs import FeatureConfig
from loligo.methods.contract import Method, Phase, Turn
from loligo.nn.conv import ConvNorm, Unit
from loligo.nn.cosine import place_distance, summed
from loligo.nn.heat import pool
from loligo.nn.mirror import Mirror, halvings
from loligo.types import Scores


@dataclass(frozen=True)
class ReverseDistillationConfig(FeatureConfig):
    """Options of reverse distillation."""

    width: int = 64
    """Least channels of a stage of the decoder; the deepest teacher's stages have more of their own."""
    embedding: int = 256
    """Channels of the embedding, which has half the height and width of the deepest stage."""
    sigma: float = 4.0
    """Pixels of the Gaussian that smooths the map."""
    learning_rate: float = 5e-3
    """Adam's rate, falling to a tenth by a cosine."""


class Bottleneck(nn.Module):
    """Fuse the stages at the deepest one's size, then embed them at half of it."""

    def __init__(self, channels: list[int], strides: list[int], embedding: int) -> None:
        super().__init__()
        self.align = nn.ModuleList(
            nn.Sequential(*(ConvNorm(c, c, stride=2) for _ in range(halvings(s, strides[-1]))))
            for c, s in zip(channels, strides, strict=True)
        )
        self.fuse = ConvNorm(sum(channels), channels[-1], 1)
        self.embed = Unit(channels[-1], embedding, stride=2)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Map the stages' (N, C_i, h_i, w_i) to (N, D, h / 2, w / 2), h and w those of the last."""
        aligned = [align(m) for align, m in zip(self.align, maps, strict=True)]
        out: Tensor = self.embed(self.fuse(torch.cat(aligned, 1)))
        return out


class ReverseDistillation(Method):
    """See the module's docstring."""

    Config = ReverseDistillationConfig
    presets: ClassVar = {
        "radiograph": {"image_score": "mean", "train.epochs": 12},
        "digits": {"size": 96, "train.epochs": 10, "train.augment": False},
        "tiny": {"size": 64, "width": 24, "embedding": 32},
    }
    config: ReverseDistillationConfig

    def __init__(self, config: ReverseDistillationConfig) -> None:
        super().__init__(config)
        self.backbone = teacher = config.extractor()
        step = 2 * teacher.strides[-1]
        if config.size % step:
            raise ValueError(f"size {config.size} must be a multiple of twice the deepest stage's stride, {step}")
        self.bottleneck = Bottleneck(teacher.channels, teacher.strides, config.embedding)
        self.decoder = Mirror(config.embedding, step, teacher.channels, teacher.strides, config.width)

    def phases(self) -> tuple[Phase, ...]:
        """Train bottleneck and decoder."""
        rate = self.config.learning_rate
        turn = Turn("distance", ("bottleneck", "decoder"), 1, rate, (0.5, 0.999), final_rate=0.1)
        return (Phase("distance", (turn,)),)

    def losses(self, x: Tensor, turn: str) -> dict[str, Tensor]:
        """Return the mean over places of 1 - cosine, summed over stages."""
        return {"distance": torch.stack([d.mean() for d in self._distances(self.backbone.teach(x))]).sum()}

    def _distances(self, maps: list[Tensor]) -> list[Tensor]:
        """Return how far the maps that are rebuilt lie from those of the teacher, (N, 1, h_i, w_i) a stage."""
        return [place_distance(a, b) for a, b in zip(maps, self.decoder(self.bottleneck(maps)), strict=True)]

    def score(self, x: Tensor) -> Scores:
        """Score by the map of distances, summed over stages."""
        heat = summed(self._distances(self.backbone(x)), self.config.size, self.config.sigma)
        return Scores(pool(heat, self.config.image_score), heat)
