"""SQUID's discriminator, and the two ways to normalise its features when a single image is scored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Statistics = Literal["image", "running"]


class FeatureNorm(nn.BatchNorm2d):
    """Batch norm in training; in eval mode by running statistics or by those of the ``image`` itself.

    The reference code of SQUID scores single images with its discriminator in training mode, so the statistics are
    the image's own, as in instance norm. That decides its accuracy, and makes a score independent of its batch.
    """

    def __init__(self, channels: int, statistics: Statistics) -> None:
        super().__init__(channels)
        self.statistics = statistics

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (N, C, H, W)."""
        if self.training or self.statistics == "running":
            return super().forward(input)
        return F.instance_norm(input, weight=self.weight, bias=self.bias, eps=self.eps)


class Logit(nn.Linear):
    """A linear layer to one logit, in float32 also under autocast: in bfloat16 scores of 10 would be 1/16 apart."""

    def forward(self, input: Tensor) -> Tensor:
        """Map (N, D) to (N,) float32."""
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.float()).squeeze(1)


class Discriminator(nn.Module):
    """Stride-2 5x5 convolutions with LeakyReLU 0.2, batch norm but for the first, and a linear layer to one logit."""

    def __init__(
        self,
        size: int,
        channels: int,
        widths: Sequence[int] = (16, 32, 64, 128, 128),
        statistics: Statistics = "image",
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i, (inputs, outputs) in enumerate(zip((channels, *widths), widths, strict=False)):
            layers.append(nn.Conv2d(inputs, outputs, 5, 2, 2))
            layers += [FeatureNorm(outputs, statistics)] if i else []
            layers.append(nn.LeakyReLU(0.2, inplace=True))
            size = (size + 1) // 2
        self.features = nn.Sequential(*layers)
        self.logit = Logit(widths[-1] * size**2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N,) logits: higher for what looks real."""
        logits: Tensor = self.logit(self.features(x).flatten(1))
        return logits
