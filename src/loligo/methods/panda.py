"""PANDA: adapting pretrained features for anomaly detection and segmentation (Reiss et al., CVPR 2021, 2010.05903).

An image is described by the mean over all places of the last stage of a network trained on photographs. The later half
of the network is adapted by drawing the training images' features to their first centre, for so short a time that they
do not collapse (``early``), or held back by elastic weight consolidation (``ewc``). The score is the mean squared
distance from the two nearest training images. The centre is measured in the first epoch, in which nothing moves.

Departures: EfficientNet-Lite0 rather than ResNet-152, as its weights come as a package. Adam in small steps for the
paper's SGD with its gradient clipped to 0.001, which moves weights as little. The paper weighs parameters by the Fisher
information of ImageNet, whose images and labels are not here; instead that of the features of the normal images: what
moving a parameter by one would change a feature squared by, so that `consolidation` compares like with like. Batch norm
keeps its statistics, as in the authors' code. The paper maps nothing for this score; the map here is the squared
distance of each place's features from their mean over training images at that place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from loligo.methods.configs import STAGES, FeatureConfig
from loligo.methods.contract import Method, Phase, Turn
from loligo.nn.backbones import Backbone, exact_depthwise
from loligo.nn.heat import Pooling, enlarge, pool
from loligo.types import Scores


@dataclass(frozen=True)
class PandaConfig(FeatureConfig):
    """Options of PANDA; the defaults are the paper's but for network and optimiser."""

    layers: tuple[int, ...] = field(default=(4,), metadata=STAGES)
    """The stage whose mean describes an image; one."""
    image_score: Literal[Pooling, "knn"] = "knn"  # type: ignore[assignment]  # one more than others have
    """Image score: the mean squared distance from the nearest training images; or the map's maximum, its mean, or the
    mean of its highest hundredth."""
    neighbours: int = 2
    """Training images that an image is compared with, the nearest ones."""
    frozen: int = field(default=2, metadata={"least": 0})
    """The stage up to which the network is not adapted, its own included."""
    adaptation: Literal["early", "ewc"] = "early"
    """What keeps features from collapse: few steps alone, or elastic weight consolidation as well."""
    consolidation: float = 1.0
    """Weight of elastic weight consolidation: squared change of the features for squared distance from the centre."""
    learning_rate: float = 1e-6
    """Adam's rate."""


