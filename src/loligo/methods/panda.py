"""PANDA: adapting pretrained features for anomaly detection and segmentation (Reiss et al., CVPR 2021, 2010.05903).

An image is described by the mean over all places of the last stage of an ImageNet-pretrained backbone. The later half
of the backbone is adapted by drawing the training images' features to their first centre, for so short a time that they
do not collapse (``early``), or held back by elastic weight consolidation (``ewc``). The score is the mean squared
distance from the two nearest training images.

As in the authors' program SGD takes small steps, its gradient clipped to a norm of 0.001, and batch norms keep their
statistics. Departures: EfficientNet-Lite0 rather than ResNet-152, as its weights come as a package. The paper weights
parameters by the Fisher information of ImageNet, whose images and labels are not here; instead that of the features of
the normal images: what moving a parameter by one would change a feature squared by, so that `consolidation` compares
like with like. The paper maps nothing for this score; the map here is the squared distance of each place's features
from their mean over training images at that place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from loligo.config import Pooling
from loligo.methods.configs import STAGES, FeatureConfig
from loligo.methods.contract import ALONE, Group, Method, Phase, Reduce, Step, Turn
from loligo.methods.optimisation import sgd
from loligo.nn.backbones import Backbone
from loligo.nn.heat import enlarge, pool
from loligo.types import Scores


@dataclass(frozen=True)
class PandaConfig(FeatureConfig):
    """Options of PANDA; the defaults are the paper's but for the backbone."""

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
    learning_rate: float = 1e-2
    """SGD's rate, at a momentum of 0.9."""
    weight_decay: float = 5e-5
    """SGD's weight decay."""
    clip: float = 1e-3
    """Largest norm of the gradient."""


