"""M-KD, Multiresolution Knowledge Distillation (Salehi et al., CVPR 2021, 2011.11108).

A small student network learns from scratch to give, on normal images, the features that an ImageNet-pretrained teacher
gives at several stages, in value and in direction. What it never saw it does not imitate. The loss itself is the score.

Departures: the map is the distance at each place, not the gradient of the loss at the input, which would cost a
backward pass an image and cannot run through the packed networks that score. Squares are taken in units of the
teacher's mean square at each stage, measured on the training images: so both terms begin at one scale, which the paper
reaches by its weight lambda. The loss of all stages is the score; the authors' program leaves out the finest.
EfficientNet-Lite0 as the teacher rather than VGG-16. Epochs and batch are those of the authors' program.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from loligo.config import Pooling
from loligo.methods.configs import STAGES, FeatureConfig
from loligo.methods.contract import ALONE, Group, Method, Phase, Reduce, Step, Turn
from loligo.methods.optimisation import Cosine
from loligo.nn.conv import ConvNorm
from loligo.nn.cosine import place_distance, summed, whole_distance
from loligo.nn.heat import pool
from loligo.nn.mirror import halvings
from loligo.types import Scores


@dataclass(frozen=True)
class MkdConfig(FeatureConfig):
    """Options of M-KD."""

    layers: tuple[int, ...] = field(default=(1, 2, 3, 4), metadata=STAGES)
    """Stages that are imitated; those of the paper have strides of 4 to 32 pixels."""
    width: int = 32
    """Least channels of the student; a stage has half of the teacher's, if that is more."""
    direction: float = 1.0
    """Weight of the difference in direction beside that in value; the paper's lambda."""
    image_score: Literal[Pooling, "loss"] = "loss"  # type: ignore[assignment]  # one more than others have
    """Image score: the loss, as in the paper; or the map's maximum, its mean, or the mean of its highest hundredth."""
    sigma: float = 4.0
    """Pixels of the Gaussian that smooths the map."""
    learning_rate: float = 1e-3
    """Adam's rate."""
    final_rate: float = 1.0
    """Fraction of the rate that a cosine takes it down to; 1 keeps it, as in the paper."""


class Student(nn.Module):
    """Plain convolutions that end each stage in the teacher's number of channels."""

    def __init__(self, inputs: int, channels: list[int], strides: list[int], width: int) -> None:
        super().__init__()
        stages, heads, stride = [], [], 1
        for outputs, own in zip(channels, strides, strict=True):
            units, wide = [], max(width, outputs // 2)
            for _ in range(halvings(stride, own)):
                units.append(ConvNorm(inputs, wide, stride=2))
                inputs = wide
            stages.append(nn.Sequential(*units, ConvNorm(inputs, wide)))
            heads.append(nn.Conv2d(wide, outputs, 3, padding=1))
            inputs, stride = wide, own
        self.stages, self.heads = nn.ModuleList(stages), nn.ModuleList(heads)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (N, C, H, W) to the stages' maps (N, C_i, H / stride_i, W / stride_i)."""
        found = []
        for stage, head in zip(self.stages, self.heads, strict=True):
            x = stage(x)
            found.append(head(x))
        return found


class Mkd(Method):
    """See the module's docstring."""

    Config = MkdConfig
    training_defaults: ClassVar = {"epochs": 200, "batch_size": 128}
    presets: ClassVar = {
        "radiograph": {"final_rate": 0.1, "train.epochs": 12, "train.batch_size": 16},
        "digits": {
            **{"size": 96, "image_score": "max", "final_rate": 0.1},
            **{"train.epochs": 10, "train.batch_size": 16, "train.augment": False},
        },
        "tiny": {"size": 64, "width": 16, "learning_rate": 3e-3, "final_rate": 0.1},
    }
    config: MkdConfig
    scale: Tensor

    def __init__(self, config: MkdConfig) -> None:
        super().__init__(config)
        self.backbone = config.extractor()
        self.student = Student(config.channels, self.backbone.channels, self.backbone.strides, config.width)
        wanted = [-(-config.size // stride) for stride in self.backbone.strides]
        if (sides := self.backbone.sides(config.size)) != wanted:
            raise ValueError(
                f"at size {config.size} the maps of {config.backbone} have sides {sides}, a student's {wanted}; choose"
                f" a multiple of {self.backbone.strides[-1]}"
            )
        self.register_buffer("scale", torch.ones(len(config.layers)))

    def prepare(self, batches: Iterable[Tensor], reduce: Reduce = ALONE) -> None:
        """Measure the teacher's mean square at each stage."""
        backbone, total = self.backbone.ready(self.scale.device), self.scale.new_zeros(len(self.scale) + 1)
        for x in reduce.shard(batches):
            squares = [taught.float().square().mean((1, 2, 3)).sum() for taught in backbone(x)]
            total += torch.stack([*squares, total.new_tensor(len(x))])
        *squares, count = reduce.sum(total)
        self.scale.copy_(torch.stack(squares) / count)

    def phases(self) -> tuple[Phase, ...]:
        """Train the student."""
        group = Group(("student",), self.config.learning_rate)
        return (Phase("distillation", (Turn("distillation", (group,), schedule=Cosine(self.config.final_rate)),)),)

    def losses(self, x: Tensor, turn: str, step: Step) -> dict[str, Tensor]:
        """Return the mean loss and its parts."""
        taught, learnt = self.backbone.teach(x), self.student(x)
        value = torch.stack([v.mean() for v in self._values(taught, learnt)]).sum()
        direction = torch.stack([whole_distance(t, s).mean() for t, s in zip(taught, learnt, strict=True)]).sum()
        return {"distillation": value + self.config.direction * direction, "value": value, "direction": direction}

    def _values(self, taught: list[Tensor], learnt: list[Tensor]) -> list[Tensor]:
        """Return the mean square over channels of each stage's differences, (N, 1, h, w), in units of the teacher's."""
        return [
            (t.float() - s.float()).square().mean(1, keepdim=True) / scale
            for t, s, scale in zip(taught, learnt, self.scale, strict=True)
        ]

    def forward(self, x: Tensor) -> Scores:
        """Score by the loss of each image, or by the map: the loss of each place."""
        taught, learnt, weight = self.backbone(x), self.student(x), self.config.direction
        pairs = list(zip(taught, learnt, strict=True))
        values = self._values(taught, learnt)
        heat = summed(
            [v + weight * place_distance(t, s) for v, (t, s) in zip(values, pairs, strict=True)],
            self.config.size,
            self.config.sigma,
        )
        if self.config.image_score != "loss":
            return Scores(pool(heat, self.config.image_score), heat)
        parts = [v.mean((1, 2, 3)) + weight * whole_distance(t, s) for v, (t, s) in zip(values, pairs, strict=True)]
        return Scores(torch.stack(parts).sum(0), heat)
