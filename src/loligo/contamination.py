"""Mixed training: how well a method ranks when a share of what it takes for normal is abnormal.

The training set keeps its size: normals, drawn by seed, give way to abnormal images, which the method cannot tell from
the others: they are rows of the split train without label, named in the column ``contaminant`` for readers alone.
Calibration and test stay clean. The draws are nested: the abnormal images of one share are among those of a larger one.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from loligo import api
from loligo.data import manifest
from loligo.evaluation import results
from loligo.experiment import complete
from loligo.reports.common import figures
from loligo.runs.run import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
KEY = ["method", "share", "seed"]
COLUMNS = [*KEY, "n_train", "n_abnormal", *(name for name in results.COLUMNS if name not in KEY)]


def contaminate(
    method: str,
    data: api.Paths | pd.DataFrame,
    abnormal: api.Paths | pd.DataFrame,
    out: str | Path,
    *,
    shares: Sequence[float] = SHARES,
    seeds: Sequence[int] = (0,),
    preset: str | None = None,
    options: dict[str, Any] | None = None,
    train: dict[str, Any] | None = None,
    preprocessing: dict[str, Any] | None = None,
) -> pd.DataFrame:
    """Train, score and evaluate ``method`` on training sets with each share of abnormal images, by each seed.

    ``data`` and ``options`` are as in `api.train`; the test split must hold both kinds. ``abnormal`` is a manifest, a
    folder or files: of it count the images labelled 1, or all where a folder or files know no label, but for those that
    ``data`` tests or calibrates on. Their patients leave the validation split of ``data``. Where there are too few of
    them for the largest share, all shares train on equally fewer images, and a line says so.

    Each run is a run folder ``out/METHOD/share_0.10_seed_0``; finished ones are not made again. ``out`` keeps
    contamination.csv, a row a run (clean protocol), and contamination.png, a curve a method that stands there. Returns
    the rows of ``method``. Raises ValueError for unfit data, and for an image that cannot be read: counts are exact.
    """
    _check_shares(shares)
    rows = data if isinstance(data, pd.DataFrame) else manifest.resolve(data, purpose="train").accepted()
    rows = manifest.check(rows)
    _check_test(rows)
    pool = candidates(abnormal, rows)
    rows = rows[~((rows["split"] == "validation") & _of_same(rows, pool))]
    normals = int((rows["split"] == "train").sum())
    size = training_size(normals, len(pool), max(shares))
    if size < normals:
        print(
            f"there are {len(pool)} abnormal images: enough for a share of {len(pool) / normals:.3g} of the {normals} "
            f"training images, not for {max(shares):g}; every share trains on {size} images"
        )
    for seed, share in itertools.product(dict.fromkeys(seeds), sorted(set(shares))):
        folder = Path(out) / method / f"share_{share:.2f}_seed_{seed}"
        run = api.plan(method, folder, preset, options or {}, (train or {}) | {"seed": seed}, preprocessing)
        _run(run, mixed(rows, pool, size, share, seed), share, Path(out) / "contamination.csv")
    table = results.read(Path(out) / "contamination.csv").sort_values(KEY)
    figures.save({"contamination": draw(table)}, Path(out))
    return table[table["method"] == method].reset_index(drop=True)


def _check_shares(shares: Sequence[float]) -> None:
    """Raise unless there is a share, each is in [0, 1), and no two would take one folder."""
    if not shares or not all(0 <= share < 1 for share in shares):
        raise ValueError(f"shares are {list(shares)}; at least one is needed, each from 0 to below 1, such as 0.1")
    if len({f"{share:.2f}" for share in shares}) < len(set(shares)):
        raise ValueError(f"shares are {list(shares)}; they must differ by a hundredth at least")


def _check_test(rows: pd.DataFrame) -> None:
    """Raise, before hours of training, where the test split cannot tell how well images are ranked."""
    kinds = rows.loc[rows["split"] == "test", "label"].dropna()
    if set(kinds) != {0, 1}:
        raise ValueError(
            f"the test split has {int((kinds == 0).sum())} images labelled normal (0) and {int((kinds == 1).sum())} "
            "abnormal (1); both kinds are needed to measure"
        )


def candidates(abnormal: api.Paths | pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the images that may be mixed in, as rows path, patient, source; see `contaminate` for which they are.

    ``rows`` is the checked manifest that they are mixed into. ValueError where there is none.
    """
    found = abnormal if isinstance(abnormal, pd.DataFrame) else manifest.resolve(abnormal, purpose="score").accepted()
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


