"""PaDiM: a Gaussian of features at every place (Defard et al. 2020, 2011.08785).

An ImageNet-pretrained backbone describes each place of an image by the features of some of its stages, of which a
random choice is kept. Over normal images these are taken as one Gaussian a place; a place of a new image is as abnormal
as its Mahalanobis distance from the Gaussian there. No gradient: one pass over the training images.

Features of a coarse stage are the same at all places that share one of its cells, and so is their covariance. The
squared distance is therefore summed up from coarse to fine, each stage given the coarser ones: the same number as from
one whole covariance a place, with a sixth of the memory.

Departures: EfficientNet-Lite0 rather than ResNet-18, as its weights come as a package. Mean and covariance are summed
up batch by batch about the first batch's mean, so that memory does not grow with the number of images. The preset
``radiograph`` takes the stages of strides 8 to 32, all their features and the mean of the map; on ZhangLab's labelled
validation split these gave 0.956 (0.953 to 0.956 with any stages, so long as the deepest is one of them), the paper's
three stages 0.949 by the mean and 0.902 by the maximum.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dimensions < 1 or self.regularisation <= 0:
            raise ValueError(
                f"dimensions is {self.dimensions} and regularisation {self.regularisation}; "
                "at least 1 and more than 0 are needed"
            )


class Level(nn.Module):
    """The chosen features of one grid of places, and the Gaussian of them given those of coarser grids.

    With P places, d features and D of all grids so far, ``whitening`` (P, d, D) holds the last d rows of the inverse
    Cholesky factor of the covariance of the D: their squares sum up to what these features add to the distance.
    """

    mean: Tensor
    whitening: Tensor
    parent: Tensor

    def __init__(self, side: int, indices: dict[int, Tensor], before: int, coarser: int) -> None:
        super().__init__()
        self.side, self.stages, self.count = side, tuple(indices), sum(map(len, indices.values()))
        for stage, index in indices.items():  # of constant length: `forward` is a graph
            self.register_buffer(f"index_{stage}", index, persistent=False)
        device = next(iter(indices.values())).device
        above = torch.arange(before**2, dtype=torch.float32, device=device).view(1, 1, before, before)
        parent = F.interpolate(above, (side, side), mode="nearest").flatten().long()
        self.register_buffer("parent", parent, persistent=False)  # the place of the next coarser grid that it lies in
        self.register_buffer("mean", torch.zeros(side**2, self.count, device=device))
        self.register_buffer("whitening", torch.zeros(side**2, self.count, coarser + self.count, device=device))

    def describe(self, maps: list[Tensor]) -> Tensor:
        """Return its features (P, N, d) float32 of a backbone's maps, P places row by row."""
        own = [maps[stage][:, self.get_buffer(f"index_{stage}")].float() for stage in self.stages]
        fitting = [F.interpolate(part, (self.side, self.side), mode="nearest") for part in own]
        return torch.cat(fitting, 1).permute(2, 3, 0, 1).flatten(0, 1)


