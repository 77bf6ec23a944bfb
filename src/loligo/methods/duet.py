"""Duet: what is unlike normal, and what looks like a finding, on one backbone's pass; loligo's own method.

An ImageNet-pretrained backbone describes each place of an image. Two voices judge it. A *density*, one Gaussian a
place as in PaDiM, says how unlike normal images it is. A *head*, a small convolutional network, says what part of it a
finding covers: it is trained on normal images with simulated findings (`loligo.data.findings`). The same random
changes of acquisition (`loligo.data.acquisition`) are applied to normal images and to those with a finding, so that
the head tells findings from exposure, blur, noise and position; the Gaussian is fitted on changed normals as well. What
all places of an image share is taken from its features before the Gaussian sees them (their mean over places): another
scanner changes all of them, a finding some.

With features f(p) at place p, whitened over all normal images to z(p):

    head         h(p) = logit that g(z)(p) covers, g trained by cross-entropy against the covered part of each place
    density      d(p) = |L(p) (u(p) - m(p))|, where u(p) = z(p) - mean_q z(q), and L'L the inverse covariance
    map          s(p) = (h(p) - mean h) / std h + b(p) (d(p) - mean d) / std d
    score        mean of s(p) over the highest places

b(p) is the part of p that lies in the foreground, as a mean over normal images: what surrounds a body is no finding.

Means and deviations are those of normal images, and of changed copies of them, that the Gaussian did not see: a fifth
is left out of a first one, which is then fitted on all.

One set of options serves all images. Where two lungs are found, the findings are those of chest radiographs and changes
of structure; elsewhere the latter alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from loligo.data.pairs import changed, foregrounds, numbers, simulated
from loligo.methods.configs import STAGES, BackboneConfig
from loligo.methods.contract import ALONE, Group, Method, Phase, Reduce, Step, Turn
from loligo.methods.optimisation import Cosine, adamw
from loligo.nn.density import PlaceGaussian
from loligo.nn.heat import enlarge
from loligo.types import Scores

LEFT_OUT = 5
"""One in so many normal images is left out of the first Gaussian, to standardise by."""
FLOOR = 1e-4
"""Variance of a direction by the largest one's, that whitening adds."""
PRIOR = -2.0
"""Logit that the head begins at: most places are normal."""
Extractor = Callable[[Tensor], list[Tensor]]


