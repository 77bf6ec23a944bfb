"""Methods x data sets x seeds -> one table with intervals and cost.

`run` plans cells (`cells`), runs each in a process that is given no label (`runner`, `work`), joins the labels to its
scores (`labels`), gathers tables (`tables`, `robustness`) and writes them; `compare` puts two benchmarks side by side.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from loligo.benchmark import runner, tables
from loligo.benchmark.comparison import compare, table_text
from loligo.benchmark.request import Request, parse, planned
from loligo.reports.benchmark import page as pages

__all__ = ["Outcome", "Request", "compare", "parse", "run", "table_text"]

log = logging.getLogger(__name__)


class Outcome(NamedTuple):
    """What came of a benchmark."""

    page: Path
    """benchmark.html."""
    cells: int
    failed: int


def run(asked: Request, tell: Callable[[str], None] = log.info) -> Outcome:
    """Run what a request asks for and is not finished, and write the tables to its ``out``. ``tell`` gets the progress.

    Raises ValueError for unknown names and unfit data, and where ``out`` holds tables of other cells, before anything
    is run; a cell that fails is a row with its reason, and is tried again by the next call.
    """
    jobs = planned(asked)
    _keep(asked.out, [job.cell.name for job in jobs])
    runner.run(jobs, asked, tell)
    found = tables.gather(jobs, asked)
    failed = int((found.cells["status"] == "failed").sum())
    return Outcome(pages.write(found, asked.out), len(jobs), failed)


def _keep(out: Path, names: list[str]) -> None:
    """Refuse a request for cells ``names`` whose tables would leave out cells that stand in those of its folder."""
    path = out / "benchmark.json"
    if not path.is_file():
        return
    before = dict.fromkeys(row["cell"] for row in json.loads(path.read_text(encoding="utf-8"))["cells"])
    lost = [name for name in before if name not in names]
    if lost:
        raise ValueError(
            f"{out} holds a benchmark of {len(before)} cells, and its tables would lose {len(lost)} of them, such as "
            f"{lost[0]}; ask for those too, or give another --out"
        )
