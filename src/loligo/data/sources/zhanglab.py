"""Index the ZhangLab paediatric chest X-ray set (Kermany et al. 2018): ``{train,test}/{NORMAL,PNEUMONIA}``.

The official test folders are the test split and stay whole. Some normal patients of ``train`` are held out to
calibrate and, with some pneumonia patients, for the labelled validation of the papers' own protocol; no other
``train/PNEUMONIA`` image is listed. The 16 images of Kaggle's ``val`` folder are ignored, as in the papers.

A patient is the series and the number: ``IM-0115``, ``NORMAL2-IM-1412``, ``person100_bacteria``. The two
kinds of pneumonia are numbered apart. Taken with its kind, no number stands in both official splits, and the
numbers run on (bacteria: persons 1-77 train, 78-175 test, 253-1945 train); 170 bare numbers would stand in
both. Within train, bare numbers coincide as often as chance has it (807 times, expected 800, deviation 6.5).

Some 30 groups of files are identical byte by byte; none crosses the official splits.
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from loligo.data import manifest
from loligo.data.splits import arrange

CLASSES = {"NORMAL": 0, "PNEUMONIA": 1}
_PATIENT = re.compile(r"(?:NORMAL2-)?IM-\d+|person\d+_(?:bacteria|virus)")


def index(
    root: Path, *, calibration: float = 0.10, validation: float = 0.05, pneumonia: float = 0.05, seed: int = 0
) -> pd.DataFrame:
    """List the set; fractions are of patients.

    Raises ``FileNotFoundError`` for a missing class folder.

    Args:
        root: folder with train/ and test/
        calibration: fraction of train/NORMAL that is held out for p-values and threshold
        validation: fraction of train/NORMAL that becomes validation
        pneumonia: fraction of train/PNEUMONIA that becomes validation; 1 keeps all of it
        seed: of the split
    """
    root = manifest.absolute(root)
    rows = [row for split in ("train", "test") for name in CLASSES for row in _rows(root, split, name)]
    return manifest.check(
        arrange(
            pd.DataFrame(rows),
            normal={"calibration": calibration, "validation": validation},
            abnormal={"validation": pneumonia},
            seed=seed,
        )
    )


def _rows(root: Path, split: str, name: str) -> list[dict[str, object]]:
    """List one class folder."""
    if not (paths := manifest.images_in(root / split / name)):
        raise FileNotFoundError(f"no image in {root / split / name}; ZhangLab has {{train,test}}/{{NORMAL,PNEUMONIA}}")
    return [
        {
            "path": str(path),
            "split": split,
            "label": CLASSES[name],
            "patient": _patient(path) + " (test)" * (split == "test"),
            "source": "zhanglab",
        }
        for path in paths
    ]


def _patient(path: Path) -> str:
    """Read the patient from a file name. The same number in train and test is another patient's."""
    if not (found := _PATIENT.match(path.name)):
        raise ValueError(
            f"{path}: not a ZhangLab name (IM-0115-…, NORMAL2-IM-1412-…, person100_bacteria_…);"
            " index other images as source 'folder'"
        )
    return found.group()
