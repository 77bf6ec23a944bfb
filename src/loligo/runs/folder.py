"""The run folder on disk: the name of every artefact, and the one reader and the one writer of each table.

A folder that scores were written to with ``--out`` has the same names, but neither configuration nor model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import pandas as pd
import yaml

from loligo.files import write_csv, write_json

T = TypeVar("T")

TEXT = ("path", "split", "patient", "kind", "mask", "map", "reconstruction", "overlay", "mood")
"""Columns that stay as they are written, empty where nothing is known: a kind 7 or None is a name."""
NUMBERS = ("score", "anomaly_score", "p_value", "flag")
FILLED = ("patient", "kind", "mask", "map", "reconstruction", "overlay")
"""Columns of a table of scores that are filled with empty text where it lacks them."""
REJECTED = ("path", "reason", "during")


@dataclass(frozen=True)
class RunFolder:
    """Where everything lies in a run folder, and what its tables hold."""

    path: Path

    @property
    def config(self) -> Path:
        """Method, options and costs of the run."""
        return self.path / "config.yaml"

    @property
    def model(self) -> Path:
        """The weights."""
        return self.path / "model.safetensors"

    @property
    def calibration(self) -> Path:
        """Raw scores of held-out normals, false-alarm rate and scale of maps; where it stands, the run is trained."""
        return self.path / "calibration.json"

    @property
    def history(self) -> Path:
        """A row an epoch of the training."""
        return self.path / "history.csv"

    @property
    def checkpoint(self) -> Path:
        """All that the next epoch of the training depends on."""
        return self.path / "checkpoint" / "last.safetensors"

    @property
    def manifest(self) -> Path:
        """The images that the run was trained on, and those of its test."""
        return self.path / "manifest.csv"

    @property
    def scores(self) -> Path:
        """A row a scored image."""
        return self.path / "scores.csv"

    @property
    def maps(self) -> Path:
        """The folder of heat maps, overlays and reconstructions."""
        return self.path / "maps"

    @property
    def rejected(self) -> Path:
        """A row a file that could not be used."""
        return self.path / "rejected.csv"

    @property
    def epochs(self) -> Path:
        """Scores of validation and test images after each epoch."""
        return self.path / "epochs.csv"

    @property
    def metrics(self) -> Path:
        """What the scores are worth by the labels."""
        return self.path / "metrics.json"

    @property
    def report(self) -> Path:
        """The page on all of this."""
        return self.path / "report.html"

    @property
    def figures(self) -> Path:
        """The folder of the page's charts."""
        return self.path / "figures"

    def artefact(self, name: str) -> Path:
        """Return where a file lies that a table names, such as ``maps/000001_a.npy``.

        Tables come from anywhere. Raises ValueError unless the name is relative and the file, links followed, lies
        below maps/ of this folder.
        """
        path = self.path / name
        if Path(name).parts[:1] != ("maps",) or not path.resolve().is_relative_to(self.maps.resolve()):
            raise ValueError(f"{self.scores} names the file {name!r}; only files below its own maps/ are allowed")
        return path

    def read_config(self) -> dict[str, Any] | None:
        """Read config.yaml as a mapping; None where it is missing."""
        return _optional(self.config, _mapping)

    def read_scores(self) -> pd.DataFrame:
        """Read scores.csv: text but for ``label`` (Int64) and `NUMBERS`, empty where unknown; the index counts rows.

        Raises ValueError, which names the file, where there is none, it holds no scores, or one is not finite.
        """
        if not self.scores.is_file():
            raise ValueError(f"{self.path} has no scores.csv; make it with 'loligo score {self.path}'")
        return _parsed(self.scores, _scores)

    def write_scores(self, table: pd.DataFrame) -> None:
        """Write scores.csv, and remove the metrics of the scores that stood there."""
        self.metrics.unlink(missing_ok=True)
        write_csv(table, self.scores)

    def read_rejected(self) -> pd.DataFrame | None:
        """Read rejected.csv as text: path, reason, during (training or scoring); None where it is missing."""
        return _optional(self.rejected, _rejected)

    def add_rejected(self, rejected: pd.DataFrame, during: Literal["training", "scoring"]) -> None:
        """Put what a training or a scoring rejected (path, reason) in place of what one before it did."""
        before = self.read_rejected()
        kept = [] if before is None else [before[before["during"] != during]]
        write_csv(pd.concat([*kept, rejected.assign(during=during)], ignore_index=True), self.rejected)

    def read_history(self) -> pd.DataFrame | None:
        """Read history.csv: epoch, phase, and numbers; no rows where nothing was logged, None where it is missing."""
        return _optional(self.history, _history)

    def write_history(self, rows: list[dict[str, Any]]) -> None:
        """Write history.csv, a row an epoch."""
        write_csv(pd.DataFrame(rows), self.history)

    def read_epochs(self) -> pd.DataFrame | None:
        """Read epochs.csv: path, split, label, patient, epoch, score; None where it is missing."""
        return _optional(self.epochs, _epochs)

    def append_epoch(self, rows: pd.DataFrame, epoch: int) -> None:
        """Add the rows of an epoch to epochs.csv; rows of it or later ones, left by a killed training, go."""
        append_epoch(self.epochs, rows, epoch)

    def read_metrics(self) -> dict[str, Any] | None:
        """Read metrics.json as a mapping; None where it is missing."""
        return _optional(self.metrics, _mapping)

    def write_metrics(self, metrics: dict[str, Any]) -> None:
        """Write metrics.json."""
        write_json(metrics, self.metrics, indent=2)


