"""The contract of a method: a small module that knows nothing of training loops, files or thresholds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, ClassVar, Literal, Protocol, Self, runtime_checkable

import torch
from torch import Tensor, nn

from loligo.methods.configs import MethodConfig
from loligo.methods.optimisation import OptimiserFactory, Schedule, adam, constant
from loligo.types import Inspection, Scores

UNMEASURED = torch.finfo(torch.float32).max
"""What a buffer holds that is infinite until it is measured: weights that are kept are finite."""
Step = dict[str, Any]
"""Scratch of one training step, owned by the loop: what a turn leaves for the next one or for `Method.after_step`.

The loop puts in ``index``, (N,) int64: which of the training images, as `Method.prepare` sees them in order, they are.
"""


@dataclass(frozen=True)
class Group:
    """Submodules that share a learning rate."""

    modules: tuple[str, ...]
    learning_rate: float


@dataclass(frozen=True)
class Turn:
    """One loss, the submodules whose parameters it moves, by which optimiser, and how often."""

    loss: str
    """The key in what `Method.losses` returns that is minimised."""
    groups: tuple[Group, ...]
    """Parameters of other submodules do not move, and no gradient is computed for them."""
    optimiser: OptimiserFactory = field(default_factory=adam)
    schedule: Schedule = constant
    every: int = 1
    """The turn is taken at every so-many-th step."""
    clip: float | None = None
    """Largest norm of the gradient of all its parameters."""
    ema: float | None = None
    """Decay of an exponential moving average of its parameters, which replaces them when the training ends."""


@dataclass(frozen=True)
class Phase:
    """A part of the epochs, in which the turns are taken in order at each step."""

    name: str
    turns: tuple[Turn, ...]
    fraction: float = 1.0
    """Its part of the epochs, relative to the other phases'."""
    frozen: tuple[str, ...] = ()
    """Names of submodules that stay in eval mode."""


