"""The residual networks of 64x64 pixels that WGAN-GP was tried on (Gulrajani et al., NeurIPS 2017, 1704.00028).

Four blocks halve or double height and width; norms come before the convolutions.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DOWN, UP = (1, 2, 4, 8, 8), (8, 8, 4, 2, 1)
"""Widths before and after each block, as multiples of the network's width."""
Norm = Callable[[int], nn.Module]


def layer_norm(channels: int) -> nn.Module:
    """Return a norm of each image over all its channels and pixels: the gradient penalty is of single images."""
    return nn.GroupNorm(1, channels)


class Block(nn.Module):
    """Norm, ReLU and a 3x3 convolution, twice, and beside them a 1x1 convolution."""

    def __init__(self, inputs: int, middle: int, outputs: int, norm: Norm) -> None:
        super().__init__()
        self.first = nn.Sequential(norm(inputs), nn.ReLU())
        self.conv = nn.Conv2d(inputs, middle, 3, padding=1, bias=False)
        conv = nn.Conv2d(middle, outputs, 3, padding=1)
        self.second = nn.Sequential(norm(middle), nn.ReLU(), conv)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)
        for part in (self.conv, conv):
            nn.init.xavier_uniform_(part.weight, math.sqrt(2))
        nn.init.xavier_uniform_(self.shortcut.weight)


class DownBlock(Block):
    """A block that halves height and width by means of 2x2 pixels."""

    def __init__(self, inputs: int, outputs: int, norm: Norm) -> None:
        super().__init__(inputs, inputs, outputs, norm)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, D, H / 2, W / 2)."""
        y = self.second(self.conv(self.first(x)))
        out: Tensor = self.shortcut(F.avg_pool2d(x, 2)) + F.avg_pool2d(y, 2)
        return out


class UpBlock(Block):
    """A block that doubles height and width by repeating pixels."""

    def __init__(self, inputs: int, outputs: int, norm: Norm) -> None:
        super().__init__(inputs, outputs, outputs, norm)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, D, 2 H, 2 W)."""
        y = self.second(self.conv(doubled(self.first(x))))
        out: Tensor = doubled(self.shortcut(x)) + y  # a 1x1 convolution of repeated pixels repeats its own
        return out


def doubled(x: Tensor) -> Tensor:
    """Repeat each pixel of (N, C, H, W) twice along height and width."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


class Downward(nn.Module):
    """A critic, by layer norm, or an encoder, by batch norm."""

    def __init__(self, size: int, channels: int, width: int, outputs: int, norm: Norm) -> None:
        super().__init__()
        pairs = itertools.pairwise(width * times for times in DOWN)
        blocks = [DownBlock(inputs, wide, norm) for inputs, wide in pairs]
        self.layers = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), *blocks)
        self.out = nn.Linear(width * DOWN[-1] * (size >> len(blocks)) ** 2, outputs)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map (N, C, H, W) to the last features (N, D, h, w), and to (N, outputs), both float32."""
        features = self.layers(x).float()
        with torch.autocast(x.device.type, enabled=False):  # values of bfloat16 would be too far apart
            flat = features.contiguous().flatten(1)
            return features, F.linear(flat, self.out.weight.float(), self.out.bias.float())


class Upward(nn.Module):
    """A generator."""

    def __init__(self, size: int, channels: int, width: int, inputs: int) -> None:
        """Make one for vectors of ``inputs`` values."""
        super().__init__()
        self.side = size >> len(UP) - 1
        self.bottom = nn.Linear(inputs, width * UP[0] * self.side**2)
        pairs = itertools.pairwise(width * times for times in UP)
        blocks = [UpBlock(narrow, wide, nn.BatchNorm2d) for narrow, wide in pairs]
        out = nn.Conv2d(width, channels, 3, padding=1)
        self.layers = nn.Sequential(*blocks, nn.BatchNorm2d(width), nn.ReLU(), out, nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        """Map (N, inputs) to images (N, C, H, W) float32 in [-1, 1]."""
        image: Tensor = self.layers(self.bottom(z).view(z.shape[0], -1, self.side, self.side))
        return image.float()
