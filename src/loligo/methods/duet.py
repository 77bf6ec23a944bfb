"""Duet: what is unlike normal, and what looks like a finding, on one backbone's pass; loligo's own method.

An ImageNet-pretrained backbone describes each place of an image. A *density* compares two Gaussians there: one of
normal images, as in PaDiM, and one of findings. A *head*, a small convolutional network, predicts what part of a place
a finding covers. Both learn from normal images with simulated findings (`loligo.data.findings`), and the same random
changes of acquisition (`loligo.data.acquisition`) are applied to normal images and to those with a finding: so they
tell findings from exposure, blur, noise and position. The backbone sees pixels by their ranks in the image (histogram
equalisation), so that no monotone curve of intensity matters. Features are then brought to mean 0 and deviation 1 over
the places of each image: another scanner or another patient changes all places alike, a finding some.

With features f(p) at place p of the equalised image, whitened over all normal images to z(p):

    features     u(p) = (z(p) - mean_q z(q)) / (std_q z(q) + 0.1)
    head         h(p) = g(u)(p), a logit, trained by cross-entropy against the part of p that a finding covers
    density      d(p) = |L(p) (u(p) - m(p))|^2 - |F (u(p) - m(p))|^2, a log-likelihood ratio: m(p) is the mean and
                 L(p)'L(p) the inverse covariance of normal images; F'F is that of covered places, about m(p)
    score        standardised log mean_p sigmoid(h(p)) + standardised mean_p d(p)
    map          standardised h(p) + standardised d(p)

Means and deviations are those of normal images, and of changed copies of them, that a first density did not see, a
fifth; the last one is fitted on all.

One set of options serves all images. Where two lungs are found, the findings are those of chest radiographs and
changes of structure; elsewhere the latter alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from loligo.data.pairs import changed, left_out, simulated, with_finding
from loligo.methods.configs import STAGES, BackboneConfig
from loligo.methods.contract import ALONE, Group, Method, Phase, Reduce, Step, Turn
from loligo.methods.optimisation import Cosine, adamw
from loligo.nn.density import Moments
from loligo.nn.equalise import equalised
from loligo.nn.heat import enlarge
from loligo.nn.ratio import Covered, LikelihoodRatio
from loligo.nn.whitening import Whitening
from loligo.types import Scores

FLOOR = 1e-4
"""Least deviation that scores are standardised by."""
LEAST = 0.1
"""Added to the deviation over an image's places, in deviations over normal images: a blank image has none."""
PRIOR = -2.0
"""Logit that the head begins at: most places are normal."""
COVERED = 0.5
"""Part of a place that a finding covers from which on its features count as those of findings."""
Extractor = Callable[[Tensor], list[Tensor]]


