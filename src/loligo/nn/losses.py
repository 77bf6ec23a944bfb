"""Losses that several methods share."""

from __future__ import annotations

import torch
from torch import Tensor


def mean_square(x: Tensor) -> Tensor:
    """Return the mean of squares, summed in float32 whatever the dtype of ``x``."""
    norm: Tensor = torch.linalg.vector_norm(x, dtype=torch.float32)
    return norm.square() / x.numel()