@dataclass(frozen=True)
class DuetConfig(BackboneConfig):
    """Options of Duet."""

    size: int = 288
    """Height and width of the images that it sees, in pixels."""
    backbone: str = "tf_efficientnet_lite2"
    """Name of the network in timm."""
    layers: tuple[int, ...] = field(default=(2, 3, 4), metadata=STAGES)
    """Stages whose maps are used, brought to the places of the middle one."""
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
    top: float = 0.05
    """Fraction of the places, those where the map is highest, whose mean is an image's score."""
    sigma: float = 4.0
    """Pixels of the Gaussian that smooths the map."""
    learning_rate: float = 2e-3
    """AdamW's rate, falling to none by a cosine."""
    weight_decay: float = 0.01
    """AdamW's weight decay."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.regularisation <= 0 or not 0 <= self.dropout < 1 or not 0 < self.top <= 1:
            raise ValueError(
                f"regularisation is {self.regularisation}, dropout {self.dropout}, top {self.top}; more than 0, 0 to "
                "below 1, and above 0 to 1 are needed"
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
    centre: Tensor
    whitening: Tensor
    body: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(self, config: DuetConfig) -> None:
        super().__init__(config)
        self.backbone = config.extractor()
        self.side = sorted(self.backbone.sides(config.size))[len(config.layers) // 2]
        given = sum(self.backbone.channels)
        d = min(config.dimensions, given)
        self.head = Head(d, self.side, config.width, config.dropout)
        self.register_buffer("centre", torch.zeros(given))
        self.register_buffer("whitening", torch.zeros(d, given))
        self.density = PlaceGaussian(d, self.side**2)
        self.register_buffer("body", torch.ones(self.side, self.side))
        self.register_buffer("mean", torch.zeros(2))
        self.register_buffer("deviation", torch.ones(2))

    def phases(self) -> tuple[Phase, ...]:
        """Train the head."""
        optimiser = adamw(weight_decay=self.config.weight_decay)
        group = Group(("head",), self.config.learning_rate)
        return (Phase("findings", (Turn("findings", (group,), optimiser, Cosine(0.0, by_step=True)),)),)

    def _features(self, x: Tensor, backbone: Extractor) -> Tensor:
        """Return the features of all stages at each place, (N, C, h, w) float32."""
        maps, side = [m.float() for m in backbone(x)], (self.side, self.side)
        return torch.cat([
            F.adaptive_avg_pool2d(m, side) if m.shape[2] > self.side else F.interpolate(m, side, mode="bilinear")
            for m in maps
        ], 1)  # fmt: skip

    def _whitened(self, x: Tensor, backbone: Extractor) -> Tensor:
        """Return whitened features (N, D, h, w) float32."""
        features = self._features(x, backbone)
        with torch.autocast(x.device.type, enabled=False):
            return F.conv2d(features - self.centre[:, None, None], self.whitening[:, :, None, None])

    def prepare(self, batches: Iterable[Tensor], reduce: Reduce = ALONE) -> None:
        """Measure the mean and the directions of features over normal images and changed copies of them."""
        teach = self.backbone.teach
        self._whiten((self._features(torch.cat([x, changed(x, 0)]), teach) for x in reduce.shard(batches)), reduce)

    def _whiten(self, maps: Iterable[Tensor], reduce: Reduce = ALONE) -> None:
        """Take the mean and the directions from features (N, C, h, w)."""
        sums = torch.zeros(len(self.centre) + 1, len(self.centre) + 1, dtype=torch.float64, device=self.centre.device)
        for features in maps:
            rows = F.pad(features.double().movedim(1, 3).flatten(0, 2), (0, 1), value=1)
            sums += rows.mT @ rows
        sums = reduce.sum(sums)
        sums = sums / sums[-1, -1]
        self.centre.copy_(sums[-1, :-1])
        values, vectors = torch.linalg.eigh(sums[:-1, :-1] - sums[-1, :-1].outer(sums[-1, :-1]))
        kept = slice(-len(self.whitening), None)
        self.whitening.copy_((vectors[:, kept] / (values[kept] + FLOOR * values[-1]).sqrt()).mT)

    def losses(self, x: Tensor, turn: str, step: Step) -> dict[str, Tensor]:
        """Return the cross-entropy between logits and the part of each place that a simulated finding covers."""
        images, masks = simulated(x)
        target = F.adaptive_avg_pool2d(masks, (self.side, self.side))
        logits = self.head(self._whitened(images, self.backbone.teach)).float()
        return {"findings": F.binary_cross_entropy_with_logits(logits, target)}

    def fit(self, batches: Iterable[Tensor], reduce: Reduce = ALONE) -> None:
        """Fit the Gaussian to normals and changed copies; standardise by those that a first one did not see."""
        backbone, seen, held = self.backbone.ready(self.centre.device), self.density.moments(), self.density.moments()
        self.body.zero_()
        for x in reduce.shard(batches):
            out = left_out(x)
            self.body += F.adaptive_avg_pool2d(foregrounds(x), (self.side, self.side)).sum((0, 1))
            for moments, part in ((seen, x[~out]), (held, x[out])):
                if len(part):
                    moments.add(apart(self._whitened(self._with_copies(part), backbone)))
        for moments in (seen, held):
            moments.reduce(reduce.sum)
        self.body.copy_(reduce.sum(self.body) / (seen.count + held.count) * (1 + self.config.copies))
        split = seen.count > 1 and held.count > 1
        if not split:
            seen.join(held)
        self.density.fit(seen, self.config.regularisation)
        sums = torch.zeros(3, 2, dtype=torch.float64, device=self.centre.device)
        for x in reduce.shard(batches):
            part = x[left_out(x)] if split else x
            if len(part):
                voices = self._voices(self._with_copies(part), backbone).double().movedim(1, 3).flatten(0, 2)
                sums += torch.stack([torch.ones_like(voices).sum(0), voices.sum(0), voices.square().sum(0)])
        count, total, squares = reduce.sum(sums)
        self.mean.copy_(total / count)
        self.deviation.copy_((squares / count - (total / count) ** 2).clamp_min(FLOOR).sqrt())
        if split:
            seen.join(held)
            self.density.fit(seen, self.config.regularisation)

    def _with_copies(self, x: Tensor) -> Tensor:
        return torch.cat([x, *(changed(x, number) for number in range(1, self.config.copies + 1))])

    def _voices(self, x: Tensor, backbone: Extractor) -> Tensor:
        """Return what head and density say of each place, (N, 2, h, w) float32, not standardised."""
        z = self._whitened(x, backbone)
        with torch.autocast(x.device.type, enabled=False):
            return torch.cat([self.head(z), self.density(apart(z))], 1)

    def forward(self, x: Tensor) -> Scores:
        """Score by the highest places of the map, the sum of both voices."""
        voices = self._voices(x, self.backbone)
        head, density = torch.split((voices - self.mean[:, None, None]) / self.deviation[:, None, None], 1, 1)
        both = head + self.body * density
        top = both.flatten(1).topk(math.ceil(self.config.top * self.side**2), 1).values.mean(1)
        return Scores(top, enlarge(both, self.config.size, self.config.sigma))


def apart(z: Tensor) -> Tensor:
    """Take from features (N, D, h, w) what all places of an image share: their mean."""
    return z - z.mean((2, 3), keepdim=True)


def left_out(x: Tensor) -> Tensor:
    """Say of each image (N, C, H, W) whether it is one of those left out, (N,) bool; its content alone decides."""
    return torch.tensor([number % LEFT_OUT == 0 for number in numbers(x)], dtype=torch.bool, device=x.device)
