"""Score one image, and gather what its sheet shows beside the score."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from loligo import io
from loligo.data import neighbours
from loligo.data.arrays import from_images
from loligo.data.neighbours import Neighbours
from loligo.detector import Detector
from loligo.reports.sheet.case import Case
from loligo.runs.run import Run


def examine(run: Run, path: Path, *, device: str = "auto", false_alarm_rate: float | None = None) -> Case:
    """Return what a trained run says of the image file at ``path``, at its false-alarm rate or another.

    Raises ValueError, which names the file, where the image cannot be read, the training is not finished, or the score
    is not a number.
    """
    if io.kind(path) == "volume":
        raise ValueError(f"{path}: a sheet is of one image, not of a volume; use 'loligo score' and 'loligo report'")
    detector, image = Detector.load(run, device, false_alarm_rate), io.read(path)
    data = from_images([image], detector.preprocessing)
    (prediction,) = detector.predictions(data)
    if prediction.network_map is not None and not np.isfinite(prediction.network_map).all():
        raise ValueError(f"{path}: the run {run.folder} gives it a map that is not a number; train it anew")
    rows = run.manifest()
    near = neighbours.search(data.batch([0])[0, 0].numpy(), rows[rows["split"] == "train"], detector.images)
    return Case(
        image=image,
        method=run.method,
        run=run.folder.absolute().name,
        written=date.today(),
        calibration=detector.calibration,
        score=prediction.score,
        map=prediction.map,
        reconstruction=prediction.reconstruction,
        neighbours=near,
        normals=tuple(io.read(one) for one in near.paths) if near else (),
        seen=_seen(path, rows, near),
    )


def _seen(path: Path, rows: pd.DataFrame, near: Neighbours | None) -> Literal["", "train", "calibration"]:
    """Return in which split of the run an image stood: by its place, or, of training images, by its pixels."""
    own = os.path.realpath(path)
    splits = set(rows["split"][[os.path.realpath(known) == own for known in rows["path"]]])
    if "train" in splits or (near and near.same):
        return "train"
    return "calibration" if "calibration" in splits else ""
