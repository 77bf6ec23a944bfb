"""Optimisers and learning-rate schedules that the papers of the methods ask for: factories over torch.optim."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

Groups = list[dict[str, Any]]
"""Parameter groups as torch.optim takes them: ``params`` and ``lr``."""
OptimiserFactory = Callable[[Groups], Optimizer]


@dataclass(frozen=True)
class Clock:
    """How far a phase of a training is; all counts begin at 0."""

    step: int
    """Steps that the phase has taken."""
    steps: int
    """Steps that it takes in all."""
    epoch: int
    epochs: int


Schedule = Callable[[Clock], float]
"""Gives the factor of the learning rate at a step."""


def constant(clock: Clock) -> float:
    """Keep the learning rate."""
    return 1.0


@dataclass(frozen=True)
class Cosine:
    """Let the rate fall by half a cosine to the fraction ``final``, after a linear ``warmup`` of so many steps.

    It changes with each epoch, as PyTorch's scheduler does when it is stepped once an epoch, or with each step.
    """

    final: float
    by_step: bool = False
    warmup: int = 0

    def __call__(self, clock: Clock) -> float:
        """Return the factor at a step."""
        if clock.step < self.warmup:
            return (clock.step + 1) / self.warmup
        progress = clock.epoch / clock.epochs
        if self.by_step:
            progress = (clock.step - self.warmup) / max(1, clock.steps - self.warmup)
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * progress)) / 2


def adam(betas: tuple[float, float] = (0.9, 0.999), weight_decay: float = 0.0) -> OptimiserFactory:
    """Return a factory of Adam; the weight decay is added to the gradient, as in the original."""
    return lambda groups: Adam(groups, betas=betas, weight_decay=weight_decay, fused=True)


def adamw(betas: tuple[float, float] = (0.9, 0.999), weight_decay: float = 0.01) -> OptimiserFactory:
    """Return a factory of AdamW, whose weight decay is decoupled from the gradient."""
    return lambda groups: AdamW(groups, betas=betas, weight_decay=weight_decay, fused=True)


def stable_adamw(
    betas: tuple[float, float] = (0.9, 0.999), weight_decay: float = 0.01, amsgrad: bool = False, eps: float = 1e-8
) -> OptimiserFactory:
    """Return a factory of StableAdamW (2304.13013), AdamW with updates clipped to a root mean square of 1; timm's."""

    def make(groups: Groups) -> Optimizer:
        from timm.optim.adamw import AdamWLegacy

        made: Optimizer = AdamWLegacy(
            groups, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad, clipping_threshold=1.0
        )
        return made

    return make


def sgd(momentum: float = 0.0, weight_decay: float = 0.0, nesterov: bool = False) -> OptimiserFactory:
    """Return a factory of stochastic gradient descent."""
    return lambda groups: SGD(groups, lr=0.0, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov)


def rmsprop(decay: float = 0.99, eps: float = 1e-8) -> OptimiserFactory:
    """Return a factory of RMSProp, with the decay of the mean of squared gradients."""
    return lambda groups: RMSprop(groups, alpha=decay, eps=eps)
