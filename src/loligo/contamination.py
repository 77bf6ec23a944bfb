"""Training-set contamination: how well a method ranks when some of the images that it takes for normal are abnormal.

The training set keeps its size: normals, sampled by seed, are replaced by abnormal images, which the method cannot tell
from the others: they are rows of the split train without label, named in the column ``contaminant`` for readers alone.
Calibration and test stay clean. Samples are nested: the abnormal images of one rate are among those of a higher one.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from loligo import api, methods
from loligo.data import inputs, manifest
from loligo.evaluation import results
from loligo.experiment import complete
from loligo.reports.common import figures
from loligo.runs.run import Run
from loligo.runs.scores import scorings
from loligo.runs.settings import FALSE_ALARM_RATE, HELD_OUT, Settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

RATES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
KEY = ["method", "rate", "seed"]
COLUMNS = [*KEY, "n_train", "n_abnormal", *(name for name in results.COLUMNS if name not in KEY)]


def contaminate(
    method: str,
    data: api.Paths | pd.DataFrame,
    abnormal: api.Paths | pd.DataFrame,
    out: str | Path,
    *,
    rates: Sequence[float] = RATES,
    seeds: Sequence[int] = (0,),
    preset: str | None = None,
    options: dict[str, Any] | None = None,
    train: dict[str, Any] | None = None,
    preprocessing: dict[str, Any] | None = None,
    false_alarm_rate: float = FALSE_ALARM_RATE,
) -> pd.DataFrame:
    """Train, score and evaluate ``method`` on training sets of each contamination rate, by each seed.

    ``data`` and ``options`` are as in `api.train`; the test split must hold both kinds. ``abnormal`` is a manifest, a
    folder or files: of it count the images labelled 1, or all where a folder or files know no label, but for those that
    ``data`` tests or calibrates on. Their patients leave the validation split of ``data``. Where there are too few of
    them for the highest rate, all rates train on equally fewer images, which is logged.

    Each run is a run folder ``out/METHOD/rate_0.10_seed_0``; finished ones are not made again. ``out`` keeps
    contamination.csv, a row a run (clean protocol), and contamination.png, a curve a method that stands there. Returns
    the rows of ``method``. Raises ValueError for unfit data, and for an image that cannot be read: counts are exact.
    """
    _check_rates(rates)
    if methods.weakly_supervised(method):
        raise ValueError(f"{method} is given abnormal images to train on; contamination is of methods without any")
    if isinstance(data, pd.DataFrame):
        rows = data
    else:
        rows = inputs.resolve(data, purpose="train").with_calibration(HELD_OUT, seed=0).accepted()
    rows = manifest.check(rows)
    _check_test(rows)
    pool = candidates(abnormal, rows)
    rows = rows[~((rows["split"] == "validation") & _of_same(rows, pool))]
    normals = int((rows["split"] == "train").sum())
    size = training_size(normals, len(pool), max(rates))
    if size < normals:
        log.warning(
            f"there are {len(pool)} abnormal images: enough for a rate of {len(pool) / normals:.3g} of the {normals} "
            f"training images, not for {max(rates):g}; every rate trains on {size} images"
        )
    for seed, rate in itertools.product(dict.fromkeys(seeds), sorted(set(rates))):
        folder = Path(out) / method / f"rate_{rate:.2f}_seed_{seed}"
        settings = Settings.of(method, preset, options, (train or {}) | {"seed": seed}, preprocessing, false_alarm_rate)
        run = Run.new(folder, settings)
        _run(run, mixed(rows, pool, size, rate, seed), rate, Path(out) / "contamination.csv")
    table = results.read(Path(out) / "contamination.csv").sort_values(KEY)
    figures.save({"contamination": draw(table)}, Path(out))
    return table[table["method"] == method].reset_index(drop=True)


def _check_rates(rates: Sequence[float]) -> None:
    """Raise unless there is a rate, each is in [0, 1), and no two would take one folder."""
    if not rates or not all(0 <= rate < 1 for rate in rates):
        raise ValueError(f"rates are {list(rates)}; at least one is needed, each from 0 to below 1, such as 0.1")
    if len({f"{rate:.2f}" for rate in rates}) < len(set(rates)):
        raise ValueError(f"rates are {list(rates)}; they must differ by a hundredth at least")


def _check_test(rows: pd.DataFrame) -> None:
    """Raise, before hours of training, where the test split cannot tell how well images are ranked."""
    kinds = rows.loc[rows["split"] == "test", "label"].dropna()
    if set(kinds) != {0, 1}:
        raise ValueError(
            f"the test split has {int((kinds == 0).sum())} images labelled normal (0) and {int((kinds == 1).sum())} "
            "abnormal (1); both kinds are needed to measure"
        )


def candidates(abnormal: api.Paths | pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the images that may contaminate, as rows path, patient, source; see `contaminate` for which they are.

    ``rows`` is the checked manifest that they are to contaminate. ValueError where there is none.
    """
    found = abnormal if isinstance(abnormal, pd.DataFrame) else inputs.resolve(abnormal, purpose="score").accepted()
    found, listed = manifest.check(found), isinstance(abnormal, pd.DataFrame) or _is_manifest(abnormal)
    chosen = found if found["label"].isna().all() and not listed else found[found["label"] == 1]
    kept = rows.loc[rows["split"].isin(("calibration", "test")), "path"]
    free = chosen[~chosen["path"].isin(kept)]
    if free.empty:
        raise ValueError(
            f"of {len(found)} images given as abnormal {len(chosen)} are (label 1), and {len(chosen) - len(free)} of "
            "those stand in calibration or test of the data; give some that do not, such as its validation images"
        )
    return free[["path", "patient", "source"]].reset_index(drop=True)


