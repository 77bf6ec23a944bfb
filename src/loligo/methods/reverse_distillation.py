"""Reverse distillation from a one-class embedding (Deng & Li, CVPR 2022, 2201.10703).

The stages of a frozen, ImageNet-pretrained teacher are fused into one narrow embedding, from which a mirrored student
reconstructs them, the deepest first. Trained on normal images, the embedding has no room for what is abnormal, so that
student and teacher point apart there: the map is the sum over stages of 1 - cosine at each place.

The loss is the paper's, the mean over places of that map; the authors' program takes each stage's whole map as one
vector instead (option ``loss``). Departures: EfficientNet-Lite0 rather than WideResNet-50, and a decoder in proportion:
bilinear doubling and one residual block a stage, of plain 3x3 convolutions, with linear outputs, as the teacher's
features may be negative. The bottleneck is smaller as well: stages keep their channels while they are brought to one
size, and one unit embeds them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from loligo.methods.configs import FeatureConfig
from loligo.methods.contract import Group, Method, Phase, Step, Turn
from loligo.methods.optimisation import Cosine, adam
from loligo.nn.conv import ConvNorm, Unit
from loligo.nn.cosine import place_distance, summed, whole_distance
from loligo.nn.heat import pool
from loligo.nn.mirror import Mirror, halvings
from loligo.types import Scores


@dataclass(frozen=True)
class ReverseDistillationConfig(FeatureConfig):
    """Options of reverse distillation."""

    size: int = 256
    """Height and width of the images that it sees, in pixels."""
    width: int = 64
    """Least channels of a stage of the decoder; the deepest teacher's stages have more of their own."""
    embedding: int = 256
    """Channels of the embedding, which has half the height and width of the deepest stage."""
    sigma: float = 4.0
    """Pixels of the Gaussian that smooths the map."""
    loss: Literal["place", "whole"] = "place"
    """Cosine of a stage's maps at each place, as in the paper; or of whole maps, as in the authors' program."""
    learning_rate: float = 5e-3
    """Adam's rate."""
    final_rate: float = 1.0
    """Fraction of the rate that a cosine takes it down to; 1 keeps it, as in the paper."""


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
    training_defaults: ClassVar = {"epochs": 200, "batch_size": 16}
    presets: ClassVar = {
        "radiograph": {"size": 224, "image_score": "mean", "final_rate": 0.1, "train.epochs": 12},
        "digits": {"size": 96, "final_rate": 0.1, "train.epochs": 10, "train.augment": False},
        "tiny": {"size": 64, "width": 24, "embedding": 32, "final_rate": 0.1},
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
        group = Group(("bottleneck", "decoder"), self.config.learning_rate)
        turn = Turn("distance", (group,), adam((0.5, 0.999)), Cosine(self.config.final_rate))
        return (Phase("distance", (turn,)),)

    def losses(self, x: Tensor, turn: str, step: Step) -> dict[str, Tensor]:
        """Return 1 - cosine, the mean over places or of whole maps, summed over stages."""
        distance = place_distance if self.config.loss == "place" else whole_distance
        return {"distance": torch.stack([distance(a, b).mean() for a, b in self._pairs(self.backbone.teach(x))]).sum()}

    def _pairs(self, maps: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Return the teacher's maps and their reconstructions, each (N, C_i, h_i, w_i) a stage."""
        return list(zip(maps, self.decoder(self.bottleneck(maps)), strict=True))

    def forward(self, x: Tensor) -> Scores:
        """Score by the map of distances, summed over stages."""
        distances = [place_distance(a, b) for a, b in self._pairs(self.backbone(x))]
        heat = summed(distances, self.config.size, self.config.sigma)
        return Scores(pool(heat, self.config.image_score), heat)
