"""What was asked of a benchmark, and the cells that this comes to."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from loligo import methods
from loligo.benchmark.cells import CURVES, Cell, Plan, enumerate_cells, plan, to_corrupt
from loligo.benchmark.datasets import Data, read
from loligo.names import nearest

ROBUSTNESS = (*CURVES, "corruptions")


@dataclass(frozen=True)
class Request:
    """What was asked for: a benchmark, or one cell of it."""

    methods: tuple[str, ...]
    """METHOD, or METHOD:VARIANT with one of its presets or of ``variants``."""
    datasets: tuple[str, ...]
    """NAME=PATH, PATH of a manifest, or NAME of a synthetic data set."""
    out: Path
    seeds: int = 1
    preset: str | None = None
    """Preset of each method that has it."""
    variants: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Options by name, written as in a preset: ``{"no memory": {"memory": "none", "train.epochs": 4}}``."""
    settings: tuple[tuple[str, Any], ...] = ()
    """Values by dotted name: ``train.epochs`` for all, ``squid.slots`` or ``squid.train.epochs`` for one."""
    budget: float | None = None
    """Seconds of training on one thread, turned into a number of epochs."""
    robustness: tuple[str, ...] = ()
    """Of `ROBUSTNESS`."""
    only: str | None = None
    """Name of the one cell to run."""
    workers: int | None = None
    """Cells at once; one a core unless given."""
    config: str | None = None
    """The file that it was read from."""

    def chosen(self, method: str) -> tuple[str | None, dict[str, Any]]:
        """Return preset and settings of METHOD or METHOD:VARIANT; ValueError for an unknown variant."""
        name, _, variant = method.partition(":")
        presets, settings = methods.get(name).presets, dict(self.settings)
        if variant in self.variants:
            own = {f"{name}.{key}": value for key, value in self.variants[variant].items()}
            return self.preset, settings | own
        if variant and variant not in presets:
            raise ValueError(f"{name} has no variant {variant!r}; {nearest(variant, (*presets, *self.variants))}")
        return variant or self.preset, settings

    def command(self, cell: Cell, given: str, epochs: int | None = None) -> str:
        """Return the command that runs one cell again, alone; ``epochs`` replace a budget."""
        method = cell.method.partition(":")[0]
        words = ["loligo", "benchmark", *(["--config", self.config] if self.config else [])]
        words += ["--methods", cell.method, "--datasets", given, "--seeds", str(cell.seed + 1)]
        words += ["--preset", self.preset] if self.preset else []
        settings = dict(self.settings) | ({f"{method}.train.epochs": epochs} if self.budget and epochs else {})
        own = {k: v for k, v in settings.items() if k.startswith(("train.", "preprocessing.", f"{method}."))}
        words += ["--set", *(f"{key}={_text(value)}" for key, value in own.items())] if own else []
        wanted = [cell.curve] if cell.curve else [name for name in self.robustness if name not in CURVES]
        words += ["--robustness", *wanted] if wanted else []
        words += ["--budget", f"{self.budget:g}s"] if self.budget and not epochs else []
        return shlex.join([*words, "--only", cell.name, "--out", f"again/{cell.name}"])


def parse(**given: Any) -> Request:
    """Make a request of words, as the command line has them: lists split at commas, 30min, NAME=VALUE in YAML.

    Keys are the fields of `Request`, and ``set`` for its settings. Raises ValueError for a budget or a setting that
    cannot be read.
    """
    lists: dict[str, Any] = {key: _parted(given.pop(key)) for key in ("methods", "datasets", "robustness")}
    given["out"] = Path(given["out"])
    settings = tuple(_setting(word) for word in given.pop("set"))
    budget = given.pop("budget")
    return Request(**lists, **given, settings=settings, budget=None if budget is None else _seconds(budget))


def _parted(words: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part for word in words for part in word.split(",") if part))


