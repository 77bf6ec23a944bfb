"""PaDiM: a Gaussian of features at every place (Defard et al. 2020, 2011.08785).

A network trained on photographs describes each place of an image by the features of some of its stages, of which a
random choice is kept. Over normal images these are taken as one Gaussian a place; a place of a new image is as abnormal
as its Mahalanobis distance from the Gaussian there. No gradient: one pass over the training images.

Departures: EfficientNet-Lite0 rather than ResNet-18, as its weights come as a package. Mean and covariance are summed
up batch by batch about the first batch's mean, so that memory does not grow with the number of images. The preset
``radiograph`` takes the stages of strides 8 to 32, all their features and the mean of the map; on ZhangLab's labelled
validation split these gave 0.956 (0.953 to 0.956 with any stages, so long as the deepest is one of them), the paper's
three stages 0.949 by the mean and 0.902 by the maximum.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from loligo.config import size_in_bytes
from loligo.methods.configs import FeatureConfig
from loligo.methods.contract import Method
from loligo.nn.backbones import Backbone
from loligo.nn.heat import enlarge, pool
from loligo.types import Scores

COPIES = 3
"""Times that all covariances lie in memory at once, at most: those of a method that was fitted, of the same one loaded
from its file, and of that file. Fitting works in place."""
AT_ONCE = 8
"""Images that go through the network at once: their maps fit a processor's cache, and memory stays small."""


@dataclass(frozen=True)
class PadimConfig(FeatureConfig):
    """Options of PaDiM; the defaults are the paper's for ResNet-18 but for the network."""

    dimensions: int = 100
    """Features kept of all stages' together, chosen at random."""
    regularisation: float = 0.01
    """Added to the diagonal of each covariance, so that it has an inverse; above 0."""
    sigma: float = 4.0
    """Pixels of the Gaussian that smooths the map."""
    memory_limit: str = "2GiB"
    """Bytes that the covariances may take; what they need depends on size and dimensions alone."""


class Padim(Method):
    """See the module's docstring."""

    Config = PadimConfig
    presets: ClassVar = {
        "radiograph": {"layers": (2, 3, 4), "dimensions": 472, "image_score": "mean"},
        "digits": {"size": 96, "train.augment": False},
        "tiny": {"size": 64, "dimensions": 20},
    }
    config: PadimConfig
    chosen: Tensor
    mean: Tensor
    whitening: Tensor

    def __init__(self, config: PadimConfig) -> None:
        super().__init__(config)
        self.backbone = config.extractor()
        stride, total = min(self.backbone.strides), sum(self.backbone.channels)
        self.side, d = -(-config.size // stride), min(config.dimensions, total)
        check(config, self.side**2 * d**2 * 4 * COPIES)
        self.register_buffer("chosen", torch.randperm(total)[:d].sort().values)
        self.register_buffer("mean", torch.zeros(self.side**2, d))
        self.register_buffer("whitening", torch.zeros(self.side**2, d, d))

    def _describe(self, x: Tensor, backbone: Backbone) -> Tensor:
        """Return the chosen features of each place, (P, N, d) float32, P places row by row."""
        found = x.new_empty(self.side, self.side, len(x), len(self.chosen))
        for part, out in zip(torch.split(x, AT_ONCE), torch.split(found, AT_ONCE, 2), strict=True):
            offset = done = 0
            for features in backbone(part):
                own = self.chosen[(self.chosen >= offset) & (self.chosen < offset + features.shape[1])] - offset
                if len(own):  # chance may choose none of a stage
                    kept = F.interpolate(features[:, own].float(), (self.side, self.side), mode="nearest")
                    out[..., done : done + len(own)] = kept.permute(2, 3, 0, 1)
                offset, done = offset + features.shape[1], done + len(own)
        return found.flatten(0, 1)

    def fit(self, batches: Iterable[Tensor]) -> None:
        """Sum up mean and covariance of each place, then factor the inverses."""
        backbone, n, centre = self.backbone.ready(self.mean.device), 0, torch.zeros(())
        total, outer = torch.zeros_like(self.mean), self.whitening.zero_()
        for x in batches:
            features = self._describe(x, backbone)
            if not n:
                centre = features.mean(1, keepdim=True)
            features, n = features.sub_(centre), n + len(x)
            total += features.sum(1)
            with torch.autocast(x.device.type, enabled=False):
                outer.baddbmm_(features.mT, features)
        if n < 2:
            raise ValueError(f"padim needs 2 normal images or more to take a covariance of; it got {n}")
        mean = total / n
        outer.baddbmm_(mean[:, :, None], mean[:, None], alpha=-n).div_(n - 1)
        outer.diagonal(dim1=1, dim2=2).add_(self.config.regularisation)
        self.mean.copy_(mean + centre[:, 0])
        eye = torch.eye(outer.shape[1], device=outer.device)
        for part in torch.split(outer, 256):  # in place, a few places at a time
            part.copy_(torch.linalg.solve_triangular(torch.linalg.cholesky(part), eye, upper=False))

    def score(self, x: Tensor) -> Scores:
        """Score by the map of Mahalanobis distances."""
        features = self._describe(x, self.backbone).sub_(self.mean[:, None])
        with torch.autocast(x.device.type, enabled=False):
            distance = torch.bmm(features, self.whitening.mT).square_().sum(2).sqrt()  # (P, N)
        heat = enlarge(distance.mT.reshape(len(x), 1, self.side, self.side), self.config.size, self.config.sigma)
        return Scores(pool(heat, self.config.image_score), heat)


def check(config: PadimConfig, needed: int) -> None:
    """Raise ValueError where there are no covariances or no inverses, or they would take more memory than they may."""
    if config.dimensions < 1 or config.regularisation <= 0:
        raise ValueError(
            f"dimensions is {config.dimensions} and regularisation {config.regularisation}; "
            "at least 1 and more than 0 are needed"
        )
    if needed > size_in_bytes(config.memory_limit):
        raise ValueError(
            f"padim's covariances need {needed / 2**20:.0f} MiB at size {config.size} and {config.dimensions} "
            f"dimensions; memory_limit is {config.memory_limit}: raise it, or lower size or dimensions"
        )
