"""Which abnormal images a weakly supervised method learns from, and that no other method is given any.

They are the images of the split `ABNORMAL`, or, where a manifest has none there, the abnormal ones of ``validation``:
there indexers put what they find in a folder of training images. They are part of the training then, so that they leave
validation, and other images of their patients leave the manifest.
"""

from __future__ import annotations

import pandas as pd

from loligo.data.splits import ABNORMAL


def given(rows: pd.DataFrame, weakly_supervised: bool) -> pd.DataFrame:
    """Return a checked manifest as a method is given it; what was given so already stays as it is."""
    named = rows["split"] == ABNORMAL
    if not weakly_supervised:
        return rows[~named].reset_index(drop=True)
    if named.any():
        return rows
    chosen = (rows["split"] == "validation") & (rows["label"] == 1).fillna(False)
    patients = set(rows.loc[chosen, "patient"]) - {""}
    left = (rows["split"] == "validation") & rows["patient"].isin(patients) & ~chosen
    return rows.assign(split=rows["split"].mask(chosen, ABNORMAL))[~left].reset_index(drop=True)
