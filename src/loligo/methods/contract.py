"""The contract of a method: a small module that knows nothing of training loops, files or thresholds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from loligo.methods.configs import MethodConfig
from loligo.nn.backbones import Backbone
from loligo.types import Inspection, Scores


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
