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
from loligo.data.neighbours import Neighbours
from loligo.data.preprocessing import WHITE
from loligo.detector import Detector
from loligo.reports.sheet.case import Case
from loligo.runs.run import Run
from loligo.types import Image, Prediction


def examine(run: Run, path: Path, *, device: str = "auto", false_alarm_rate: float | None = None) -> Case:
    """Return what a trained run says of the image file at ``path``.

    Raises ValueError, which names the file, where the image cannot be read, the training is not finished, or the score
    is not a number.
    """
    if io.kind(path) == "volume":
        raise ValueError(f"{path}: a sheet is of one image, not of a volume; use 'loligo score' and 'loligo report'")
    image, detector = io.read(path), Detector.load(run, device, false_alarm_rate)
    found = _predicted(detector, image)
    if found is None:
        raise ValueError(f"{path}: the run {run.folder} gives it a score or a map that is not a number; train it anew")
    rows, seen = run.manifest(), detector.preprocessing.image(image)[0, 0] / np.float32(WHITE)
    near = neighbours.search(seen, rows[rows["split"] == "train"], detector.preprocessing)
    return Case(
        image=image,
        method=run.method,
        run=run.folder.absolute().name,
        written=date.today(),
        calibration=detector.calibration,
        score=found.score,
        map=found.map,
        reconstruction=found.reconstruction,
        neighbours=near,
        normals=tuple(io.read(one) for one in near.paths) if near else (),
        seen=_seen(path, rows, near),
    )


def _predicted(detector: Detector, image: Image) -> Prediction | None:
    """Return what a detector says of an image; None where its score or its map is not finite."""
    try:
        (found,) = detector.predict([image])
    except ValueError:  # of a score that is not a number there is no p-value
        return None
    heat = found.network_map
    return found if np.isfinite(found.score) and (heat is None or np.isfinite(heat).all()) else None


def _seen(path: Path, rows: pd.DataFrame, near: Neighbours | None) -> Literal["", "train", "calibration"]:
    """Return in which split of the run an image stood: by its place, or, of training images, by its pixels."""
    own = os.path.realpath(path)
    splits = set(rows["split"][[os.path.realpath(known) == own for known in rows["path"]]])
    if "train" in splits or (near and near.same):
        return "train"
    return "calibration" if "calibration" in splits else ""
