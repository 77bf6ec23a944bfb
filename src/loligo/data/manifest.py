"""Read, write and check manifests: tables of images and what is known of each.

Columns are ``path, split, label, patient, mask, source`` and whatever else a source knows.
``split`` is train, calibration, validation, test or train_abnormal; ``label`` is 0 normal, 1 abnormal or empty (Int64
<NA>), in train_abnormal 1; ``patient``, ``mask`` and ``source`` are text, empty where unknown. Paths are absolute in
memory. Blanks around what stands in these columns do not count; splits and labels may be words such as Test, val,
normal and NORMAL.
"""

from __future__ import annotations

import logging
import os.path
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from loligo import io
from loligo.data import copies, folder_names, tables
from loligo.data.dataset import AllRejected
from loligo.data.splits import ABNORMAL, SPLITS, hold_out
from loligo.data.walk import is_hidden
from loligo.files import replacing
from loligo.names import some

REQUIRED, OPTIONAL = ("path", "split"), ("label", "patient", "mask", "source")
FILES = ("path", "mask")
MANIFEST_SUFFIXES = (".csv", ".parquet")

_LABELS = {"normal": 0, "abnormal": 1}

log = logging.getLogger(__name__)


class Listing(NamedTuple):
    """The images that were found, and the files that cannot be one."""

    rows: pd.DataFrame
    """A checked manifest."""
    rejected: pd.DataFrame
    """Columns path, reason: files that no reader takes, or that cannot be opened."""
    notes: tuple[str, ...] = ()
    """What folders were taken for, and what else a user should know; a line each."""

    def accepted(self) -> pd.DataFrame:
        """Return the rows; log the notes, and how many files of which kinds were passed over."""
        self.tell()
        _log(self.rejected)
        return self.rows

    def tell(self) -> None:
        """Log the notes."""
        for note in self.notes:
            log.warning("%s", note)

    def with_calibration(self, fraction: float, seed: int) -> Listing:
        """Return what is to be learnt from as normals, a fraction held out; see `as_normals`."""
        content = copies.find(self.rows["path"])
        rows = as_normals(self.rows, fraction, seed, content)
        return self._replace(rows=rows, notes=(*self.notes, *copies.notes(rows, content)))


def read(path: Path, split: str = "") -> pd.DataFrame:
    """Read and check a CSV or Parquet manifest; relative ``path`` and ``mask`` start at its own folder.

    Images of no split are of the one given. Raises ``FileNotFoundError``, or ``ValueError`` that names the manifest and
    what ``check`` found in it.
    """
    if not path.exists():
        raise FileNotFoundError(f"manifest {path} does not exist")
    _suffix(path)
    folder = absolute(path).parent
    try:
        frame = tables.read(path, (*REQUIRED, *OPTIONAL))
        for column in FILES:
            if column in frame:
                frame[column] = _text(frame[column]).map(lambda entry: _trimmed(entry, folder))
        frame = check(frame, split)
        for column in FILES:
            frame[column] = frame[column].map(lambda entry: str(absolute(folder / entry)) if entry else "")
        _check_rows(frame)  # again, as one file may have been listed as a.png and ./a.png
    except ValueError as error:
        said = str(error).removeprefix(f"{path}: ")
        raise ValueError(f"{path}: {said}") from error
    return frame


def write(frame: pd.DataFrame, path: Path) -> None:
    """Check and write a manifest as CSV or Parquet, by suffix; paths below its folder become relative."""
    frame, folder = check(frame), absolute(path).parent
    for column in FILES:
        frame[column] = frame[column].map(lambda entry: _below(folder, entry) if entry else "")
    suffix = _suffix(path)
    with replacing(path) as new:
        if suffix == ".csv":
            frame.to_csv(new, index=False)
        else:
            frame.to_parquet(new, index=False)


