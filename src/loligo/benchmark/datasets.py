"""Find a benchmark's data sets: any manifest, or a known set by its name."""

from __future__ import annotations

import hashlib
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from loligo.data import manifest
from loligo.data.entries import content_hash
from loligo.experiment import DATASETS
from loligo.names import nearest

SYNTHETIC = ("digit_anatomy", "toy_brains")
"""Data sets that are generated where no folder is given."""


@dataclass(frozen=True)
class Data:
    """A data set with what tells it from another one of its name."""

    name: str
    given: str
    """As it was named in the command."""
    rows: pd.DataFrame
    """The checked manifest, all splits."""
    digests: dict[str, str]
    """Hash of the content of each file, images and masks, by path."""

    def hash(self, rows: pd.DataFrame) -> str:
        """Name the content of rows of it: images, splits, labels, patients and masks, wherever the files lie."""
        whole = hashlib.sha256()
        for path, split, label, patient, mask in rows[["path", "split", "label", "patient", "mask"]].itertuples(
            index=False, name=None
        ):
            whole.update(f"{self.digests[path]} {split} {label} {patient} {self.digests.get(mask, '')}\n".encode())
        return whole.hexdigest()[:16]


def read(given: str, out: Path) -> Data:
    """Read NAME=PATH, PATH or NAME: a manifest, or the folder of a data set that `DATASETS` knows by name.

    The sets of `SYNTHETIC` need no folder: they are generated in ``out``. Raises ValueError for unknown names and for a
    test split with fewer than two normal or two abnormal images.
    """
    name, _, path = given.rpartition("=") if "=" not in given else given.partition("=")
    if not name and path.lower().endswith(manifest.MANIFEST_SUFFIXES):
        name = Path(path).stem
    elif not name:
        name, path = path, ""
    if not re.fullmatch(r"[\w.-]+", name):
        raise ValueError(f"{name!r} is no name of a data set: letters, digits, '.', '-' and '_' are allowed")
    rows = _rows(name, path, out)
    kinds = rows.loc[rows["split"] == "test", "label"].dropna()
    normal, abnormal = int((kinds == 0).sum()), int((kinds == 1).sum())
    if min(normal, abnormal) < 2:
        raise ValueError(
            f"{given}: the test split has {normal} images labelled normal (0) and {abnormal} abnormal (1); two of each "
            "are needed at least"
        )
    files = [path for path in (*rows["path"], *rows["mask"]) if path]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        digests = dict(zip(files, pool.map(digest, files), strict=True))
    return Data(name, given, rows, digests)


def digest(path: str) -> str:
    """Hash a file's content, wherever it lies; one that cannot be opened has no content."""
    try:
        return content_hash(Path(path))
    except ValueError:
        return "unreadable"


def _rows(name: str, path: str, out: Path) -> pd.DataFrame:
    if path.lower().endswith(manifest.MANIFEST_SUFFIXES):
        return manifest.read(Path(path))
    if name not in DATASETS:
        raise ValueError(f"there is no data set {name!r}; {nearest(name, DATASETS)}, or give NAME=manifest.csv")
    if not path and name not in SYNTHETIC:
        raise ValueError(f"{name} needs the folder that holds it: {name}=DIR")
    return DATASETS[name](Path(path) if path else out / "data" / name)
