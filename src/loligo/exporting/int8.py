"""Quantise an OpenVINO model to 8-bit whole numbers by NNCF, and refuse it where it ranks or flags otherwise.

Ranges of activations are measured on training images; the model is then calibrated anew on the images that the run was
calibrated on, so that its p-values are those of its own scores. It is kept where these rank as before and hardly one is
flagged that was not: `RANKS` and `FLAGS`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from loligo.data.dataset import Dataset
from loligo.detector import Detector
from loligo.exporting.formats import quiet
from loligo.runs.exported import beside
from loligo.runs.run import Run
from loligo.sessions import Session, library

MEASURED = 100
"""Training images by which ranges are measured, at most."""
RANKS, FLAGS = 0.98, 0.02
"""Spearman correlation with the scores in float32, at least, and part that is flagged otherwise, at most, over the
calibration images."""
LEAST = 20
"""Calibration images below which nothing can be said of ranks."""
BEFORE = "Round"
"""Type of the operation up to which a graph prepares images, which stays in float32."""


def quantise(path: Path, detector: Detector, run: Run) -> tuple[Detector, dict[str, Any]]:
    """Quantise the model at ``path`` in place; return its detector, calibrated anew, and what to say of it.

    Raises ValueError where the images to do so by are not at hand, or the model ranks or flags otherwise than before.
    """
    train, normals = (_at_hand(run, detector, split) for split in ("train", "calibration"))
    x = train.images(np.linspace(0, len(train) - 1, min(MEASURED, len(train))).round().astype(int))
    _write(path, x)
    session = Session.open(path, run.method_config)
    small = Detector(session, run, detector.preprocessing, reference=detector.reference)
    small = small.with_calibration(small.calibrate(normals, detector.calibration.false_alarm_rate))
    before, after = (one.scores(normals.distinct()) for one in (detector, small))
    ranks = float(spearmanr(before, after).statistic)
    flags = float(np.mean((before >= detector.calibration.threshold) != (after >= small.calibration.threshold)))
    if not (ranks >= RANKS and flags <= FLAGS):
        raise ValueError(
            f"{run.method} in int8 is not equal enough: over {len(before)} calibration images the ranks of its scores"
            f" correlate with those before by {ranks:.3f}, {RANKS} is needed, and {flags:.1%} are flagged otherwise,"
            f" {FLAGS:.0%} are allowed; export it without int8"
        )
    return small, {"int8": {"rank_correlation": round(ranks, 4), "flagged_otherwise": round(flags, 4)}}


def _at_hand(run: Run, detector: Detector, split: str) -> Dataset:
    """Return the images of a split; ValueError where they are too few or have gone."""
    rows = run.at_hand(split)
    if run.spacing or len(rows) < LEAST:
        what = "it is of volumes" if run.spacing else f"{len(rows)} {split} images of the run are at hand"
        raise ValueError(f"int8 is checked on {LEAST} images or more of each split, and {what}; export it without int8")
    return detector.images(rows.iloc[np.linspace(0, len(rows) - 1, min(len(rows), 5 * MEASURED)).astype(int)])


def _write(path: Path, x: np.ndarray) -> None:
    """Quantise what a file holds by images (N, C, S, S); products of matrices, such as distances, stay in float32."""
    nncf, openvino = library("nncf", "openvino"), library("openvino", "openvino")
    model = openvino.Core().read_model(path)
    model.reshape({"pixels": [-1, *x.shape[1:]], "white": [-1]})
    items = [{"pixels": one[None], "white": np.ones(1, np.float32)} for one in x]
    exact = nncf.IgnoredScope(names=_preparing(model), types=["MatMul"], validate=False)
    with quiet():
        quantised = nncf.quantize(model, nncf.Dataset(items), subset_size=len(items), ignored_scope=exact)
    aside = beside(path, "_int8.xml")  # the file itself is still being read
    openvino.save_model(quantised, aside, compress_to_fp16=False)
    del model, quantised
    for end in (".xml", ".bin"):
        aside.with_suffix(end).replace(path.with_suffix(end))


def _preparing(model: Any) -> list[str]:
    """Return the names of the operations that prepare an image for the network."""
    names = []
    for node in model.get_ordered_ops():
        names.append(node.get_friendly_name())
        if node.get_type_name() == BEFORE:
            return names
    return []
