"""Calibrate where normal images are few: every one is scored by a model that did not see it, and all of them train.

Cross-conformal calibration (Vovk 2015) with the model of all images in place of one a fold: its p-values err on the
safe side, since a model of fewer images scores normal ones a little higher. docs/lab/2026-11-cross-conformal.md measures
that.
"""

from __future__ import annotations

import json
import logging

import numpy as np
import torch

from loligo.calibration import Calibration
from loligo.data.dataset import Dataset
from loligo.data.splits import folds
from loligo.detector import Detector
from loligo.files import write_json
from loligo.methods.contract import ALONE, Method, Reduce
from loligo.runs.run import Run
from loligo.training import loop

FOLDS = 10
"""Folds where a method takes one pass and normal images are few."""
log = logging.getLogger(__name__)


def is_for(method: type[Method], normals: int, held_out: float, false_alarm_rate: float) -> bool:
    """Say whether it is worth while by itself: one pass over the images, of which a part is too few for the rate."""
    return method.phases is Method.phases and round(held_out * normals) + 1 < 1 / false_alarm_rate


def calibrate(run: Run, normals: Dataset, device: str = "auto", reduce: Reduce = ALONE) -> Calibration:
    """Return the calibration of a run by a model a fold; a fold that was finished is not trained again.

    Images of one patient are in one fold. The first process writes.
    """
    fold = folds(normals.rows, run.folds, run.train.seed).to_numpy()
    found = []
    for number in range(run.folds):
        own = np.flatnonzero(fold == number)
        if len(own):
            found.append(_fold(run, normals, own, number, device, reduce))
    scores, peaks = (np.concatenate([one[part] for one in found]) for part in (0, 1))
    return Calibration.of(scores, peaks, run.false_alarm_rate, run.folds)


def _fold(run: Run, normals: Dataset, own: np.ndarray, number: int, device: str, reduce: Reduce) -> list[list[float]]:
    """Return scores and peaks of the rows ``own`` by a model of the others."""
    done = run.folder / "folds" / f"{number}.json"
    if done.is_file():
        return list(json.loads(done.read_text(encoding="utf-8")))
    others = np.setdiff1d(np.arange(len(normals.rows)), own)
    torch.manual_seed(run.train.seed)
    model = run.new_model()
    loop.fit(model, normals.subset(others), run.train, precision=run.precision, reduce=reduce, progress=False)
    found = [part.tolist() for part in Detector.of(run, model.eval(), device).measure(normals.subset(own))]
    if reduce.rank == 0:
        write_json(found, done)
    return found
