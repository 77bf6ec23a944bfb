"""Mean and standard deviation of the parts of a score over normal images, by which they are made comparable."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn


class Standard(nn.Module):
    """Count values in standard deviations above their mean."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, parts: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(parts))
        self.register_buffer("deviation", torch.ones(parts))

    def fit(self, found: Iterable[Tensor], gather: Callable[[Tensor], Tensor]) -> None:
        """Measure values (N, parts) of normal images; ``gather`` returns those (N, parts) of all processes."""
        values = gather(torch.cat([self.mean[None][:0], *found])).double()
        self.mean.copy_(values.mean(0))
        self.deviation.copy_(values.std(0, correction=0).clamp_min(1e-8))

    def forward(self, values: Tensor) -> Tensor:
        """Standardise (N, parts)."""
        return (values - self.mean) / self.deviation
