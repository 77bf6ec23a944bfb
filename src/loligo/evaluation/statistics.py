"""How sure a benchmark's figures are: intervals by patient, average ranks, and whether p-values are calibrated."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import betabinom, friedmanchisquare, studentized_range

from loligo.calibration import Calibration
from loligo.evaluation import metrics

Floats = npt.NDArray[np.float64]

METRICS = ("auc", "ap", "accuracy", "f1", "sensitivity", "specificity", "sensitivity_at_95")
RATES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""Nominal false-alarm rates at which p-values are checked."""
_CHUNK = 4_000_000  # numbers at once: bounds the memory of a bootstrap


def measure(labels: npt.ArrayLike, scores: npt.ArrayLike, threshold: float) -> dict[str, float]:
    """Return each of `METRICS` of scores (N,) and labels (N,); a score at or above the threshold is an alarm."""
    return {
        "auc": metrics.roc_auc(labels, scores),
        "ap": metrics.average_precision(labels, scores),
        **metrics.confusion(labels, scores, threshold),
        "sensitivity_at_95": metrics.sensitivity_at_specificity(labels, scores, 0.95),
    }


def bootstrap(
    labels: npt.ArrayLike,
    scores: Sequence[npt.ArrayLike],
    thresholds: Sequence[float],
    patients: npt.ArrayLike | None = None,
    *,
    times: int = metrics.RESAMPLES,
) -> dict[str, tuple[float, float]]:
    """Return (low, high) of each of `METRICS`, in the mean over one or more scores (N,) of the same images.

    ``scores`` are those of a method's seeds, ``thresholds`` one of each. Whole patients are resampled, images where
    ``patients`` (N,) is None, with a fixed seed and the same resamples for all scores; those that lack a class are left
    out. Where a metric is 0 or 1 in all resamples, the exact bound of a rate (Clopper & Pearson 1934) stands in, of as
    many trials as there are patients of the class that it is about; for the AUC that of `metrics.roc_auc_interval`. One
    patient of a class tells nothing of its spread: the interval is then 0 to 1.
    """
    checked = [metrics.check(labels, values) for values in scores]
    y, group = checked[0][0], metrics.members(patients, len(checked[0][0]))
    draws = [np.mean([_resampled(y, s, t, w) for (_, s), t in zip(checked, thresholds, strict=True)], axis=0)
             for w in _weights(group, times)]  # fmt: skip
    found = np.concatenate(draws, axis=1)  # (metrics, times)
    low, high = np.nanquantile(found, metrics.TAILS, axis=1)
    intervals = {name: (float(low[i]), float(high[i])) for i, name in enumerate(METRICS)}
    counts = [len(np.unique(group[np.isin(y, kinds)])) for kinds in ([0], [1], [0, 1])]
    if min(counts) < 2:
        return dict.fromkeys(METRICS, (0.0, 1.0))
    for name, (least, most) in intervals.items():
        if least == most and least in (0, 1):
            bound = metrics.TAILS[0] ** (1 / counts[{"specificity": 0, "accuracy": 2}.get(name, 1)])
            intervals[name] = (bound, 1.0) if least == 1 else (0.0, 1 - bound)
    if low[0] == high[0]:
        intervals["auc"] = metrics.roc_auc_interval(y, checked[0][1], patients)[1:]
    return intervals