class Padim(Method):
    """See the module's docstring."""

    Config = PadimConfig
    least = 2
    presets: ClassVar = {
        "radiograph": {"layers": (2, 3, 4), "dimensions": 472, "image_score": "mean"},
        "digits": {"size": 96},
        "tiny": {"size": 64, "dimensions": 20},
    }
    config: PadimConfig
    chosen: Tensor
    levels: nn.ModuleList

    def __init__(self, config: PadimConfig) -> None:
        super().__init__(config)
        self.backbone = config.extractor()
        self.register_buffer("chosen", torch.randperm(sum(self.backbone.channels))[: config.dimensions].sort().values)
        self._divide()

    def _divide(self) -> None:
        """Make a level of each grid that has chosen features, coarse to fine; ValueError where memory would not do."""
        bounds = [0, *itertools.accumulate(self.backbone.channels)]
        grids: dict[int, dict[int, Tensor]] = defaultdict(dict)
        for stage, stride in sorted(enumerate(self.backbone.strides), key=lambda one: -one[1]):
            own = self.chosen[(self.chosen >= bounds[stage]) & (self.chosen < bounds[stage + 1])] - bounds[stage]
            if len(own):  # chance may choose none of a stage
                grids[-(-self.config.size // stride)][stage] = own
        sides, counts = [1, *grids], [sum(map(len, indices.values())) for indices in grids.values()]
        so_far = [0, *itertools.accumulate(counts)]
        check(self.config, sum(side**2 * d * D * 4 for side, d, D in zip(grids, counts, so_far[1:], strict=True)))
        self.levels = nn.ModuleList(
            Level(side, indices, sides[i], so_far[i]) for i, (side, indices) in enumerate(grids.items())
        )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Divide anew by the features that were chosen, then load."""
        given, last = state_dict.get(prefix + "chosen"), sum(self.backbone.channels) - 1
        if given is not None and given.shape == self.chosen.shape:
            if given.dtype != torch.int64 or not given.unique().equal(given) or given[0] < 0 or given[-1] > last:
                raise RuntimeError(f"chosen must be whole numbers from 0 to {last}, each once, ascending")
            self.chosen = given.to(self.chosen)
            self._divide()
        super()._load_from_state_dict(state_dict, prefix, *rest)

    @property
    def _grids(self) -> list[Level]:
        return [cast(Level, level) for level in self.levels]

    def _describe(self, x: Tensor, backbone: Backbone) -> list[Tensor]:
        """Return the chosen features of each level, (P, N, d) float32."""
        parts = [x] if torch.compiler.is_compiling() else torch.split(x, AT_ONCE)  # a graph knows no number of parts
        found = [[level.describe(maps) for level in self._grids] for maps in map(backbone, parts)]
        return [torch.cat(level, 1) for level in zip(*found, strict=True)]

    def _centred(self, x: Tensor, backbone: Backbone) -> Iterator[tuple[Level, Tensor]]:
        """Yield each level with the features of coarser ones and its own, (P, N, D), less their means."""
        features = x.new_zeros(1, x.shape[0], 0, dtype=torch.float32)
        for level, own in zip(self._grids, self._describe(x, backbone), strict=True):
            features = torch.cat([features[level.parent], own - level.mean[:, None]], 2)
            yield level, features

    def fit(self, batches: Iterable[Tensor], reduce: Reduce = ALONE) -> None:
        """Sum up mean and covariance of each place about the first batch's mean, then factor the inverses."""
        backbone, n, rest = self.backbone.ready(self.chosen.device), 0, iter(batches)
        first = next(rest)
        for level, own in zip(self._grids, self._describe(first, backbone), strict=True):
            level.mean.copy_(own.mean(1))
            level.whitening.zero_()
        totals = [torch.zeros_like(level.mean) for level in self._grids]
        for x in reduce.shard(itertools.chain([first], rest)):
            n += len(x)
            for total, (level, features) in zip(totals, self._centred(x, backbone), strict=True):
                own = features[:, :, -level.count :]
                total.add_(own.sum(1))
                with torch.autocast(x.device.type, enabled=False):
                    level.whitening.baddbmm_(own.mT, features)
        with torch.autocast(self.chosen.device.type, enabled=False):  # in bfloat16 there would be no Cholesky factor
            self._conclude(int(reduce.sum(torch.tensor(n, device=self.chosen.device))), totals, reduce)

    def _conclude(self, n: int, totals: list[Tensor], reduce: Reduce) -> None:
        """Make means and whitening of each level's sums (P, d) and sums of outer products (P, d, D) over n images."""
        shifts = self.chosen.new_zeros(1, 0, dtype=torch.float32)  # of the means of coarser features
        for i, (level, total) in enumerate(zip(self._grids, totals, strict=True)):
            shift = reduce.sum(total) / n
            shifts = torch.cat([shifts[level.parent], shift], 1)
            outer = level.whitening.copy_(reduce.sum(level.whitening))
            outer.baddbmm_(shift[:, :, None], shifts[:, None], alpha=-n).div_(n - 1)
            outer[:, :, -level.count :].diagonal(dim1=1, dim2=2).add_(self.config.regularisation)
            for places in torch.split(torch.arange(len(outer), device=outer.device), 64):  # in place, a few at a time
                outer[places] = given_coarser(outer[places], self._whole(i - 1, level.parent[places]))
            level.mean.add_(shift)

    def _whole(self, last: int, places: Tensor) -> Tensor:
        """Return at ``places`` (p,) of level ``last`` the inverse Cholesky factor of all features so far, (p, D, D)."""
        if last < 0:
            return self.chosen.new_zeros(len(places), 0, 0, dtype=torch.float32)
        level = self._grids[last]
        coarser = self._whole(last - 1, level.parent[places])
        return torch.cat([F.pad(coarser, (0, level.count)), level.whitening[places]], 1)

    def forward(self, x: Tensor) -> Scores:
        """Score by the map of Mahalanobis distances."""
        squared, side = x.new_zeros(1, x.shape[0], dtype=torch.float32), self._grids[-1].side
        with torch.autocast(x.device.type, enabled=False):
            for level, features in self._centred(x, self.backbone):
                squared = squared[level.parent] + torch.bmm(features, level.whitening.mT).square_().sum(2)  # (P, N)
        heat = enlarge(squared.sqrt().mT.reshape(-1, 1, side, side), self.config.size, self.config.sigma)
        return Scores(pool(heat, self.config.image_score), heat)


def given_coarser(covariance: Tensor, coarser: Tensor) -> Tensor:
    """Return the last d rows of inverse Cholesky factors, from those rows of the covariances, both (p, d, D).

    ``coarser`` (p, D - d, D - d) are the factors of the features before them.
    """
    across, own = torch.split(covariance, [coarser.shape[1], covariance.shape[1]], 2)
    across = across @ coarser.mT
    left = torch.linalg.cholesky(own - across @ across.mT)
    inverse = torch.linalg.solve_triangular(left, torch.eye(left.shape[1], device=left.device), upper=False)
    return torch.cat([-inverse @ across @ coarser, inverse], 2)


def check(config: PadimConfig, needed: int) -> None:
    """Raise ValueError where the covariances would take more memory than they may."""
    if needed * COPIES > size_in_bytes(config.memory_limit):
        raise ValueError(
            f"padim's covariances need {needed * COPIES / 2**20:.0f} MiB at size {config.size} and {config.dimensions} "
            f"dimensions; memory_limit is {config.memory_limit}: raise it, or lower size or dimensions"
        )
