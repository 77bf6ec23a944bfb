"""How unusual an error is at its place: some edges are always rebuilt badly, an empty corner never is."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from loligo.types import Scores


class PlaceNorm(nn.Module):
    """Average a map over windows and express each in standard deviations of normal images at that place."""

    mean: Tensor
    std: Tensor

    def __init__(self, size: int, window: int) -> None:
        super().__init__()
        self.window, self.stride = window, max(1, window // 4)
        side = (size - window) // self.stride + 1
        self.register_buffer("mean", torch.zeros(1, 1, side, side))
        self.register_buffer("std", torch.ones(1, 1, side, side))

    def pool(self, x: Tensor) -> Tensor:
        """Average (N, 1, H, W) over windows: (N, 1, side, side)."""
        return F.avg_pool2d(x.float(), self.window, self.stride)

    @torch.no_grad()
    def fit(self, maps: Iterable[Tensor]) -> None:
        """Measure mean and standard deviation of each place over maps (n, 1, H, W) of normal images.

        A tenth of the mean deviation is added everywhere, so that a place that never varies does not rule the score.
        """
        pooled = torch.cat([self.pool(part) for part in maps])
        std = pooled.std(0, keepdim=True)
        self.mean.copy_(pooled.mean(0, keepdim=True))
        self.std.copy_(std + 0.1 * std.mean() + 1e-12)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 1, H, W) to (N, 1, side, side) in standard deviations."""
        return (self.pool(x) - self.mean) / self.std

    def score(self, x: Tensor, reconstruction: Tensor) -> Scores:
        """Score error maps (N, 1, H, W) by their most unusual place; the map is how unusual each is, at full size."""
        unusual = self(x)
        full = F.interpolate(unusual, x.shape[2:], mode="bilinear")
        return Scores(unusual.amax((1, 2, 3)), full, reconstruction)
