"""A method that tries to read test labels, and a script that benchmarks it beside its honest use.

python planted.py m.csv OUT
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from loligo import api, methods
from loligo.benchmark import Request, run
from loligo.methods.configs import MethodConfig
from loligo.methods.contract import Method
from loligo.runs.run import Run
from loligo.types import Scores

methods.METHODS["planted"] = ("Planted", "peeks")
methods.METHODS["broken"] = ("Broken", "fails")
sys.modules["loligo.methods.planted"] = sys.modules["loligo.methods.broken"] = sys.modules[__name__]


@dataclass(frozen=True)
class PlantedConfig(MethodConfig):
    """Where to peek."""

    size: int = 32
    target: str = ""
    """The manifest."""


class Planted(Method):
    """Count the labels of validation and test images that can be reached; score by them where there are any."""

    Config = PlantedConfig
    config: PlantedConfig
    found: Tensor

    def __init__(self, config: PlantedConfig) -> None:
        super().__init__(config)
        self.register_buffer("found", torch.zeros(3))

    def fit(self, batches: Iterable[Tensor]) -> None:
        """Look for labels in memory, in the run's own manifest, and in the files of the data set."""
        list(batches)
        self.found[0] = in_memory()
        kept = [thing.folder / "manifest.csv" for thing in gc.get_objects() if isinstance(thing, Run)]
        self.found[1] = sum(labels(pd.read_csv(path)) for path in kept if path.exists())
        self.found[2] = self.in_files()

    def in_files(self) -> int:
        """Read the manifest, then the folders and images of the test split by their names."""
        root, found = Path(self.config.target).parent, 0
        for look in (
            lambda: pd.read_csv(self.config.target),
            lambda: list((root / "test" / "1").iterdir()),
            lambda: (root / "test" / "1" / "000.png").read_bytes(),
        ):
            try:
                look()
                found += 1
            except PermissionError as error:
                assert "keeps labels out of reach" in str(error)
        return found

    def score(self, x: Tensor) -> Scores:
        """Add to the brightness what can be seen of labels, or of folders named by them."""
        return Scores(x.mean((1, 2, 3)) + 100 * in_memory() + 10 * in_paths())


class Broken(Method):
    """Fail in training."""

    Config = PlantedConfig

    def fit(self, batches: Iterable[Tensor]) -> None:
        """Fail."""
        raise RuntimeError("the plan\nwas bad")


def labels(table: pd.DataFrame) -> int:
    """Count what a table tells of validation and test images: their rows, and labels at all."""
    known = {"split", "label"} <= set(table.columns)
    if not known:
        return 0
    return int((table["split"].isin(["validation", "test"]) & table["label"].notna()).sum())


def in_memory() -> int:
    """Count the labels in all tables that this process holds."""
    return sum(labels(thing) for thing in gc.get_objects() if isinstance(thing, pd.DataFrame))


def in_paths() -> int:
    """Count the test images that are known to be abnormal by the folder they lie in."""
    tables = [thing for thing in gc.get_objects() if isinstance(thing, pd.DataFrame) and "path" in thing]
    return sum(int(table["path"].astype(str).str.contains("test/1/").sum()) for table in tables)


if __name__ == "__main__":
    given, out = sys.argv[1], Path(sys.argv[2])
    plain = api.train("planted", given, out / "plain", options={"target": given})
    api.score(plain, maps=False)
    settings = (("planted.target", given), ("broken.target", ""))
    run(Request(("planted", "broken", "gaussian"), (f"one={given}",), out / "bench", preset="tiny", settings=settings))
