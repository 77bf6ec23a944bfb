"""Options and how they are checked. Imports no torch, so that the command line stays quick."""

from __future__ import annotations

import dataclasses
import math
import textwrap
import typing
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from loligo.names import nearest
from loligo.values import check

T = TypeVar("T")

Precision = Literal["auto", "bf16", "float32"]
Aspect = Literal["squash", "pad"]
Axis = Literal["axial", "coronal", "sagittal"]
WindowName = Literal["brain", "ct", "unit"]
Pooling = Literal["max", "mean", "top"]
Reading = Literal["error", "local", "unusual"]
"""How an image is scored by its reconstruction; see `nn.places.Comparison`."""
Shrinkage = Literal["gumbel", "hard", "soft", "none"]
Statistics = Literal["image", "running"]
FALSE_ALARM_RATE = 0.05
HELD_OUT = 0.10
"""Fraction of the training patients that is held out to calibrate on."""
OF_EPOCHS = ("epochs", "steps", "augment", "intensity_augmentation", "evaluate_every_epoch")
"""Options of a training that say nothing to a method of one pass."""


@dataclass(frozen=True)
class TrainConfig:
    """How a method is trained, whatever the method; a method's own defaults and presets replace these."""

    epochs: int = 60
    """Passes over the training images, divided among the method's phases."""
    batch_size: int = 16
    """Images a step, at most: an epoch's steps are of equal size."""
    seed: int = field(default=0, metadata={"least": 0})
    """Of initial weights, order, augmentation and dropout."""
    augment: bool = True
    """Shift by up to 5 % and scale by 0.95 to 1.05 at random."""
    intensity_augmentation: bool = False
    """Change contrast (0.75 to 1.25 times) and gamma (2/3 to 3/2) at random, so that scores depend less on exposure."""
    precision: Precision = "auto"
    """bf16 autocast, float32, or bf16 where the processor computes in it; scoring uses what training used."""
    evaluate_every_epoch: bool = False
    """Score validation and test images after each epoch into epochs.csv; needed for the papers' protocol only."""
    device: str = "auto"
    """Where it is trained: auto, cpu, cuda, mps, or another accelerator of PyTorch."""
    devices: int = 1
    """Processes, each with a device of its own, that share every batch."""
    steps: int = field(default=0, metadata={"least": 0})
    """Steps of the whole training in place of ``epochs``, rounded up to whole ones; 0, or epochs given: they decide."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "devices"):
            check(f"train.{name}", getattr(self, name), int, 1)
        check("train.steps", self.steps, int, 0)
        if not 0 <= self.seed < 1 << 32:
            raise ValueError(f"train.seed is {self.seed}; it must lie in 0 to {(1 << 32) - 1}")

    def epochs_on(self, images: int) -> int:
        """Return the epochs of a training on so many images."""
        return math.ceil(self.steps / math.ceil(images / self.batch_size)) if self.steps else self.epochs


@dataclass(frozen=True)
class PreprocessingConfig:
    """How files become the images that a method sees."""

    aspect: Aspect = "squash"
    """Squash an image to a square, as the methods' papers do, or pad its shorter side with black."""
    axis: Axis = "axial"
    """Direction in which volumes are sliced."""
    window: WindowName = "brain"
    """What of a volume becomes black and white: z-scores of each brain, the soft tissue of a CT in HU, or 0 and 1, to
    which it was mapped before."""
    voi: int = field(default=1, metadata={"least": 0})
    """Which VOI LUT or window of a DICOM radiograph becomes black and white: 1 the first of its file, 2 the second and
    so on, 0 the full range that its header allows; a file without any has that, too, and the warning no_window."""


def replaced(own: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return options of a training with those that are given in place; epochs that are given stand for steps."""
    return own | ({"steps": 0} if "epochs" in given else {}) | given


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


def build(kind: type[T], values: dict[str, Any], where: str = "options") -> T:
    """Make a configuration from a mapping; ValueError names an unknown key and the nearest known one, or a wrong value.

    A whole number is at least 1 unless the metadata of its field has another ``least``.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(kind)
    if unknown := next((key for key in values if key not in fields), None):
        raise ValueError(f"{where} has no {unknown!r}; {nearest(unknown, fields)}")
    return kind(
        **{
            key: check(f"{where}.{key}", value, hints[key], fields[key].metadata.get("least", 1))
            for key, value in values.items()
        }
    )


FORMS: dict[type, str] = {
    dict: "names and values",
    list: "a list",
    str: "a text",
    int: "a whole number",
    float: "a number",
}


def check_forms(values: Any, forms: dict[str, type]) -> None:
    """Raise ValueError where ``values``, read from a file, is no mapping or holds a value of another form than one of
    `FORMS`; what it lacks is not looked at."""
    if not isinstance(values, dict):
        raise ValueError("it holds no names and values")
    for name, form in forms.items():
        kinds = (int, float) if form is float else form
        if name in values and (not isinstance(values[name], kinds) or isinstance(values[name], bool)):
            raise ValueError(f"{name} is {values[name]!r}; it must be {FORMS[form]}")


def one_line(error: Exception) -> str:
    """Return what an error says in one line of no more than 200 characters."""
    return textwrap.shorten(str(error), 200)
