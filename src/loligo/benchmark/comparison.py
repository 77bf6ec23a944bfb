"""Put two benchmarks side by side, cell by cell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

KEY = ["cell", "protocol"]


def compare(first: str | Path, second: str | Path) -> pd.DataFrame:
    """Compare the cells that two benchmarks have in common; each is a folder or a benchmark.json.

    What one of them alone has is left out; `table_text` says how much that is. Columns: cell, protocol, auc_a with its
    95 % interval (low_a, high_a), auc_b, difference (b - a), ``within``, whether the second AUC lies in the first's
    interval, ``changed``, which of data, version, method options and training options differ, and the training seconds
    of both. Raises ValueError for what is no benchmark, and where no cell is in both.
    """
    cells = [_cells(which) for which in (first, second)]
    both = cells[0].merge(cells[1], on=KEY, suffixes=("_a", "_b"))
    if both.empty:
        raise ValueError(f"{first} and {second} have no finished cell in common")
    table = pd.DataFrame(
        {
            **{key: both[key] for key in KEY},
            "auc_a": both["auc_a"],
            "low_a": both["auc_low_a"],
            "high_a": both["auc_high_a"],
            "auc_b": both["auc_b"],
            "difference": both["auc_b"] - both["auc_a"],
            "within": both["auc_b"].between(both["auc_low_a"], both["auc_high_a"]),
            "changed": [_changed(row) for row in both.to_dict("records")],
            "train_seconds_a": both["train_seconds_a"],
            "train_seconds_b": both["train_seconds_b"],
        }
    )
    table.attrs["alone"] = [len(part) - len(both) for part in cells]
    return table


def _cells(path: str | Path) -> pd.DataFrame:
    """Read the finished cells of a benchmark."""
    file = Path(path) / "benchmark.json" if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise ValueError(f"{path} is no benchmark: there is no {file.name}; make one with 'loligo benchmark'")
    try:
        table = pd.DataFrame(json.loads(file.read_text(encoding="utf-8"))["cells"])
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{file} is no benchmark.json of 'loligo benchmark': {error!r}") from error
    if table.empty or "status" not in table or not (table["status"] == "done").any():
        raise ValueError(f"{path} has no finished cell")
    return table[table["status"] == "done"]


def _changed(row: dict[Any, Any]) -> str:
    parts = {
        "data": "data_hash",
        "version": "version",
        "method options": "method_config",
        "training options": "train_config",
    }
    return ", ".join(name for name, column in parts.items() if row[f"{column}_a"] != row[f"{column}_b"])


def table_text(table: pd.DataFrame) -> str:
    """Return a comparison as lines of text."""
    lines = [f"{'cell':44} {'protocol':8} {'A (95 % interval)':>22} {'B':>7} {'B - A':>7}"]
    for row in table.to_dict("records"):
        first = f"{row['auc_a']:.3f} ({row['low_a']:.3f}-{row['high_a']:.3f})"
        said = "" if row["within"] else "  outside A's interval"
        said += f"  changed: {row['changed']}" if row["changed"] else ""
        lines.append(
            f"{row['cell']:44} {row['protocol']:8} {first:>22} {row['auc_b']:7.3f} {row['difference']:+7.3f}{said}"
        )
    lines.append(f"{int(table['within'].sum())} of {len(table)} within A's interval")
    if any(table.attrs["alone"]):
        lines.append("rows in A alone: {}, in B alone: {}".format(*table.attrs["alone"]))
    return "\n".join(lines)
