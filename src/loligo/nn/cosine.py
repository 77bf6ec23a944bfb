"""Cosine distance of two feature maps, at each place or as wholes, and the heat map that this gives."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from loligo.nn.heat import blur, enlarge


def place_distance(a: Tensor, b: Tensor) -> Tensor:
    """Return 1 - cosine of the features (N, C, h, w) at each place: (N, 1, h, w) float32, in [0, 2]."""
    return 1 - F.cosine_similarity(a.float(), b.float(), dim=1)[:, None]


def whole_distance(a: Tensor, b: Tensor) -> Tensor:
    """Return 1 - cosine of feature maps (N, C, h, w) as one vector each: (N,) float32, in [0, 2]."""
    return 1 - F.cosine_similarity(a.float().flatten(1), b.float().flatten(1), dim=1)


def summed(maps: Sequence[Tensor], size: int, sigma: float) -> Tensor:
    """Bring maps (N, 1, h_i, w_i) to (N, 1, size, size) bilinearly, add them, smooth by ``sigma`` pixels."""
    return blur(torch.stack([enlarge(m, size, 0) for m in maps]).sum(0), sigma)
