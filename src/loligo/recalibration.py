"""Calibrate a trained run on normal images of another site: new p-values, threshold and map colours, the same weights.

A threshold holds for images made like those that it was set by. At another hospital that is normal images from there:
split conformal prediction again, with them as the calibration set.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from loligo.calibration import Calibration
from loligo.data import inputs, manifest, neighbours
from loligo.data.dataset import Dataset
from loligo.data.reference import Reference
from loligo.detector import Detector
from loligo.files import replacing
from loligo.runs.folder import RunFolder
from loligo.runs.run import Run

LEAST = 10
"""Different normal images of a site below which there is no calibration."""
log = logging.getLogger(__name__)


def recalibrate(
    run: Run | str | Path,
    data: str | Path | Sequence[str | Path] | pd.DataFrame,
    out: str | Path,
    *,
    shift: bool = False,
    false_alarm_rate: float | None = None,
    strict: bool = False,
    device: str = "auto",
) -> Run:
    """Write a run folder ``out`` with the method of ``run``, calibrated on the normal images ``data`` of another site.

    ``data`` is a folder, files or a manifest, as `loligo.score` takes them, all of them normal but what a label calls
    abnormal, which is left out. ``out`` is complete in itself, with the training rows of the run's manifest and the
    new calibration rows; ``run`` stays as it is. What `unfit` names is listed in rejected.csv. With n images left no
    p-value falls below 1 / (n + 1); with ``shift``, the run's own calibration scores are kept and moved to the mean of
    the new ones instead, which rests on an assumption: see `Calibration.shifted`. Raises ValueError where ``out`` is
    taken, or fewer than `LEAST` images are left; FileNotFoundError and `AllRejected` as `loligo.score`.
    """
    run, out = run if isinstance(run, Run) else Run.load(run), Path(out)
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise ValueError(f"{out} is there already, and nothing is written over; name a folder that is new or empty")
    rate = run.false_alarm_rate if false_alarm_rate is None else false_alarm_rate
    detector = Detector.load(run, device, rate)
    rows, rejected = _normals(data, strict)
    normals, known = detector.images(rows, strict), run.manifest()
    why = unfit(normals, known, detector.reference)
    kept = normals.subset(np.flatnonzero(why == ""))
    left_out = normals.rows[["path"]].assign(reason=why)[why != ""]
    if len(kept.rows) < LEAST:
        others = f"; {len(left_out)} more cannot be used, the first: {': '.join(left_out.iloc[0])}" if any(why) else ""
        raise ValueError(
            f"{len(kept.rows)} different normal images of a site are too few; give {LEAST} or more{others}"
        )
    values, peaks = detector.measure(kept)
    new = Calibration.of(values, peaks, rate)
    if shift:
        own = detector.calibration.shifted(values).at(rate)
        new = replace(own, typical_peak=new.typical_peak, map_scale=new.map_scale)
    unread = pd.concat([rejected, normals.rejected, left_out], ignore_index=True)
    with replacing(out) as folder:
        folder.mkdir()
        there = replace(run, folder=folder, false_alarm_rate=rate, folds=None, about=dict(run.about))
        _write(there, run, new, len(unread))
        files = RunFolder(folder)
        manifest.write(_manifest(known, kept.rows), files.manifest)
        files.write_rejected(unread)
        if detector.reference:
            detector.reference.with_calibration(kept).save(files.reference)
    return Run.load(out)


def _normals(data: str | Path | Sequence[str | Path] | pd.DataFrame, strict: bool) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows that may be normal as a calibration split, and the files that no reader takes."""
    found = inputs.resolve(data, purpose="score")
    found.tell()
    if strict and len(found.rejected):
        raise ValueError(f"{found.rejected['path'][0]}: {found.rejected['reason'][0]}")
    abnormal = (found.rows["label"] == 1).fillna(False)
    if abnormal.all():
        raise ValueError(f"all {len(abnormal)} images are labelled abnormal; a site is calibrated on normal ones")
    if count := int(abnormal.sum()):
        log.warning("%d of %d images are labelled abnormal and left out", count, len(abnormal))
    rows = found.rows[~abnormal].reset_index(drop=True)
    return rows.assign(split="calibration", label=pd.array([0] * len(rows), "Int64")), found.rejected


def unfit(normals: Dataset, known: pd.DataFrame, reference: Reference | None) -> npt.NDArray[np.object_]:
    """Return why each image (R,) tells nothing of a site, empty where it does: trained on, a copy, or out of scope.

    ``known`` is the manifest of the run, by which paths and patients that it trained on are known, ``reference`` what
    it remembers of their contents. Images that the run was calibrated on are new to the method, and do.
    """
    train = known[known["split"] == "train"]
    paths, patients = set(train["path"]), set(train["patient"]) - {""}
    of_patient = normals.rows["patient"].isin(patients)
    seen = reference.seen(normals) if reference else ("",) * len(normals.rows)
    out_of_scope = normals.not_scored
    digests = pd.Series(neighbours.measured(normals).digests)
    twice = digests.duplicated() | (pd.Series(normals.contents).duplicated() if any(normals.contents) else False)
    reasons = []
    for row, path in enumerate(normals.rows["path"]):
        if seen[row] == "train" or path in paths:
            reasons.append("the run was trained on it")
        elif of_patient[row]:
            reasons.append("the run was trained on an image of its patient")
        elif twice[row]:
            reasons.append("it is a copy of another one")
        else:
            reasons.append(out_of_scope[row])
    return np.array(reasons, object)


def _manifest(known: pd.DataFrame, normals: pd.DataFrame) -> pd.DataFrame:
    """Return the run's manifest with other calibration rows; what is tested on is neither of them nor of a patient."""
    patients = set(normals["patient"]) - {""}
    ours = known["path"].isin(normals["path"]) | known["patient"].isin(patients) | (known["split"] == "calibration")
    return pd.concat([known[~ours], normals], ignore_index=True)


def _write(new: Run, run: Run, calibration: Calibration, rejected: int) -> None:
    """Write all that a folder needs but its tables: weights, configuration, and, last, the calibration."""
    for name in ("model", "history", "epochs"):
        _link(getattr(run.files, name), getattr(new.files, name))
    data = {key: value for key, value in run.about["data"].items() if key != "contents"}
    new.about.update(
        data=data
        | {
            "calibration": calibration.shifted_by or len(calibration.scores),
            "rejected": rejected,
            "folds": 0,
            "false_alarm_rate": calibration.false_alarm_rate,
            "recalibrated_from": manifest.writable(manifest.absolute(run.folder)),
        }
    )
    new.save()
    calibration.save(new.files.calibration)


def _link(source: Path, target: Path) -> None:
    """Give a file, where there is one, a second name, or copy it: no file of a run is ever written in place."""
    if not source.is_file():
        return
    try:
        os.link(source, target)
    except OSError:  # another disk, or a file system without
        shutil.copyfile(source, target)