class Panda(Method):
    """See the module's docstring."""

    Config = PandaConfig
    training_defaults: ClassVar = {"epochs": 15, "batch_size": 32, "augment": False}
    presets: ClassVar = {
        "radiograph": {"train.epochs": 5},
        "digits": {"size": 96, "train.epochs": 5},
        "tiny": {
            **{"size": 64, "layers": (2,), "frozen": 1, "learning_rate": 3e-2, "clip": 1.0},
            **{"train.augment": False},
        },
    }
    grown = ("bank",)
    config: PandaConfig
    centre: Tensor
    bank: Tensor
    places: Tensor

    def __init__(self, config: PandaConfig) -> None:
        super().__init__(config)
        if len(config.layers) != 1 or config.neighbours < 1:
            raise ValueError(f"layers {config.layers} must be one, and neighbours {config.neighbours} be at least 1")
        self.least = config.neighbours
        self.backbone = config.extractor()
        self.adapted = modules_after(self.backbone.network, config.frozen)
        channels, side = self.backbone.channels[0], self.backbone.sides(config.size)[0]
        self.register_buffer("centre", torch.zeros(channels))
        self.register_buffer("bank", torch.zeros(0, channels))
        self.register_buffer("places", torch.zeros(channels, side, side))
        for i, parameter in enumerate(self._moving() if config.adaptation == "ewc" else []):
            self.register_buffer(f"initial_{i}", torch.zeros_like(parameter))
            self.register_buffer(f"fisher_{i}", torch.zeros_like(parameter))

    def prepare(self, batches: Iterable[Tensor], reduce: Reduce = ALONE) -> None:
        """Measure the centre of the pretrained features and, for consolidation, their Fisher information."""
        held, count = list(self._held_back()), self.centre.new_zeros(1)
        for parameter, initial, _ in held:
            initial.copy_(parameter)
        backbone = self.backbone if held else self.backbone.ready(self.centre.device)
        for x in reduce.shard(batches):
            with torch.set_grad_enabled(bool(held)):
                features = self._describe(x, backbone)[1]
            count += len(x)
            self.centre += features.detach().sum(0)
            if held:
                torch._foreach_add_([f for _, _, f in held], fisher_information(features, self._moving()))
        count = reduce.sum(count)
        self.centre.copy_(reduce.sum(self.centre) / count)
        for _, _, fisher in held:
            fisher.copy_(reduce.sum(fisher) / (count * len(self.centre)))

    def phases(self) -> tuple[Phase, ...]:
        """Adapt the later half of the backbone."""
        config, modules = self.config, tuple(f"backbone.network.{name}" for name in self.adapted)
        optimiser = sgd(momentum=0.9, weight_decay=config.weight_decay)
        turn = Turn("compactness", (Group(modules, config.learning_rate),), optimiser, clip=config.clip)
        return (Phase("adaptation", (turn,)),)

    def losses(self, x: Tensor, turn: str, step: Step) -> dict[str, Tensor]:
        """Return the mean squared distance of a feature from the centre, and what holds the weights back."""
        features = self._describe(x, self.backbone)[1]
        distance = (features - self.centre).square().mean()
        if self.config.adaptation == "early":
            return {"compactness": distance}
        change = torch.stack([(f * (p - start).square()).sum() for p, start, f in self._held_back()]).sum()
        return {"compactness": distance + self.config.consolidation * change, "distance": distance, "change": change}

    def _moving(self) -> list[nn.Parameter]:
        return [p for name in self.adapted for p in self.backbone.network.get_submodule(name).parameters()]

    def _held_back(self) -> Iterator[tuple[nn.Parameter, Tensor, Tensor]]:
        """Yield, for consolidation, each parameter that moves, where it began, and its Fisher information."""
        for i, parameter in enumerate(self._moving() if self.config.adaptation == "ewc" else []):
            yield parameter, self.get_buffer(f"initial_{i}"), self.get_buffer(f"fisher_{i}")

    def _describe(self, x: Tensor, backbone: Backbone) -> tuple[Tensor, Tensor]:
        """Return the features of each place (N, D, h, w) and those of the image (N, D), float32."""
        features = backbone(x)[0].float()
        return features, features.mean((2, 3))

    def fit(self, batches: Iterable[Tensor], reduce: Reduce = ALONE) -> None:
        """Keep the adapted features of all training images, and their mean at each place: alike in each process."""
        backbone, total, found = self.backbone.ready(self.centre.device), torch.zeros_like(self.places), []
        for x in batches:
            places, features = self._describe(x, backbone)
            total += places.sum(0)
            found.append(features)
        self.bank = torch.cat(found)
        self.places.copy_(total / len(self.bank))

    def forward(self, x: Tensor) -> Scores:
        """Score by the distance from the nearest training images, or by the map of distances from the mean."""
        places, features = self._describe(x, self.backbone)
        heat = enlarge((places - self.places).square().mean(1, keepdim=True), self.config.size)
        if self.config.image_score != "knn":
            return Scores(pool(heat, self.config.image_score), heat)
        return Scores(neighbour_distance(features, self.bank, self.config.neighbours), heat)


def neighbour_distance(features: Tensor, bank: Tensor, k: int) -> Tensor:
    """Return the mean squared distance (N,) of features (N, D) from the k nearest of a bank (M, D)."""
    if torch.compiler.is_compiling():  # ONNX has no cdist
        distances = torch.linalg.vector_norm(features[:, None] - bank, dim=2)
    else:
        distances = torch.cdist(features, bank, compute_mode="donot_use_mm_for_euclid_dist")
    nearest: Tensor = distances.topk(k, 1, largest=False).values
    return nearest.square().mean(1)


@torch.enable_grad()
def fisher_information(features: Tensor, parameters: list[nn.Parameter]) -> list[Tensor]:
    """Estimate the sum of squares of the gradients of all features (N, D) by each parameter.

    The square of a random sum's gradient is that sum in expectation, where its terms are independent, of variance one.
    """
    random = (features * torch.randn_like(features)).sum()
    found = torch.autograd.grad(random, parameters, allow_unused=True, materialize_grads=True)
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
