"""A Gaussian over pixels: principal components and Mahalanobis distance, in closed form.

Normal images are taken as one multivariate Gaussian, estimated on shrunken pixels (probabilistic PCA, Tipping & Bishop
1999). An image is scored by its negative log-likelihood: distance within the components plus what they leave out. No
gradient, no epochs: the yardstick that a trained method must beat.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from loligo.methods.configs import MethodConfig
from loligo.methods.contract import Method
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

    def fit(self, batches: Iterable[Tensor]) -> None:
        """Estimate mean and covariance from streaming sums, then the leading components and the variance left."""
        n, total, outer = 0, torch.zeros(len(self.mean), dtype=torch.float64), torch.zeros(())
        for x in batches:
            y = self._shrink(x).double().cpu()
            n, total, outer = n + len(y), total + y.sum(0), outer + y.mT @ y
        mean = total / n
        values, vectors = torch.linalg.eigh(outer / n - mean.outer(mean))  # ascending
        k, d = min(self.basis.shape[1], max(1, n - 1)), len(mean)
        left = (values[: d - k].clamp_min(0).sum() / max(1, d - k)).clamp_min(1e-6)
        self.mean.copy_(mean)
        self.noise.copy_(left)
        self.basis.zero_()[:, :k] = vectors[:, -k:].to(self.basis)
        self.variance.fill_(1)[:k] = values[-k:].clamp_min(float(left)).to(self.variance)

    def score(self, x: Tensor) -> Scores:
        """Score by twice the negative log-likelihood but for constants, a pixel; the map is what no component holds."""
        with torch.autocast(x.device.type, enabled=False):
            centred = self._shrink(x) - self.mean
            inside = centred @ self.basis  # (N, k)
            rebuilt = inside @ self.basis.mT
            rest = (centred - rebuilt).square() / self.noise
            score = ((inside.square() / self.variance).sum(1) + rest.sum(1)) / len(self.mean)
        shape = (len(x), self.config.channels, self.config.side, self.config.side)
        size = list(x.shape[2:])
        places = F.interpolate(rest.view(shape).mean(1, keepdim=True), size, mode="bilinear")
        image = F.interpolate((rebuilt + self.mean).view(shape), size, mode="bilinear").clamp(0, 1)
        return Scores(score, places, image)
