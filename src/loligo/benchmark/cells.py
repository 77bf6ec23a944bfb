"""Cells of a benchmark: one training each, named for readers and keyed by all that decides its numbers."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from loligo import __version__, methods
from loligo.benchmark.datasets import Data, digest
from loligo.config import OF_EPOCHS
from loligo.contamination import RATES, candidates, mixed, training_size
from loligo.data import manifest, supervision
from loligo.data.acquisition import STEPS
from loligo.data.splits import ABNORMAL
from loligo.methods.declared import one_pass
from loligo.runs.scores import ScoreFolder
from loligo.runs.settings import Settings

CURVES = ("contamination", "sizes")
"""Curves that need trainings of their own."""
SMALLEST = 50
"""Training images at the low end of the curve of sizes; it doubles up to all."""
VERSION = f"loligo {__version__}, torch {torch.__version__}"


@dataclass(frozen=True)
class Cell:
    """One training of a method on a data set by a seed; a point of a curve where ``curve`` says so."""

    dataset: str
    method: str
    """METHOD, or METHOD:VARIANT: with a preset or a variant of its own."""
    seed: int
    curve: str = ""
    level: float = 0.0
    """Rate of abnormal training images, or number of training images."""

    @property
    def name(self) -> str:
        """Return DATASET/METHOD/seed_0, with the point of a curve behind it."""
        point = {"": "", "contamination": f"_rate_{self.level:.2f}", "sizes": f"_size_{self.level:.0f}"}
        return f"{self.dataset}/{self.method}/seed_{self.seed}{point[self.curve]}"


@dataclass(frozen=True)
class Plan:
    """A cell with all that decides its numbers; it can be handed to another process."""

    cell: Cell
    folder: Path
    """Where it is kept; the key is part of the name."""
    preset: str
    method_config: dict[str, Any]
    train: dict[str, Any]
    preprocessing: dict[str, Any]
    budget: float | None
    """Seconds of training that the number of epochs is chosen for; None where that is given."""
    data_hash: str

    @property
    def run(self) -> Path:
        """Return its run folder."""
        return self.folder / "run"

    @property
    def scoring(self) -> ScoreFolder:
        """Return the folder of its scores."""
        return ScoreFolder(self.run / "scores" / "test")


def enumerate_cells(data: Sequence[Data], names: Sequence[str], seeds: int, curves: Iterable[str]) -> list[Cell]:
    """List the cells; the first seed of all comes first, the curves last."""
    whole = [Cell(d.name, name, seed) for seed in range(seeds) for d in data for name in names]
    chosen = dict.fromkeys(curves)
    points = [
        dataclasses.replace(cell, curve=curve, level=level)
        for curve in chosen
        for cell in whole
        for level in levels(curve, next(d for d in data if d.name == cell.dataset).rows)
    ]
    return whole + points


def levels(curve: str, rows: pd.DataFrame) -> list[float]:
    """Return the points of a curve that are not the whole training set, without abnormal images, itself.

    Where too few abnormal images make all trainings of the curve of contamination smaller, so is that without any.
    """
    normals = int((rows["split"] == "train").sum())
    if curve == "sizes":
        return [float(SMALLEST << i) for i in range(30) if SMALLEST << i < normals]
    abnormal = int(((rows["split"] == "validation") & (rows["label"] == 1)).sum())
    return list(RATES if abnormal and training_size(normals, abnormal, max(RATES)) < normals else RATES[1:])


def select(cell: Cell, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the manifest that a cell trains and tests on, of the data set's ``rows``; column ``row`` numbers it.

    A smaller set is sampled by seed and holds those smaller still. Abnormal images are those of validation, as in
    `contaminate`. Raises ValueError where there are none, or for the contamination of a weakly supervised method.
    """
    weakly = methods.weakly_supervised(cell.method)
    if weakly and cell.curve == "contamination":
        raise ValueError(f"{cell.method} is given abnormal images to train on; contamination is of normals alone")
    rows = supervision.given(rows, weakly)
    if cell.curve:
        kept = rows[rows["split"] != "validation"]
        trained = np.flatnonzero(kept["split"] == "train")
        if cell.curve == "contamination":
            pool = candidates(rows, rows)
            rows = mixed(kept, pool, training_size(len(trained), len(pool), max(RATES)), cell.level, cell.seed)
        else:
            left_out = np.random.default_rng(cell.seed).permutation(trained)[int(cell.level) :]
            rows = kept.drop(index=kept.index[left_out]).reset_index(drop=True)
    return rows.assign(row=range(len(rows)))


def seen_in_training(rows: pd.DataFrame) -> pd.DataFrame:
    """Return all that a training is given of what `select` returned: its own rows, without label, mask or others."""
    chosen = rows[rows["split"].isin(("train", "calibration", ABNORMAL))]
    return manifest.check(chosen[["path", "split", "patient", "source"]])


def seen_in_scoring(rows: pd.DataFrame) -> pd.DataFrame:
    """Return all that a scoring is given of a manifest: paths, splits and numbers of the rows to be scored."""
    return manifest.check(rows.loc[rows["split"].isin(("validation", "test")), ["path", "split", "row"]])


def plan(cell: Cell, data: Data, out: Path, preset: str | None, settings: dict[str, Any], budget: float | None) -> Plan:
    """Decide everything of a cell; ValueError for unknown settings or unfit data.

    ``settings`` are by dotted name: ``train.epochs`` for all, ``squid.slots`` and ``squid.train.epochs`` for one. The
    key is a hash of configuration, data and version of the package.
    """
    method = cell.method.partition(":")[0]
    chosen = preset if preset in methods.get(method).presets else None
    options, train, preprocessing = own_settings(method, settings)
    if Path(str(options.get("weights", ""))).is_file():
        options["weights"] = str(Path(str(options["weights"])).absolute())
    ignored = OF_EPOCHS if one_pass(methods.get(method)) else ()
    train = {key: value for key, value in train.items() if key not in ignored}
    run = Settings.of(method, chosen, options, train | {"seed": cell.seed}, preprocessing)
    config, trained = dataclasses.asdict(run.method_config), run.training()
    files = [digest(value) for value in config.values() if isinstance(value, str) and Path(value).is_file()]
    if budget and run.new_model().phases():
        trained["epochs"] = 1  # until it is measured
    else:
        budget = None
    seen, data_hash = dataclasses.asdict(run.preprocessing), data.hash(select(cell, data.rows))
    parts = [dataclasses.asdict(cell), config, trained, seen, budget, data_hash, VERSION, *files]
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]
    folder = out / "cells" / f"{cell.name.replace(':', '+')}-{key}"
    return Plan(cell, folder, chosen or "", config, trained, seen, budget, data_hash)


def own_settings(method: str, settings: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return what settings say of a method's Config, of its training, and of preprocessing."""
    own = {key.removeprefix(f"{method}."): value for key, value in settings.items() if key.startswith(f"{method}.")}
    options: dict[str, Any] = {}
    parts: dict[str, dict[str, Any]] = {"train": {}, "preprocessing": {}}
    for key, value in (settings | own).items():
        head, _, name = key.partition(".")
        if head in parts:
            parts[head][name] = value
        elif key in own:
            options[key] = value
    return options, parts["train"], parts["preprocessing"]


def to_corrupt(folder: Path) -> list[str]:
    """Return the kinds of corruption that a cell has no scores of: an earlier version may have scored fewer."""
    path = folder / "corruptions.csv"
    known = set(pd.read_csv(path, usecols=["kind"])["kind"]) if path.exists() else set()
    return [kind for kind in STEPS if kind not in known]
