"""The run folder on disk: the name of every artefact, and the one reader and the one writer of each table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from loligo.files import write_csv
from loligo.runs import tables


@dataclass(frozen=True)
class RunFolder:
    """Where everything that a training leaves lies, and what its tables hold."""

    path: Path

    @property
    def config(self) -> Path:
        """Method, options and costs of the run."""
        return self.path / "config.yaml"

    @property
    def model(self) -> Path:
        """The weights."""
        return self.path / "model.safetensors"

    @property
    def calibration(self) -> Path:
        """Raw scores of held-out normals, false-alarm rate and scale of maps; where it stands, the run is trained."""
        return self.path / "calibration.json"

    @property
    def reference(self) -> Path:
        """What is remembered of the training images, to compare new ones with."""
        return self.path / "reference.safetensors"

    @property
    def history(self) -> Path:
        """A row an epoch of the training."""
        return self.path / "history.csv"

    @property
    def checkpoint(self) -> Path:
        """All that the next epoch of the training depends on."""
        return self.path / "checkpoint" / "last.safetensors"

    @property
    def manifest(self) -> Path:
        """The images that the run was trained on, and those of its test."""
        return self.path / "manifest.csv"

    @property
    def rejected(self) -> Path:
        """A row a file that could not be used in training."""
        return self.path / "rejected.csv"

    @property
    def epochs(self) -> Path:
        """Scores of validation and test images after each epoch."""
        return self.path / "epochs.csv"

    @property
    def scorings(self) -> Path:
        """The folder that holds a folder a scoring; see `loligo.runs.scores`."""
        return self.path / "scores"

    def read_config(self) -> dict[str, Any] | None:
        """Read config.yaml as a mapping; None where it is missing."""
        return tables.optional(self.config, tables.mapping)

    def read_rejected(self) -> pd.DataFrame | None:
        """Read rejected.csv as text: path, reason; None where it is missing."""
        return tables.optional(self.rejected, tables.rejected)

    def write_rejected(self, rejected: pd.DataFrame) -> None:
        """Write rejected.csv: columns path, reason."""
        write_csv(rejected, self.rejected)

    def read_history(self) -> pd.DataFrame | None:
        """Read history.csv: epoch, phase, and numbers; no rows where nothing was logged, None where it is missing."""
        return tables.optional(self.history, tables.history)

    def write_history(self, rows: list[dict[str, Any]]) -> None:
        """Write history.csv, a row an epoch."""
        write_csv(pd.DataFrame(rows), self.history)

    def read_epochs(self) -> pd.DataFrame | None:
        """Read epochs.csv: path, split, label, patient, epoch, score; None where it is missing."""
        return tables.optional(self.epochs, tables.epochs)

    def append_epoch(self, rows: pd.DataFrame, epoch: int) -> None:
        """Add the rows of an epoch to epochs.csv; rows of it or later ones, left by a killed training, go."""
        tables.append_epoch(self.epochs, rows, epoch)
