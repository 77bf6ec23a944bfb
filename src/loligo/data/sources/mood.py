"""Index the data of the MOOD challenge (Zimmerer et al. 2022), volumes in NIfTI files: brain MRI and abdominal CT.

Below ``root`` lie ``brain/`` and ``abdom/``, or one of them is ``root`` itself::

    brain_train/*.nii.gz                          normal
    toy/toy_0.nii.gz                              the test split
    toy_label/sample/toy_0.nii.gz.txt             0 or 1
    toy_label/pixel/toy_0.nii.gz                  its mask

All values lie in [0, 1], those of the CT too. Brains are to be trained with the window ``brain``, abdomens with
``unit``, each region by itself; `check_window` refuses another. Each volume is a patient of its own, named by region
and file. Some training volumes are held out to calibrate and for validation, which therefore holds normals alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import pandas as pd

from loligo.config import WindowName
from loligo.data import manifest
from loligo.data.splits import arrange
from loligo.io import stem

Region = Literal["all", "brain", "abdom"]
REGIONS = ("brain", "abdom")
WINDOWS: dict[str, WindowName] = {"mood_brain": "brain", "mood_abdom": "unit"}
"""The window of each source."""


def index(
    root: Path, *, region: Region = "all", calibration: float = 0.10, validation: float = 0.05, seed: int = 0
) -> pd.DataFrame:
    """List one row a volume, source mood_brain or mood_abdom; fractions are of each region's training volumes.

    Raises ``FileNotFoundError`` where there is no training volume, or a toy case lacks its label, and
    ``ValueError`` for an unknown region, a label that is neither 0 nor 1, and toy cases of which region is unclear.

    Args:
        root: folder of the challenge's data
        region: brain, abdom or all
        calibration: fraction that is held out for p-values and threshold
        validation: fraction that becomes validation
        seed: of the split
    """
    if region not in get_args(Region):
        raise ValueError(f"region {region!r} is not one of {', '.join(get_args(Region))}")
    wanted = REGIONS if region == "all" else (region,)
    folders = {name: found for name in wanted if (found := _folder(manifest.absolute(root), name))}
    if not folders:
        names = " or ".join(f"{name}_train" for name in wanted)
        raise FileNotFoundError(f"no {names} in {root} or below; give the folder that holds MOOD's brain/ and abdom/")
    held = {"calibration": calibration, "validation": validation}
    parts = [arrange(_rows(found, name), normal=held, abnormal={}, seed=seed) for name, found in folders.items()]
    return manifest.check(pd.concat(parts, ignore_index=True))


def check_window(rows: pd.DataFrame, window: WindowName) -> None:
    """Raise ``ValueError`` where rows of a manifest are of a MOOD region that has another window.

    Values in [0, 1] do not give it away: a CT would pass for a brain.
    """
    found = rows["source"] if "source" in rows else pd.Series(dtype=str)
    for source, count in found[found.isin(WINDOWS)].value_counts().items():
        if WINDOWS[str(source)] != window:
            others = "; index one region and train on it alone" if found.nunique() > 1 else ""
            raise ValueError(
                f"{count} volumes are of {source}, whose window is {WINDOWS[str(source)]!r}, not {window!r};"
                f" set preprocessing.window={WINDOWS[str(source)]}{others}"
            )


def _folder(root: Path, region: str) -> Path | None:
    """Find the folder of a region, which holds its training folder."""
    return next((path for path in (root / region, root) if (path / f"{region}_train").is_dir()), None)


def _rows(folder: Path, region: str) -> pd.DataFrame:
    """List the training and the toy volumes of one region."""
    if not (train := manifest.images_in(folder / f"{region}_train")):
        raise FileNotFoundError(f"no volume in {folder / f'{region}_train'}")
    toys = manifest.images_in(folder / "toy")
    if toys and all((folder / f"{name}_train").is_dir() for name in REGIONS):
        raise ValueError(f"{folder} holds both regions and one toy folder, unclear whose; give each its own folder")
    rows = [_row(path, region, "train", 0) for path in train]
    return pd.DataFrame(rows + [_row(path, region, "test", _label(path)) for path in toys])


def _row(path: Path, region: str, split: str, label: int) -> dict[str, object]:
    """Describe one volume; the mask of a normal one is empty of marks and is not listed."""
    mask = path.parents[1] / "toy_label" / "pixel" / path.name
    return {
        "path": str(path),
        "split": split,
        "label": label,
        "patient": f"{region} {stem(path)}",
        "mask": str(mask) if label and mask.is_file() else "",
        "source": f"mood_{region}",
    }


def _label(path: Path) -> int:
    """Read whether a toy case is abnormal."""
    folder = path.parents[1] / "toy_label" / "sample"
    file = next((found for name in (path.name, stem(path)) if (found := folder / f"{name}.txt").is_file()), None)
    if file is None:
        raise FileNotFoundError(f"{folder / path.name}.txt does not exist; it must say whether {path} is abnormal")
    if (text := file.read_text(encoding="utf-8").strip()) not in ("0", "1"):
        raise ValueError(f"{file} says {text[:20]!r}; 0 (normal) or 1 (abnormal) is allowed")
    return int(text)
