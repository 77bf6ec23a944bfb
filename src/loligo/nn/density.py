"""Gaussians of features: one of whole images, with what each place adds to its distance; and one a place."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

TINY = 1e-6
"""Least mean variance that a covariance is regularised by."""


class GaussianDensity(nn.Module):
    """Mahalanobis distance of an image's mean feature, of unit length, from those of normal images.

    The covariance is shrunk towards a multiple of the identity by as much as the number of images asks for (oracle
    approximating shrinkage; Chen et al., IEEE TSP 2010), so that it can be inverted however few there are. With
    ``covariance`` False it is the identity, and the distance is the Euclidean one from the mean.
    """

    mean: Tensor
    places: Tensor
    precision: Tensor

    def __init__(self, features: int, shape: tuple[int, int], covariance: bool = True) -> None:
        super().__init__()
        self.covariance = covariance
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("places", torch.zeros(features, *shape))
        self.register_buffer("precision", torch.eye(features))

    def fit(self, batches: Iterable[Tensor], add: Callable[[Tensor], Tensor] = lambda part: part) -> None:
        """Estimate from feature maps (N, D, h, w) of normal images, by sums; ValueError for fewer than two images.

        ``add`` returns the sum of a tensor over processes, each of which has a part of the batches.
        """
        places, outer = (torch.zeros_like(own, dtype=torch.float64) for own in (self.places, self.precision))
        count = places.new_zeros(1)
        for maps in batches:
            unit = _unit(maps).double()
            pooled = unit.mean((2, 3))
            count, places, outer = count + len(unit), places + unit.sum(0), outer + pooled.mT @ pooled
        n, outer = int(add(count)), add(outer)
        if n < 2:
            raise ValueError(f"a Gaussian needs 2 normal images or more; it got {n}")
        places = add(places) / n
        mean = places.mean((1, 2))
        self.places.copy_(places)
        self.mean.copy_(mean)
        if self.covariance:
            self.precision.copy_(torch.linalg.inv(shrunk(outer / n - mean.outer(mean), n)))

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Return of maps (N, D, h, w) the squared distance a feature, (N,), and what each place adds, (N, 1, h, w).

        As the mean feature is linear in the places, the distance is exactly the mean of what they add: each place's
        departure from the mean of normals there, along the gradient of the distance. It is negative where a place makes
        the image more normal.
        """
        with torch.autocast(maps.device.type, enabled=False):
            unit = _unit(maps)
            gradient = (unit.mean((2, 3)) - self.mean) @ self.precision / len(self.mean)  # (N, D)
            parts = torch.einsum("nd,ndhw->nhw", gradient, unit - self.places)
        return parts.mean((1, 2)), parts[:, None]


def _unit(maps: Tensor) -> Tensor:
    """Scale maps (N, D, h, w), each image's by one factor, so that its mean feature is of unit length."""
    maps = maps.float()
    length: Tensor = torch.linalg.vector_norm(maps.mean((2, 3), keepdim=True), dim=1, keepdim=True)
    return maps / length.clamp_min(1e-12)


def shrunk(covariance: Tensor, n: int) -> Tensor:
    """Shrink the covariance (D, D) of n samples towards its mean variance times the identity."""
    d = len(covariance)
    variance, power = covariance.trace() / d, covariance.square().mean()
    spread = power - variance**2 / d
    weight = torch.where(spread > 0, (power + variance**2) / ((n + 1) * spread), 1).clamp_max(1)
    eye = torch.eye(d, dtype=covariance.dtype, device=covariance.device)
    return (1 - weight) * covariance + weight * variance.clamp_min(1e-12) * eye  # where all samples are the same


class Moments:
    """Sums over normal images at each place, from which a Gaussian comes: how many, of features, of their products."""

    def __init__(self, places: int, features: int, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        shapes: list[tuple[int, ...]] = [(), (places, features), (places, features, features)]
        self.sums = [torch.zeros(shape, device=device, dtype=dtype) for shape in shapes]

    def add(self, maps: Tensor) -> None:
        """Add feature maps (N, D, h, w)."""
        rows = maps.flatten(2).permute(2, 0, 1).to(self.sums[1].dtype)  # (P, N, D)
        self.sums[0] += rows.shape[1]
        self.sums[1] += rows.sum(1)
        with torch.autocast(maps.device.type, enabled=False):  # sums in bfloat16 would have no Cholesky factor
            self.sums[2].baddbmm_(rows.mT, rows)

    def join(self, other: Moments) -> None:
        """Add what another has summed up."""
        for own, more in zip(self.sums, other.sums, strict=True):
            own += more

    def reduce(self, add: Callable[[Tensor], Tensor]) -> None:
        """Add up over processes; ``add`` returns the sum of a tensor over them."""
        self.sums = [add(part) for part in self.sums]

    @property
    def count(self) -> int:
        """Return how many images were added."""
        return int(self.sums[0])


class PlaceGaussian(nn.Module):
    """A Gaussian of features at each of h x w places; how far a place is from it is its Mahalanobis distance."""

    mean: Tensor
    factor: Tensor

    def __init__(self, features: int, places: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(places, features))
        self.register_buffer("factor", torch.zeros(places, features, features))

    def moments(self, dtype: torch.dtype = torch.float32) -> Moments:
        """Return sums to which nothing was added yet; float64 where features vary little about a large mean."""
        return Moments(self.mean.shape[0], self.mean.shape[1], self.mean.device, dtype)

    def fit(self, moments: Moments, regularisation: float) -> None:
        """Take mean and covariance from sums over two images or more.

        ``regularisation`` is the fraction of a place's mean variance that is added to the diagonal of its covariance.
        """
        count, total, outer = moments.sums
        means = total / count
        self.mean.copy_(means)
        for places in torch.split(torch.arange(len(outer), device=outer.device), 64):  # memory for a few at a time
            mean = means[places]
            covariance = (outer[places] - count * mean[:, :, None] * mean[:, None]) / (count - 1)
            diagonal = covariance.diagonal(dim1=1, dim2=2)
            diagonal += regularisation * diagonal.mean(1, keepdim=True).clamp_min(TINY)
            lower = torch.linalg.cholesky(covariance)
            eye = torch.eye(mean.shape[1], device=mean.device, dtype=mean.dtype)
            inverse = torch.linalg.solve_triangular(lower, eye.expand_as(lower), upper=False)
            self.factor[places] = inverse.to(self.factor)

    def forward(self, maps: Tensor) -> Tensor:
        """Return the distance at each place of maps (N, D, h, w) float32, (N, 1, h, w)."""
        rows = maps.flatten(2).permute(2, 0, 1) - self.mean[:, None]
        distance = torch.linalg.vector_norm(rows @ self.factor.mT, dim=2)  # (P, N)
        found: Tensor = distance.mT.reshape(-1, 1, *maps.shape[2:])
        return found
