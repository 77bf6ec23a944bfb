"""Everything that a training is asked for: method, training, preprocessing, and false-alarm rate."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import pandas as pd

from loligo import methods
from loligo.config import FALSE_ALARM_RATE as FALSE_ALARM_RATE
from loligo.config import HELD_OUT as HELD_OUT
from loligo.config import OF_EPOCHS, PreprocessingConfig, TrainConfig, build, one_line, replaced
from loligo.data import supervision
from loligo.data.header_scope import ANY, HeaderScope
from loligo.data.preprocessing import Preprocessing
from loligo.methods.configs import MethodConfig, SliceConfig
from loligo.methods.declared import Options, defaults, one_pass
from loligo.names import nearest

if TYPE_CHECKING:
    from loligo.methods.contract import Method

CALIBRATED = ("false_alarm_rate", "held_out", "folds")
"""Settings of the calibration."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a training is asked for, complete and checked."""

    method: str
    method_config: MethodConfig
    train: TrainConfig
    preprocessing: PreprocessingConfig
    preset: str = ""
    """Name of the preset that its options began with; empty where they began with the paper's."""
    false_alarm_rate: float = FALSE_ALARM_RATE
    """Proportion of normal images that may be flagged."""
    held_out: float = HELD_OUT
    """Fraction of the training patients that is held out to calibrate on, where the data has no calibration split."""
    folds: int | None = None
    """Models that score the normals which they did not see, of which the first is kept. 0 holds out instead; None does
    so too, but for methods of one pass where the part held out is too small for the rate."""

    def __post_init__(self) -> None:
        if not 0 < self.false_alarm_rate < 1:
            raise ValueError(f"false_alarm_rate is {self.false_alarm_rate}; it must lie between 0 and 1, such as 0.05")
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out is {self.held_out}; it must lie between 0 and 1, such as 0.1")
        if self.folds is not None and (self.folds < 0 or self.folds == 1):
            raise ValueError(f"folds is {self.folds}; it must be 2 or more, such as 10, or 0 to hold images out")

    @classmethod
    def of(
        cls,
        method: str,
        preset: str | None = None,
        options: Options | None = None,
        train: TrainConfig | Options | None = None,
        preprocessing: PreprocessingConfig | Options | None = None,
        false_alarm_rate: float = FALSE_ALARM_RATE,
        held_out: float = HELD_OUT,
        folds: int | None = None,
    ) -> Settings:
        """Complete what is given by preset and defaults of the method; ValueError for unknown names or values."""
        kind = methods.get(method)
        own_options, own_train = defaults(kind, preset, method)
        if one_pass(kind) and (vain := set(OF_EPOCHS) & set(train if isinstance(train, dict) else ())):
            raise ValueError(f"train.{min(vain)} is not taken: {method} learns in one pass")
        if astray := (set(options or ()) - set(_fields(kind.Config))) & set(_fields(TrainConfig)):
            raise ValueError(misplaced(method, min(astray)))
        if not isinstance(train, TrainConfig):
            train = build(TrainConfig, replaced(own_train, train or {}), "train")
        if not isinstance(preprocessing, PreprocessingConfig):
            preprocessing = build(PreprocessingConfig, preprocessing or {}, "preprocessing")
        return Settings(
            method=method,
            method_config=build(kind.Config, own_options | (options or {}), method),
            train=train,
            preprocessing=preprocessing,
            preset=preset or "",
            false_alarm_rate=false_alarm_rate,
            held_out=held_out,
            folds=folds,
        )

    def training(self) -> Options:
        """Return the options of the training that the method does not ignore."""
        ignored = OF_EPOCHS if one_pass(methods.get(self.method)) else ()
        return {key: value for key, value in dataclasses.asdict(self.train).items() if key not in ignored}

    def new_model(self) -> Method:
        """Return the method with fresh weights; ValueError where it cannot be made with its options."""
        try:
            return methods.get(self.method)(self.method_config)
        except (RuntimeError, ZeroDivisionError, OverflowError, MemoryError) as error:
            raise ValueError(f"{self.method} cannot be made with these options: {one_line(error)}") from error

    def given(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Return a manifest as the method learns from it; see `data.supervision`."""
        return supervision.given(rows, methods.weakly_supervised(self.method))

    @property
    def spacing(self) -> tuple[float, ...]:
        """Distance of voxels in mm that volumes must have; empty where it may be any."""
        return ()

    @property
    def headers(self) -> HeaderScope:
        """What DICOM headers may say."""
        return ANY

    def preprocess(self) -> Preprocessing:
        """Return how images become what the method sees."""
        config, own = self.preprocessing, self.method_config
        position = isinstance(own, SliceConfig) and own.position
        return Preprocessing(
            own.size,
            config.aspect,
            config.axis,
            config.window,
            position,
            self.spacing or None,
            config.voi,
            self.headers,
        )

    def difference(self, other: Self) -> str:
        """Name the first option in which two settings differ; empty where there is none."""
        if self.method != other.method:
            return f"method was {self.method!r}, is now {other.method!r}"
        for title, a, b in (
            ("method", self.method_config, other.method_config),
            ("train", self.train, other.train),
            ("preprocessing", self.preprocessing, other.preprocessing),
        ):
            for name, value in vars(a).items():
                if value != (now := vars(b)[name]):
                    return f"{title}.{name} was {value!r}, is now {now!r}"
        for name in CALIBRATED:
            if (was := getattr(self, name)) != (now := getattr(other, name)):
                return f"{name} was {was}, is now {now}"
        return ""


def misplaced(method: str, name: str) -> str:
    """Say where an argument belongs that a verb does not take by itself."""
    kinds = {"train": TrainConfig, "preprocessing": PreprocessingConfig, "options": methods.get(method).Config}
    homes = {field: title for title, kind in kinds.items() for field in _fields(kind)}
    if name in homes:
        return f"{name} belongs to {homes[name]}: write {homes[name]}={{{name!r}: ...}}"
    return f"there is no argument {name!r}; {nearest(name, [*homes, *kinds, 'preset', 'strict', *CALIBRATED])}"


def _fields(kind: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]
