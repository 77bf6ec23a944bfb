"""The drift alarm over the studies that the link scores: it follows from what the queue holds of each, in its order.

A study's measures stand there by the transaction that keeps its results, once; so no kill counts one twice or leaves
one out, and whoever reads the queue comes to the same state.
"""

from __future__ import annotations

import hashlib
import json
import threading
from typing import Self

import numpy as np

from loligo.detector import Detector
from loligo.drift import Drift
from loligo.pacs.store import Store
from loligo.runs.run import DIGEST, Run

WINDOW = 100
"""Studies that the others are compared with: the first that were scored by a model."""


def model(detector: Detector) -> str:
    """Name a detector by its weights and the normals that it is calibrated on: another one begins the alarm anew."""
    run = detector.settings
    weights = str(run.about.get(DIGEST, "")) if isinstance(run, Run) else ""
    scores = np.ascontiguousarray(detector.calibration.scores, "<f8").tobytes()
    return hashlib.sha256(weights.encode() + scores).hexdigest()


class Alarm:
    """The state of the alarm as far as the queue was read; threads may share it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.drift: Drift | None = None
        """None until the reference window is full."""
        self._model, self._window, self._last = "", list[dict[str, float]](), 0
        self._reading = threading.Lock()

    def update(self) -> Self:
        """Read the studies that are new."""
        with self._reading:
            for number, name, measured in self.store.measured(self._last):
                if name != self._model:
                    self.drift, self._model, self._window = None, name, []
                self._add(json.loads(measured))
                self._last = number
        return self

    def _add(self, study: dict[str, float]) -> None:
        if self.drift:
            self.drift.add(study)
            return
        self._window.append(study)
        if len(self._window) == WINDOW:
            reference = {measure: [one[measure] for one in self._window] for measure in study}
            self.drift = Drift.begin(reference, self._model)

    @property
    def studies(self) -> int:
        """Count the studies of this model, those of the reference window among them."""
        return self.drift.count if self.drift else len(self._window)

    @property
    def told(self) -> str:
        """Say in one line how things stand."""
        if self.drift:
            return f"{self.studies} studies; {self.drift.told}"
        return f"drift: {self.studies} of the first {WINDOW} studies, with which the others will be compared"
