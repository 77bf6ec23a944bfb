"""Gather finished cells into the tables of a benchmark, computed from their labelled scores."""

from __future__ import annotations

import itertools
import json
import platform
from typing import Any

import numpy as np
import pandas as pd
import torch

from loligo import __version__, methods
from loligo.benchmark import robustness
from loligo.benchmark.cells import Plan
from loligo.benchmark.request import Job, Request, finished, reason
from loligo.calibration import Calibration
from loligo.evaluation import metrics, statistics
from loligo.evaluation import protocols as evaluate
from loligo.reports.benchmark.page import Benchmark
from loligo.runs.folder import RunFolder
from loligo.runs.run import Run
from loligo.training.cost import commit

COST = ("train_seconds", "train_cpu_seconds", "images_per_s", "peak_memory_bytes")
SCORING = ("score_images_per_s", "parameters", "flops_per_image", "model_bytes")
KEYS = ["dataset", "method", "seed", "curve", "level"]


def gather(jobs: list[Job], request: Request) -> Benchmark:
    """Return the tables of a benchmark; cells that failed are rows with their reason."""
    made = [job for job in jobs if job.plan and finished(job.plan, False)]
    scored = {(job.cell.name, protocol): found for job in made for protocol, found in scores(job).items()}
    cells = pd.DataFrame([row for job in jobs for row in _rows(job, request, scored)])
    whole = [job for job in made if not job.cell.curve]
    summary = pd.DataFrame(
        [
            _summary(list(group), cells, scored)
            for _, group in itertools.groupby(
                sorted(whole, key=lambda j: (j.cell.dataset, j.cell.method)), lambda j: (j.cell.dataset, j.cell.method)
            )
        ]
    )
    about = {
        "loligo": __version__,
        "commit": commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {platform.system()}, one thread a cell",
        "methods": list(request.methods),
        "datasets": list(request.datasets),
        "seeds": request.seeds,
        "preset": request.preset,
        "variants": request.variants,
        "settings": dict(request.settings),
        "budget_seconds": request.budget,
        "robustness": list(request.robustness),
    }
    alarms = pd.DataFrame([row for job in whole for row in _alarms(job, scored[job.cell.name, "clean"][0])])
    robust = robustness.points(made, cells, scored)
    return Benchmark(about, cells, summary, _pairs(whole, scored), alarms, robust, *_ranks(summary))


def _protocols(job: Job) -> tuple[str, ...]:
    return ("clean",) if job.cell.curve else ("clean", "paper")


def scores(job: Job) -> dict[str, tuple[pd.DataFrame, float, dict[str, Any]]]:
    """Return by protocol the labelled test rows with scores, the threshold, and what `evaluate` says."""
    run, scoring, parts = RunFolder(_plan(job).run), _plan(job).scoring, {}
    measured = scoring.read_metrics() or {}
    for protocol in _protocols(job):
        found, table = measured[protocol], evaluate.labelled(scoring.read_scores(), "test")
        if found.get("epoch") and (epochs := run.read_epochs()) is not None:
            table = evaluate.at_epoch(table, epochs, found["epoch"])
        details = {name: measured.get(name, {}) if protocol == "clean" else {} for name in ("kinds", "pixel")}
        parts[protocol] = (table, float(found["threshold"]), found | details)
    return parts


def _plan(job: Job) -> Plan:
    assert job.plan is not None
    return job.plan


def _rows(job: Job, request: Request, scored: dict[Any, Any]) -> list[dict[str, Any]]:
    """Return the row of each protocol of a cell; one row, with its reason, of a cell that is not finished."""
    cell, out = job.cell, request.out.absolute()
    known: dict[str, Any] = {"cell": cell.name, **{key: getattr(cell, key) for key in KEYS}}
    corruptions = "corruptions" in request.robustness
    if (cell.name, "clean") not in scored:
        why = job.reason or (reason(job.plan) if job.plan else "")
        said = {"protocol": "clean", "status": "failed", "reason": why}
        return [known | said | {"command": request.command(cell, job.data.given)}]
    plan, run = _plan(job), Run.load(_plan(job).run)
    record, cost = (json.loads((plan.folder / name).read_text()) for name in ("cell.json", "cost.json"))
    history, rejected = RunFolder(plan.run).read_history(), plan.scoring.read_rejected()
    about = {
        "status": "done",
        "weakly_supervised": methods.weakly_supervised(cell.method),
        "reason": "" if finished(plan, corruptions) else reason(plan),
        "preset": run.preset,
        "epochs": 0 if history is None else len(history),
        "budget_seconds": plan.budget,
        **{key: run.about["data"][key] for key in ("train", "calibration", "false_alarm_rate", "rejected")},
        "rejected_test": len(rejected),
        **{key: run.about["cost"][key] for key in COST},
        **{key: cost[key] for key in SCORING},
        "machine": run.about["cost"]["machine"],
        **{key: record[key] for key in ("seconds", "commit", "version", "data_hash", "command")},
        "method_config": json.dumps(plan.method_config),
        "train_config": json.dumps(run.training()),
        "preprocessing": json.dumps(plan.preprocessing),
        "folder": plan.folder.relative_to(out).as_posix(),
    }
    return [known | {"protocol": p} | _measured(*scored[cell.name, p]) | about for p in _protocols(job)]


