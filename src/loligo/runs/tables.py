"""Read the tables and records that runs and scorings leave: what is wrong with one is said with its name."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import yaml

from loligo.config import one_line
from loligo.files import write_csv

T = TypeVar("T")

TEXT = ("path", "split", "patient", "kind", "mask", "map", "reconstruction", "overlay", "warnings", "reason")
"""Columns that stay as they are written, empty where nothing is known: a kind 7 or None is a name."""
FILES = ("path", "mask", "map", "reconstruction", "overlay")
"""Columns that name a file."""
LONGEST = 255
"""Bytes of a file's or folder's name, at most: no file system has longer ones."""
LABELS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1}
"""Normal and abnormal, as they may be written."""
NUMBERS = ("score", "anomaly_score", "p_value", "flag")
FILLED = ("split", "patient", "kind", "mask", "map", "reconstruction", "overlay", "warnings")
"""Columns of a table of scores that are filled with empty text where it lacks them."""
REJECTED = ("path", "reason")
YAML_SIZE, YAML_DEPTH = 1 << 17, 20
"""Characters and depth of nesting of a configuration, at most; ours have 2,000 and 3."""


def optional(path: Path, parse: Callable[[Path], T]) -> T | None:
    """Parse a file; None where it is missing."""
    return parsed(path, parse) if path.is_file() else None


def parsed(path: Path, parse: Callable[[Path], T]) -> T:
    """Parse a file; ValueError, with its name, says what is wrong with it."""
    try:
        return parse(path)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{path}: {one_line(error)}") from error


def mapping(path: Path) -> dict[str, Any]:
    """Read a mapping from JSON or YAML, by suffix."""
    text = path.read_text(encoding="utf-8")
    values = json.loads(text) if path.suffix == ".json" else _yaml(text)
    if not isinstance(values, dict):
        raise ValueError("holds no mapping of names to values; write it anew")
    return values


def _yaml(text: str) -> Any:
    """Read YAML as we write it: no aliases, which may stand for more than memory holds, and no deep nesting."""
    depth = 0
    if len(text) > YAML_SIZE:
        raise ValueError(f"has {len(text)} characters; at most {YAML_SIZE} are expected")
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"has an alias (*{event.anchor}){_line(event)}; write it out")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > YAML_DEPTH:
            raise ValueError(f"is nested more than {YAML_DEPTH} deep{_line(event)}")
    return yaml.safe_load(text)


def _line(event: yaml.Event) -> str:
    return f" in line {event.start_mark.line + 1}" if event.start_mark else ""


def scores(path: Path) -> pd.DataFrame:
    """Read a table of scores without the rows of rejected files; ``path`` and ``mask`` start at its folder."""
    table = _scored(path, ("path", *NUMBERS), rejected=True)
    if table.empty:
        raise ValueError("has no rows; score at least one image")
    if bad := int((~np.isfinite(table["score"])).sum()):
        raise ValueError(f"score is not a finite number in {bad} of {len(table)} rows; score the images anew")
    table = table.assign(**{name: "" for name in FILLED if name not in table})
    table["split"] = table["split"].replace("", "test")
    if "label" not in table:
        table["label"] = pd.array([pd.NA] * len(table), "Int64")
    for name in ("path", "mask"):
        table[name] = [os.path.abspath(path.parent / entry) if entry else "" for entry in table[name]]  # noqa: PTH100
    return table


def epochs(path: Path) -> pd.DataFrame:
    """Read a table of scores by image and epoch."""
    return _scored(path, ("path", "split", "label", "epoch"))


def append_epoch(path: Path, rows: pd.DataFrame, epoch: int) -> None:
    """Add the rows of an epoch to a table at ``path``; rows of it or later ones, left by a killed training, go."""
    if path.exists():
        before = parsed(path, epochs)
        rows = pd.concat([before[before["epoch"] < epoch], rows], ignore_index=True)
    write_csv(rows, path)


def history(path: Path) -> pd.DataFrame:
    """Read a table of losses, a row an epoch."""
    table = _table(path, {"phase": str})
    if table.empty:
        return pd.DataFrame(columns=["epoch", "phase"])
    _require(table, ("epoch", "phase"))
    _check_numbers(table, [str(name) for name in table if name != "phase"])
    return table


def rejected(path: Path) -> pd.DataFrame:
    """Read a table of files that could not be used: text columns path, reason."""
    table = _table(path, dict.fromkeys(REJECTED, "str"))
    if table.empty:
        return pd.DataFrame(columns=list(REJECTED), dtype=str)
    _require(table, REJECTED)
    return table.fillna("")


def _table(path: Path, types: dict[str, Any]) -> pd.DataFrame:
    """Read a CSV file, only empty cells of which are missing; no rows and columns where the file is empty."""
    try:
        return pd.read_csv(path, dtype=types, keep_default_na=False, na_values=[""])
    except pd.errors.EmptyDataError:
        return pd.DataFrame()


def _scored(path: Path, required: tuple[str, ...], rejected: bool = False) -> pd.DataFrame:
    """Read a table of scores, a row an image, or an image and epoch; ``rejected`` files, which have a reason, go."""
    table = _table(path, dict.fromkeys(("label", *TEXT), "str"))
    _require(table, required)
    if rejected and "reason" in table:
        table = table[table["reason"].isna()].drop(columns="reason").reset_index(drop=True)
    if "label" in table:
        if odd := set(table["label"].dropna()) - set(LABELS):
            raise ValueError(f"label {sorted(odd)[0]} is not 0 (normal), 1 (abnormal) or empty (unknown)")
        table["label"] = table["label"].map(LABELS).astype("Int64")
    _check_numbers(table, [name for name in NUMBERS if name in table])
    _check_names(table, [name for name in FILES if name in table])
    return table.fillna({name: "" for name in TEXT if name in table})


def _require(table: pd.DataFrame, names: tuple[str, ...]) -> None:
    if missing := [name for name in names if name not in table]:
        has = ", ".join(map(str, table)) or "no columns"
        raise ValueError(f"lacks the column {', '.join(missing)}; it has {has}; write it anew")


def _check_numbers(table: pd.DataFrame, names: Iterable[str]) -> None:
    for name in names:
        if len(table) and not pd.api.types.is_numeric_dtype(table[name]):
            raise ValueError(f"column {name} is not all numbers; write it anew")


def _check_names(table: pd.DataFrame, columns: Iterable[str]) -> None:
    for column in columns:
        for entry in table[column].dropna().unique():
            if max(map(len, os.fsencode(entry).split(b"/"))) > LONGEST:
                raise ValueError(f"column {column} has a name of more than {LONGEST} bytes: {entry[:40]}...")
