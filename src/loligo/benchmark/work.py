"""What a cell does, in a process of its own: train on what it may see, then score what it may see.

Each stage is finished when its last file stands, and is not done again. A process works on one thread, so that costs
can be compared, and ends with the process that started it.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from multiprocessing import connection, parent_process
from pathlib import Path

import pandas as pd
import torch

from loligo import api
from loligo.benchmark import cost, guard, hidden
from loligo.benchmark.cells import Plan
from loligo.benchmark.corruption import SEVERITIES, STEPS, corrupt
from loligo.data import cache
from loligo.data.dataset import Dataset
from loligo.evaluation import results
from loligo.files import write_csv, write_json
from loligo.methods.contract import Method
from loligo.runs.run import Run
from loligo.scoring import Scorer, by_row, raw_scores
from loligo.training import loop as training

SNAPSHOTS = 20
"""Epochs of the last phase whose model is kept until it is scored, at most, evenly spaced: the choice of the papers'
protocol."""
TIMED_BATCHES = 4
"""Batches of an epoch that is timed to turn a budget into a number of epochs."""


def stage(work: Callable[..., None], plan: Plan, rows: pd.DataFrame, closed: tuple[str, ...], *options: bool) -> None:
    """Do a stage of a cell on ``rows``, alone in this process; say in failed.json why it failed."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    decoded = cache.home().absolute()
    os.environ["LOLIGO_CACHE"] = str(decoded)
    os.chdir(plan.folder)
    log = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    torch.set_num_threads(1)
    results.commit()  # now: it asks git, and programs are closed from here on
    guard.close(closed, rows["path"], [str(plan.folder), str(decoded)])
    try:
        work(plan, rows, *options)
    except Exception as error:
        traceback.print_exc()
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        write_json({"stage": work.__name__, "reason": reason}, plan.folder / "failed.json")
        sys.exit(1)


def _end_with_parent() -> None:
    if parent := parent_process():
        connection.wait([parent.sentinel])
        os._exit(1)


def train(plan: Plan, rows: pd.DataFrame, snapshots: bool) -> None:
    """Train on ``rows``, splits train and calibration, as far as that was not done; keep models for `score`."""
    hidden.sweep(plan.folder)
    folder, settings = plan.folder / "run", dict(plan.train)
    if plan.budget:
        settings["epochs"] = _affordable(plan, rows)
    run = api.plan(plan.cell.method, folder, plan.preset or None, plan.method_config, settings)
    if run.trained:
        return
    watch = _Keep(plan.folder / "snapshots", run) if snapshots else None
    preset, options = plan.preset or None, plan.method_config
    api.train(plan.cell.method, rows, folder, preset=preset, options=options, train=run.train, watch=watch)


class _Keep:
    """Write the model after some of the epochs."""

    def __init__(self, folder: Path, run: Run) -> None:
        self.folder, self.run = folder, run
        *before, last = training.epochs_of(run.new_model().phases(), run.train.epochs) or [0]
        self.before, self.last = sum(before), sum(before) + last
        self.every = math.ceil(last / SNAPSHOTS)

    def __call__(self, model: Method, epoch: int) -> None:
        if epoch <= self.before or ((epoch - self.before) % self.every and epoch != self.last):
            return
        self.run.save_model(model, self.folder / f"{epoch:06d}.safetensors")


def _affordable(plan: Plan, rows: pd.DataFrame) -> int:
    """Return how many epochs the budget is worth, by timing a short training of each phase; measured once."""
    path = plan.folder / "budget.json"
    if not path.exists():
        run = api.plan(plan.cell.method, plan.folder / "none", plan.preset or None, plan.method_config, plan.train)
        seconds = epoch_seconds(run, run.images(rows[rows["split"] == "train"]), plan.folder)
        found = {"seconds_per_epoch": seconds, "epochs": max(1, int((plan.budget or 0) / seconds))}
        write_json(found, path)
    return int(json.loads(path.read_text(encoding="utf-8"))["epochs"])


