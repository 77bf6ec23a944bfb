"""Metrics of ranking and of decisions: numpy in, float out. Labels are 0 normal and 1 abnormal; higher is abnormal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit
from scipy.stats import norm, rankdata
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

Floats = npt.NDArray[np.float64]
Interval = tuple[float, float, float]


def check(labels: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[npt.NDArray[np.int64], Floats]:
    """Return labels and scores (N,) as arrays; ValueError unless both kinds are there and all scores are finite."""
    y, s = np.asarray(labels, dtype=np.int64).ravel(), np.asarray(scores, dtype=np.float64).ravel()
    if len(y) != len(s):
        raise ValueError(f"there are {len(y)} labels and {len(s)} scores; one of each an image is needed")
    if set(np.unique(y)) != {0, 1}:
        raise ValueError(f"labels hold {np.unique(y).tolist()}; normal (0) and abnormal (1) are both needed")
    if not np.isfinite(s).all():
        raise ValueError(f"{(~np.isfinite(s)).sum()} of {len(s)} scores are not finite")
    return y, s


def roc_auc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Return the area under the ROC curve, ties counting half."""
    return float(roc_auc_score(*check(labels, scores)))


def roc_auc_interval(
    labels: npt.ArrayLike, scores: npt.ArrayLike, level: float = 0.95, groups: npt.ArrayLike | None = None
) -> Interval:
    """Return (AUC, low, high): DeLong's interval on the logit scale, or a bootstrap by ``groups`` (patients, (N,))."""
    y, s = check(labels, scores)
    auc = roc_auc(y, s)
    if groups is not None:
        return (auc, *_bootstrap(y, s, np.asarray(groups), level))
    deviation = np.sqrt(delong_variance(y, s))
    if not 0 < auc < 1 or deviation == 0:
        return auc, auc, auc
    half = norm.ppf((1 + level) / 2) * deviation / (auc * (1 - auc))
    return auc, float(expit(logit(auc) - half)), float(expit(logit(auc) + half))


def delong_variance(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Return the variance of the AUC (DeLong et al. 1988), by midranks (Sun & Xu 2014); 0 with one image of a kind."""
    y, s = check(labels, scores)
    positive, negative = s[y == 1], s[y == 0]
    m, n = len(positive), len(negative)
    ranks = rankdata(np.concatenate([positive, negative]))
    above = (ranks[:m] - rankdata(positive)) / n  # share of normals below each abnormal
    below = 1 - (ranks[m:] - rankdata(negative)) / m  # share of abnormals above each normal
    parts = [np.var(part, ddof=1) / len(part) for part in (above, below) if len(part) > 1]
    return float(sum(parts))


def _bootstrap(
    y: npt.NDArray[np.int64], s: Floats, groups: npt.NDArray[np.generic], level: float, times: int = 1000
) -> tuple[float, float]:
    """Resample whole groups, with a fixed seed; draws that lack a kind are left out."""
    random = np.random.default_rng(0)
    _, member = np.unique(groups, return_inverse=True)
    rows = np.split(np.argsort(member, kind="stable"), np.cumsum(np.bincount(member))[:-1])
    found = []
    for _ in range(times):
        chosen = np.concatenate([rows[i] for i in random.integers(len(rows), size=len(rows))])
        if len(np.unique(y[chosen])) == 2:
            found.append(roc_auc_score(y[chosen], s[chosen]))
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def average_precision(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Return the average precision of abnormal images."""
    return float(average_precision_score(*check(labels, scores)))


def confusion(labels: npt.ArrayLike, scores: npt.ArrayLike, threshold: float) -> dict[str, float]:
    """Return accuracy, F1, sensitivity and specificity where a score at or above the threshold is called abnormal."""
    y, s = check(labels, scores)
    called = s >= threshold
    hits, alarms = int((called & (y == 1)).sum()), int((called & (y == 0)).sum())
    abnormal, normal = int((y == 1).sum()), int((y == 0).sum())
    return {
        "accuracy": (hits + normal - alarms) / len(y),
        "f1": 2 * hits / (hits + alarms + abnormal),
        "sensitivity": hits / abnormal,
        "specificity": 1 - alarms / normal,
    }


def best_accuracy_threshold(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Return the score at or above which calling abnormal is most often right; the highest of equals."""
    y, s = check(labels, scores)
    false, true, thresholds = roc_curve(y, s, drop_intermediate=False)
    right = true * (y == 1).sum() + (1 - false) * (y == 0).sum()
    return float(thresholds[np.argmax(right)])


def pixel_metrics(maps: Sequence[npt.ArrayLike], masks: Sequence[npt.ArrayLike]) -> dict[str, float]:
    """Return AUROC, AP and the best Dice over all thresholds, of the pixels of all images together.

    Maps and masks are of equal shapes; memory is some 60 bytes a pixel.
    """
    s = np.concatenate([np.asarray(part, np.float32).ravel() for part in maps])
    y = np.concatenate([np.asarray(part, bool).ravel() for part in masks]).astype(np.int64)
    check(y, s)
    precision, recall, _ = precision_recall_curve(y, s)
    dice = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    return {
        "auroc": float(roc_auc_score(y, s)),
        "ap": float(-np.sum(np.diff(recall) * precision[:-1])),
        "best_dice": float(dice.max()),
    }
