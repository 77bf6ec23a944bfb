"""The contract of a method: a small module that knows nothing of training loops, files or thresholds."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from loligo.nn.backbones import Backbone
from loligo.nn.heat import Pooling
from loligo.types import Inspection, Scores

STAGES = {"least": -math.inf}
"""Metadata of options that name stages: timm says which there are, and -1 is the last."""


@dataclass(frozen=True)
class Turn:
    """One loss, the submodules that it moves by Adam, and how often."""

    loss: str
    """The key in what `Method.losses` returns that is minimised."""
    modules: tuple[str, ...]
    """Names of the submodules whose parameters move; no gradient is computed for others."""
    every: int = 1
    """The turn is taken at every so-many-th step."""
    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    final_rate: float = 1.0
    """Share of the learning rate that its cosine ends at; 1 keeps it constant."""


@dataclass(frozen=True)
class Phase:
    """A share of the epochs, in which the turns are taken in order at each step."""

    name: str
    turns: tuple[Turn, ...]
    share: float = 1.0


def check_shares(config: MethodConfig) -> None:
    """Raise ValueError where a phase's share of the epochs, a field that ends in _share, is not above 0."""
    for name, value in vars(config).items():
        if name.endswith("_share") and value <= 0:
            raise ValueError(f"{name} is {value}; it must be more than 0")


@dataclass(frozen=True)
class MethodConfig:
    """What every method has. Subclasses add their own, one line of meaning a field."""

    size: int = 128
    """Height and width of the images that it sees, in pixels."""

    @property
    def channels(self) -> int:
        """Channels of the images that it sees."""
        return 1


@dataclass(frozen=True)
class SliceConfig(MethodConfig):
    """What methods have that may be told where a slice lies in its volume."""

    position: bool = False
    """The last channel of an image is its slice's position, from -0.5 to 0.5; for volumes. It is not rebuilt."""

    @property
    def channels(self) -> int:
        """Channels of the images that it sees: one, and one more where the position is told."""
        return 1 + self.position

    def split(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return images (N, 1, H, W) and the positions (N, 1) of their slices, None where they are not told."""
        return (x[:, :-1], x[:, -1].mean((1, 2))[:, None]) if self.position else (x, None)


@dataclass(frozen=True)
class FeatureConfig(MethodConfig):
    """What methods have that look at the features of a network trained on photographs."""

    size: int = 224
    """Height and width of the images that it sees, in pixels."""
    backbone: str = "tf_efficientnet_lite0"
    """Name of the network in timm."""
    weights: str = "auto"
    """Where its weights come from: auto, a package or the hub's cache; download; random; or a file in timm's names."""
    layers: tuple[int, ...] = field(default=(1, 2, 3), metadata=STAGES)
    """Stages whose maps are used: in most CNNs stage i has a stride of 2**(i + 1) pixels, in VGG half of that and in
    ConvNeXt twice; in a ViT they are blocks."""
    image_score: Pooling = "max"
    """How a map becomes an image's score: its maximum, its mean, or the mean of its highest hundredth."""

    def __post_init__(self) -> None:
        if not self.layers:
            raise ValueError("layers is empty; name one stage or more")
        if len(set(self.layers)) < len(self.layers):
            raise ValueError(f"layers {self.layers} names a stage twice; name each once")

    def extractor(self, layers: tuple[int, ...] = (), frozen: bool = True) -> Backbone:
        """Return the network, with random weights until `Backbone.load`; it gives other ``layers`` where told.

        Raises ValueError where the size is no multiple of a transformer's patches.
        """
        backbone = Backbone(self.backbone, layers or self.layers, frozen)
        if self.size % backbone.step:
            raise ValueError(f"size {self.size} must be a multiple of the patches of {self.backbone}, {backbone.step}")
        return backbone


class Method(nn.Module):
    """Learn from normal images (N, C, H, W) float32 in [0, 1]; score new ones, higher for more abnormal.

    A subclass says how it is trained: by `phases` and `losses`, or, where nothing is learnt by gradient, by `fit`.
    """

    Config: ClassVar[type[MethodConfig]] = MethodConfig
    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    """Named settings: values that replace those of the Config, or of the training where the key says ``train.``. One
    named ``default`` holds where no other is asked for."""
    grown: ClassVar[tuple[str, ...]] = ()
    """Names of buffers whose length is known once it is trained, such as banks of features; loading takes any."""
    config: MethodConfig

    def __init__(self, config: MethodConfig) -> None:
        super().__init__()
        self.config = config

    @property
    def volume_score(self) -> Literal["sum", "max"]:
        """How a volume's score comes from those of its slices: their sum, or that of the most abnormal one."""
        return "sum"

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Give buffers that grow the length that they are loaded with; torch refuses what else does not fit."""
        for name in self.grown:
            own, given = self.get_buffer(name), state_dict.get(prefix + name)
            if given is not None and given.shape[1:] == own.shape[1:]:
                setattr(self, name, own.new_empty(given.shape))
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def start(self) -> None:
        """Load the weights that a training starts from into each `Backbone`; scoring needs none of it."""
        for part in self.modules():
            if isinstance(part, Backbone):
                part.load(self.config.weights)  # type: ignore[attr-defined]  # whoever has a backbone has them

    def phases(self) -> tuple[Phase, ...]:
        """Return how it is trained; empty where `fit` does it."""
        return ()

    def losses(self, x: Tensor, turn: str) -> dict[str, Tensor]:
        """Return scalar losses of a batch; all are logged, the one named ``turn`` is minimised."""
        raise NotImplementedError(f"{type(self).__name__} is not trained by gradient")

    def after_step(self, turn: str) -> None:
        """Do what is due once the parameters of a turn have moved, such as writing a memory."""

    def after_epoch(self, progress: float) -> None:
        """Do what is due at the end of an epoch, such as keeping a snapshot; ``progress`` of all epochs, in (0, 1]."""

    def fit(self, batches: Iterable[Tensor]) -> None:
        """Learn what is not learnt by gradient: once the phases are over, in eval mode, batches in a fixed order.

        The batches may be gone through more than once, lest they be kept.
        """

    def calibrate(self, batches: Iterable[Tensor]) -> None:
        """Set limits of its own from normals that were held out, after `fit`; in eval mode, in a fixed order.

        The batches may be gone through more than once, lest they be kept.
        """

    def score(self, x: Tensor) -> Scores:
        """Score a batch (N, C, H, W) in eval mode; an image's score does not depend on the others."""
        raise NotImplementedError

    def pool(self, maps: Tensor) -> Tensor:
        """Return a volume's map by those of its slices, (N, H, W) one after another: as they are or smoothed across."""
        return maps

    def inspect(self, x: Tensor) -> Inspection | None:
        """Return what the figures of the report show of a batch (N, C, H, W); None where there is nothing."""
        return None