def _setting(word: str) -> tuple[str, Any]:
    key, sign, value = word.partition("=")
    if not sign or "." not in key:
        raise ValueError(f"the setting {word!r} is not NAME=VALUE, such as train.epochs=5 or squid.slots=100")
    read = yaml.safe_load(value)
    if isinstance(read, str):  # YAML takes 1e-5 for text
        with contextlib.suppress(ValueError):
            read = float(read)
    return key, read


def _text(value: Any) -> str:
    """Return a value as YAML in one line, so that `_setting` reads it again."""
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).strip().removesuffix("\n...")


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+|\d*\.\d+) *(s|min|h)", text)
    if not found or float(found[1]) <= 0:
        raise ValueError(f"the budget is {text!r}; give a time such as 90s, 30min or 2h")
    return float(found[1]) * {"s": 1, "min": 60, "h": 3600}[found[2]]


@dataclass(frozen=True)
class Job:
    """A planned cell with its data set; or the reason why it cannot be planned."""

    cell: Cell
    data: Data
    plan: Plan | None
    reason: str = ""


def planned(asked: Request) -> list[Job]:
    """Return the cells of a request, planned; nothing is run. ValueError for what no cell could be made of."""
    for name, values in (("methods", asked.methods), ("datasets", asked.datasets)):
        if not values:
            raise ValueError(f"there are no {name}; name one at least")
    names = tuple(dict.fromkeys(name.partition(":")[0] for name in asked.methods))
    presets = sorted({preset for name in names for preset in methods.get(name).presets})
    if asked.preset is not None and asked.preset not in presets:
        raise ValueError(f"no method here has a preset {asked.preset!r}; {nearest(asked.preset, presets)}")
    if asked.workers is not None and asked.workers < 1:
        raise ValueError(f"workers is {asked.workers}; at least 1 is needed")
    if asked.seeds < 1:
        raise ValueError(f"seeds is {asked.seeds}; at least 1 is needed")
    for name in asked.robustness:
        if name not in ROBUSTNESS:
            raise ValueError(f"there is no robustness {name!r}; {nearest(name, ROBUSTNESS)}")
    for key, _ in asked.settings:
        if key.split(".")[0] not in (allowed := (*names, "train", "preprocessing")):
            raise ValueError(f"the setting {key} is of no method here; {nearest(key, allowed)}")
    out = asked.out.absolute()
    data = [read(given, out) for given in asked.datasets]
    if len({d.name for d in data}) < len(data):
        raise ValueError(f"two data sets have one name: {', '.join(d.name for d in data)}; give NAME=PATH")
    curves = [name for name in asked.robustness if name in CURVES]
    cells = enumerate_cells(data, tuple(dict.fromkeys(asked.methods)), asked.seeds, curves)
    if asked.only is not None:
        known = [cell.name for cell in cells]
        if asked.only not in known:
            raise ValueError(f"there is no cell {asked.only!r} here; {nearest(asked.only, known)}")
        cells = [cell for cell in cells if cell.name == asked.only]
    return [_job(cell, next(d for d in data if d.name == cell.dataset), asked, out) for cell in cells]


def _job(cell: Cell, data: Data, asked: Request, out: Path) -> Job:
    preset, settings = asked.chosen(cell.method)
    plan(Cell(cell.dataset, cell.method, cell.seed), data, out, preset, settings, None)  # raises for wrong settings
    try:
        return Job(cell, data, plan(cell, data, out, preset, settings, asked.budget))
    except ValueError as error:
        return Job(cell, data, None, str(error))


def finished(plan: Plan, corruptions: bool) -> bool:
    """Say whether a cell was finished, with the scores of images corrupted in every way where they are asked for."""
    done = (plan.folder / "cell.json").exists()
    return done and (not corruptions or bool(plan.cell.curve) or not to_corrupt(plan.folder))


def reason(plan: Plan) -> str:
    """Say why a cell failed."""
    path = plan.folder / "failed.json"
    return str(json.loads(path.read_text(encoding="utf-8"))["reason"]) if path.exists() else "not run yet"
