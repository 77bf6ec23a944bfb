"""The layout that the MOOD challenge's evaluation reads: sample/NAME.txt and pixel/NAME for each volume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from loligo.calibration import Calibration
from loligo.files import write_text
from loligo.io import nifti
from loligo.runs.folder import RunFolder

FOLDERS = ("sample", "pixel")
ENDINGS = (".nii", ".nii.gz")


def check(rows: pd.DataFrame, maps: bool, folder: RunFolder) -> None:
    """Raise ValueError where `write` cannot write to ``folder``.

    That is where there are no volumes, no maps, two volumes of one name, or files in its place that no scoring wrote.
    """
    names = rows["path"].map(lambda path: Path(path).name)
    if odd := [name for name in names if not name.lower().endswith(ENDINGS)]:
        raise ValueError(f"{odd[0]} is no NIfTI volume; the MOOD layout is for volumes alone")
    if not maps:
        raise ValueError("the MOOD layout holds the maps of volumes; score with maps")
    if (twice := names.duplicated()).any():
        raise ValueError(f"two volumes are named {names[twice].iloc[0]}; the MOOD layout knows volumes by their name")
    ours = _written(folder)
    if foreign := [file for name in names for file in _pair(folder, name) if file.exists() and file not in ours]:
        raise ValueError(f"{foreign[0]} was not written by a scoring; choose another folder with --out")


def write(table: pd.DataFrame, folder: RunFolder, calibration: Calibration) -> None:
    """Write a number and a map for each volume of a table of scores, whose column ``mood`` holds their names.

    That evaluation cuts scores and maps off at 0 and 1. So both are bounded here in a way that keeps their order.
    """
    for name, file, score in zip(table["mood"], table["map"], table["score"], strict=True):
        heat = nifti.read(folder.artefact(file))
        sample, pixel = _pair(folder, name)
        write_text(f"{bounded((score - calibration.mean) / calibration.std)}\n", sample)
        voxels = bounded(heat.voxels.astype(np.float64) / calibration.map_scale)  # float32 would not rise steadily
        nifti.write(pixel, voxels.astype(np.float32), heat)


def sweep(folder: RunFolder) -> None:
    """Remove what `write` wrote, by the earlier table in ``folder``."""
    for file in _written(folder):
        file.unlink(missing_ok=True)


def _pair(folder: RunFolder, name: str) -> tuple[Path, Path]:
    """Return where the layout has the score and the map of the volume ``name``."""
    return folder.path / "sample" / f"{name}.txt", folder.path / "pixel" / name


def _written(folder: RunFolder) -> set[Path]:
    """Return the files of the layout that the table in ``folder`` says were written; no others are ours.

    The table may come from anybody: it can name nothing but volumes in folders that lie where they seem to.
    """
    if any((folder.path / name).is_symlink() for name in FOLDERS):
        return set()
    try:
        names: list[str] = list(folder.read_scores().get("mood", []))
    except ValueError:
        return set()
    bare = [name for name in names if Path(name).name == name and name.lower().endswith(ENDINGS)]
    return {file for name in bare for file in _pair(folder, name)}


def bounded(x: Any) -> Any:
    """Map a number or an array into (0, 1), 0 to 0.5; steadily rising, and slower than a sigmoid to saturate."""
    return 0.5 + x / (2 * (1 + abs(x)))
