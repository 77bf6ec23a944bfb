"""Keep labels from the processes of a cell, and put them to its scores when these can no longer change.

A file's folder, name, age and place in a list often tell its label. So a cell is handed copies of the images, named by
the rank of their content's hash and made in that order.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pandas as pd

from loligo import api
from loligo.benchmark.cells import Plan, seen_in_scoring, seen_in_training, select
from loligo.benchmark.request import Job
from loligo.data import manifest
from loligo.files import write_csv
from loligo.io import stem

MADE = ("split", "epoch", "score", "anomaly_score", "p_value", "flag", "map", "reconstruction", "overlay")
"""Columns of tables of scores that no column of a manifest may stand in for."""


def for_training(job: Job, made: Plan) -> pd.DataFrame:
    """Return what the training of a cell may see: its own rows with hidden paths and numbered patients."""
    seen = _hide(seen_in_training(select(made.cell, job.data.rows)), job, made.folder / "images" / "train")
    if made.cell.curve:  # contaminants stand last, and may be of another source
        seen = seen.sort_values("path", ignore_index=True).assign(source="")
    number = pd.Series(pd.factorize(seen["patient"])[0].astype(str), seen.index)
    return seen.assign(patient=number.where(seen["patient"] != "", ""))


def for_scoring(job: Job, made: Plan) -> pd.DataFrame:
    """Return what the scoring of a cell may see: hidden paths, in their order, and which of them are test images."""
    rows = seen_in_scoring(select(made.cell, job.data.rows))
    return _hide(rows, job, made.folder / "images" / "score").sort_values("path", ignore_index=True)


def _hide(rows: pd.DataFrame, job: Job, folder: Path) -> pd.DataFrame:
    """Copy the images of ``rows`` into ``folder``; return rows of the copies. A link would tell the file's age.

    An image that cannot be read stays away: the cell lists it among its rejected ones.
    """
    names = _names(rows["path"], job, folder)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path, name in names.items():
        if os.access(path, os.R_OK) and Path(path).is_file():
            shutil.copyfile(path, name)
    return rows.assign(path=rows["path"].map(names))


def _names(paths: pd.Series[str], job: Job, folder: Path) -> dict[str, str]:
    """Return the hidden path of each path, in their order."""
    order = sorted(range(len(paths)), key=lambda i: (job.data.digests[paths.iloc[i]], i))
    endings = (Path(path).name.removeprefix(stem(Path(path))) for path in paths.iloc[order])
    return {
        path: str(folder / f"{i:07d}{end}")
        for i, (path, end) in enumerate(zip(paths.iloc[order], endings, strict=True))
    }


def shown(job: Job, made: Plan, name: str) -> pd.DataFrame:
    """Read a table of raw scores, with the images' own paths, wherever they lie by now."""
    seen = seen_in_scoring(select(made.cell, job.data.rows))
    paths = {hidden: path for path, hidden in _names(seen["path"], job, made.folder / "images" / "score").items()}
    table = pd.read_csv(made.folder / "raw" / name)
    return table.assign(path=[paths[str(made.folder / "images" / "score" / Path(p).name)] for p in table["path"]])


def conceal(made: Plan) -> None:
    """Remove what `reveal` wrote, which it writes anew: a cell that is taken up again is not to see it."""
    for name in ("manifest.csv", "scores.csv", "epochs.csv", "rejected_test.csv", "metrics.json"):
        (made.folder / "run" / name).unlink(missing_ok=True)


def reveal(job: Job, made: Plan) -> dict[str, Any]:
    """Put the manifest's columns to the scores of a cell, evaluate them, and return what `evaluate` says."""
    sweep(made.folder)
    rows, run = select(made.cell, job.data.rows), made.folder / "run"
    known = rows.drop(columns=[column for column in MADE if column in rows])
    for name in ("scores.csv", "epochs.csv"):
        if (made.folder / "raw" / name).exists():
            table = shown(job, made, name)
            table = table.drop(columns=[c for c in known if c in table and c != "path"])
            kept = not (made.folder / "cell.json").exists()  # maps of a finished cell are gone, or go
            for column in ("map", "reconstruction", "overlay"):
                if column in table:
                    table[column] = [f"../raw/{n}" if kept and isinstance(n, str) else "" for n in table[column]]
            write_csv(table.merge(known, on="path", how="left", validate="m:1"), run / name)
    if (made.folder / "raw" / "rejected.csv").exists():
        write_csv(shown(job, made, "rejected.csv"), run / "rejected_test.csv")
    manifest.write(rows, run / "manifest.csv")
    return api.evaluate(run)


def sweep(folder: Path) -> None:
    """Remove what writes that a kill cut off have left in a folder."""
    for left in list(folder.rglob(".*")):
        shutil.rmtree(left, ignore_errors=True)
