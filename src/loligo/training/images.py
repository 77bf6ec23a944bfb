"""The images of a training, through the cache."""

from __future__ import annotations

import pandas as pd

from loligo.data import cache
from loligo.data.dataset import Dataset
from loligo.data.sources import mood
from loligo.runs.settings import Settings


def load(settings: Settings, rows: pd.DataFrame, *, strict: bool = False) -> Dataset:
    """Load manifest rows as the method of a training or of a run sees them; see `data.cache.load`."""
    mood.check_window(rows, settings.preprocessing.window)
    return cache.load(rows, settings.preprocess(), strict=strict)
