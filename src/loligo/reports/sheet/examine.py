"""Score images one by one, and gather what the sheet of each shows beside the score."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from datetime import date
from functools import cached_property
from pathlib import Path

import numpy as np

from loligo import io
from loligo.data import manifest
from loligo.data.arrays import from_images
from loligo.data.neighbours import Neighbours, Training
from loligo.detector import Detector
from loligo.methods import marked
from loligo.reports.sheet.case import Case
from loligo.runs.run import Run
from loligo.runs.scores import ScoreFolder
from loligo.types import Image

log = logging.getLogger(__name__)


def flagged(folder: ScoreFolder) -> list[Path]:
    """Return the images that a scoring flagged, the most abnormal first; ValueError where there are none."""
    table = folder.read_scores()
    rows = table[table["flag"] == 1].sort_values("score", ascending=False, kind="stable")
    if rows.empty:
        raise ValueError(f"{folder.scores}: none of {len(table)} images is flagged; name the images to make sheets of")
    return [Path(path) for path in rows["path"]]


def each(examiner: Examiner, paths: Sequence[Path]) -> Iterator[Case]:
    """Yield what a run says of each file; of several, one that cannot be used is told as a warning.

    Raises ValueError where the only one, or all of them, cannot be used.
    """
    failed = 0
    for path in paths:
        try:
            yield examiner(_checked(path))
        except ValueError as error:
            if failed == len(paths) - 1:
                raise
            failed += 1
            log.warning("no sheet: %s", error)


def _checked(path: Path) -> Path:
    if (shown := manifest.writable(path)) != str(path):
        raise ValueError(f"{shown}: its name is not UTF-8 or has a carriage return; rename the file")
    if not path.is_file():
        raise ValueError(f"{path}: no such file; give an image or a volume")
    return path


class Examiner:
    """A trained run, read once, that says what it finds of one file after another."""

    def __init__(self, run: Run, *, device: str = "auto", false_alarm_rate: float | None = None) -> None:
        """Read the run, at its false-alarm rate or another; ValueError where its training is not finished."""
        self.run, self.detector = run, Detector.load(run, device, false_alarm_rate)
        self.rows = run.manifest()

    def __call__(self, path: Path) -> Case:
        """Return what the run says of the image or volume at ``path``.

        Raises ValueError, which names the file, where it cannot be read, or its score or map is not a number.
        """
        detector, voi = self.detector, self.detector.preprocessing.voi
        detector.preprocessing.headers.refuse_other(path)
        image = io.load(path, voi)
        data = detector.checked(from_images([image], detector.preprocessing))
        (prediction,) = detector.predictions(data)
        if prediction.network_map is not None and not np.isfinite(prediction.network_map).all():
            raise ValueError(f"{path}: the run {self.run.folder} gives it a map that is not a number; train it anew")
        near = self._near(data.images([0])[0, 0]) if isinstance(image, Image) else None
        return Case(
            image=image,
            method=marked(self.run.method),
            run=self.run.folder.absolute().name,
            written=date.today(),
            calibration=detector.calibration,
            score=prediction.score,
            map=prediction.map,
            reconstruction=prediction.reconstruction,
            neighbours=near,
            normals=tuple(io.read(one, voi) for one in near.paths) if near else (),
            warnings=prediction.warnings,
        )

    @cached_property
    def _training(self) -> Training | None:
        """Return the training images, as far as they are at hand."""
        return Training.load(self.rows[self.rows["split"] == "train"], self.detector.images)

    def _near(self, image: np.ndarray) -> Neighbours | None:
        return self._training.compare(image) if self._training else None
