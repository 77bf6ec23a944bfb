"""One call an experiment: list a known data set, train on it, score, evaluate, report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from loligo.data import digit_anatomy, manifest, sources
from loligo.names import nearest

if TYPE_CHECKING:
    from loligo.runs.run import Run


def run(
    dataset: str,
    method: str,
    data: str | Path,
    out: str | Path,
    *,
    index: dict[str, Any] | None = None,
    preset: str | None = None,
    options: dict[str, Any] | None = None,
    train: dict[str, Any] | None = None,
    preprocessing: dict[str, Any] | None = None,
    false_alarm_rate: float = 0.05,
    results: str | Path | None = None,
) -> dict[str, Any]:
    """Train ``method`` on a data set of `DATASETS` that lies in ``data``, score its test split, evaluate and report.

    ``index`` are options of the data set's function, the others as in `api.train`; a row a protocol is added to the
    table (CSV) ``results``. A training that was cut off resumes; one that is finished is not repeated. Returns the
    metrics, as `api.evaluate` does. Raises ValueError for unknown names or unfit data.
    """
    from loligo import api  # here, as in `complete`: it imports slowly, and the command line needs DATASETS alone
    from loligo.runs.run import Run
    from loligo.runs.settings import Settings

    if dataset not in DATASETS:
        raise ValueError(f"there is no data set {dataset!r}; {nearest(dataset, DATASETS)}")
    planned = Run.new(out, Settings.of(method, preset, options, train, preprocessing, false_alarm_rate))
    rows = DATASETS[dataset](Path(data), **(index or {}))
    labels = rows.loc[rows["split"] == "test", "label"].value_counts().to_dict()
    if set(labels) != {0, 1}:
        raise ValueError(f"{data} has test labels {labels}; metrics need normal (0) and abnormal (1) images there")
    done = complete(planned, rows)
    scored = api.score(done).attrs["folder"]
    found = api.evaluate(scored, results)
    api.report(scored)
    return found


def complete(planned: Run, rows: pd.DataFrame, *, strict: bool = False) -> Run:
    """Train a planned run on a manifest, unless that was done; return the run as it stands on disk.

    The run keeps the manifest, whose validation and test may be others than before. Raises ValueError where it was
    trained on other images.
    """
    from loligo import api

    rows = planned.given(rows)
    if not planned.trained:
        api.train_run(planned, rows, strict=strict)
    elif manifest.trained_on(planned.manifest()) != manifest.trained_on(rows):
        raise ValueError(f"{planned.folder} was trained on other images; choose another folder, or remove it")
    else:
        manifest.write(rows, planned.folder / "manifest.csv")
    return type(planned).load(planned.folder)


def _digit_anatomy(
    root: Path, *, train: int | None = None, seed: int | None = None, mnist: Path | None = None
) -> pd.DataFrame:
    """Draw DigitAnatomy in the folder, unless it stands there, and list it.

    Args:
        root: folder to draw it in
        train: images to train on; else 1600, or as many as the set that stands there has. Others do not depend on it
        seed: of the images; else 0, or that of the set that stands there
        mnist: folder with MNIST idx files to draw the digits from; else those that scikit-learn carries
    """
    if not (root / "manifest.csv").exists():
        return digit_anatomy.write(root, train=1600 if train is None else train, seed=seed or 0, mnist=mnist)
    rows = _drawn(root, seed=seed, source=f"{digit_anatomy.SOURCE}_mnist" if mnist else None)
    if train is not None and (found := int((rows["split"] == "train").sum())) != train:
        raise ValueError(f"{root} holds a set of {found} images to train on, not {train}; choose another folder")
    return rows


def _toy_brains(root: Path, *, size: int | None = None, seed: int | None = None) -> pd.DataFrame:
    """Make toy brains in the folder, unless they stand there, and list them.

    Args:
        root: folder to write them to
        size: voxels a side of each volume; else 128, or that of the set that stands there
        seed: of the volumes; else 0, or likewise
    """
    if not (root / "manifest.csv").exists():
        from loligo.data import toy_brains  # here: it imports slowly

        return toy_brains.write(root, size=size or 128, seed=seed or 0)
    return _drawn(root, seed=seed, side=size)


def _drawn(root: Path, **asked: object) -> pd.DataFrame:
    """Read the manifest of a set that was drawn; ValueError where it was drawn with other settings."""
    rows = manifest.read(root / "manifest.csv")
    for name, value in asked.items():
        if value is not None and name in rows and (found := set(rows[name])) != {value}:
            raise ValueError(f"{root} holds a set of {name} {found.pop()}, not {value}; choose another folder")
    return rows


DATASETS: dict[str, Callable[..., pd.DataFrame]] = {
    **sources.SOURCES,
    "digit_anatomy": _digit_anatomy,
    "toy_brains": _toy_brains,
}
"""Functions that list a data set as a manifest with all its splits, by name."""
