"""Write the results of a benchmark: CSV, JSON, one HTML page that needs nothing else, Markdown and LaTeX tables."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from loligo import NOTICE
from loligo.data.acquisition import STEPS
from loligo.files import write_csv, write_json, write_text
from loligo.reports.benchmark import figures as charts
from loligo.reports.benchmark import words
from loligo.reports.common import figures, pages

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUICK = 300.0
"""Seconds of CPU that the training of a method may take to count as quick."""


@dataclass(frozen=True)
class Benchmark:
    """The tables of a benchmark."""

    about: dict[str, Any]
    """The request, and the machine that it ran on."""
    cells: pd.DataFrame
    """A row a cell and protocol; cells that failed have status failed and a reason."""
    summary: pd.DataFrame
    """A row a data set and method: means over seeds, intervals by patient, the gap to the paper protocol, cost."""
    pairs: pd.DataFrame = field(default_factory=pd.DataFrame)
    """DeLong's test of each two methods on the same images."""
    alarms: pd.DataFrame = field(default_factory=pd.DataFrame)
    """Observed against nominal false-alarm rate of each cell."""
    robustness: pd.DataFrame = field(default_factory=pd.DataFrame)
    """AUC and false alarms along each curve."""
    ranks: dict[str, float] = field(default_factory=dict)
    """Average rank of each method over data sets, best first; empty for fewer than two."""
    critical: float = float("nan")
    friedman: float = float("nan")


def write(found: Benchmark, folder: Path) -> Path:
    """Write all files of a benchmark to a folder; return the path of benchmark.html."""
    for name in ("cells", "summary", "pairs", "alarms", "robustness"):
        table, path = getattr(found, name), folder / f"{name}.csv"
        write_csv(table, path) if len(table) else path.unlink(missing_ok=True)
    drawn = draw(found)
    values = {
        "notice": NOTICE,
        "about": found.about,
        "answers": answers(found.summary),
        **{n: _records(getattr(found, n)) for n in ("cells", "summary", "pairs", "alarms", "robustness")},
        "ranks": found.ranks,
        "critical_difference": None if np.isnan(found.critical) else found.critical,
        "friedman_p": None if np.isnan(found.friedman) else found.friedman,
    }
    texts = {
        "benchmark.md": words.markdown(found.about, found.summary, answers(found.summary), _beside(found)),
        "benchmark.tex": words.latex(found.about, found.summary, answers(found.summary), _beside(found)),
        "benchmark.html": render(found, drawn),
    }
    figures.save(drawn, folder / "figures")
    write_json(values, folder / "benchmark.json", indent=1)
    for name, text in texts.items():
        write_text(text, folder / name)
    return folder / "benchmark.html"


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows as JSON knows them: no NaN, no numbers of numpy."""
    records: list[dict[str, Any]] = json.loads(table.to_json(orient="records", double_precision=15))
    return records


@functools.cache
def published() -> pd.DataFrame:
    """Return figures of papers: dataset, method, name, auc, auc_spread, accuracy, f1, source, and ours.

    The latter says in what our implementation is not the paper's; empty where in no more than its docstring lists.
    """
    return pd.read_csv(Path(__file__).with_name("published.csv")).fillna({"ours": ""})


def answers(summary: pd.DataFrame) -> list[dict[str, Any]]:
    """Return for each data set the best method by clean AUC, and the best of those that train in `QUICK` seconds."""
    found = []
    for name, rows in summary.groupby("dataset") if len(summary) else ():
        quick = rows[rows["train_cpu_seconds"] <= QUICK]
        best = [part["method"].iloc[int(part["auc"].argmax())] if len(part) else None for part in (rows, quick)]
        found.append({"dataset": name, "best": best[0], "best_quick": best[1]})
    return found


def draw(found: Benchmark) -> dict[str, Figure | None]:
    """Draw the charts by name; None where there is nothing to draw."""
    curves = list(found.robustness["curve"].unique()) if len(found.robustness) else []
    corrupted = [curve for curve in STEPS if curve in curves]
    drawn: dict[str, Figure | None] = {
        "cost": charts.cost(found.summary) if len(found.summary) else None,
        "ranks": charts.critical_difference(found.ranks, found.critical) if found.ranks else None,
        "false_alarms": charts.false_alarms(found.alarms) if len(found.alarms) else None,
    }
    for curve in ("contamination", "sizes"):
        drawn[curve] = charts.robustness(found.robustness, [curve], "auc", "AUC") if curve in curves else None
    for name, title in (("auc", "AUC"), ("false_alarms", "normals flagged")):
        chart = charts.robustness(found.robustness, corrupted, name, title) if corrupted else None
        drawn[f"corruptions_{name}"] = chart
    return drawn


def render(found: Benchmark, drawn: dict[str, Figure | None]) -> str:
    """Return the page; every value is escaped."""
    rows = (
        found.summary.sort_values(["dataset", "auc"], ascending=[True, False]) if len(found.summary) else found.summary
    )
    return pages.render(
        "benchmark/page.html.j2",
        found=found,
        words=words,
        summary={str(name): part.to_dict("records") for name, part in rows.groupby("dataset")} if len(rows) else {},
        answers=answers(found.summary),
        published=_beside(found),
        figures={name: figure and figures.inline(figure) for name, figure in drawn.items()},
        pairs=_worst(found.pairs),
        cells=found.cells.to_dict("records"),
        failed=found.cells[found.cells["status"] == "failed"].to_dict("records"),
        pd=pd,
    )


def _beside(found: Benchmark) -> dict[str, list[dict[Any, Any]]]:
    """Return the published figures of each data set here that has any."""
    known = published()
    names = [n for n in found.cells["dataset"].unique() if (known["dataset"] == n).any()]
    return {n: known[known["dataset"] == n].to_dict("records") for n in names}


def _worst(pairs: pd.DataFrame) -> list[dict[Any, Any]]:
    """Return of each pair of methods the seed with the least evidence for a difference; p is 1 where seeds disagree."""
    if pairs.empty:
        return []
    groups = pairs.groupby(["dataset", "a", "b"])
    worst = pairs.loc[groups["p_holm"].idxmax()].set_index(["dataset", "a", "b"])
    worst["seeds"] = groups["p_holm"].size()
    opposed = groups["difference"].min() * groups["difference"].max() < 0
    worst.loc[opposed[opposed].index, ["p", "p_holm"]] = 1.0
    return worst.reset_index().to_dict("records")