def append_epoch(path: Path, rows: pd.DataFrame, epoch: int) -> None:
    """Add the rows of an epoch to a table at ``path``; rows of it or later ones, left by a killed training, go."""
    if path.exists():
        before = _parsed(path, _epochs)
        rows = pd.concat([before[before["epoch"] < epoch], rows], ignore_index=True)
    write_csv(rows, path)


def _optional(path: Path, parse: Callable[[Path], T]) -> T | None:
    return _parsed(path, parse) if path.is_file() else None


def _parsed(path: Path, parse: Callable[[Path], T]) -> T:
    """Parse a file; what is wrong with it is said with its name."""
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


def _table(path: Path, types: dict[str, Any]) -> pd.DataFrame:
    """Read a CSV file, only empty cells of which are missing; no rows and columns where the file is empty."""
    try:
        return pd.read_csv(path, dtype=types, keep_default_na=False, na_values=[""])
    except pd.errors.EmptyDataError:
        return pd.DataFrame()


def _scored(path: Path, required: tuple[str, ...]) -> pd.DataFrame:
    """Read a table of scores, a row an image, or an image and epoch."""
    table = _table(path, {"label": "Int64"} | dict.fromkeys(TEXT, "str"))
    _require(table, required)
    if odd := [str(label) for label in table["label"].dropna().unique() if label not in (0, 1)]:
        raise ValueError(f"label {', '.join(odd)} is not 0 (normal), 1 (abnormal) or empty (unknown)")
    _check_numbers(table, [name for name in NUMBERS if name in table])
    return table.fillna({name: "" for name in TEXT if name in table})


def _scores(path: Path) -> pd.DataFrame:
    table = _scored(path, ("path", "split", "label", *NUMBERS))
    if table.empty:
        raise ValueError("has no rows; score at least one image")
    if bad := int((~np.isfinite(table["score"])).sum()):
        raise ValueError(f"score is not a finite number in {bad} of {len(table)} rows; score the images anew")
    return table.assign(**{name: "" for name in FILLED if name not in table})


def _epochs(path: Path) -> pd.DataFrame:
    return _scored(path, ("path", "split", "label", "epoch"))


def _history(path: Path) -> pd.DataFrame:
    table = _table(path, {"phase": str})
    if table.empty:
        return pd.DataFrame(columns=["epoch", "phase"])
    _require(table, ("epoch", "phase"))
    _check_numbers(table, [str(name) for name in table if name != "phase"])
    return table


def _rejected(path: Path) -> pd.DataFrame:
    table = _table(path, dict.fromkeys(REJECTED, "str"))
    if table.empty:
        return pd.DataFrame(columns=list(REJECTED), dtype=str)
    _require(table, REJECTED)
    return table.fillna("")


def _require(table: pd.DataFrame, names: tuple[str, ...]) -> None:
    if missing := [name for name in names if name not in table]:
        has = ", ".join(map(str, table)) or "no columns"
        raise ValueError(f"lacks the column {', '.join(missing)}; it has {has}; write it anew")


def _check_numbers(table: pd.DataFrame, names: Iterable[str]) -> None:
    for name in names:
        if len(table) and not pd.api.types.is_numeric_dtype(table[name]):
            raise ValueError(f"column {name} is not all numbers; write it anew")
