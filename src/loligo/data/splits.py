"""Deal patients to splits: the same seed gives the same split, whatever the row order or the folder."""

from __future__ import annotations

import hashlib
import os.path
from collections.abc import Mapping
from pathlib import PurePath

import pandas as pd

SPLITS = ("train", "calibration", "validation", "test")


def hold_out(frame: pd.DataFrame, split: str, fraction: float, seed: int) -> pd.DataFrame:
    """Move a ``fraction`` in [0, 1) of the ``train`` patients to ``split``; other rows stay as they are.

    A row without a patient counts as a patient of its own. A fraction above 0 moves one patient at least;
    raises ``ValueError`` where that would leave none in ``train``.
    """
    train = frame["split"] == "train"
    frame = frame.copy()
    frame.loc[train, "split"] = deal(patients(frame)[train], {split: fraction}, seed, rest="train")
    return frame


def arrange(
    frame: pd.DataFrame,
    *,
    normal: Mapping[str, float],
    abnormal: Mapping[str, float],
    seed: int,
) -> pd.DataFrame:
    """Split the ``train`` rows of a labelled source, of which only wholly normal patients may train.

    ``normal`` and ``abnormal`` give the share of patients that each other split takes. Patients with even one
    row that is not labelled 0 are left out of the result where no share takes them. Other rows stay.
    """
    keys, train = patients(frame), frame["split"] == "train"
    mixed = train & keys.isin(keys[train & (frame["label"] != 0)])
    frame = frame.copy()
    frame.loc[train & ~mixed, "split"] = deal(keys[train & ~mixed], normal, seed, rest="train")
    frame.loc[mixed, "split"] = deal(keys[mixed], abnormal, seed, rest="left out")
    return frame[frame["split"] != "left out"].reset_index(drop=True)


def deal(keys: pd.Series[str], shares: Mapping[str, float], seed: int, *, rest: str) -> pd.Series[str]:
    """Give each patient key (N,) a split: the ``shares`` in [0, 1] of the distinct keys, and ``rest``."""
    ranked = sorted(keys.unique(), key=lambda key: hashlib.sha256(f"{seed}:{key}".encode()).digest())
    dealt: dict[str, str] = {}
    for split, share in shares.items():
        _check_share(split, share)
        count = max(1, round(share * len(ranked))) if share and ranked else 0
        dealt |= dict.fromkeys(ranked[len(dealt) :][:count], split)
    if rest == "train" and ranked and len(dealt) == len(ranked):
        raise ValueError(
            f"{len(ranked)} patient(s) are too few to hold out {dict(shares)} and still train;"
            " add images or make the fractions smaller"
        )
    return keys.map(lambda key: dealt.get(key, rest))


def patients(frame: pd.DataFrame) -> pd.Series[str]:
    """Name each row's patient (N,): the known one, else the path below the folder that all rows share."""
    folders = [str(PurePath(path).parent) for path in frame["path"]]
    shared = os.path.commonpath(folders) if folders else ""
    own = frame["path"].map(lambda path: f"file {PurePath(path).relative_to(shared).as_posix()}")
    known = frame["patient"].fillna("").astype(str)
    return own.where(known == "", "patient " + known)


def _check_share(split: str, share: float) -> None:
    """Raise for a split that does not exist or a share outside [0, 1]."""
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is not one of {', '.join(SPLITS)}")
    if not 0 <= share <= 1:
        raise ValueError(f"fraction {share} for {split} is outside [0, 1]")
