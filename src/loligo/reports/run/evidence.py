"""Read a run folder for the report: each file once, checked, None where it is missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import yaml

T = TypeVar("T")

REQUIRED = ("path", "score", "anomaly_score", "p_value", "flag")
NUMBERS = ("score", "anomaly_score", "p_value", "flag", "label")
OPTIONAL = ("split", "label", "map", "reconstruction", "mask", "patient", "kind")
NOT_LOSSES = ("epoch", "phase", "seconds", "cpu_seconds", "images_per_s")


@dataclass(frozen=True)
class Evidence:
    """What a run folder holds; a field is None where its file is missing."""

    folder: Path
    scores: pd.DataFrame
    """Rows of the test split, or all where none is of it; text but for NUMBERS, empty or NaN where unknown.

    The index counts the rows of scores.csv from 0.
    """
    config: dict[str, Any] | None
    history: pd.DataFrame | None
    """Columns epoch, phase, and one a loss; no rows where the method logged none."""
    metrics: dict[str, Any] | None
    calibration: dict[str, Any] | None
    rejected: pd.DataFrame | None
    """Columns path, reason, during: training or scoring, empty where unknown."""

    @property
    def method(self) -> str:
        """Name the method; empty where config.yaml is missing."""
        return str((self.config or {}).get("method", ""))

    @property
    def false_alarm_rate(self) -> float | None:
        """Return the share of held-out normals that the threshold lets through as abnormal."""
        rate = (self.calibration or {}).get("false_alarm_rate")
        return None if rate is None else float(rate)

    def with_label(self, label: int | None) -> pd.DataFrame:
        """Return the rows labelled 0 or 1, or with None those without label."""
        column = self.scores["label"]
        return self.scores[column.isna() if label is None else column == label]


def read(folder: Path) -> Evidence:
    """Read what a run folder holds.

    Raises ValueError, naming the file, where scores.csv is missing or any file is not what it should be.
    """
    if not (folder / "scores.csv").is_file():
        raise ValueError(f"{folder} has no scores.csv; make it with 'loligo score {folder}'")
    return Evidence(
        folder=folder,
        scores=_parsed(folder / "scores.csv", _scores),
        config=_optional(folder / "config.yaml", _mapping),
        history=_optional(folder / "history.csv", _history),
        metrics=_optional(folder / "metrics.json", _mapping),
        calibration=_optional(folder / "calibration.json", _mapping),
        rejected=_optional(folder / "rejected.csv", _rejected),
    )


def _optional(path: Path, parse: Callable[[Path], T]) -> T | None:
    return _parsed(path, parse) if path.is_file() else None


def _parsed(path: Path, parse: Callable[[Path], T]) -> T:
    """Parse a file; what is wrong with it is told with its name."""
    try:
        return parse(path)
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: {error}") from error


def _mapping(path: Path) -> dict[str, Any]:
    text = path.read_text(encoding="utf-8")
    values = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    if not isinstance(values, dict):
        raise ValueError(f"holds a {type(values).__name__} where a mapping is expected; write it anew")
    return values


def _table(path: Path) -> pd.DataFrame:
    """Read a CSV file as text, so that a file named NA keeps its name; no rows where the file is empty."""
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False)
    except pd.errors.EmptyDataError:
        return pd.DataFrame()


def _scores(path: Path) -> pd.DataFrame:
    table = _with_columns(_table(path), REQUIRED)
    table = table.assign(**{name: "" for name in OPTIONAL if name not in table})
    for name in NUMBERS:
        table[name] = _numbers(table[name])
    if table.empty:
        raise ValueError("has no rows; score at least one image")
    if bad := int((~np.isfinite(table["score"])).sum()):
        raise ValueError(f"score is not a finite number in {bad} of {len(table)} rows; score the images anew")
    if odd := set(table["label"].dropna()) - {0, 1}:
        raise ValueError(f"label {sorted(odd)} is not 0 (normal), 1 (abnormal) or empty (unknown)")
    test = table["split"] == "test"
    return table[test] if test.any() else table


def _history(path: Path) -> pd.DataFrame:
    table = _table(path)
    if table.empty:
        return pd.DataFrame(columns=["epoch", "phase"])
    table = _with_columns(table, ("epoch", "phase"))
    for name in set(table) - {"phase"}:
        table[name] = _numbers(table[name])
    return table


def _rejected(path: Path) -> pd.DataFrame:
    table = _table(path)
    if table.empty:
        return pd.DataFrame(columns=["path", "reason", "during"])
    return _with_columns(table if "during" in table else table.assign(during=""), ("path", "reason"))


def _with_columns(table: pd.DataFrame, names: tuple[str, ...]) -> pd.DataFrame:
    if missing := [name for name in names if name not in table]:
        raise ValueError(f"lacks {', '.join(missing)}; it has {', '.join(map(str, table)) or 'no columns'}")
    return table


def _numbers(column: pd.Series[str]) -> pd.Series[float]:
    """Turn text into float64, NaN where it is empty."""
    try:
        return pd.to_numeric(column.where(column != "")).astype(float)
    except ValueError as error:
        raise ValueError(f"column {column.name} is not all numbers: {error}") from error
