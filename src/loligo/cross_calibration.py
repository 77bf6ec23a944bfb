"""Calibrate where normal images are few: every one is scored by a model that did not see it, and all of them train.

Cross-conformal calibration (Vovk 2015) with the model of all images in place of one a fold: its p-values err on the
safe side, since a model of fewer images scores normal ones a little higher; docs/lab/2026-11-cross-conformal.md has the
measurements.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

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
from loligo.methods.contract import ALONE, Reduce
from loligo.methods.declared import one_pass
from loligo.runs.run import Run
from loligo.training import loop

FOLDS = 10
"""Folds where a method takes one pass and normal images are few."""


def is_for(run: Run, normals: int) -> bool:
    """Say whether it is worth while by itself: one pass over the images, of which a part is too few for the rate."""
    return one_pass(methods.get(run.method)) and round(run.held_out * normals) + 1 < 1 / run.false_alarm_rate


def calibrate(run: Run, normals: Dataset, count: int, reduce: Reduce = ALONE) -> Calibration:
    """Return the calibration of a run by a model of each of ``count`` folds; what was finished is not trained again.

    Images of one patient, and copies of one file, are in one fold. The first process writes.
    """
    content = pd.Series(normals.contents, normals.rows.index, dtype=str)
    fold = folds(normals.rows, count, run.train.seed, content).to_numpy()
    found = []
    for number in progress.bar(np.unique(fold), total=count, desc="calibrating", unit="fold", show=reduce.rank == 0):
        found.append(_fold(run, normals, fold == number, run.folder / "folds" / f"{number}.json", reduce))
    scores, peaks = (np.concatenate([one[part] for one in found]) for part in (0, 1))
    return Calibration.of(scores, peaks, run.false_alarm_rate, len(found))


def tidy(run: Run) -> None:
    """Remove what single folds left, once the calibration is kept."""
    shutil.rmtree(run.folder / "folds", ignore_errors=True)


def _fold(
    run: Run, normals: Dataset, own: npt.NDArray[np.bool_], done: Path, reduce: Reduce
) -> Sequence[Sequence[float]]:
    """Return scores and peaks of the rows ``own`` (N,) by a model of the others, and keep them in the file ``done``."""
    if done.is_file():
        kept: list[list[float]] = json.loads(done.read_text(encoding="utf-8"))
        return kept
    torch.manual_seed(run.train.seed)
    model, others = run.new_model(), normals.subset(np.flatnonzero(~own))
    loop.fit(model, others, run.train, precision=run.precision, reduce=reduce, progress=False)
    detector = Detector.of(run, model.eval(), run.train.device)
    found = [part.tolist() for part in detector.measure(normals.subset(np.flatnonzero(own)))]
    if reduce.rank == 0:
        write_json(found, done)
    return found
