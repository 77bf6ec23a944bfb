"""PaDiM: a Gaussian of features at every place (Defard et al. 2020, 2011.08785).

An ImageNet-pretrained backbone describes each place of an image by the features of some of its stages, of which a
random choice is kept. Over normal images these are taken as one Gaussian a place; a place of a new image is as abnormal
as its Mahalanobis distance from the Gaussian there. No gradient: one pass over the training images.

Departures: EfficientNet-Lite0 rather than ResNet-18, as its weights come as a package. Mean and covariance are summed
up batch by batch about the first batch's mean, so that memory does not grow with the number of images. The preset
``radiograph`` takes the stages of strides 8 to 32, all their features and the mean of the map; on ZhangLab's labelled
validation split these gave 0.956 (0.953 to 0.956 with any stages, so long as the deepest is one of them), the paper's
three stages 0.949 by the mean and 0.902 by the maximum.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from loligo.config import size_in_bytes
from loligo.methods.configs import FeatureConfig
from loligo.methods.contract import ALONE, Method, Reduce
from loligo.nn.backbones import Backbone
from loligo.nn.heat import enlarge, pool
from loligo.types import Scores

COPIES = 3
"""Times that all covariances lie in memory at once, at most: those of a method that was fitted, of the same one loaded
from its file, and of that file. Fitting works in place."""
AT_ONCE = 8
"""Images that go through the backbone at once: their maps fit a processor's cache, and memory stays small."""


@dataclass(frozen=True)
class PadimConfig(FeatureConfig):
    """Options of PaDiM; the defaults are the paper's for ResNet-18 but for the backbone."""

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
        "digits": {"size": 96},
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
        self._divide()

    def _divide(self) -> None:
        """Keep what is chosen of each stage as an index into its channels, of constant length: `forward` is a graph."""
        first = 0
        for i, count in enumerate(self.backbone.channels):
            own = self.chosen[(self.chosen >= first) & (self.chosen < first + count)] - first
            self.register_buffer(f"chosen_{i}", own, persistent=False)
            first += count

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Load, then divide anew what is chosen."""
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self._divide()

    def _describe(self, x: Tensor, backbone: Backbone) -> Tensor:
        """Return the chosen features of each place, (P, N, d) float32, P places row by row."""
        found = x.new_empty(self.side, self.side, x.shape[0], self.chosen.shape[0])
        whole = torch.compiler.is_compiling()  # a graph knows no number of parts
        parts = [(x, found)] if whole else zip(torch.split(x, AT_ONCE), torch.split(found, AT_ONCE, 2), strict=True)
        for part, out in parts:
            done = 0
            for i, features in enumerate(backbone(part)):
                own = self.get_buffer(f"chosen_{i}")
                if not own.shape[0]:  # chance may choose none of a stage
                    continue
                kept = F.interpolate(features[:, own].float(), (self.side, self.side), mode="nearest")
                out[..., done : done + own.shape[0]] = kept.permute(2, 3, 0, 1)
                done += own.shape[0]
        return found.flatten(0, 1)

    def fit(self, batches: Iterable[Tensor], reduce: Reduce = ALONE) -> None:
        """Sum up mean and covariance of each place about the first batch's mean, then factor the inverses."""
        backbone, n, rest = self.backbone.ready(self.mean.device), 0, iter(batches)
        if (first := next(rest, None)) is None:
            raise ValueError("padim got no normal images")
        described = self._describe(first, backbone)
        centre = described.mean(1, keepdim=True)
        total, outer = torch.zeros_like(self.mean), self.whitening.zero_()
        for x in reduce.shard(itertools.chain([first], rest)):
            features = (described if x is first else self._describe(x, backbone)).sub_(centre)
            n, total = n + x.shape[0], total.add_(features.sum(1))
            with torch.autocast(x.device.type, enabled=False):
                outer.baddbmm_(features.mT, features)
        n = int(reduce.sum(torch.tensor(n, device=total.device)))
        if n < 2:
            raise ValueError(f"padim needs 2 normal images or more to take a covariance of; it got {n}")
        self._conclude(n, reduce.sum(total) / n, outer.copy_(reduce.sum(outer)))
        self.mean += centre[:, 0]

    def _conclude(self, n: int, mean: Tensor, outer: Tensor) -> None:
        """Keep the mean (P, d), and the whitening in place of the sums of outer products (P, d, d) of n images."""
        outer.baddbmm_(mean[:, :, None], mean[:, None], alpha=-n).div_(n - 1)
        outer.diagonal(dim1=1, dim2=2).add_(self.config.regularisation)
        self.mean.copy_(mean)
        eye = torch.eye(outer.shape[1], device=outer.device)
        for part in torch.split(outer, 256):  # in place, a few places at a time
            part.copy_(torch.linalg.solve_triangular(torch.linalg.cholesky(part), eye, upper=False))

    def forward(self, x: Tensor) -> Scores:
        """Score by the map of Mahalanobis distances."""
        features = self._describe(x, self.backbone).sub_(self.mean[:, None])
        with torch.autocast(x.device.type, enabled=False):
            distance = torch.bmm(features, self.whitening.mT).square_().sum(2).sqrt()  # (P, N)
        heat = enlarge(distance.mT.reshape(-1, 1, self.side, self.side), self.config.size, self.config.sigma)
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