def epoch_seconds(run: Run, normals: Dataset, scratch: Path) -> float:
    """Estimate the seconds of an epoch, in the mean over the phases by their shares, from a few batches of each."""
    some = dataclasses.replace(normals, pixels=normals.pixels[: TIMED_BATCHES * run.train.batch_size])
    phases, model = run.new_model().phases(), run.new_model()
    total = sum(phase.share for phase in phases)
    twice = math.ceil(2 * total / min(phase.share for phase in phases))  # the first time warms up
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        config = dataclasses.replace(run.train, epochs=min(twice, 4 * len(phases)))
        history = training.fit(model, some, config, Path(folder))
    speeds = history.groupby("phase")["images_per_s"].last()
    return float(sum(p.share / total * len(normals) / speeds[p.name] for p in phases))


def score(plan: Plan, rows: pd.DataFrame, corruptions: bool, maps: bool) -> None:
    """Score ``rows``, splits validation and test, as far as that was not done: scores, epochs, corruptions, cost.

    Heat maps of the test images are written where ``maps`` says that there are masks to measure them against. Where a
    training has a budget, scoring the epochs that were kept has another of that size: of slow methods fewer are scored.
    """
    run, raw = Run.load(plan.folder / "run"), plan.folder / "raw"
    test = rows[rows["split"] == "test"].reset_index(drop=True)
    if not (raw / "scores.csv").exists():
        api.score(run, test, raw, maps=maps)
    if not (raw / "cost.json").exists():
        write_json(cost.measure(run, run.images(test)), raw / "cost.json")
    kept = plan.folder / "snapshots"
    if kept.exists() and not (raw / "epochs.csv").exists():
        data, paths = run.images(rows), sorted(kept.glob("*.safetensors"))
        if plan.budget:
            rate = json.loads((raw / "cost.json").read_text(encoding="utf-8"))["score_images_per_s"]
            paths = payable(paths, plan.budget * rate / len(data))
        tables = [_epoch(run, data, path) for path in paths]
        write_csv(pd.concat(tables, ignore_index=True), raw / "epochs.csv")
    shutil.rmtree(kept, ignore_errors=True)
    if corruptions and not (raw / "corruptions.csv").exists():
        write_csv(_corrupted(run, run.images(test)), raw / "corruptions.csv")


def payable(paths: list[Path], most: float) -> list[Path]:
    """Keep so many of the models, evenly spaced, but two at least; the last one always."""
    return paths[::-1][:: math.ceil(len(paths) / max(2, int(most)))][::-1]


def _epoch(run: Run, data: Dataset, kept: Path) -> pd.DataFrame:
    """Score images by a model that was kept, as far as that was not done: columns path, split, epoch, score."""
    done = kept.with_suffix(".csv")
    if not done.exists():
        values = raw_scores(Scorer(run.model(kept), run.train.precision), data, progress=False)
        write_csv(data.rows[["path", "split"]].assign(epoch=int(kept.stem), score=values), done)
    return pd.read_csv(done, dtype={"path": str}, keep_default_na=False)


def _corrupted(run: Run, data: Dataset) -> pd.DataFrame:
    """Score the images spoilt in each way and severity: columns path, kind, severity, score."""
    scorer, tables = Scorer(run.model(), run.train.precision), []
    for kind, severity in ((kind, severity) for kind in STEPS for severity in SEVERITIES):
        found = []
        for start in range(0, len(data), 16):
            indices = range(start, min(start + 16, len(data)))
            x = data.batch(indices)
            x[:, 0] = torch.from_numpy(corrupt(x[:, 0].numpy(), kind, severity, indices))
            found.append(scorer(x).image.double())
        values = by_row(torch.cat(found).numpy(), data, scorer.method.volume_score)
        tables.append(data.rows[["path"]].assign(kind=kind, severity=severity, score=values))
    return pd.concat(tables, ignore_index=True)
