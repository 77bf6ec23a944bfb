"""Which epochs belong to which phase of a training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from loligo.methods.contract import Phase


@dataclass(frozen=True)
class Epoch:
    """One epoch of the plan of a training."""

    number: int
    """Of its phase, from 0."""
    of: int
    """Epochs of its phase."""
    phase: int
    """Number of its phase, from 0."""


def epochs_of(phases: tuple[Phase, ...], epochs: int) -> list[int]:
    """Divide epochs among phases by their fractions, each at least one."""
    total = sum(phase.fraction for phase in phases)
    ends = np.round(np.cumsum([phase.fraction for phase in phases]) / (total or 1) * epochs).astype(int)
    return [max(1, int(b - a)) for a, b in zip([0, *ends], ends, strict=False)]


def plan(phases: tuple[Phase, ...], epochs: int) -> Iterator[Epoch]:
    """Yield the epochs of a training in order."""
    for phase, count in enumerate(epochs_of(phases, epochs)):
        for number in range(count):
            yield Epoch(number, count, phase)