class Panda(Method):
    """See the module's docstring."""

    Config = PandaConfig
    presets: ClassVar = {
        "default": {"train.epochs": 15, "train.batch_size": 32, "train.augment": False},
        "radiograph": {"train.epochs": 5, "train.batch_size": 32, "train.augment": False},
        "digits": {"size": 96, "train.epochs": 5, "train.batch_size": 32, "train.augment": False},
        "tiny": {"size": 64, "learning_rate": 3e-4, "train.augment": False},
    }
    grown = ("bank",)
    config: PandaConfig
    seen: Tensor
    measured: Tensor
    centre: Tensor
    bank: Tensor
    places: Tensor

    def __init__(self, config: PandaConfig) -> None:
        super().__init__(config)
        if len(config.layers) != 1 or config.neighbours < 1:
            raise ValueError(f"layers {config.layers} must be one, and neighbours {config.neighbours} be at least 1")
        self.backbone = config.extractor()
        exact_depthwise(self.backbone.network)  # half of it learns
        self.adapted = modules_after(self.backbone.network, config.frozen)
        channels, side = self.backbone.channels[0], self.backbone.sides(config.size)[0]
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))
        self.register_buffer("measured", torch.zeros((), dtype=torch.bool))
        self.register_buffer("centre", torch.zeros(channels))
        self.register_buffer("bank", torch.zeros(0, channels))
        self.register_buffer("places", torch.zeros(channels, side, side))
        for i, parameter in enumerate(self._moving() if config.adaptation == "ewc" else []):
            self.register_buffer(f"initial_{i}", torch.zeros_like(parameter))
            self.register_buffer(f"fisher_{i}", torch.zeros_like(parameter))

    def phases(self) -> tuple[Phase, ...]:
        """Adapt the later half of the network."""
        modules = tuple(f"backbone.network.{name}" for name in self.adapted)
        return (Phase("adaptation", (Turn("compactness", modules, learning_rate=self.config.learning_rate),)),)

    def losses(self, x: Tensor, turn: str) -> dict[str, Tensor]:
        """Return the mean squared distance of a feature from the centre, and what holds the weights back."""
        features = self._describe(x, self.backbone)[1]
        if not self.measured:
            return {"compactness": self._measure(features)}
        distance = (features - self.centre).square().mean()
        if self.config.adaptation == "early":
            return {"compactness": distance}
        moved = torch.stack([(f * (p - start).square()).sum() for p, start, f in self._held_back()]).sum()
        return {"compactness": distance + self.config.consolidation * moved, "distance": distance, "moved": moved}

    def _moving(self) -> list[nn.Parameter]:
        return [p for name in self.adapted for p in self.backbone.network.get_submodule(name).parameters()]

    def _held_back(self) -> Iterator[tuple[nn.Parameter, Tensor, Tensor]]:
        """Yield each parameter that moves, where it began, and its Fisher information."""
        for i, parameter in enumerate(self._moving()):
            yield parameter, self.get_buffer(f"initial_{i}"), self.get_buffer(f"fisher_{i}")

    def _measure(self, features: Tensor) -> Tensor:
        """Add features (N, D) to the centre and to the Fisher information; return a loss that moves nothing."""
        self.seen += len(features)
        self.centre += (features.detach() - self.centre).sum(0) / self.seen
        if self.config.adaptation == "ewc":
            for (_, _, fisher), own in zip(
                self._held_back(), fisher_information(features, self._moving()), strict=True
            ):
                fisher += own
        return (features.detach() - self.centre).square().mean() + 0 * self._moving()[0].sum()

    @torch.no_grad()
    def after_epoch(self, progress: float) -> None:
        """Conclude the measurements of the first epoch."""
        if not self.measured and self.config.adaptation == "ewc":
            for parameter, initial, fisher in self._held_back():
                initial.copy_(parameter)
                fisher.div_(self.seen * len(self.centre))
        self.measured.fill_(True)

    def _describe(self, x: Tensor, backbone: Backbone) -> tuple[Tensor, Tensor]:
        """Return the features of each place (N, D, h, w) and those of the image (N, D), float32."""
        features = backbone(x)[0].float()
        return features, features.mean((2, 3))

    def fit(self, batches: Iterable[Tensor]) -> None:
        """Keep the adapted features of all training images, and their mean at each place."""
        backbone, total, found = self.backbone.ready(self.centre.device), torch.zeros_like(self.places), []
        for x in batches:
            places, features = self._describe(x, backbone)
            total += places.sum(0)
            found.append(features)
        self.bank = torch.cat(found)
        if len(self.bank) < self.config.neighbours:
            raise ValueError(f"panda compares with {self.config.neighbours} normal images; it got {len(self.bank)}")
        self.places.copy_(total / len(self.bank))

    def score(self, x: Tensor) -> Scores:
        """Score by the distance from the nearest training images, or by the map of distances from the mean."""
        places, features = self._describe(x, self.backbone)
        heat = enlarge((places - self.places).square().mean(1, keepdim=True), self.config.size)
        if self.config.image_score != "knn":
            return Scores(pool(heat, self.config.image_score), heat)
        return Scores(neighbour_distance(features, self.bank, self.config.neighbours), heat)


def neighbour_distance(features: Tensor, bank: Tensor, k: int) -> Tensor:
    """Return the mean squared distance (N,) of features (N, D) from the k nearest of a bank (M, D)."""
    distances = torch.cdist(features, bank, compute_mode="donot_use_mm_for_euclid_dist")
    return distances.topk(k, 1, largest=False).values.square().mean(1)


def fisher_information(features: Tensor, parameters: list[nn.Parameter]) -> list[Tensor]:
    """Estimate the sum of squares of the gradients of all features (N, D) by each parameter.

    The square of a random sum's gradient is that sum in expectation, where its terms are drawn apart with variance one.
    """
    drawn = (features * torch.randn_like(features)).sum()
    found = torch.autograd.grad(drawn, parameters, allow_unused=True, materialize_grads=True)
    return [gradient.square() for gradient in found]


def modules_after(network: nn.Module, stage: int) -> tuple[str, ...]:
    """Return the names of the modules with parameters that follow a stage of a network made by timm for features."""
    stages = {about["index"]: about["module"] for about in network.feature_info.info}  # type: ignore[union-attr]
    modules = dict(network.named_modules())
    names = list(modules)
    end = next((n for n in names if n.replace("_", ".").endswith(stages.get(stage, "?").replace("_", "."))), None)
    after: list[str] = []
    for name in names[names.index(end) + 1 :] if end else []:
        learns = next(modules[name].parameters(), None) is not None
        if learns and not name.startswith((f"{end}.", *(f"{taken}." for taken in after))):
            after.append(name)
    if not after:
        raise ValueError(f"frozen is stage {stage}; of the stages {sorted(stages)} of this network, one but the last")
    return tuple(after)
