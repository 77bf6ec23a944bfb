"""Score one image, and gather what its sheet shows beside the score."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path
from typing import Literal

import pandas as pd

from loligo import io
from loligo.calibration import Calibration
from loligo.data import cache, neighbours
from loligo.data.neighbours import Neighbours
from loligo.reports.sheet.case import Case
from loligo.runs.run import Run
from loligo.scoring import Scorer


def examine(run: Run, path: Path) -> Case:
    """Return what a trained run says of the image file at ``path``.

    Raises ValueError, which names the file, where the image cannot be read, the training is not finished, or the score
    is not a number.
    """
    if io.is_volume(path):
        raise ValueError(f"{path}: a sheet is of one image, not of a volume; use 'loligo score' and 'loligo report'")
    calibration = Calibration.load(run.folder / "calibration.json")
    size = run.method_config.size
    x = cache.load(pd.DataFrame({"path": [str(path)]}), size, strict=True, progress=False).batch([0])
    found = Scorer(run.model(), run.train.precision)(x)
    if not all(value is None or bool(value.isfinite().all()) for value in (found.image, found.map)):
        raise ValueError(f"{path}: the run {run.folder} gives it a score or a map that is not a number; train it anew")
    rows = run.manifest()
    near = neighbours.search(x[0, 0].numpy(), rows[rows["split"] == "train"])
    return Case(
        image=io.read(path),
        method=run.method,
        run=run.folder.absolute().name,
        written=date.today(),
        calibration=calibration,
        score=float(found.image[0]),
        map=None if found.map is None else found.map[0, 0].numpy(),
        reconstruction=None if found.reconstruction is None else found.reconstruction[0, 0].clamp(0, 1).numpy(),
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
