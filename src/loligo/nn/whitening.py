"""Whitening of features: their directions of the largest variance over normal images, each brought to variance 1."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FLOOR = 1e-4
"""Added to the variance of a direction, as a fraction of the largest one."""


class Whitening(nn.Module):
    """A linear map from C features to the D directions of their largest variance."""

    centre: Tensor
    matrix: Tensor

    def __init__(self, features: int, dimensions: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(features))
        self.register_buffer("matrix", torch.zeros(dimensions, features))

    def fit(self, maps: Iterable[Tensor], add: Callable[[Tensor], Tensor] = lambda part: part) -> None:
        """Estimate from feature maps (N, C, h, w) by sums; ``add`` returns the sum of a tensor over processes."""
        sums = torch.zeros(len(self.centre) + 1, len(self.centre) + 1, dtype=torch.float64, device=self.centre.device)
        for features in maps:
            rows = F.pad(features.double().movedim(1, 3).flatten(0, 2), (0, 1), value=1)
            sums += rows.mT @ rows
        sums = add(sums)
        sums = sums / sums[-1, -1]
        self.centre.copy_(sums[-1, :-1])
        values, vectors = torch.linalg.eigh(sums[:-1, :-1] - sums[-1, :-1].outer(sums[-1, :-1]))
        kept = slice(-len(self.matrix), None)
        self.matrix.copy_((vectors[:, kept] / (values[kept] + FLOOR * values[-1]).sqrt()).mT)

    def forward(self, features: Tensor) -> Tensor:
        """Bring features (N, C, h, w) to (N, D, h, w) float32, of mean 0 and unit covariance where it was fitted."""
        with torch.autocast(features.device.type, enabled=False):
            return F.conv2d(features.float() - self.centre[:, None, None], self.matrix[:, :, None, None])
