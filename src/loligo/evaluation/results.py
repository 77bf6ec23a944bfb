"""One tidy table of results, a row a run and protocol, written by the program that measured it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from loligo.files import locked, write_csv
from loligo.methods import weakly_supervised
from loligo.runs.folder import RunFolder
from loligo.runs.run import Run

COLUMNS = [
    *(
        "dataset",
        "method",
        "preset",
        "protocol",
        "seed",
        "epochs",
        "auc",
        "auc_low",
        "auc_high",
        "ap",
        "accuracy",
        "f1",
    ),
    *("train_seconds", "images_per_s", "machine", "commit", "weakly_supervised"),
]


def append(path: Path, run: Run, found: dict[str, Any]) -> None:
    """Append the clean and the paper row of a run to a CSV table, made where it is missing."""
    rows = pd.DataFrame([row(run, found, protocol) for protocol in ("clean", "paper")])[COLUMNS]
    with locked(path.parent):
        if path.exists():
            rows = pd.concat([read(path), rows], ignore_index=True)
        write_csv(rows, path)


def read(path: Path) -> pd.DataFrame:
    """Read a table of results; a commit stays text, be it all digits or such as 12e4567."""
    return pd.read_csv(path, dtype={"commit": str})


def replace(path: Path, rows: pd.DataFrame, key: dict[str, object]) -> None:
    """Write ``rows`` into a CSV table in place of those whose columns are ``key``; the table is made where missing."""
    with locked(path.parent):
        if path.exists():
            before = pd.read_csv(path, dtype={"commit": str}, keep_default_na=False)
            rows = pd.concat([before[~matching(before, key)], rows], ignore_index=True)
        write_csv(rows, path)


def matching(table: pd.DataFrame, key: dict[str, object]) -> pd.Series[bool]:
    """Say which rows of a table have the values ``key`` in its columns: (N,) bool."""
    return (table[list(key)] == pd.Series(key)).all(axis=1)


def row(run: Run, found: dict[str, Any], protocol: str) -> dict[str, Any]:
    """Return the row of a trained run with its metrics under one protocol: a value for each of `COLUMNS`."""
    cost, history = run.about["cost"], RunFolder(run.folder).read_history()
    trained = 0 if history is None else len(history)
    measured = {key: round(found[protocol][key], 5) for key in ("auc", "auc_low", "auc_high", "ap", "accuracy", "f1")}
    return {
        "dataset": run.about["data"]["source"],
        "method": run.method,
        "preset": run.preset,
        "protocol": protocol,
        "seed": run.train.seed,
        "epochs": found[protocol].get("epoch") or trained,
        **measured,
        **{key: cost[key] for key in ("train_seconds", "images_per_s", "machine", "commit")},
        "weakly_supervised": weakly_supervised(run.method),
    }
