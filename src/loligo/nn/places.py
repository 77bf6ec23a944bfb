"""Dissimilarity of an image and its reconstruction, standardised place by place over normal images.

Structural similarity (SSIM; Wang et al. 2004) compares means, contrasts and correlation within a window; as the error
of an autoencoder: Bergmann et al. 2018 (1807.02011). Unlike the squared error it does not grow with the contrast of
what is reconstructed. The largest deviation of any window becomes the image's score.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from loligo.config import Reading
from loligo.types import Scores

C1, C2 = 0.01**2, 0.03**2  # of Wang et al., for pixels in [0, 1]


def dissimilarity(x: Tensor, y: Tensor, window: int, stride: int) -> Tensor:
    """Return 1 - SSIM of images (N, C, H, W) over square windows, the mean over channels: (N, 1, side, side)."""
    x, y = x.float(), y.float()
    mean_x, mean_y, xx, yy, xy = (F.avg_pool2d(t, window, stride) for t in (x, y, x * x, y * y, x * y))
    variances, covariance = xx - mean_x**2 + yy - mean_y**2, xy - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
    return (1 - luminance * (2 * covariance + C2) / (variances + C2)).mean(1, keepdim=True)


def mean_and_deviation(found: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of each place (1, ...) over normal images, (N, ...).

    A tenth of the mean deviation is added everywhere, so that a place that never varies does not rule the score.
    """
    return found.mean(0, keepdim=True), _floored(found.std(0, keepdim=True, correction=0))


def _floored(deviation: Tensor) -> Tensor:
    return deviation + 0.1 * deviation.mean() + 1e-6


class Deviations(nn.Module):
    """Standardise maps at each place over normal images."""

    mean: Tensor
    std: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(1, 1, size, size))
        self.register_buffer("std", torch.ones(1, 1, size, size))

    def fit(self, maps: Iterable[Tensor]) -> None:
        """Take `mean_and_deviation` of the maps (N, 1, size, size) of normal images, of which one batch is held."""
        batches = iter(maps)
        first = next(batches)
        origin = first.mean(0, keepdim=True)  # sums of squares about it lose nothing in float32
        count, total, squares = 0, torch.zeros_like(origin), torch.zeros_like(origin)
        for found in itertools.chain([first], batches):
            count, offset = count + len(found), found - origin
            total, squares = total + offset.sum(0, keepdim=True), squares + offset.square().sum(0, keepdim=True)
        self.mean.copy_(origin + total / count)
        self.std.copy_(_floored((squares / count - (total / count).square()).clamp(min=0).sqrt()))

    def standardised(self, maps: Tensor) -> Tensor:
        """Return maps (N, 1, size, size) in standard deviations; below 0 is less than usual."""
        return (maps - self.mean) / self.std


class Places(Deviations):
    """Score reconstructions by the window that deviates most from normal images."""

    def __init__(self, size: int, window: int) -> None:
        self.window, self.stride = window, max(1, window // 4)
        super().__init__((size - window) // self.stride + 1)

    def forward(self, x: Tensor, reconstruction: Tensor) -> Tensor:
        """Compare images (N, C, H, W): (N, 1, side, side), not yet standardised."""
        return dissimilarity(x, reconstruction, self.window, self.stride)

    def score(self, x: Tensor, reconstruction: Tensor) -> Scores:
        """Score (N, C, H, W): the largest deviation, and at full size the map of all, in standard deviations."""
        deviations = self.standardised(self(x, reconstruction))
        heat = F.interpolate(deviations, x.shape[2:], mode="bilinear")
        return Scores(deviations.amax((1, 2, 3)), heat, reconstruction)

    def unusual(self, x: Tensor, reconstruction: Tensor) -> Scores:
        """Score (N, C, H, W): the mean square of all deviations, and at full size the map of their squares.

        What is reconstructed better than normal images are counts as much as what is reconstructed worse: a diffuse
        opacity is smoother than the lung that it covers, and easier to reconstruct.
        """
        squares = self.standardised(self(x, reconstruction)).square()
        return Scores(squares.mean((1, 2, 3)), F.interpolate(squares, x.shape[2:], mode="bilinear"), reconstruction)


class Comparison(nn.Module):
    """Score images by their reconstructions.

    By ``error``, the mean of absolute differences to a ``power``; ``local``, the window of a third of the side whose
    dissimilarity is the highest above that of normal images; or ``unusual``, how far in the mean windows of an eighth
    of the side are from normal images, whether less similar or more.
    """

    def __init__(self, size: int, how: Reading, power: float = 2.0) -> None:
        super().__init__()
        self.how, self.power = how, power
        self.places = Places(size, size // (8 if how == "unusual" else 3))

    def fit(self, reconstruct: Callable[[Tensor], Tensor], batches: Iterable[Tensor]) -> None:
        """Measure normal images (N, C, H, W), where the score asks for it."""
        if self.how != "error":
            self.places.fit(self.places(x, reconstruct(x)) for x in batches)

    def forward(self, x: Tensor, reconstruction: Tensor) -> Scores:
        """Score images (N, C, H, W) in [0, 1]."""
        if self.how == "local":
            return self.places.score(x, reconstruction)
        if self.how == "unusual":
            return self.places.unusual(x, reconstruction)
        error = (x - reconstruction).abs().pow(self.power).mean(1, keepdim=True)
        return Scores(error.mean((1, 2, 3)), error, reconstruction)
