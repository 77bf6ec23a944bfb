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
COMPUTED = ("epoch", "rank", "score", "anomaly_score", "p_value", "q_value", "flag", "threshold", "warnings", *MAPS)
"""Columns of tables of scores that no column of a manifest may replace."""


def join(job: Job, plan: Plan) -> dict[str, Any]:
    """Join the manifest to the scores of a cell, by row, and return what `api.evaluate` says of them."""
    rows, run, scoring = select(plan.cell, job.data.rows), RunFolder(plan.run), plan.scoring
    known = rows.drop(columns=[column for column in COMPUTED if column in rows])
    if scoring.scores.exists():
        scoring.write_scores(_joined(known, scoring.read_scores()), scoring.read_rejected())
    if (plan.folder / "epochs.csv").exists():
        write_csv(_joined(known, pd.read_csv(plan.folder / "epochs.csv")), run.epochs)
    manifest.write(rows.drop(columns="row"), run.manifest)
    return api.evaluate(scoring.path)


def _joined(known: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    own = table[["row", *(column for column in COMPUTED if column in table)]]
    return known.merge(own, on="row", how="right", validate="1:m")


def remove_maps(plan: Plan) -> None:
    """Remove the heat maps of a finished cell: they are large, and measured."""
    scoring = plan.scoring
    if scoring.maps.exists():
        scoring.write_scores(scoring.read_scores().assign(**dict.fromkeys(MAPS, "")), scoring.read_rejected())
        shutil.rmtree(scoring.maps)
