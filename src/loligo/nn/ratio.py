"""A likelihood ratio at each place: a Gaussian of findings against the Gaussian of normal images there."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from loligo.nn.density import TINY, PlaceGaussian


class Covered:
    """Sums over places that a finding covers: how many and of features, at each place; and of their products."""

    def __init__(self, places: int, features: int, device: torch.device) -> None:
        shapes = (places,), (places, features), (features, features)
        self.sums = [torch.zeros(shape, dtype=torch.float64, device=device) for shape in shapes]

    def add(self, maps: Tensor, covered: Tensor) -> None:
        """Add feature maps (N, D, h, w) where ``covered`` (N, 1, h, w) bool is true."""
        rows = maps.flatten(2).permute(2, 0, 1).double() * covered.flatten(2).permute(2, 0, 1)  # (P, N, D)
        self.sums[0] += covered.flatten(1).sum(0)
        self.sums[1] += rows.sum(1)
        self.sums[2] += torch.einsum("pnd,pne->de", rows, rows)

    def reduce(self, add: Callable[[Tensor], Tensor]) -> None:
        """Add up over processes; ``add`` returns the sum of a tensor over them."""
        self.sums = [add(part) for part in self.sums]

    def about(self, mean: Tensor) -> Tensor:
        """Return the mean product (D, D) of departures from means (P, D) of places; zeros where none is covered."""
        counts, total, outer = self.sums
        cross = total.mT @ mean.double()
        outer = outer - cross - cross.mT + (mean.double().mT * counts) @ mean.double()
        return outer / counts.sum().clamp_min(1)


class LikelihoodRatio(PlaceGaussian):
    """Twice the log-likelihood ratio of findings to normal images at each of h x w places, but for a constant a place.

    Both Gaussians have the mean of normal images at a place. That of normal images has the covariance there, that of
    findings one covariance for all places. What normal images vary by, though rarely so much, speaks for neither.
    """

    findings: Tensor

    def __init__(self, features: int, places: int) -> None:
        super().__init__(features, places)
        self.register_buffer("findings", torch.zeros(features, features))

    def fit_findings(self, covered: Covered, regularisation: float) -> None:
        """Take the covariance of findings from sums, about the mean of normal images that was fitted before."""
        covariance = covered.about(self.mean)
        self.findings.zero_()
        if covered.sums[0].sum() > 0:
            covariance.diagonal().add_(regularisation * covariance.diagonal().mean().clamp_min(TINY))
            eye = torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
            self.findings.copy_(torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), eye, upper=False))

    def forward(self, maps: Tensor) -> Tensor:
        """Return the ratio at each place of maps (N, D, h, w) float32, (N, 1, h, w)."""
        rows = maps.flatten(2).permute(2, 0, 1) - self.mean[:, None]
        ratio = (rows @ self.factor.mT).square().sum(2) - (rows @ self.findings.mT).square().sum(2)  # (P, N)
        found: Tensor = ratio.mT.reshape(-1, 1, *maps.shape[2:])
        return found
