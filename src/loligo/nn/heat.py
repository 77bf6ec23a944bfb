"""Heat maps: brought to the image's size, smoothed, and summed up in one score."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from loligo.config import Pooling

TOP = 0.01
"""Fraction of the pixels that ``top`` takes the mean of."""


def enlarge(maps: Tensor, size: int, sigma: float = 4.0) -> Tensor:
    """Bring maps (N, 1, h, w) to (N, 1, size, size) bilinearly, then smooth by a Gaussian of ``sigma`` pixels."""
    return blur(F.interpolate(maps.float(), (size, size), mode="bilinear", align_corners=False), sigma)


def blur(maps: Tensor, sigma: float) -> Tensor:
    """Smooth maps (N, 1, H, W) by a Gaussian of ``sigma`` pixels, truncated at four sigma, edges reflected."""
    reach = min(round(4 * sigma), min(maps.shape[2:]) - 1)
    if reach < 1:
        return maps
    x = torch.arange(-reach, reach + 1, device=maps.device, dtype=torch.float32)
    kernel = (-x.square() / (2 * sigma**2)).exp()
    kernel = kernel / kernel.sum()
    with torch.autocast(maps.device.type, enabled=False):
        padded = F.pad(maps, [reach] * 4, mode="reflect")
        return F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))


def smooth(x: Tensor, least: int, window: int) -> Tensor:
    """Take the least of least x least pixels, then the mean of window x window, of maps (N, 1, H, W)."""
    x = -F.max_pool2d(-x, least, 1, least // 2)
    return F.avg_pool2d(x, window, 1, window // 2, count_include_pad=False)


def pool(maps: Tensor, how: Pooling) -> Tensor:
    """Return one score (N,) of each map (N, 1, H, W): its maximum, its mean, or the mean of its highest hundredth."""
    flat = maps.flatten(1)
    if how == "max":
        return flat.amax(1)
    if how == "mean":
        return flat.mean(1)
    return flat.topk(max(1, math.ceil(TOP * flat.shape[1])), 1).values.mean(1)