def _is_manifest(paths: api.Paths) -> bool:
    return isinstance(paths, str | Path) and Path(paths).suffix.lower() in manifest.MANIFEST_SUFFIXES


def _of_same(rows: pd.DataFrame, pool: pd.DataFrame) -> pd.Series[bool]:
    """Say which rows are images of ``pool``, or of its patients: (N,) bool."""
    known = pool.loc[pool["patient"] != "", "patient"]
    return rows["path"].isin(pool["path"]) | rows["patient"].isin(known)


def training_size(normals: int, abnormal: int, rate: float) -> int:
    """Return the largest number of training images, at most ``normals``, of which that rate can be abnormal."""
    return next(size for size in range(normals, -1, -1) if round(rate * size) <= abnormal)


def mixed(rows: pd.DataFrame, pool: pd.DataFrame, size: int, rate: float, seed: int) -> pd.DataFrame:
    """Return the manifest ``rows`` with ``size`` training images, of which that rate is sampled from ``pool``.

    The images of ``pool`` stand in train without label or mask, with 1 in the column ``contaminant``, 0 elsewhere. The
    same seed and order of rows give the same images. Raises ValueError where one of their patients stands in
    calibration or test.
    """
    random, count = np.random.default_rng(seed), round(rate * size)
    normals = random.permutation(np.flatnonzero(rows["split"] == "train"))[: size - count]
    chosen = np.sort(random.permutation(len(pool))[:count])
    keep = (rows["split"] != "train").to_numpy(copy=True)
    keep[normals] = True
    added = pool.iloc[chosen].assign(split="train", label=pd.array([pd.NA] * count, dtype="Int64"), contaminant=1)
    return manifest.check(pd.concat([rows[keep].assign(contaminant=0), added], ignore_index=True))


def _run(run: Run, rows: pd.DataFrame, rate: float, path: Path) -> None:
    """Train, score and evaluate a run, as far as that was not done, and keep its row in the table at ``path``."""
    run = complete(run, rows, strict=True)
    key = {"method": run.method, "rate": rate, "seed": run.train.seed}
    known = path.exists() and results.matching(results.read(path), key).any()
    if known and any(one.metrics.exists() for one in scorings(run.folder)):
        return
    scored = api.score(run, maps="none").attrs["folder"]
    measured = results.row(run, api.evaluate(scored), "clean")
    counts = {"n_train": int((rows["split"] == "train").sum()), "n_abnormal": int(rows["contaminant"].sum())}
    results.replace(path, pd.DataFrame([measured | key | counts], columns=COLUMNS), key)
    abnormal = f"{counts['n_abnormal']} of {counts['n_train']} training images abnormal"
    log.info(f"{run.method}, seed {run.train.seed}, {abnormal}: AUC {measured['auc']:.3f}")


@figures.styled
def draw(table: pd.DataFrame) -> Figure:
    """Draw the AUC against the rate of abnormal training images: a line a method through the means of its seeds,

    and of each run a point with its 95 % interval, moved aside a little where they would hide each other.
    """
    figure, (axes,) = figures.panels(1, 1, 6.4, 4.4)
    runs = list(table.groupby(["method", "seed"]))
    colours = dict(zip(sorted(set(table["method"])), itertools.cycle(figures.PHASES)))
    for i, ((method, _), rows) in enumerate(runs):
        aside = 0.7 * (i - (len(runs) - 1) / 2)
        spans = [rows["auc"] - rows["auc_low"], rows["auc_high"] - rows["auc"]]
        axes.errorbar(100 * rows["rate"] + aside, rows["auc"], spans, fmt="o", markersize=4, color=colours[method])
    for method, rows in table.groupby("method"):
        means, seeds = rows.groupby("rate")["auc"].mean(), rows["seed"].nunique()
        label = f"{method!s} ({seeds} seed{'s' * (seeds > 1)})"
        axes.plot(100 * means.index, means, color=colours[method], label=label)
    axes.axhline(0.5, color="#777777", linestyle=":", label="chance")
    axes.set(xlabel="abnormal images in the training set (%)", ylabel="AUC (clean protocol, 95 % interval)")
    figure.legend(loc="outside upper center", ncols=4)
    return figure
