"""Cells of a benchmark: one training each, named for readers and keyed by all that decides its numbers."""

from __future__ import annotations

import ast
import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from loligo import api, methods
from loligo.benchmark.datasets import Data
from loligo.contamination import SHARES, candidates, mixed, training_size
from loligo.data import cache, manifest

CURVES = ("contamination", "sizes")
"""Curves that need trainings of their own."""
SMALLEST = 50
"""Training images at the low end of the curve of sizes; it doubles up to all."""


@dataclass(frozen=True)
class Cell:
    """One training of a method on a data set by a seed; a point of a curve where ``curve`` says so."""

    dataset: str
    method: str
    seed: int
    curve: str = ""
    level: float = 0.0
    """Share of abnormal training images, or number of training images."""

    @property
    def name(self) -> str:
        """Return DATASET/METHOD/seed_0, with the point of a curve behind it."""
        point = {"": "", "contamination": f"_share_{self.level:.2f}", "sizes": f"_size_{self.level:.0f}"}
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
    budget: float | None
    """Seconds of training that the number of epochs is chosen for; None where that is given."""
    data_hash: str
    code: str


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
    sick = int(((rows["split"] == "validation") & (rows["label"] == 1)).sum())
    return list(SHARES if sick and training_size(normals, sick, max(SHARES)) < normals else SHARES[1:])


def select(cell: Cell, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the manifest that a cell trains and tests on, of the data set's ``rows``.

    A smaller set is drawn by seed and holds those smaller still. Abnormal images are those of validation, as in
    `contaminate`. Raises ValueError where there are none.
    """
    if not cell.curve:
        return rows
    kept = rows[rows["split"] != "validation"]
    trained = np.flatnonzero(kept["split"] == "train")
    if cell.curve == "contamination":
        pool = candidates(rows, rows)
        return mixed(kept, pool, training_size(len(trained), len(pool), max(SHARES)), cell.level, cell.seed)
    left_out = np.random.default_rng(cell.seed).permutation(trained)[int(cell.level) :]
    return kept.drop(index=kept.index[left_out]).reset_index(drop=True)


def seen_in_training(rows: pd.DataFrame) -> pd.DataFrame:
    """Return all that a training may see of a manifest: its own rows, without label, mask or other columns."""
    chosen = rows[rows["split"].isin(("train", "calibration"))]
    return manifest.check(chosen[["path", "split", "patient", "source"]])


def seen_in_scoring(rows: pd.DataFrame) -> pd.DataFrame:
    """Return all that a scoring may see of a manifest: where the images of validation and test lie."""
    return manifest.check(rows.loc[rows["split"].isin(("validation", "test")), ["path", "split"]])


def plan(cell: Cell, data: Data, out: Path, preset: str | None, settings: dict[str, Any], budget: float | None) -> Plan:
    """Decide everything of a cell; ValueError for unknown settings or unfit data.

    ``settings`` are by dotted name: ``train.epochs`` for all, ``squid.slots`` and ``squid.train.epochs`` for one.
    """
    chosen = preset if preset in methods.get(cell.method).presets else None
    options, train = _own(cell.method, settings)
    if Path(str(options.get("weights", ""))).is_file():
        options["weights"] = str(Path(str(options["weights"])).absolute())  # a cell works in a folder of its own
    run = api.plan(cell.method, out / "none", chosen, options, train | {"seed": cell.seed})
    config, trained = dataclasses.asdict(run.method_config), dataclasses.asdict(run.train)
    files = [cache.digest(value) for value in config.values() if isinstance(value, str) and Path(value).is_file()]
    if budget and run.new_model().phases():
        trained["epochs"] = 1  # until it is measured
    else:
        budget = None
    data_hash, code = data.hash(select(cell, data.rows)), code_version(cell.method)
    parts = [dataclasses.asdict(cell), config, trained, budget, data_hash, code, torch.__version__, *files]
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]
    folder = out / "cells" / f"{cell.name}-{key}"
    return Plan(cell, folder, chosen or "", config, trained, budget, data_hash, code)


def _own(method: str, settings: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Part the settings of a method into those of its Config and of its training."""
    options: dict[str, Any] = {}
    train = {key.removeprefix("train."): value for key, value in settings.items() if key.startswith("train.")}
    for key, value in settings.items():
        if key.startswith(f"{method}.train."):
            train[key.removeprefix(f"{method}.train.")] = value
        elif key.startswith(f"{method}."):
            options[key.removeprefix(f"{method}.")] = value
    return options, train


CALLERS = (
    *(f"loligo.{name}" for name in ("api", "runs", "contaminate", "data.manifest")),
    *(f"loligo.benchmark.{name}" for name in ("cells", "hidden", "work")),
)
"""Modules that say what is trained and scored, and how."""


@functools.cache
def code_version(method: str) -> str:
    """Hash the source of all modules that decide a method's scores: its own, the loop, scoring, and what they import.

    The registry is left out: a new method leaves finished cells of others as they are. Of what calls them the source
    counts alone. Metrics are not among them: they are computed anew from the scores.
    """
    found = {name: _source(name) or b"" for name in CALLERS}
    waiting = [f"loligo.methods.{method}", "loligo.training.loop", "loligo.scoring", "loligo.benchmark.corruption"]
    while waiting:
        name = waiting.pop()
        if name not in (*found, "loligo", "loligo.methods") and (source := _source(name)):
            found[name] = source
            waiting += _imports(source)
    whole = b"".join(name.encode() + b"\0" + source for name, source in sorted(found.items()))
    return hashlib.sha256(whole).hexdigest()[:12]


def _source(name: str) -> bytes | None:
    """Return the source of a module of loligo; None for what is none, such as a function."""
    base = Path(__file__).parents[1].joinpath(*name.split(".")[1:])
    paths = (base.with_suffix(".py"), base / "__init__.py")
    return next((path.read_bytes() for path in paths if path.is_file()), None)


def _imports(source: bytes) -> list[str]:
    """List the modules of loligo that a source may import, functions of theirs among them."""
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return [name for name in names if name.startswith("loligo")]
