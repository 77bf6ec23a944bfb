"""Assign patients to splits: the same seed gives the same split, whatever the row order or the folder."""

from __future__ import annotations

import hashlib
import os.path
from collections.abc import Mapping
from pathlib import PurePath

import pandas as pd

ABNORMAL = "train_abnormal"
"""The split of abnormal images that weakly supervised methods learn from; no other method is given them."""
SPLITS = ("train", "calibration", "validation", "test", ABNORMAL)


def hold_out(
    frame: pd.DataFrame, split: str, fraction: float, seed: int, content: pd.Series[str] | None = None
) -> pd.DataFrame:
    """Move a ``fraction`` in [0, 1) of the ``train`` patients to ``split``; other rows stay as they are.

    A row without a patient counts as a patient of its own; patients of whom images share a ``content`` (N,) that is not
    empty count as one. A fraction above 0 moves one patient at least; raises ``ValueError`` where that would leave none
    in ``train``.
    """
    train = frame["split"] == "train"
    frame, keys = frame.copy(), patients(frame)[train]
    if content is not None:
        keys = joined(keys, content[train])
    frame.loc[train, "split"] = assign(keys, {split: fraction}, seed, rest="train")
    return frame


def joined(keys: pd.Series[str], content: pd.Series[str]) -> pd.Series[str]:
    """Give rows (N,) that share a key or a content, directly or through others, one key; an empty content is none."""
    same = content.where(content != "", keys)
    while True:
        least = keys.groupby(same).transform("min").groupby(keys).transform("min")
        if (least == keys).all():
            return keys
        keys = least


def arrange(
    frame: pd.DataFrame,
    *,
    normal: Mapping[str, float],
    abnormal: Mapping[str, float],
    seed: int,
) -> pd.DataFrame:
    """Split the ``train`` rows of a labelled source, of which only wholly normal patients may train.

    ``normal`` and ``abnormal`` give the fraction of patients that each other split takes. Patients with even one
    row that is not labelled 0 are left out of the result where no fraction takes them. Other rows stay.
    """
    keys, train = patients(frame), frame["split"] == "train"
    mixed = train & keys.isin(keys[train & (frame["label"] != 0)])
    frame = frame.copy()
    frame.loc[train & ~mixed, "split"] = assign(keys[train & ~mixed], normal, seed, rest="train")
    frame.loc[mixed, "split"] = assign(keys[mixed], abnormal, seed, rest="left out")
    return frame[frame["split"] != "left out"].reset_index(drop=True)


def assign(keys: pd.Series[str], fractions: Mapping[str, float], seed: int, *, rest: str) -> pd.Series[str]:
    """Give each patient key (N,) a split: the ``fractions`` in [0, 1] of the distinct keys, and ``rest``."""
    ranked = _ranked(keys, seed)
    assigned: dict[str, str] = {}
    for split, fraction in fractions.items():
        _check_fraction(split, fraction)
        count = max(1, round(fraction * len(ranked))) if fraction and ranked else 0
        assigned |= dict.fromkeys(ranked[len(assigned) :][:count], split)
    if rest == "train" and ranked and len(assigned) == len(ranked):
        names = ", ".join(["train", *(split for split, fraction in fractions.items() if fraction)])
        raise ValueError(
            f"{len(keys)} image(s) of {len(ranked)} patient(s) are too few to learn from: {names} need"
            f" {len(assigned) + 1} patients at least. Images of one patient, and copies of one image, stay together"
        )
    return keys.map(lambda key: assigned.get(key, rest))


def folds(frame: pd.DataFrame, count: int, seed: int, content: pd.Series[str]) -> pd.Series[int]:
    """Give each row (N,) one of ``count`` folds, 0 to count - 1, of equally many patients, as nearly as that goes.

    Images that share a ``content`` (N,) that is not empty are in one fold.
    """
    keys = joined(patients(frame), content)
    ranked = _ranked(keys, seed)
    return keys.map({key: place % count for place, key in enumerate(ranked)})


def _ranked(keys: pd.Series[str], seed: int) -> list[str]:
    """Return the distinct keys in an order that depends on themselves and the seed alone."""
    return sorted(keys.unique(), key=lambda key: hashlib.sha256(f"{seed}:{key}".encode()).digest())


def patients(frame: pd.DataFrame) -> pd.Series[str]:
    """Name each row's patient (N,): the known one, else the path below the folder that all rows share."""
    folders = [str(PurePath(path).parent) for path in frame["path"]]
    shared = os.path.commonpath(folders) if folders else ""
    own = frame["path"].map(lambda path: f"file {PurePath(path).relative_to(shared).as_posix()}")
    known = frame["patient"].fillna("").astype(str)
    return own.where(known == "", "patient " + known)


def _check_fraction(split: str, fraction: float) -> None:
    """Raise for a split that does not exist or a fraction outside [0, 1]."""
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is not one of {', '.join(SPLITS)}")
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction {fraction} for {split} is outside [0, 1]")