def check(frame: pd.DataFrame, split: str = "") -> pd.DataFrame:
    """Return a checked copy, optional columns filled with empty, ``label`` as Int64, index 0..N-1.

    Where a ``split`` is given, images of none are of that one.

    Raises ``ValueError`` for no rows, a missing column, an empty or repeated path, an unknown split or
    label, an abnormal image in train or calibration, and a patient in more than one split.
    """
    if missing := [name for name in REQUIRED if name not in frame and not (split and name == "split")]:
        raise ValueError(f"column {some(missing)} is missing; found {some(frame.columns)}")
    if frame.empty:
        raise ValueError("the manifest has no rows")
    frame = frame.reset_index(drop=True)
    for name in (*REQUIRED, *OPTIONAL):
        frame[name] = _text(frame[name]) if name in frame else ""
        if name not in FILES:
            frame[name] = frame[name].str.strip()
    frame["split"] = frame["split"].map({word: _split(word, split) for word in frame["split"].unique()})
    frame["label"] = _labels(frame["label"])
    frame["label"] = frame["label"].mask((frame["split"] == ABNORMAL) & frame["label"].isna(), 1)
    _check_rows(frame)
    _check_patients(frame)
    return frame


def sift(paths: Iterable[Path]) -> tuple[list[Path], pd.DataFrame]:
    """Return the files that a reader takes, by their content, and a table of the others: columns path, reason.

    The first file of a DICOM series in a folder stands for all of them.

    Raises ``AllRejected`` where there are files and none is left.
    """
    kept, rejected = [], []
    series: set[tuple[Path, str]] = set()
    for path in paths:
        try:
            if io.kind(path) == "volume" and (found := io.about(path)) and found.series:
                if (path.parent, found.series) in series:
                    continue
                series.add((path.parent, found.series))
            kept.append(path)
        except io.UnreadableImage as error:
            rejected.append((path, str(error).removeprefix(f"{path}: ")))
    table = rejection(rejected)
    if rejected and not kept:
        raise AllRejected(table)
    return kept, table


def rejection(found: Iterable[tuple[Path, str]]) -> pd.DataFrame:
    """Return a table of rejected files: columns path, reason."""
    rows = [(writable(path), reason) for path, reason in found]
    return pd.DataFrame(rows, columns=["path", "reason"], dtype=str)


def as_normals(
    rows: pd.DataFrame, calibration: float, seed: int, content: pd.Series[str] | None = None
) -> pd.DataFrame:
    """Label what is in train or calibration 0, and hold out a fraction where nothing is in calibration.

    Images of one patient or one ``content``, as `copies.find` tells it, are held out together. Where none of what would
    be held out can be read, it is left to train, which rejects it, and others are.
    """
    normal = rows["split"].isin(("train", "calibration"))
    rows = rows.assign(label=rows["label"].mask(normal, 0))
    if (rows["split"] == "calibration").any():
        return rows
    content = copies.find(rows["path"]) if content is None else content
    held = first = hold_out(rows, "calibration", calibration, seed, content)
    unfit = pd.Series(False, rows.index)
    while len(chosen := held.loc[held["split"] == "calibration", "path"]) and not any(map(_readable, chosen)):
        unfit |= rows["path"].isin(chosen)
        if (rows["split"][~unfit] == "train").sum() < 2:
            return first  # whoever loads them says what is wrong
        held = hold_out(rows[~unfit], "calibration", calibration, seed, content[~unfit])
    return pd.concat([held, rows[unfit]]).sort_index()


def _readable(path: str) -> bool:
    try:
        io.load(Path(path))
    except (ValueError, MemoryError):
        return False
    return True


def images_in(folder: Path) -> list[Path]:
    """List the files in a folder that a reader takes, by name, and log what was passed over; see `sift`."""
    kept, rejected = sift(path for path in sorted(folder.glob("*")) if not (is_hidden(path) or path.is_dir()))
    _log(rejected)
    return kept


def _log(rejected: pd.DataFrame) -> None:
    """Log how many files of which kinds were passed over."""
    if len(rejected):
        kinds = Counter(io.describe(Path(path)) for path in rejected["path"])
        said = ", ".join(f"{n} {kind}" for kind, n in kinds.most_common())
        first = f"{rejected['path'][0]}: {rejected['reason'][0]}"
        log.warning("%d files were passed over: %s; the first is %s", len(rejected), said, first)


def trained_on(rows: pd.DataFrame) -> set[tuple[str, Path]]:
    """Return split and absolute path of each image that trains or calibrates, by which two manifests are compared."""
    chosen = rows[rows["split"].isin(("train", "calibration", ABNORMAL))]
    return {(split, absolute(Path(path))) for split, path in zip(chosen["split"], chosen["path"], strict=True)}


