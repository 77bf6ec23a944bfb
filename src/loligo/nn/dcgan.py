"""The networks of DCGAN (Radford, Metz & Chintala, ICLR 2016, 1511.06434), and gradients through them while they score.

All layers stand in ``layers``, convolutions with a stride of 2 and without bias; sides of images are even at each.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLOPE = 0.2
"""Of LeakyReLU below 0."""


class Downward(nn.Module):
    """Convolutions with LeakyReLU, batch norm but for the first, and one of all that is left to a vector."""

    def __init__(self, size: int, channels: int, widths: Sequence[int], outputs: int, kernel: int = 4) -> None:
        super().__init__()
        self.layers = nn.Sequential()
        for i, (inputs, width) in enumerate(itertools.pairwise((channels, *widths))):
            self.layers.append(nn.Conv2d(inputs, width, kernel, 2, (kernel - 1) // 2, bias=False))
            self.layers.extend([nn.BatchNorm2d(width)] if i else [])
            self.layers.append(nn.LeakyReLU(SLOPE, inplace=True))
        self.out = nn.Conv2d(widths[-1], outputs, size >> len(widths), bias=False)
        initialise(self)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map (N, C, H, W) to the last features (N, D, h, w), and to (N, outputs), both float32."""
        features = self.layers(x).float()
        with torch.autocast(x.device.type, enabled=False):  # in bfloat16 vectors that are alike would be equal
            return features, F.conv2d(features, self.out.weight.float()).flatten(1)


class Upward(nn.Module):
    """The mirror of `Downward` by transposed convolutions: ReLU with batch norm, and tanh at the end."""

    def __init__(self, size: int, channels: int, widths: Sequence[int], inputs: int, kernel: int = 4) -> None:
        """Make one for vectors of ``inputs`` values; ``widths`` are of the finest resolution first."""
        super().__init__()
        self.layers = nn.Sequential(nn.ConvTranspose2d(inputs, widths[-1], size >> len(widths), bias=False))
        for width, outputs in itertools.pairwise((*widths[::-1], channels)):
            self.layers.extend([nn.BatchNorm2d(width), nn.ReLU(inplace=True)])
            padding, more = (kernel - 1) // 2, kernel % 2
            self.layers.append(nn.ConvTranspose2d(width, outputs, kernel, 2, padding, more, bias=False))
        self.layers.append(nn.Tanh())
        initialise(self)

    def forward(self, z: Tensor) -> Tensor:
        """Map (N, inputs) to images (N, C, H, W) float32 in [-1, 1]."""
        image: Tensor = self.layers(z[:, :, None, None])
        return image.float()


def check_size(size: int, widths: Sequence[int]) -> None:
    """Raise ValueError where a side of so many pixels cannot be halved once for each of the widths."""
    step = 1 << len(widths)
    if not widths or size % step:
        raise ValueError(f"size {size} must be a multiple of 2**(number of widths) = {step}, and widths one or more")


def initialise(network: nn.Module) -> None:
    """Draw weights as in the paper: of convolutions from a Gaussian of deviation 0.02, of batch norms about 1."""
    for part in network.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.BatchNorm2d):
            nn.init.normal_(part.weight, float(isinstance(part, nn.BatchNorm2d)), 0.02)


def outputs_of(layers: nn.Sequential, x: Tensor) -> list[Tensor]:
    """Return what each of the layers gives, beginning with what the first makes of ``x``."""
    return list(itertools.accumulate(layers, lambda y, layer: layer(y), initial=x))[1:]


def pulled_back(layers: nn.Sequential, outputs: Sequence[Tensor], slope: Tensor) -> Tensor:
    """Return the gradient at the input of layers of this module, in eval mode, by that at their output.

    ``outputs`` are what `outputs_of` returned. It builds no graph of autograd, so that it runs where gradients are off
    and is exported like any other tensors.
    """
    for layer, y in zip(reversed(list(layers)), reversed(outputs), strict=True):
        slope = _pulled_back(layer, y, slope)
    return slope


def _pulled_back(layer: nn.Module, y: Tensor, slope: Tensor) -> Tensor:
    """Return the gradient at the input of a layer by its output and the gradient there."""
    match layer:
        case nn.ConvTranspose2d():
            return F.conv2d(slope, layer.weight, None, layer.stride, cast(tuple[int, ...], layer.padding))
        case nn.Conv2d():
            odd = tuple(side % 2 for side in layer.kernel_size)
            padding = cast(tuple[int, ...], layer.padding)
            return F.conv_transpose2d(slope, layer.weight, None, layer.stride, padding, odd)
        case nn.BatchNorm2d():
            scale = layer.weight * (cast(Tensor, layer.running_var) + layer.eps).rsqrt()
            return slope * scale[:, None, None]
        case nn.LeakyReLU() | nn.ReLU():
            return slope * torch.where(y > 0, 1.0, getattr(layer, "negative_slope", 0.0))
        case nn.Tanh():
            return slope * (1 - y.square())
    raise TypeError(f"there is no gradient of {type(layer).__name__}; layers are those of DCGAN")