def training_size(normals: int, abnormal: int, share: float) -> int:
    """Return the largest number of training images, at most ``normals``, of which a share can be abnormal."""
    return next(size for size in range(normals, -1, -1) if round(share * size) <= abnormal)


def mixed(rows: pd.DataFrame, pool: pd.DataFrame, size: int, share: float, seed: int) -> pd.DataFrame:
    """Return the manifest ``rows`` with ``size`` training images, of which a share is drawn from ``pool``.

    The images of ``pool`` stand in train without label or mask, with 1 in the column ``contaminant``, 0 elsewhere. The
    same seed and order of rows give the same images. Raises ValueError where one of their patients stands in
    calibration or test.
    """
    random, count = np.random.default_rng(seed), round(share * size)
    normals = random.permutation(np.flatnonzero(rows["split"] == "train"))[: size - count]
    drawn = np.sort(random.permutation(len(pool))[:count])
    keep = (rows["split"] != "train").to_numpy(copy=True)
    keep[normals] = True
    added = pool.iloc[drawn].assign(split="train", label=pd.array([pd.NA] * count, dtype="Int64"), contaminant=1)
    return manifest.check(pd.concat([rows[keep].assign(contaminant=0), added], ignore_index=True))


def _run(run: Run, rows: pd.DataFrame, share: float, path: Path) -> None:
    """Train, score and evaluate a run, as far as that was not done, and keep its row in the table at ``path``."""
    run = complete(run, rows, strict=True)
    key = {"method": run.method, "share": share, "seed": run.train.seed}
    known = path.exists() and results.matching(results.read(path), key).any()
    if known and (run.folder / "metrics.json").exists():
        return
    api.score(run, maps=False)
    measured = results.row(run, api.evaluate(run), "clean")
    counts = {"n_train": int((rows["split"] == "train").sum()), "n_abnormal": int(rows["contaminant"].sum())}
    results.replace(path, pd.DataFrame([measured | key | counts], columns=COLUMNS), key)
    told = f"{counts['n_abnormal']} of {counts['n_train']} training images abnormal"
    print(f"{run.method}, seed {run.train.seed}, {told}: AUC {measured['auc']:.3f}", flush=True)


@figures.styled
def draw(table: pd.DataFrame) -> Figure:
    """Draw the AUC against the share of abnormal training images: a line a method through the means of its seeds,

    and of each run a point with its 95 % interval, moved aside a little where they would hide each other.
    """
    figure, (axes,) = figures.panels(1, 1, 6.4, 4.4)
    runs = list(table.groupby(["method", "seed"]))
    colours = dict(zip(sorted(set(table["method"])), itertools.cycle(figures.PHASES)))
    for i, ((method, _), rows) in enumerate(runs):
        aside = 0.7 * (i - (len(runs) - 1) / 2)
        spans = [rows["auc"] - rows["auc_low"], rows["auc_high"] - rows["auc"]]
        axes.errorbar(100 * rows["share"] + aside, rows["auc"], spans, fmt="o", markersize=4, color=colours[method])
    for method, rows in table.groupby("method"):
        means, seeds = rows.groupby("share")["auc"].mean(), rows["seed"].nunique()
        label = f"{method!s} ({seeds} seed{'s' * (seeds > 1)})"
        axes.plot(100 * means.index, means, color=colours[method], label=label)
    axes.axhline(0.5, color="#777777", linestyle=":", label="guessing")
    axes.set(xlabel="abnormal images in the training set (%)", ylabel="AUC (clean protocol, 95 % interval)")
    figure.legend(loc="outside upper center", ncols=4)
    return figure
