"""PatchCore: distance of each place's features from a memory of normal ones (Roth et al., CVPR 2022, 2106.08265).

An ImageNet-pretrained backbone describes each place of an image by the features of its middle stages, averaged over 3x3
places. A bank keeps a small set of normal features that lies close to all of them (a greedy coreset); a place of a
new image is as abnormal as its distance from the nearest in the bank, wherever in the image that one came from.

Departures: EfficientNet-Lite0 rather than WideResNet-50, as its weights come as a package; its features are few, so
that none are averaged away. The coreset is chosen several features at a time, and from a uniform sample where the
memory limit has no room for all features, so that memory does not grow with the number of images. Nearest neighbours
are searched by products in bfloat16 where the processor has them; the distance to the one that is found is exact.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from loligo.config import size_in_bytes
from loligo.methods.configs import STAGES, FeatureConfig
from loligo.methods.contract import ALONE, Method, Reduce
from loligo.nn.backbones import Backbone
from loligo.nn.coreset import Reservoir, greedy, room
from loligo.nn.heat import enlarge, pool
from loligo.nn.nearest import nearest
from loligo.types import Scores

LEAST = 100
"""Features that the memory limit must leave room for."""


@dataclass(frozen=True)
class PatchcoreConfig(FeatureConfig):
    """Options of PatchCore; the defaults are the paper's but for backbone and neighbours."""

    layers: tuple[int, ...] = field(default=(2, 3), metadata=STAGES)
    """Stages whose maps are used; their strides are those of PaDiM's."""
    coreset: float = 0.01
    """Fraction of the training images' features that the bank keeps, up to half of those it is chosen from."""
    neighbours: int = 9
    """Neighbours in the bank that the maximum is weighted by; 1 leaves it as it is. Only where the score is the max.
    The paper does not say how many; 9 is anomalib's."""
    sigma: float = 4.0
    """Pixels of the Gaussian that smooths the map."""
    memory_limit: str = "2GiB"
    """Bytes that features, bank and search may take, beside the images in hand; where the features of all images do not
    fit, the bank is chosen from as many as do, sampled at random."""


class Patchcore(Method):
    """See the module's docstring."""

    Config = PatchcoreConfig
    grown = ("bank",)
    presets: ClassVar = {
        "radiograph": {"image_score": "mean"},
        "digits": {"size": 96, "layers": (1, 2)},
        "tiny": {"size": 64, "layers": (1, 2), "coreset": 0.05, "neighbours": 3},
    }
    config: PatchcoreConfig
    bank: Tensor

    def __init__(self, config: PatchcoreConfig) -> None:
        super().__init__(config)
        self.backbone = config.extractor()
        check(config, sum(self.backbone.channels))
        self.side = -(-config.size // min(self.backbone.strides))
        self.register_buffer("bank", torch.zeros(1, sum(self.backbone.channels)))

    def _describe(self, x: Tensor, backbone: Backbone) -> Tensor:
        """Return each place's features, (N, P, D) float32, P places row by row."""
        shape = (self.side, self.side)
        maps = [F.avg_pool2d(features.float(), 3, 1, 1) for features in backbone(x)]
        same = [m if m.shape[2:] == shape else F.interpolate(m, shape, mode="bilinear") for m in maps]
        return torch.cat(same, 1).flatten(2).mT.contiguous()

    def fit(self, batches: Iterable[Tensor], reduce: Reduce = ALONE) -> None:
        """Choose the bank from all features, or from a sample where the limit is lower; alike in each process."""
        backbone, dim = self.backbone.ready(self.bank.device), self.bank.shape[1]
        generator = torch.Generator().manual_seed(int(torch.randint(1 << 31, ())))
        sample = Reservoir(room(size_in_bytes(self.config.memory_limit), dim), dim, generator)
        for x in batches:
            sample.add(self._describe(x, backbone).flatten(0, 1).cpu())
        features = sample.taken()
        count = min(round(self.config.coreset * sample.seen), len(features) // 2)
        self.bank = features[greedy(features, max(1, count), generator)].to(self.bank)

    def forward(self, x: Tensor) -> Scores:
        """Score by the map of distances from the bank; its maximum weighs less where the bank is dense."""
        features = self._describe(x, self.backbone)
        limit = size_in_bytes(self.config.memory_limit)  # bank and its copies take three quarters at most
        distance, which = nearest(features.flatten(0, 1), self.bank, limit // 4)
        distance, which = distance.view(-1, self.side**2), which.view(-1, self.side**2)
        heat = enlarge(distance.view(-1, 1, self.side, self.side), self.config.size, self.config.sigma)
        if self.config.image_score == "max":
            return Scores(self._weighted(features, distance, which), heat)
        return Scores(pool(heat, self.config.image_score), heat)

    def _weighted(self, features: Tensor, distance: Tensor, which: Tensor) -> Tensor:
        """Return each image's greatest distance (N,), weighted as in equation 7 of the paper."""
        greatest, place = distance.max(1)
        k = min(self.config.neighbours, self.bank.shape[0])
        if k == 1:
            return greatest
        each = torch.arange(features.shape[0], device=features.device)
        with torch.autocast(features.device.type, enabled=False):
            within_bank = torch.cdist(self.bank[which[each, place]], self.bank, compute_mode="use_mm_for_euclid_dist")
            around = within_bank.topk(k, largest=False).indices  # (N, k)
            distances = torch.linalg.vector_norm(features[each, place, None] - self.bank[around], dim=2)
        weighted: Tensor = (1 - (greatest - distances.logsumexp(1)).exp()) * greatest
        return weighted


def check(config: PatchcoreConfig, dim: int) -> None:
    """Raise ValueError where the bank could not be chosen of features (D,)."""
    if not 0 < config.coreset <= 1:
        raise ValueError(f"coreset is {config.coreset}; it is a fraction of the features, above 0 and at most 1")
    if config.neighbours < 1:
        raise ValueError(f"neighbours is {config.neighbours}; at least 1 is needed")
    if room(size_in_bytes(config.memory_limit), dim) < LEAST:
        raise ValueError(f"memory_limit is {config.memory_limit}, too little for {LEAST} features of {dim}: raise it")
