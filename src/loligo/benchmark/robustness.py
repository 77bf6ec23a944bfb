"""AUC and false alarms along each curve: abnormal images in training, its size, corrupted test images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from loligo.benchmark.request import Job
from loligo.evaluation import metrics


def points(made: list[Job], cells: pd.DataFrame, scored: dict[Any, Any]) -> pd.DataFrame:
    """Return AUC and false alarms at each point of each curve, the whole training set's among them."""
    rows: list[dict[str, Any]] = []
    done = cells[(cells["protocol"] == "clean") & (cells["status"] == "done")]
    curves = sorted({job.cell.curve for job in made} - {""})
    smaller = {(job.cell.dataset, job.cell.curve) for job in made if job.cell.curve and job.cell.level == 0}
    for row in done.to_dict("records"):
        level = {"contamination": 0.0, "sizes": float(row["train"])}
        places = (
            [(row["curve"], row["level"])]
            if row["curve"]
            else [(curve, level[curve]) for curve in curves if (row["dataset"], curve) not in smaller]
        )
        known = {key: row[key] for key in ("dataset", "method", "seed", "auc", "auc_low", "auc_high")}
        rows += [known | {"curve": c, "level": v, "false_alarms": 1 - row["specificity"]} for c, v in places]
    for job in made:
        rows += _corrupted(job, *scored[job.cell.name, "clean"][:2])
    return pd.DataFrame(rows)


def _corrupted(job: Job, table: pd.DataFrame, threshold: float) -> list[dict[str, Any]]:
    assert job.plan is not None
    if not (path := job.plan.folder / "corruptions.csv").exists():
        return []
    key = {"dataset": job.cell.dataset, "method": job.cell.method, "seed": job.cell.seed}
    corrupted = pd.read_csv(path).merge(table[["row", "label"]], on="row")
    whole = [
        table.assign(kind=kind, severity=0)[["row", "label", "kind", "severity", "score"]]
        for kind in corrupted["kind"].unique()
    ]
    groups = pd.concat([corrupted, *whole]).groupby(["kind", "severity"])
    return [
        key
        | {
            "curve": str(kind),
            "level": float(str(severity)),
            "auc": metrics.roc_auc(part["label"].to_numpy(np.int64), part["score"]),
            "false_alarms": float((part.loc[part["label"] == 0, "score"] >= threshold).mean()),
        }
        for (kind, severity), part in groups
    ]
