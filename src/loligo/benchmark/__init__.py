"""Methods x data sets x seeds -> one table with intervals and cost.

`run` plans cells (`cells`), runs each in processes that no label reaches (`runner`, `work`, `guard`), gathers their
scores into tables (`tables`, `statistics`, `robustness`) and writes them; `compare` puts two benchmarks side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from loligo.benchmark import runner, tables
from loligo.benchmark.comparison import compare, table_text
from loligo.benchmark.request import Request, parse
from loligo.report import benchmark as pages

__all__ = ["Request", "compare", "parse", "run", "table_text"]


def run(asked: Request, tell: Callable[[str], None] = print) -> Path:
    """Run what a request asks for and is not finished; write the tables to its ``out``; return benchmark.html.

    Raises ValueError for unknown names and unfit data before anything is run; a cell that fails is a row with its
    reason, and is tried again by the next call.
    """
    return pages.write(tables.gather(runner.run(asked, tell), asked), asked.out)
