"""What a cell does, in a process of its own: train on what it may see, then score what it may see.

Each step is finished when its last file stands, and is not done again. A process works on one thread, so that costs
can be compared, and ends with the process that started it.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import threading
import traceback
from dataclasses import dataclass
from multiprocessing import connection, parent_process
from pathlib import Path

import pandas as pd
import threadpoolctl
import torch

from loligo import api, scoring
from loligo.benchmark import cost
from loligo.benchmark.cells import Plan, to_corrupt
from loligo.data.acquisition import SEVERITIES, corrupt
from loligo.data.dataset import Dataset
from loligo.data.splits import ABNORMAL
from loligo.detector import Detector
from loligo.files import write_csv, write_json
from loligo.methods.contract import Method
from loligo.runs.run import Run
from loligo.runs.settings import Settings
from loligo.training import images
from loligo.training.budget import epoch_seconds
from loligo.training.schedule import epochs_of

SNAPSHOTS = 20
"""Epochs of the last phase whose model is kept until it is scored, at most, evenly spaced: the choice of the papers'
protocol."""


@dataclass(frozen=True)
class Wanted:
    """What a cell is to score beside its test images."""

    epochs: bool
    """Validation and test images by models of several epochs: validation has labels of both kinds."""
    corruptions: bool
    """Corrupted test images."""
    maps: bool
    """Heat maps: there are masks to measure them against."""


def begin() -> None:
    """Prepare this process for a cell: one thread, and an end with the process that started it."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    threadpoolctl.threadpool_limits(1)
    torch.set_num_threads(1)


def _end_with_parent() -> None:
    if parent := parent_process():
        connection.wait([parent.sentinel])
        os._exit(1)


def do(plan: Plan, learn: pd.DataFrame, test: pd.DataFrame, wanted: Wanted) -> str:
    """Train a cell on ``learn`` and score ``test``; return why it failed, or nothing. log.txt keeps what is printed."""
    log = os.open(plan.folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    stage = "train"
    try:
        train(plan, learn, wanted.epochs)
        stage = "score"
        score(plan, test, wanted)
    except Exception as error:
        traceback.print_exc()
        return " ".join(f"{stage}: {type(error).__name__}: {error}".split())
    return ""


def train(plan: Plan, rows: pd.DataFrame, snapshots: bool) -> None:
    """Train on ``rows``, splits train and calibration, as far as that was not done; keep models for `score`."""
    epochs = {"epochs": _affordable(plan, rows)} if plan.budget else {}
    run = Run.new(plan.run, _settings(plan, **epochs))
    if not run.trained:
        keep = _Keep(plan.folder / "snapshots", run, int((rows["split"] == "train").sum()))
        api.train_run(run, rows, callback=keep if snapshots else None)


def _settings(plan: Plan, **train: int) -> Settings:
    method, preset = plan.cell.method.partition(":")[0], plan.preset or None
    return Settings.of(method, preset, plan.method_config, plan.train | train, plan.preprocessing)


class _Keep:
    """Write the model after some of the epochs."""

    def __init__(self, folder: Path, run: Run, images: int) -> None:
        self.folder, self.run = folder, run
        *before, last = epochs_of(run.new_model().phases(), run.train.epochs_on(images)) or [0]
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
        run = Run.new(plan.folder / "none", _settings(plan))
        normals, abnormal = (rows[rows["split"] == split] for split in ("train", ABNORMAL))
        known = images.load(run, abnormal) if len(abnormal) else None
        seconds = epoch_seconds(run, images.load(run, normals), known)
        found = {"seconds_per_epoch": seconds, "epochs": max(1, int((plan.budget or 0) / seconds))}
        write_json(found, path)
    return int(json.loads(path.read_text(encoding="utf-8"))["epochs"])


def score(plan: Plan, rows: pd.DataFrame, wanted: Wanted) -> None:
    """Score ``rows``, splits validation and test, as far as that was not done: scores, epochs, corruptions, cost.

    Where a training has a budget, scoring the epochs that were kept has another of that size: of slow methods fewer
    are scored.
    """
    run, folder = Run.load(plan.run), plan.folder
    test = rows[rows["split"] == "test"].reset_index(drop=True)
    if not plan.scoring.scores.exists():
        maps: scoring.Maps = "network" if wanted.maps else "none"
        api.score(run, test, plan.scoring.path, maps=maps, device=run.train.device, scope="any")
    if not (folder / "cost.json").exists():
        write_json(cost.measure(run, images.load(run, test)), folder / "cost.json")
    kept = folder / "snapshots"
    if kept.exists() and not (folder / "epochs.csv").exists():
        data, paths = images.load(run, rows), sorted(kept.glob("*.safetensors"))
        if plan.budget:
            rate = json.loads((folder / "cost.json").read_text(encoding="utf-8"))["score_images_per_s"]
            paths = payable(paths, plan.budget * rate / len(data))
        tables = [_epoch(run, data, path) for path in paths]
        write_csv(pd.concat(tables, ignore_index=True), folder / "epochs.csv")
    shutil.rmtree(kept, ignore_errors=True)
    if wanted.corruptions and (kinds := to_corrupt(folder)):
        found, path = _corrupted(run, images.load(run, test), kinds), folder / "corruptions.csv"
        write_csv(pd.concat([pd.read_csv(path), found]) if path.exists() else found, path)


def payable(paths: list[Path], most: float) -> list[Path]:
    """Keep so many of the models, evenly spaced, but two at least; the last one always."""
    return paths[::-1][:: math.ceil(len(paths) / max(2, int(most)))][::-1]


def _epoch(run: Run, data: Dataset, kept: Path) -> pd.DataFrame:
    """Score images by a model that was kept, as far as that was not done: columns row, epoch, score."""
    done = kept.with_suffix(".csv")
    if not done.exists():
        values = Detector.of(run, run.model(kept), run.train.device).scores(data)
        write_csv(data.rows[["row"]].assign(epoch=int(kept.stem), score=values), done)
    return pd.read_csv(done)


def _corrupted(run: Run, data: Dataset, kinds: list[str]) -> pd.DataFrame:
    """Score the images corrupted in each of ``kinds`` and severity: columns row, kind, severity, score."""
    detector, tables = Detector.load(run, run.train.device), []
    for kind, severity in ((kind, severity) for kind in kinds for severity in SEVERITIES):
        found = []
        for start in range(0, len(data), 16):
            indices = range(start, min(start + 16, len(data)))
            x = data.batch(indices)
            x[:, 0] = torch.from_numpy(corrupt(x[:, 0].numpy(), kind, severity, indices))
            found.append(detector(x).image.double())
        values = detector.by_row(torch.cat(found).numpy(), data)
        tables.append(data.rows[["row"]].assign(kind=kind, severity=severity, score=values))
    return pd.concat(tables, ignore_index=True)
