"""The layout that the MOOD challenge's evaluation reads: sample/NAME.txt and pixel/NAME for each volume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from loligo.calibration import Calibration
from loligo.files import write_text
from loligo.io import nifti
from loligo.runs.scores import ScoreFolder

ENDINGS = (".nii", ".nii.gz")


def check(rows: pd.DataFrame, maps: bool) -> None:
    """Raise ValueError where `write` cannot write: where there are no volumes, no maps, or two volumes of one name."""
    names = rows["path"].map(lambda path: Path(path).name)
    if odd := [name for name in names if not name.lower().endswith(ENDINGS)]:
        raise ValueError(f"{odd[0]} is no NIfTI volume; the MOOD layout is for volumes alone")
    if not maps:
        raise ValueError("the MOOD layout holds the maps of volumes; score with maps")
    if (twice := names.duplicated()).any():
        raise ValueError(f"two volumes are named {names[twice].iloc[0]}; the MOOD layout knows volumes by their name")


def write(table: pd.DataFrame, folder: ScoreFolder, calibration: Calibration) -> None:
    """Write a number and a map for each volume of a table of scores.

    That evaluation cuts scores and maps off at 0 and 1. So both are bounded here in a way that keeps their order.
    """
    for path, file, score in zip(table["path"], table["map"], table["score"], strict=True):
        name, heat = Path(path).name, nifti.read(folder.artefact(file))
        write_text(f"{bounded((score - calibration.mean) / calibration.std)}\n", folder.path / "sample" / f"{name}.txt")
        voxels = bounded(calibration.heat(heat.voxels).astype(np.float64))  # float32 would not rise steadily
        nifti.write(folder.path / "pixel" / name, voxels.astype(np.float32), heat)


def bounded(x: Any) -> Any:
    """Map a number or an array into (0, 1), 0 to 0.5; steadily rising, and slower than a sigmoid to saturate."""
    return 0.5 + x / (2 * (1 + abs(x)))
