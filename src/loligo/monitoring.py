"""Follow the studies of a site by what is measured of each, and keep the state of the drift alarm in a file."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from loligo.data import inputs
from loligo.data.dataset import Dataset
from loligo.detector import Detector
from loligo.drift import ALPHA, Drift
from loligo.files import locked
from loligo.runs.run import DIGEST, Run

log = logging.getLogger(__name__)
Floats = npt.NDArray[np.float64]

MEASURES = ("score", "brightness", "contrast", "sharpness")
"""What `measure` gives of a study, in this order."""

BATCH = 16
"""Images whose pixels memory holds at once."""


def follow(
    state: str | Path,
    run: Run | str | Path,
    data: str | Path | Sequence[str | Path] | pd.DataFrame,
    *,
    alpha: float | None = None,
    device: str = "auto",
) -> Drift:
    """Add the images ``data`` to the drift alarm in the file ``state``; where it is missing, begin it with them.

    Those that it begins with are the reference window; see `loligo.drift` for what that must be. ``data`` is a folder,
    files or a manifest as `loligo.score` takes them; each image counts as a study, and each is to be given once. Images
    of one call are added in random order, as the names of files say nothing of time. Raises ValueError where ``state``
    is none, or of other weights than those of ``run``.
    """
    state, run = Path(state), run if isinstance(run, Run) else Run.load(run)
    weights = str(run.about.get(DIGEST, ""))
    detector = Detector.load(run, device)
    images = detector.images(inputs.resolve(data, purpose="score").accepted())
    if len(images.rejected):
        log.warning("%d images cannot be read, the first: %s", len(images.rejected), ": ".join(images.rejected.iloc[0]))
    measured = measure(detector, images)
    with locked(state.parent):
        if not state.exists():
            drift = Drift.begin(measured, weights, ALPHA if alpha is None else alpha)
        elif (drift := Drift.load(state)).weights != weights:
            raise ValueError(f"{state} follows scores of other weights than those of {run.folder}; begin another file")
        else:
            for row in np.random.default_rng([drift.seed, drift.count, 1]).permutation(len(measured["score"])):
                drift.add({name: values[row] for name, values in measured.items()})
        drift.save(state)
    return drift


def measure(detector: Detector, data: Dataset) -> dict[str, Floats]:
    """Return `MEASURES` (R,) of the rows of a data set; see `measured`."""
    return measured(data, detector.scores(data))


def measured(data: Dataset, scores: Floats) -> dict[str, Floats]:
    """Return `MEASURES` (R,) of the rows of a data set, as the network sees them, given the raw score of each (R,).

    Besides the score, mean of the pixels, their standard deviation, and mean difference of neighbours below each other,
    all in [0, 1], of a volume in the mean over its slices. Scores alone may not tell: those of some methods hardly
    depend on exposure or contrast.
    """
    found: list[Floats] = []
    images = []
    for start in range(0, len(data), BATCH):
        pixels = data.images(np.arange(start, min(start + BATCH, len(data))))[:, 0].astype(np.float64)
        steps = np.abs(pixels[:, 1:] - pixels[:, :-1]).mean((1, 2))
        images.append(np.stack([pixels.mean((1, 2)), pixels.std((1, 2), ddof=1), steps], axis=1))
    rows = [np.bincount(data.row_of, column) / np.bincount(data.row_of) for column in np.concatenate(images).T]
    found = [scores, *rows]
    return {name: np.array([float(f"{x:.7g}") for x in values]) for name, values in zip(MEASURES, found, strict=True)}
