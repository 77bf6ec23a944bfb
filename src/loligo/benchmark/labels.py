"""Join labels to the scores of a cell when these can no longer change, and measure them."""

from __future__ import annotations

import shutil
from typing import Any

import pandas as pd

from loligo import api
from loligo.benchmark.cells import Plan, select
from loligo.benchmark.request import Job
from loligo.data import manifest
from loligo.evaluation import protocols
from loligo.files import write_csv

COMPUTED = ("epoch", "score", "anomaly_score", "p_value", "flag", "map", "reconstruction", "overlay")
"""Columns of tables of scores that no column of a manifest may replace."""


def join(job: Job, plan: Plan) -> dict[str, Any]:
    """Join the manifest to the scores in a cell's run folder, by row, and return what `api.evaluate` says of them."""
    rows = select(plan.cell, job.data.rows)
    known = rows.drop(columns=[column for column in COMPUTED if column in rows])
    for source in (plan.run / "scores.csv", plan.folder / "epochs.csv"):
        if source.exists():
            table = protocols.read(source)
            own = table[["row", *(column for column in COMPUTED if column in table)]]
            write_csv(known.merge(own, on="row", how="right", validate="1:m"), plan.run / source.name)
    manifest.write(rows.drop(columns="row"), plan.run / "manifest.csv")
    return api.evaluate(plan.run)


def remove_maps(plan: Plan) -> None:
    """Remove the heat maps of a finished cell: they are large, and measured."""
    if (plan.run / "maps").exists():
        table = protocols.read(plan.run / "scores.csv")
        blank: dict[str, Any] = dict.fromkeys(("map", "reconstruction", "overlay"), "")
        write_csv(table.assign(**blank), plan.run / "scores.csv")
        shutil.rmtree(plan.run / "maps")


def measured(plan: Plan) -> dict[str, tuple[pd.DataFrame, float, dict[str, Any]]]:
    """Return by protocol the labelled test rows of a finished cell, the threshold, and what `join` returned."""
    found, parts = protocols_of(plan), {}
    return found
