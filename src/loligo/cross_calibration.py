"""Calibrate where normal images are few: each is scored by one of several models that did not see it.

Of k folds of the normal images, the run keeps the model of all but the first fold. The first fold is scored by it, each
other one by a model of the rest. All scores calibrate: cross-conformal prediction (Vovk 2015) with one model in place
of k for new images, which must have learnt from as many images as those of the others.
docs/lab/2026-11-cross-conformal.md has the false alarms that this gives.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from loligo import methods, progress
from loligo.calibration import Calibration
from loligo.data.dataset import Dataset
from loligo.data.splits import folds
from loligo.detector import Detector
from loligo.files import write_json
from loligo.methods.contract import ALONE, Method, Reduce
from loligo.methods.declared import one_pass
from loligo.runs.run import Run
from loligo.training import loop

Floats = npt.NDArray[np.float64]
FOLDS = 10
"""Folds where a method takes one pass and normal images are few."""


def is_for(run: Run, normals: int) -> bool:
    """Say whether it is worth while by itself: one pass over the images, of which a part is too few for the rate."""
    return one_pass(methods.get(run.method)) and round(run.held_out * normals) + 1 < 1 / run.false_alarm_rate


@dataclass(frozen=True)
class Folds:
    """Normal images in folds."""

    normals: Dataset
    number: npt.NDArray[np.int64]
    """(R,) the fold of each row, from 0 on."""
    abnormal: Dataset | None = None
    """Abnormal images that every model learns from, where the method is weakly supervised."""

    @classmethod
    def of(cls, normals: Dataset, count: int, seed: int, abnormal: Dataset | None = None) -> Folds:
        """Divide images; those of one patient, and copies of one file, are in one fold.

        Raises ValueError where all of them would be.
        """
        content = pd.Series(normals.contents or "", normals.rows.index, dtype=str)
        number = np.asarray(folds(normals.rows, count, seed, content), np.int64)
        if not number.any():
            raise ValueError(f"all {len(number)} normal images are of one patient, or copies of one; folds need more")
        return cls(normals, number, abnormal)

    def split(self, number: int = 0) -> tuple[Dataset, Dataset]:
        """Return the images that a fold's model learns from, and the fold, which it does not see."""
        others, own = (np.flatnonzero(part) for part in (self.number != number, self.number == number))
        return self.normals.subset(others), self.normals.subset(own)

    def calibrate(self, run: Run, model: Method, first: Dataset, reduce: Reduce = ALONE) -> Calibration:
        """Return the calibration of a run whose ``model`` is that of the ``first`` fold.

        What was finished is not trained again. The first process writes.
        """
        count = int(self.number.max()) + 1
        found = [Detector.of(run, model, run.train.device).measure(first)]
        for number in progress.bar(
            range(1, count), total=count - 1, desc="calibrating", unit="fold", show=reduce.rank == 0
        ):
            found.append(self._fold(run, number, reduce))
        scores, peaks = (np.concatenate([one[part] for one in found]) for part in (0, 1))
        return Calibration.of(scores, peaks, run.false_alarm_rate, count)

    def _fold(self, run: Run, number: int, reduce: Reduce) -> tuple[Floats, Floats]:
        """Return scores and peaks of a fold by a model of the others, and keep them in the run folder."""
        done = run.folder / "folds" / f"{number}.json"
        if done.is_file():
            scores, peaks = (np.array(part, np.float64) for part in json.loads(done.read_text(encoding="utf-8")))
            return scores, peaks
        others, own = self.split(number)
        torch.manual_seed(run.train.seed)
        model = run.new_model()
        loop.fit(
            model,
            others,
            run.train,
            precision=run.precision,
            reduce=reduce,
            progress=False,
            abnormal=self.abnormal,
        )
        found = Detector.of(run, model.eval(), run.train.device).measure(own)
        if reduce.rank == 0:
            write_json([part.tolist() for part in found], done)
        return found


def tidy(run: Run) -> None:
    """Remove what single folds left, once the calibration is kept."""
    shutil.rmtree(run.folder / "folds", ignore_errors=True)