@dataclass(frozen=True)
class DuetConfig(BackboneConfig):
    """Options of Duet."""

    size: int = 288
    """Height and width of the images that it sees, in pixels."""
    backbone: str = "tf_efficientnet_lite2"
    """Name of the network in timm."""
    layers: tuple[int, ...] = field(default=(2, 3, 4), metadata=STAGES)
    """Stages whose maps are used, averaged to the places of the coarsest one."""
    dimensions: int = 200
    """Directions of the largest variance over normal images that features are whitened to."""
    width: int = 64
    """Channels of the head."""
    dropout: float = 0.2
    """Fraction of features and of the head's channels that a training step leaves out."""
    copies: int = field(default=3, metadata={"least": 0})
    """Changed copies of each normal image that the Gaussian sees beside it."""
    regularisation: float = 0.01
    """Fraction of a covariance's mean variance that is added to its diagonal; above 0."""
    sigma: float = 4.0
    """Pixels of the Gaussian that smooths the map."""
    learning_rate: float = 2e-3
    """AdamW's rate, falling to none by a cosine."""
    weight_decay: float = 0.01
    """AdamW's weight decay."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.regularisation <= 0 or not 0 <= self.dropout < 1:
            raise ValueError(
                f"regularisation is {self.regularisation}, dropout {self.dropout}; more than 0, and 0 to below 1 are "
                "needed"
            )


class Head(nn.Module):
    """What part of each place a finding covers: a layer a place, what lies around it, and where it lies."""

    exact = True  # small, and what it says must not depend on precision

    def __init__(self, features: int, side: int, width: int, dropout: float) -> None:
        super().__init__()
        self.drop = nn.Dropout2d(dropout)
        self.enter, self.leave = nn.Conv2d(features, width, 1), nn.Conv2d(width, 1, 1)
        self.around = nn.Conv2d(width, width, 3, padding=1)
        self.place = nn.Parameter(torch.zeros(1, width, side, side))
        nn.init.constant_(self.leave.bias, PRIOR)  # type: ignore[arg-type]

    def forward(self, z: Tensor) -> Tensor:
        """Map whitened features (N, D, h, w) to logits (N, 1, h, w)."""
        y = F.gelu(self.enter(self.drop(z)) + self.place)
        y = y + F.gelu(self.around(y))
        logits: Tensor = self.leave(self.drop(y))
        return logits


class Duet(Method):
    """See the module's docstring."""

    Config = DuetConfig
    least = 2
    training_defaults: ClassVar = {"steps": 1800, "batch_size": 16, "augment": False}
    presets: ClassVar = {
        "fast": {"size": 224, "backbone": "tf_efficientnet_lite0"},
        "tiny": {
            **{"size": 64, "backbone": "tf_efficientnet_lite0", "layers": (1, 2), "dimensions": 24, "width": 32},
            "train.epochs": 12,
        },
    }
    config: DuetConfig
    places_mean: Tensor
    places_deviation: Tensor
    images_mean: Tensor
    images_deviation: Tensor

    def __init__(self, config: DuetConfig) -> None:
        super().__init__(config)
        self.backbone = config.extractor()
        self.side = min(self.backbone.sides(config.size))
        given = sum(self.backbone.channels)
        d = min(config.dimensions, given)
        self.head = Head(d, self.side, config.width, config.dropout)
        self.whitening = Whitening(given, d)
        self.density = LikelihoodRatio(d, self.side**2)
        for name in ("places", "images"):
            self.register_buffer(f"{name}_mean", torch.zeros(2))
            self.register_buffer(f"{name}_deviation", torch.ones(2))

    def phases(self) -> tuple[Phase, ...]:
        """Train the head."""
        optimiser = adamw(weight_decay=self.config.weight_decay)
        group = Group(("head",), self.config.learning_rate)
        return (Phase("findings", (Turn("findings", (group,), optimiser, Cosine(0.0, by_step=True)),)),)

    def _features(self, x: Tensor, backbone: Extractor) -> Tensor:
        """Return the features of all stages at each place of equalised images, (N, C, h, w) float32."""
        return torch.cat([F.adaptive_avg_pool2d(m.float(), self.side) for m in backbone(equalised(x))], 1)

    def _described(self, x: Tensor, backbone: Extractor) -> Tensor:
        """Return features (N, D, h, w) float32, whitened over normals, then standardised over an image's places."""
        return standardised(self.whitening(self._features(x, backbone)))

    def prepare(self, batches: Iterable[Tensor], reduce: Reduce = ALONE) -> None:
        """Measure the mean and the directions of features over normal images and changed copies of them."""
        teach = self.backbone.teach
        maps = (self._features(torch.cat([x, changed(x, 0)]), teach) for x in reduce.shard(batches))
        self.whitening.fit(maps, reduce.sum)

    def losses(self, x: Tensor, turn: str, step: Step) -> dict[str, Tensor]:
        """Return the cross-entropy between logits and the part of each place that a simulated finding covers."""
        images, masks = simulated(x)
        target = F.adaptive_avg_pool2d(masks, self.side)
        logits = self.head(self._described(images, self.backbone.teach)).float()
        return {"findings": F.binary_cross_entropy_with_logits(logits, target)}

    def fit(self, batches: Iterable[Tensor], reduce: Reduce = ALONE) -> None:
        """Fit the ratio to normals, changed copies and findings; standardise by normals that a first did not see."""
        backbone, seen, held = (
            self.backbone.ready(self.places_mean.device),
            self.density.moments(),
            self.density.moments(),
        )
        covered = Covered(self.side**2, len(self.whitening.matrix), self.places_mean.device)
        for x in reduce.shard(batches):
            out = left_out(x)
            for moments, part in ((seen, x[~out]), (held, x[out])):
                if len(part):
                    moments.add(self._described(self._with_copies(part), backbone))
            found, masks = with_finding(x)
            covered.add(self._described(found, backbone), F.adaptive_avg_pool2d(masks, self.side) > COVERED)
        for sums in (seen, held, covered):
            sums.reduce(reduce.sum)
        split = seen.count > 1 and held.count > 1
        if not split:
            seen.join(held)
        self._fit(seen, covered)
        self._standardise((x[left_out(x)] if split else x for x in reduce.shard(batches)), backbone, reduce)
        if split:
            seen.join(held)
            self._fit(seen, covered)

    def _fit(self, normal: Moments, covered: Covered) -> None:
        self.density.fit(normal, self.config.regularisation)
        self.density.fit_findings(covered, self.config.regularisation)

    def _with_copies(self, x: Tensor) -> Tensor:
        return torch.cat([x, *(changed(x, number) for number in range(1, self.config.copies + 1))])

    def _standardise(self, batches: Iterable[Tensor], backbone: Extractor, reduce: Reduce) -> None:
        """Measure mean and deviation of both maps' places and of both scores."""
        sums = torch.zeros(2, 3, 2, dtype=torch.float64, device=self.places_mean.device)
        for x in batches:
            if len(x):
                maps = self._maps(self._with_copies(x), backbone)
                for total, rows in zip(sums, (maps.movedim(1, 3).flatten(0, 2), pooled(maps)), strict=True):
                    v = rows.double()
                    total += torch.stack([torch.ones_like(v).sum(0), v.sum(0), v.square().sum(0)])
        count, total, squares = reduce.sum(sums).unbind(1)
        mean = total / count
        deviation = (squares / count - mean**2).clamp_min(0).sqrt().clamp_min(FLOOR)
        self.places_mean.copy_(mean[0]), self.images_mean.copy_(mean[1])
        self.places_deviation.copy_(deviation[0]), self.images_deviation.copy_(deviation[1])

    def _maps(self, x: Tensor, backbone: Extractor) -> Tensor:
        """Return the head's logit and the likelihood ratio of each place, (N, 2, h, w) float32."""
        u = self._described(x, backbone)
        with torch.autocast(x.device.type, enabled=False):
            return torch.cat([self.head(u), self.density(u)], 1)

    def forward(self, x: Tensor) -> Scores:
        """Score by the sum of both, each standardised; the map is the sum of both maps."""
        maps = self._maps(x, self.backbone)
        scores = (pooled(maps) - self.images_mean) / self.images_deviation
        heat = (maps - self.places_mean[:, None, None]) / self.places_deviation[:, None, None]
        return Scores(scores.sum(1), enlarge(heat.sum(1, keepdim=True), self.config.size, self.config.sigma))


def pooled(maps: Tensor) -> Tensor:
    """Return the logarithm of the mean probability of a finding and the mean ratio, (N, 2), of maps (N, 2, h, w)."""
    logits, ratios = maps.flatten(2).unbind(1)
    log_mean = F.logsigmoid(logits).logsumexp(1) - math.log(logits.shape[1])
    return torch.stack([log_mean, ratios.mean(1)], 1)


def standardised(z: Tensor) -> Tensor:
    """Bring features (N, D, h, w) to mean 0 and deviation 1 over the places of each image."""
    centred = z - z.mean((2, 3), keepdim=True)
    return centred / (centred.square().mean((2, 3), keepdim=True).sqrt() + LEAST)
