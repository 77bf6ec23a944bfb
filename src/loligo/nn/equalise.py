"""Histogram equalisation: an image by the ranks of its pixels, whatever monotone curve its exposure drew."""

from __future__ import annotations

import torch
from torch import Tensor

BINS = 1024
"""Bins of the histogram of an image, of equal width from 0 to 1."""


def equalised(x: Tensor) -> Tensor:
    """Map each pixel of images (N, C, H, W) in [0, 1] to the part of its image's pixels that are darker, float32.

    Pixels as dark as itself count half. Between the centres of the histogram's bins it is interpolated linearly.
    """
    flat = x.float().clamp(0, 1).flatten(1)
    bins = (flat * BINS).long().clamp_max(BINS - 1)
    counts = torch.zeros_like(flat[:, :1]).repeat(1, BINS).scatter_add(1, bins, torch.ones_like(flat))
    darker = (counts.cumsum(1) - counts / 2) / flat.shape[1]
    place = (flat * BINS - 0.5).clamp(0, BINS - 1)
    below = place.long().clamp_max(BINS - 2)
    return torch.lerp(darker.gather(1, below), darker.gather(1, below + 1), place - below).view_as(x)