def absolute(path: Path) -> Path:
    """Return the one way to write a path from the root: without ``.`` and ``..``, links as they are named."""
    return Path(os.path.abspath(path))  # noqa: PTH100  # resolve() would follow links


def is_below(path: str) -> bool:
    """Tell whether a relative path of a data set's own table leads nowhere but below its folder."""
    return not Path(path).is_absolute() and ".." not in Path(path).parts


def writable(path: Path) -> str:
    """Return a path as a table can hold it: with escapes where it is not UTF-8 or has a carriage return.

    No file has the name with escapes, so that loading rejects it, and it alone.
    """
    return str(path).encode("utf-8", "backslashreplace").decode("utf-8").replace("\r", "\\r")


def _suffix(path: Path) -> str:
    """Return the lower-case suffix of a manifest, or raise."""
    if (suffix := path.suffix.lower()) not in MANIFEST_SUFFIXES:
        raise ValueError(f"{path}: a manifest ends in {' or '.join(MANIFEST_SUFFIXES)}, not {path.suffix!r}")
    return suffix


def _below(folder: Path, entry: str) -> str:
    """Write ``entry`` relative to ``folder`` where it lies below it, else absolute."""
    path = absolute(Path(entry))
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def _text(column: pd.Series[str]) -> pd.Series[str]:
    """Turn a column into text, empty where it has no value; a number 7.0 is 7."""
    values = ["" if pd.isna(value) else value for value in column]
    whole = [int(value) if isinstance(value, float) and value % 1 == 0 else value for value in values]
    return pd.Series([str(value) for value in whole], column.index, dtype=object).astype(str)


def _trimmed(entry: str, folder: Path) -> str:
    """Take blanks around a path away, unless there is a file that has them."""
    return entry if entry == entry.strip() or (folder / entry).exists() else entry.strip()


def _split(word: str, default: str) -> str:
    """Return the split that a word means, or the word."""
    return (word.lower() if word.lower() in SPLITS else folder_names.read(word).split or word) or default


def _labels(text: pd.Series[str]) -> pd.Series[int]:
    """Return the labels as Int64 of 0, 1 and <NA>."""
    meaning: dict[str, Any] = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "": pd.NA}
    meaning |= {word: _LABELS.get(folder_names.read(word).kind) for word in text.unique() if word not in meaning}
    if wrong := sorted(word for word, label in meaning.items() if label is None):
        raise ValueError(f"label {some(wrong)} is not 0 (normal), 1 (abnormal) or empty (unknown)")
    return text.map(meaning).astype("Int64")


def _check_rows(frame: pd.DataFrame) -> None:
    """Raise for what is wrong with single rows."""
    if (empty := frame["path"] == "").any():
        raise ValueError(f"path is empty in {int(empty.sum())} row(s), the first is row {empty.argmax() + 1}")
    if (twice := frame["path"].duplicated()).any():
        raise ValueError(f"path stands in more than one row: {some(frame['path'][twice].unique())}")
    if unknown := set(frame["split"]) - set(SPLITS):
        raise ValueError(f"split {some(sorted(map(repr, unknown)))} is not one of {', '.join(SPLITS)}")
    if (sick := (frame["label"] == 1).fillna(False) & frame["split"].isin(("train", "calibration"))).any():
        raise ValueError(
            f"{int(sick.sum())} abnormal image(s) (label 1) in train or calibration,"
            f" which learn from normals alone: {some(frame['path'][sick])}; move them to validation or test,"
            f" or to {ABNORMAL}, from which weakly supervised methods alone learn"
        )
    if (well := (frame["label"] == 0).fillna(False) & (frame["split"] == ABNORMAL)).any():
        raise ValueError(
            f"{int(well.sum())} normal image(s) (label 0) in {ABNORMAL}: {some(frame['path'][well])};"
            " move them to train"
        )


def _check_patients(frame: pd.DataFrame) -> None:
    """Raise where a known patient stands in more than one split."""
    known = frame[frame["patient"] != ""]
    splits = known.groupby("patient")["split"].nunique()
    if len(shared := splits.index[splits > 1]):
        files = known.loc[known["patient"] == shared[0]].drop_duplicates("split")["path"].head(2)
        raise ValueError(
            f"{len(shared)} patient(s) stand in more than one split: {some(shared)}, the first with"
            f" {' and '.join(files)}; keep each in one"
        )
