"""Index CheXpert (Irvin et al. 2019), original or ``-small``: ``train.csv``, ``valid.csv`` and their folders.

An image is abnormal where any finding is positive, and normal where "No Finding" is positive, no finding is
uncertain and no support device is in view. Uncertain ones are treated as asked; the rest (a device alone,
nothing said) are left out. Devices are no disease, yet an image with them is no example of a plain chest.

Labels of ``train.csv`` were mined from reports, those of ``valid.csv`` are of radiologists: see ``labeller``.
Only patients of whom every row of ``train.csv``, in any view, is normal may train or calibrate. ``test`` is
``valid.csv``, which holds few PA views, and fractions of both kinds of ``train.csv`` patients. SQUID and SimSID
used lists of PA views of their own, so that numbers on this split are not theirs.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Literal, get_args

import pandas as pd

from loligo.data import manifest
from loligo.data.splits import arrange

View = Literal["PA", "AP", "frontal", "lateral"]
Uncertainty = Literal["exclude", "normal", "abnormal"]

NO_FINDING, DEVICES = "No Finding", "Support Devices"
FINDINGS = (
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
)
_COLUMNS = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", NO_FINDING, *FINDINGS, DEVICES)
_LABELLERS = {"train.csv": "reports", "valid.csv": "radiologists"}
_PATIENT = r"(patient\d+)"


def index(
    root: Path,
    *,
    view: View = "PA",
    uncertainty: Uncertainty = "exclude",
    calibration: float = 0.10,
    validation: float = 0.05,
    test: float = 0.05,
    seed: int = 0,
) -> pd.DataFrame:
    """List one view with columns sex, age (years), view, labeller; fractions are of train.csv patients.

    Raises ``FileNotFoundError`` without train.csv, and ``ValueError`` for an unknown option, a missing column, and a
    row whose path, view or finding is not one of CheXpert's: the message names the file and the row.

    Args:
        root: folder with train.csv
        view: which radiographs
        uncertainty: what an uncertain finding counts as
        calibration: fraction that is held out for p-values and threshold, of wholly normal patients
        validation: fraction that becomes validation, alike of wholly normal patients and of the others
        test: fraction that becomes test, likewise
        seed: of the split
    """
    _check_options(view, uncertainty)
    names = [name for name in _LABELLERS if name == "train.csv" or (root / name).is_file()]
    frame = pd.concat([_rows(manifest.absolute(root), name, uncertainty) for name in names], ignore_index=True)
    frame = arrange(
        frame,
        normal={"calibration": calibration, "validation": validation, "test": test},
        abnormal={"validation": validation, "test": test},
        seed=seed,
    )
    seen = frame["label"].notna() & ((frame["view"] == view) | (frame["side"] == view))
    return manifest.check(frame[seen].drop(columns="side"))


def _check_options(view: str, uncertainty: str) -> None:
    """Raise for an option that does not exist."""
    for name, value, allowed in (("view", view, View), ("uncertainty", uncertainty, Uncertainty)):
        if value not in get_args(allowed):
            raise ValueError(f"{name} {value!r} is not one of {', '.join(get_args(allowed))}")


def _rows(root: Path, name: str, uncertainty: Uncertainty) -> pd.DataFrame:
    """Read one CSV as manifest rows of every view, unlabelled ones among them."""
    if not (root / name).is_file():
        raise FileNotFoundError(f"{root / name} does not exist; give the folder that holds CheXpert's train.csv")
    table = _read(root / name)
    side = table["Frontal/Lateral"].str.lower()
    return pd.DataFrame(
        {
            "path": table["Path"].map(lambda path: str(root.joinpath(*PurePosixPath(path).parts[1:]))),
            "split": "train" if name == "train.csv" else "test",
            "label": _label(table, uncertainty),
            "patient": table["Path"].str.extract(_PATIENT, expand=False),
            "source": "chexpert",
            "sex": table["Sex"],
            "age": table["Age"],
            "view": table["AP/PA"].fillna(side),
            "side": side,
            "labeller": _LABELLERS[name],
        }
    )


def _read(path: Path) -> pd.DataFrame:
    """Read one CSV, its findings as numbers; ValueError for what would hide a patient, a view or a positive finding."""
    try:
        table = pd.read_csv(path, dtype=dict.fromkeys(("Path", "Frontal/Lateral", "AP/PA"), "str"))
    except ValueError as error:  # an empty file, columns that do not fit, another encoding
        raise ValueError(f"{path} is not a CSV table in UTF-8 ({error})") from error
    if missing := [column for column in _COLUMNS if column not in table]:
        raise ValueError(f"{path}: column {', '.join(missing)} is missing")
    paths = table["Path"].fillna("")
    _refuse(
        path, "Path", paths[paths.str.extract(_PATIENT, expand=False).isna()], "…/patient00001/study1/view1_frontal.jpg"
    )
    _refuse(path, "Path", paths[~paths.map(manifest.is_below)], "a path below the folder of this table")
    sides = table["Frontal/Lateral"].fillna("")
    _refuse(path, "Frontal/Lateral", sides[~sides.isin(("Frontal", "Lateral"))], "Frontal or Lateral")
    for column in (NO_FINDING, *FINDINGS, DEVICES):
        values = pd.to_numeric(table[column], errors="coerce")
        _refuse(path, column, table[column][table[column].notna() & ~values.isin((1, 0, -1))], "1, 0, -1 or blank")
        table[column] = values
    return table


def _refuse(path: Path, column: str, wrong: pd.Series[str], allowed: str) -> None:
    """Raise ValueError where values (N,) of a column are wrong; their index is the row."""
    if len(wrong):
        row = int(wrong.index[0]) + 2  # the header is row 1
        raise ValueError(
            f"{path}: {column} of row {row} is {wrong.iloc[0]!r}, {len(wrong)} such rows; allowed is {allowed}"
        )


def _label(table: pd.DataFrame, uncertainty: Uncertainty) -> pd.Series[int]:
    """Fold the 14 observations of 1, 0, -1 or blank into one label (N,) Int64."""
    findings = table[list(FINDINGS)]
    positive = (findings == 1).any(axis=1)
    uncertain = ~positive & (findings == -1).any(axis=1)
    bare = ~table[DEVICES].isin((1, -1))
    label = pd.Series(pd.NA, index=table.index, dtype="Int64")
    label[bare & ~positive & ~uncertain & (table[NO_FINDING] == 1)] = 0
    label[positive] = 1
    if uncertainty == "abnormal":
        label[uncertain] = 1
    elif uncertainty == "normal":
        label[uncertain & bare] = 0
    return label
