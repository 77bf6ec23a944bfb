"""How a training goes, whatever the method. Imports no torch, so that the command line stays quick."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Precision = Literal["auto", "bf16", "float32"]
Axis = Literal["axial", "coronal", "sagittal"]
WindowName = Literal["brain", "ct", "unit"]


@dataclass(frozen=True)
class TrainConfig:
    """How a method is trained, whatever the method."""

    epochs: int = 60
    """Passes over the training images, shared out among the method's phases."""
    batch_size: int = 16
    """Images a step, at most: an epoch's steps are of equal size."""
    seed: int = field(default=0, metadata={"least": 0})
    """Of initial weights, order, augmentation and dropout."""
    augment: bool = True
    """Shift by up to 5 % and scale by 0.95 to 1.05 at random."""
    expose: bool = False
    """Change contrast (0.75 to 1.25 times) and gamma (2/3 to 3/2) at random, so that scores hang less on exposure."""
    precision: Precision = "auto"
    """bf16 autocast, float32, or bf16 where the processor computes in it."""
    watch: bool = False
    """Score validation and test images after each epoch into epochs.csv; needed for the papers' protocol only."""
    axis: Axis = "axial"
    """Which way volumes are sliced."""
    window: WindowName = "brain"
    """What of a volume becomes black and white: z-scores of each brain, the soft tissue of a CT in HU, or 0 and 1, to
    which it was mapped before."""
    device: str = "auto"
    """Accelerator, as Lightning names them: auto, cpu, cuda, mps."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"train.{name} is {getattr(self, name)}; it must be at least 1")
        if not 0 <= self.seed < 1 << 32:
            raise ValueError(f"train.seed is {self.seed}; it must lie in 0 to {(1 << 32) - 1}")


def size_in_bytes(text: str) -> int:
    """Return the bytes that a text such as ``2GiB``, ``500MB`` or ``4096`` means; ValueError where it means none."""
    units = {"": 1, "B": 1, "kB": 1000, "KB": 1000, "MB": 1000**2, "GB": 1000**3, "TB": 1000**4}
    units |= {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
    number = text.strip().rstrip("BKMGTik ")
    unit = text.strip()[len(number) :].strip()
    try:
        value = float(number) * units[unit]
    except (KeyError, ValueError):
        value = 0
    if not 1 <= value < 1 << 62:
        raise ValueError(f"{text!r} is no size in bytes; write it as 2GiB, 500MB or 4096")
    return int(value)