def _measured(table: pd.DataFrame, threshold: float, found: dict[str, Any]) -> dict[str, Any]:
    """Return each metric of one cell with its interval by patient."""
    y, s = table["label"].to_numpy(np.int64), table["score"].to_numpy(np.float64)
    spans = statistics.bootstrap(y, [s], [threshold], evaluate.patients(table))
    values = statistics.measure(y, s, threshold)
    spread = {f"{name}_{end}": span[i] for name, span in spans.items() for i, end in enumerate(("low", "high"))}
    counts = {"n_normal": int((y == 0).sum()), "n_abnormal": int((y == 1).sum())}
    kinds = {f"kind_{name}": auc for name, auc in found["kinds"].items()}
    kinds |= {f"pixel_{name}": value for name, value in found["pixel"].items()}  # of the last epoch's maps
    about = {"threshold": threshold, "epoch": found.get("epoch"), "note": found["note"]}
    return {**counts, **values, **spread, **about, **kinds}


def _summary(group: list[Job], cells: pd.DataFrame, scored: dict[Any, Any]) -> dict[str, Any]:
    """Return the row of a method on a data set: means over seeds, their spread, intervals of the mean by patient."""
    cell = group[0].cell
    same = (cells["dataset"] == cell.dataset) & (cells["method"] == cell.method) & (cells["curve"] == "")
    row: dict[str, Any] = {"dataset": cell.dataset, "method": cell.method, "seeds": len(group)}
    row["weakly_supervised"] = methods.weakly_supervised(cell.method)
    row["failed"] = int((same & (cells["status"] == "failed")).sum())
    for protocol, prefix in (("clean", ""), ("paper", "paper_")):
        parts = cells[same & (cells["protocol"] == protocol) & (cells["status"] == "done")]
        tables = [scored[job.cell.name, protocol] for job in group]
        first = tables[0][0]
        aligned = [t.set_index("row")["score"].reindex(first["row"]).to_numpy(np.float64) for t, _, _ in tables]
        thresholds = [threshold for _, threshold, _ in tables]
        spans = statistics.bootstrap(first["label"].to_numpy(np.int64), aligned, thresholds, evaluate.patients(first))
        for name in statistics.METRICS:
            row[prefix + name] = parts[name].mean()
            row[f"{prefix}{name}_sd"] = parts[name].std(ddof=1) if len(parts) > 1 else np.nan
            row[f"{prefix}{name}_low"], row[f"{prefix}{name}_high"] = spans[name]
    row["gap"] = row["paper_auc"] - row["auc"]
    clean = cells[same & (cells["protocol"] == "clean") & (cells["status"] == "done")]
    row |= {key: clean[key].astype(float).mean() for key in (*COST, *SCORING, "epochs", "false_alarm_rate")}
    for name in (name for name in map(str, clean) if name.startswith(("kind_", "pixel_"))):
        row |= {name: clean[name].mean(), f"{name}_sd": clean[name].std(ddof=1) if len(clean) > 1 else np.nan}
    return row | {"preset": clean["preset"].iloc[0], "budget_seconds": clean["budget_seconds"].iloc[0]}


def _pairs(whole: list[Job], scored: dict[Any, Any]) -> pd.DataFrame:
    """Compare each two methods of a data set and seed on the same images (DeLong), corrected within both (Holm)."""
    rows = []
    for a, b in itertools.combinations(sorted(whole, key=lambda j: (j.cell.dataset, j.cell.seed, j.cell.method)), 2):
        if (a.cell.dataset, a.cell.seed) != (b.cell.dataset, b.cell.seed):
            continue
        both = scored[a.cell.name, "clean"][0].merge(scored[b.cell.name, "clean"][0], on="row", suffixes=("_a", "_b"))
        if both["label_a"].value_counts().reindex([0, 1], fill_value=0).min() < 2:
            continue  # some could not be read
        found = metrics.delong_test(both["label_a"].to_numpy(np.int64), both["score_a"], both["score_b"])
        key = {"dataset": a.cell.dataset, "seed": a.cell.seed, "a": a.cell.method, "b": b.cell.method}
        rows.append(key | {"images": len(both)} | found)
    table = pd.DataFrame(rows)
    if rows:
        table["p_holm"] = table.groupby(["dataset", "seed"])["p"].transform(lambda p: statistics.holm(list(p)))
    return table


def _alarms(job: Job, table: pd.DataFrame) -> list[dict[str, Any]]:
    calibration = Calibration.load(RunFolder(_plan(job).run).calibration)
    found = statistics.false_alarms(calibration.scores, table.loc[table["label"] == 0, "score"])
    key = {"dataset": job.cell.dataset, "method": job.cell.method, "seed": job.cell.seed}
    return [key | {str(k): v for k, v in row.items()} for row in found.to_dict("records")]


def _ranks(summary: pd.DataFrame) -> tuple[dict[str, float], float, float]:
    """Rank the methods that are finished on every data set; nothing where there are too few."""
    if summary.empty:
        return {}, np.nan, np.nan
    aucs = summary.pivot(index="dataset", columns="method", values="auc").dropna(axis=1)
    if min(aucs.shape) < 2:
        return {}, np.nan, np.nan
    average, critical, friedman = statistics.ranks(aucs)
    return {str(name): float(rank) for name, rank in average.items()}, critical, friedman
