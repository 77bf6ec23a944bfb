"""How typical a reconstruction is: a Gaussian, at each place, of its error and of the code's distance from a memory.

An autoencoder's error alone takes an image that is smoother than normal ones for very normal: smooth pixels are easy to
reconstruct. The distance from the mean of normal images, to either side, does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from loligo.nn.density import PlaceGaussian
from loligo.nn.heat import enlarge
from loligo.types import Scores

FLOOR = 1e-6
"""Added before a logarithm is taken: about the squared error that rounding to 8 bits makes, of pixels in [0, 1]."""
REGULARISATION = 0.01
"""Fraction of a place's mean variance that is added to the diagonal of its covariance."""


class Typicality(nn.Module):
    """Score by the Mahalanobis distance of the logarithms of error and distance at side x side places."""

    def __init__(self, size: int, side: int) -> None:
        super().__init__()
        self.size, self.side = size, side
        self.gaussian = PlaceGaussian(2, side**2)

    def describe(self, x: Tensor, reconstruction: Tensor, distance: Tensor) -> Tensor:
        """Return (N, 2, side, side) float32 of images (N, C, H, W) and the distances (N, 1, side, side) of codes."""
        error = (x - reconstruction).float().square().mean(1, keepdim=True)
        return torch.cat([F.avg_pool2d(error, self.size // self.side), distance.float()], 1).add(FLOOR).log()

    def fit(self, compared: Iterable[tuple[Tensor, Tensor, Tensor]], add: Callable[[Tensor], Tensor]) -> None:
        """Estimate from what `describe` takes of two normal images or more; ``add`` sums over processes."""
        moments = self.gaussian.moments()
        for part in compared:
            moments.add(self.describe(*part))
        moments.reduce(add)
        self.gaussian.fit(moments, REGULARISATION)

    def score(self, x: Tensor, reconstruction: Tensor, distance: Tensor) -> Scores:
        """Score by the mean distance of the places; smoothed, they are the map."""
        with torch.autocast(x.device.type, enabled=False):  # scores in bfloat16 would be ties
            heat = self.gaussian(self.describe(x, reconstruction, distance))
        return Scores(heat.mean((1, 2, 3)), enlarge(heat, self.size, self.size / self.side / 2), reconstruction)
