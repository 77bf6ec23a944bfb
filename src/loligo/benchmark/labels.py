"""Join labels to the scores of a cell when these can no longer change, and measure them."""

from __future__ import annotations

import shutil
from typing import Any

import pandas as pd

from loligo import api
from loligo.benchmark.cells import Plan, select
from loligo.benchmark.request import Job
from loligo.data import manifest
from loligo.files import write_csv
from loligo.runs.folder import RunFolder

MAPS = ("map", "reconstruction", "overlay")
COMPUTED = ("epoch", "score", "anomaly_score", "p_value", "flag", *MAPS)
"""Columns of tables of scores that no column of a manifest may replace."""


def join(job: Job, plan: Plan) -> dict[str, Any]:
    """Join the manifest to the scores in a cell's run folder, by row, and return what `api.evaluate` says of them."""
    rows, run = select(plan.cell, job.data.rows), RunFolder(plan.run)
    known = rows.drop(columns=[column for column in COMPUTED if column in rows])
    for scored, target in ((run.scores, run.scores), (plan.folder / "epochs.csv", run.epochs)):
        if scored.exists():
            table = pd.read_csv(scored)
            own = table[["row", *(column for column in COMPUTED if column in table)]]
            write_csv(known.merge(own, on="row", how="right", validate="1:m"), target)
    manifest.write(rows.drop(columns="row"), run.manifest)
    return api.evaluate(plan.run)


def remove_maps(plan: Plan) -> None:
    """Remove the heat maps of a finished cell: they are large, and measured."""
    run = RunFolder(plan.run)
    if run.maps.exists():
        write_csv(run.read_scores().assign(**dict.fromkeys(MAPS, "")), run.scores)
        shutil.rmtree(run.maps)