def _weights(group: npt.NDArray[np.int64], times: int) -> Iterator[Floats]:
    """Yield how often each image is drawn, (t, N), in chunks of resamples."""
    draws = metrics.resamples(group, times)
    while chunk := list(itertools.islice(draws, max(1, _CHUNK // len(group)))):
        yield np.stack(chunk).astype(np.float64)


def _resampled(y: npt.NDArray[np.int64], s: Floats, threshold: float, weight: Floats) -> Floats:
    """Return each of `METRICS` (M, t) of images drawn ``weight`` (t, N) times; NaN in resamples that lack a class."""
    order = np.argsort(-s, kind="stable")
    ends = np.flatnonzero(np.r_[np.diff(s[order]) != 0, True])  # tied scores are one step
    hits, alarms = (np.cumsum(weight[:, order] * (y[order] == kind), axis=1)[:, ends] for kind in (1, 0))
    abnormal, normal = hits[:, -1:], alarms[:, -1:]
    new_hits, new_alarms = (np.diff(part, axis=1, prepend=0) for part in (hits, alarms))
    at = np.searchsorted(-s[order][ends], -threshold, side="right")  # steps at or above the threshold
    hit, alarm = (np.c_[np.zeros(len(part)), part][:, at] for part in (hits, alarms))
    with np.errstate(invalid="ignore", divide="ignore"):
        precise = np.where(new_hits > 0, new_hits * hits / (hits + alarms), 0)
        quiet = (normal - alarms) / normal >= 0.95
        found = np.stack(
            [
                (new_alarms * (hits - new_hits / 2)).sum(1) / (abnormal * normal)[:, 0],
                precise.sum(1) / abnormal[:, 0],
                (hit + normal[:, 0] - alarm) / (abnormal + normal)[:, 0],
                2 * hit / (hit + alarm + abnormal[:, 0]),
                hit / abnormal[:, 0],
                1 - alarm / normal[:, 0],
                np.where(quiet, hits, 0).max(1) / abnormal[:, 0],
            ]
        )
    found[:, ((abnormal == 0) | (normal == 0))[:, 0]] = np.nan
    return found


def ranks(aucs: pd.DataFrame) -> tuple[pd.Series[float], float, float]:
    """Rank methods by a table of AUCs, a row a data set and a column a method (Demsar 2006).

    Returns each method's average rank, best first (1 is best, ties get the mean), the critical difference of Nemenyi's
    test at 5 %, and the p of Friedman's test, NaN for fewer than three methods. Raises ValueError for fewer than two
    data sets or methods, or an AUC that is missing.
    """
    sets, count = aucs.shape
    if sets < 2 or count < 2:
        raise ValueError(f"there are {sets} data sets and {count} methods; ranks need two of each at least")
    if aucs.isna().any(axis=None):
        raise ValueError("an AUC is missing; ranks need every method on every data set")
    average = aucs.rank(axis=1, ascending=False).mean().sort_values(kind="stable")
    critical = studentized_range.ppf(0.95, count, np.inf) / np.sqrt(2) * np.sqrt(count * (count + 1) / (6 * sets))
    friedman = friedmanchisquare(*aucs.to_numpy().T).pvalue if count > 2 else np.nan
    return average, float(critical), float(friedman)


def false_alarms(calibration: npt.ArrayLike, normals: npt.ArrayLike, rates: Sequence[float] = RATES) -> pd.DataFrame:
    """Compare the fraction of test normals with p at most each nominal rate with what it should be.

    ``calibration`` (n,) and ``normals`` (m,) are raw scores. Columns: nominal; attainable, the largest k / (n + 1)
    within it; observed; low, high: where the observed fraction lies in 95 % of all cases if test normals are like
    those held out (beta-binomial: both sets are finite). Images count as independent.
    """
    known, values = Calibration.fit(calibration), np.asarray(normals, dtype=np.float64)
    n, m, p = len(known.scores), len(values), known.p_value(normals)
    rows = []
    for rate in rates:
        k = int(np.floor(rate * (n + 1) * (1 + 1e-12)))
        observed = float(np.mean(p <= k / (n + 1) * (1 + 1e-12)))
        rows.append((rate, k / (n + 1), observed, *_expected(m, k, n)))
    return pd.DataFrame(rows, columns=["nominal", "attainable", "observed", "low", "high"])


@functools.cache
def _expected(m: int, k: int, n: int) -> tuple[float, float]:
    """Return where the fraction of m normals lies that score above all but k - 1 of n others like them."""
    if not k:
        return 0.0, 0.0
    spread = betabinom(m, k, n + 1 - k)
    low, high = (float(spread.ppf(tail)) / m for tail in metrics.TAILS)
    return low, high


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for how many they are (Holm 1979), in the order given."""
    order = np.argsort(p_values, kind="stable")
    scaled = np.maximum.accumulate(np.asarray(p_values)[order] * (len(order) - np.arange(len(order))))
    found = np.empty(len(order))
    found[order] = np.minimum(scaled, 1)
    return [float(p) for p in found]
