"""A Gaussian over pixels: principal components and Mahalanobis distance, in closed form.

Normal images are taken as one multivariate Gaussian, estimated on shrunken pixels (probabilistic PCA, Tipping & Bishop
1999). An image is scored by its negative log-likelihood: distance within the components plus what they leave out. No
gradient, no epochs: the baseline that a trained method must beat.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from loligo.methods.configs import MethodConfig
from loligo.methods.contract import ALONE, Method, Reduce
from loligo.types import Scores


@dataclass(frozen=True)
class GaussianConfig(MethodConfig):
    """Options of the Gaussian."""

    side: int = 32
    """Images are shrunk to side x side pixels by averaging."""
    components: int = 64
    """Principal components kept; fewer where there are fewer images."""


class Gaussian(Method):
    """See the module's docstring."""

    Config = GaussianConfig
    least = 2
    presets: ClassVar = {"digits": {"size": 48, "side": 48}, "tiny": {"size": 64, "side": 16, "components": 8}}
    config: GaussianConfig
    mean: Tensor
    basis: Tensor
    variance: Tensor
    noise: Tensor

    def __init__(self, config: GaussianConfig) -> None:
        super().__init__(config)
        if config.size < config.side:
            raise ValueError(f"side {config.side} must not exceed size {config.size}")
        d = config.channels * config.side**2
        k = min(config.components, d)
        self.register_buffer("mean", torch.zeros(d))
        self.register_buffer("basis", torch.zeros(d, k))
        self.register_buffer("variance", torch.ones(k))
        self.register_buffer("noise", torch.ones(()))

    def _shrink(self, x: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(x.float(), self.config.side).flatten(1)  # (N, d)

    def fit(self, batches: Iterable[Tensor], reduce: Reduce = ALONE) -> None:
        """Estimate mean and covariance from streaming sums, then the leading components and the variance left."""
        d, k = self.basis.shape
        count, total, outer = (torch.zeros(shape, dtype=torch.float64) for shape in ((), (d,), (d, d)))
        for x in reduce.shard(batches):
            y = self._shrink(x).cpu().double()
            count, total, outer = count + len(y), total + y.sum(0), outer + y.mT @ y
        count, total, outer = reduce.sum(count), reduce.sum(total), reduce.sum(outer)
        mean = total / count
        values, vectors = torch.linalg.eigh(outer / count - mean.outer(mean))  # ascending
        k = min(k, max(1, int(count) - 1))
        left = (values[: d - k].clamp_min(0).sum() / max(1, d - k)).clamp_min(1e-6)
        self.mean.copy_(mean)
        self.noise.copy_(left)
        self.basis.zero_()[:, :k] = vectors[:, -k:].to(self.basis)
        self.variance.fill_(1)[:k] = values[-k:].clamp_min(float(left)).to(self.variance)

    def forward(self, x: Tensor) -> Scores:
        """Score by twice the negative log-likelihood but for constants, a pixel; the map is what no component holds."""
        with torch.autocast(x.device.type, enabled=False):
            centred = self._shrink(x) - self.mean
            inside = centred @ self.basis  # (N, k)
            reconstruction = inside @ self.basis.mT
            rest = (centred - reconstruction).square() / self.noise
            score = ((inside.square() / self.variance).sum(1) + rest.sum(1)) / len(self.mean)
        shape = (x.shape[0], self.config.channels, self.config.side, self.config.side)
        size = list(x.shape[2:])
        places = F.interpolate(rest.view(shape).mean(1, keepdim=True), size, mode="bilinear")
        image = F.interpolate((reconstruction + self.mean).view(shape), size, mode="bilinear").clamp(0, 1)
        return Scores(score, places, image)