class Reduce:
    """How the processes of a training agree; of one process everything stays as it is."""

    rank = 0
    size = 1

    def sum(self, x: Tensor) -> Tensor:
        """Return the sum of a tensor over processes."""
        return x

    def gather(self, x: Tensor) -> Tensor:
        """Return the tensors (N, ...) of all processes, one after another, in the order of their ranks."""
        return x

    def shard(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yield this process's part of the batches."""
        return (x for i, x in enumerate(batches) if i % self.size == self.rank)


ALONE = Reduce()


@runtime_checkable
class Freezes(Protocol):
    """A submodule with something to make constant once training is over."""

    def freeze(self) -> object:
        """Make constant what was learnt."""


@runtime_checkable
class Starts(Protocol):
    """A submodule with weights to load before training, such as a pretrained backbone."""

    def start(self) -> None:
        """Load them."""


class Method(nn.Module):
    """Learn from normal images (N, C, H, W) float32 in [0, 1]; score new ones, higher for more abnormal.

    A subclass says how it is trained: by `phases` and `losses`, or, where nothing is learnt by gradient, by `fit`.
    """

    Config: ClassVar[type[MethodConfig]] = MethodConfig
    training_defaults: ClassVar[dict[str, Any]] = {}
    """Its own defaults of `TrainConfig`: the paper's."""
    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    """Named departures from the paper: values that replace those of the Config, or of the training where the key begins
    with ``train.``."""
    grown: ClassVar[tuple[str, ...]] = ()
    """Names of buffers, such as banks of features, and parameters whose length is known once images are; loading takes
    any."""
    weakly_supervised: ClassVar[bool] = False
    """Whether it learns from abnormal images, too, of which nothing but that is known; no other method is given any."""
    least: int = 1
    """Normal images that it must have to learn from; no fewer are accepted."""
    config: MethodConfig

    def __init__(self, config: MethodConfig) -> None:
        super().__init__()
        self.config = config

    @property
    def not_exportable(self) -> str:
        """Say why `forward` cannot be exported as a graph; empty where it can."""
        return ""

    @property
    def volume_score(self) -> Literal["mean", "max"]:
        """How a volume's score comes from those of its slices: the mean of those that hold tissue, or the highest."""
        return "mean"

    @property
    def slice_filter(self) -> tuple[int, int] | None:
        """Sides of the windows by which the maps of a volume's slices are smoothed across; see `planes.smoothed`."""
        return None

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Give what grows the length that it is loaded with; torch refuses what else does not fit."""
        for name in self.grown:
            own, given = attrgetter(name)(self), state_dict.get(prefix + name)
            if given is None or given.shape[1:] != own.shape[1:]:
                continue
            if isinstance(own, nn.Parameter):  # which its optimiser knows
                own.data = own.new_empty(given.shape)
            else:  # which a copy may share
                setattr(self, name, own.new_empty(given.shape))
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def check_count(self, count: int) -> None:
        """Raise ValueError where so many normal images are too few to learn from."""
        if count < self.least:
            name = type(self).__module__.rpartition(".")[2]
            images = "image" if self.least == 1 else "images"
            raise ValueError(f"{name} needs {self.least} normal {images} or more; it got {count}")

    def check_abnormal(self, count: int) -> None:
        """Raise ValueError where a weakly supervised method has no abnormal image, or another one is given some."""
        name = type(self).__module__.rpartition(".")[2]
        if self.weakly_supervised and not count:
            raise ValueError(
                f"{name} is weakly supervised: it learns what tells abnormal images from normal ones, and got no"
                " abnormal image to train on. Give some: a folder of them beside that of the normal ones (--abnormal"
                " DIR where its name does not say so), rows of the split train_abnormal, or of validation with label 1;"
                " or choose a method that learns from normal images alone"
            )
        if count and not self.weakly_supervised:
            raise ValueError(f"{name} learns from normal images alone; it got {count} abnormal ones: leave them out")

    def start(self) -> None:
        """Load the weights that a training starts from; scoring needs none of it."""
        for part in self.modules():
            if part is not self and isinstance(part, Starts):
                part.start()

    def prepare(self, batches: Iterable[Tensor], reduce: Reduce = ALONE) -> None:
        """Measure what the phases need, once before the first: in eval mode, batches in a fixed order."""

    def phases(self) -> tuple[Phase, ...]:
        """Return how it is trained; empty where `fit` does it."""
        return ()

    def losses(self, x: Tensor, turn: str, step: Step) -> dict[str, Tensor]:
        """Return scalar losses of a batch, means over images; all are logged, the one named ``turn`` is minimised.

        ``step`` holds what earlier turns of the same step put there; ``index``; and, for a weakly supervised method,
        ``abnormal``: as many abnormal images as ``x`` has normal ones.
        """
        raise NotImplementedError(f"{type(self).__name__} is not trained by gradient")

    def after_step(self, turn: str, step: Step, reduce: Reduce = ALONE) -> None:
        """Do what is due once the parameters of a turn have moved, such as writing a memory.

        What processes must agree on goes through ``reduce``.
        """

    def after_epoch(self, progress: float) -> None:
        """Do what is due at the end of an epoch, such as keeping a snapshot; ``progress`` of all epochs, in (0, 1]."""

    def fit(self, batches: Iterable[Tensor], reduce: Reduce = ALONE) -> None:
        """Learn what is not learnt by gradient: once the phases are over, in eval mode, batches in a fixed order.

        The batches are those of all processes and may be iterated more than once, lest they be kept; sums over
        ``reduce.shard(batches)`` are added by ``reduce.sum``.
        """

    def freeze(self) -> Self:
        """Go to eval mode and make constant what was learnt, for scoring and export; training cannot go on after it."""
        self.eval().requires_grad_(False)
        for part in self.modules():
            if part is not self and isinstance(part, Freezes):
                part.freeze()
        return self

    def forward(self, x: Tensor) -> Scores:
        """Score a batch (N, C, H, W) in eval mode, tensors alone; an image's score does not depend on the others."""
        raise NotImplementedError

    def inspect(self, x: Tensor) -> Inspection | None:
        """Return what the figures of the report show of a batch (N, C, H, W); None where there is nothing."""
        return None
