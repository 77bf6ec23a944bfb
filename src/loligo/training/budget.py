"""Turn a time into a number of epochs, by training on a few batches first."""

from __future__ import annotations

import dataclasses
import math

from loligo.data.dataset import Dataset
from loligo.runs.settings import Settings
from loligo.training import loop

TIMED_BATCHES = 4
"""Batches of an epoch that is timed."""


def epoch_seconds(settings: Settings, normals: Dataset, abnormal: Dataset | None = None) -> float:
    """Estimate the seconds of an epoch, in the mean over the phases by their fractions, from a few batches of each."""
    some = normals.subset(range(min(len(normals.rows), TIMED_BATCHES * settings.train.batch_size)))
    model = settings.new_model()
    phases = model.phases()
    total = sum(phase.fraction for phase in phases)
    twice = math.ceil(2 * total / min(phase.fraction for phase in phases))  # the first time warms up
    config = dataclasses.replace(settings.train, epochs=min(twice, 4 * len(phases)), steps=0)
    history = loop.fit(model, some, config, progress=False, abnormal=abnormal)
    speeds = history.groupby("phase")["images_per_s"].last()
    return float(sum(phase.fraction / total * len(normals) / speeds[phase.name] for phase in phases))
