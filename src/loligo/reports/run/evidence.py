"""Gather what a scoring and its run hold for their report: each file once, None where it is missing."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from loligo.calibration import Calibration
from loligo.methods import marked
from loligo.runs.folder import RunFolder
from loligo.runs.scores import ScoreFolder


@dataclass(frozen=True)
class Evidence:
    """What a scoring and its run hold; a field is None where its file is missing."""

    folder: ScoreFolder
    scores: pd.DataFrame
    """Rows of the test split, or all where none is of it, as `ScoreFolder.read_scores` has them.

    The index counts the rows of scores.csv from 0.
    """
    config: dict[str, Any] | None
    history: pd.DataFrame | None
    metrics: dict[str, Any] | None
    calibration: Calibration | None
    rejected: pd.DataFrame | None

    @property
    def noun(self) -> str:
        """Say what was scored: images or volumes, by the names of their maps, which are ours."""
        volumes = self.scores["map"].str.endswith(".nii.gz").any() or "spacing" in (self.config or {}).get("data", {})
        return "volumes" if volumes else "images"

    @property
    def labelled(self) -> bool:
        """Say whether any label is known."""
        return bool(self.scores["label"].notna().any())

    @cached_property
    def gone(self) -> int:
        """Count the files that were scored and are no longer where they were."""
        return sum(not Path(path).is_file() for path in self.scores["path"])

    @property
    def method(self) -> str:
        """Name the method, and say where it is weakly supervised; empty where config.yaml is missing."""
        return marked(str((self.config or {}).get("method", "")))

    @property
    def voi(self) -> int:
        """Return the number of the VOI LUT or window by which the run shows DICOM radiographs."""
        found = ((self.config or {}).get("preprocessing") or {}).get("voi", 1)
        return found if isinstance(found, int) else 1

    def with_label(self, label: int | None) -> pd.DataFrame:
        """Return the rows labelled 0 or 1, or with None those without label."""
        column = self.scores["label"]
        return self.scores[column.isna() if label is None else (column == label).fillna(False)]


def read(folder: ScoreFolder) -> Evidence:
    """Read a scoring and its run.

    Raises ValueError, naming the file, where scores.csv is missing or any file is not what it should be.
    """
    try:
        run = folder.run
    except ValueError:  # it was moved away: the scores are still worth a page
        run = RunFolder(folder.path)
    scores = folder.read_scores()
    test = scores["split"] == "test"
    return Evidence(
        folder=folder,
        scores=scores[test] if test.any() else scores,
        config=run.read_config(),
        history=run.read_history(),
        metrics=folder.read_metrics(),
        calibration=Calibration.load(folder.calibration) if folder.calibration.is_file() else None,
        rejected=folder.read_rejected() if folder.rejected.is_file() else None,
    )
