"""Metrics of ranking and of decisions: numpy in, float out. Labels are 0 normal and 1 abnormal; higher is abnormal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit, logit
from scipy.stats import norm, rankdata
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

Floats = npt.NDArray[np.float64]
Values = npt.NDArray[np.floating[Any]]
Interval = tuple[float, float, float]

TAILS = ((1 - 0.95) / 2, (1 + 0.95) / 2)
"""Shares of draws below and up to which intervals lie: 95 % of them."""
RESAMPLES = 1000
"""Draws of a bootstrap."""
EPSILON = 1e-10
"""Share of the pixels that `histogram_kl` adds to every bin."""


def check(labels: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[npt.NDArray[np.int64], Floats]:
    """Return labels and scores (N,) as arrays; ValueError unless both kinds are there and all scores are finite."""
    y, s = np.asarray(labels, dtype=np.float64).ravel(), np.asarray(scores, dtype=np.float64).ravel()
    if len(y) != len(s):
        raise ValueError(f"there are {len(y)} labels and {len(s)} scores; one of each an image is needed")
    if set(found := np.unique(y)) != {0, 1}:
        held = ", ".join(f"{label:g}" for label in found[:10])
        raise ValueError(f"labels hold [{held}]; normal (0) and abnormal (1) are both needed, and no other")
    if not np.isfinite(s).all():
        raise ValueError(f"{(~np.isfinite(s)).sum()} of {len(s)} scores are not finite")
    return y.astype(np.int64), s


def roc_auc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Return the area under the ROC curve, ties counting half."""
    return float(roc_auc_score(*check(labels, scores)))


def roc_auc_interval(labels: npt.ArrayLike, scores: npt.ArrayLike, groups: npt.ArrayLike | None = None) -> Interval:
    """Return (AUC, low, high): DeLong's interval on the logit scale, or a bootstrap by ``groups`` (patients, (N,)).

    Both have no width where the two kinds are separated without error; there the exact bound of `_separated` stands
    in. One image, or one patient, of a kind tells nothing of its spread, nor do scores that are all equal: the interval
    is then 0 to 1.
    """
    y, s = check(labels, scores)
    member = members(groups, len(y))
    auc = roc_auc(y, s)
    if min(len(np.unique(member[y == kind])) for kind in (0, 1)) < 2 or np.ptp(s) == 0:
        return auc, 0.0, 1.0
    if auc in (0, 1):
        return auc, *_separated(auc, y, member)
    if groups is not None:
        return auc, *_bootstrap(y, s, member)
    half = norm.ppf(TAILS[1]) * np.sqrt(delong_variance(y, s)) / (auc * (1 - auc))
    return auc, float(expit(logit(auc) - half)), float(expit(logit(auc) + half))


def against_guessing(low: float, high: float) -> str:
    """Say where the 95 % interval of an AUC holds 0.5, or lies below it; empty where it lies above."""
    if high < 0.5:
        return "Worse than guessing: the scores are upside down for this set."
    return "Not better than guessing: the 95 % interval holds 0.5." if low <= 0.5 else ""


def members(groups: npt.ArrayLike | None, count: int) -> npt.NDArray[np.int64]:
    """Number the groups of images: (N,) int64, each image its own without any; ValueError where an image has none."""
    if groups is None:
        return np.arange(count)
    member, names = pd.factorize(np.asarray(groups, dtype=object).ravel(), sort=True)
    if len(member) != count:
        raise ValueError(f"there are {len(member)} groups and {count} scores; one of each an image is needed")
    absent = sum(name == "" for name in names[member[member >= 0]]) + (member < 0).sum()
    if absent:
        raise ValueError(f"{absent} of {count} images have no group; name the patient of each, or pass groups=None")
    return np.asarray(member, dtype=np.int64)


def _separated(auc: float, y: npt.NDArray[np.int64], member: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Bound an AUC that was found to be 0 or 1.

    k pairs of an abnormal and a normal image, no two pairs with an image or patient in common, are all in order with
    probability AUC^k; an AUC for which that is less than `TAILS[0]` is ruled out.
    """
    abnormal, normal = (len(np.unique(member[y == kind])) for kind in (1, 0))
    pairs = min(abnormal, normal, len(np.unique(member)) // 2)
    low = float(TAILS[0] ** (1 / pairs))
    return (low, 1.0) if auc == 1 else (0.0, 1 - low)


def delong_variance(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Return the variance of the AUC (DeLong et al. 1988), by midranks (Sun & Xu 2014); 0 with one image of a kind."""
    above, below = _placements(*check(labels, scores))
    parts = [np.var(part, ddof=1) / len(part) for part in (above, below) if len(part) > 1]
    return float(sum(parts))


def _placements(y: npt.NDArray[np.int64], s: Floats) -> tuple[Floats, Floats]:
    """Return the share of normals below each abnormal image (m,), and of abnormals above each normal one (n,)."""
    positive, negative = s[y == 1], s[y == 0]
    ranks = rankdata(np.concatenate([positive, negative]))
    above: Floats = (ranks[: len(positive)] - rankdata(positive)) / len(negative)
    below: Floats = 1 - (ranks[len(positive) :] - rankdata(negative)) / len(positive)
    return above, below


def delong_test(labels: npt.ArrayLike, first: npt.ArrayLike, second: npt.ArrayLike) -> dict[str, float]:
    """Compare the AUCs of two scores (N,) of the same images (DeLong et al. 1988), each image counting as independent.

    Returns both AUCs, their difference (first - second) with a 95 % interval, z, and the two-sided p. AUCs that differ
    without variance, as where one separates all, leave nothing to judge by: the interval is -1 to 1, z 0 and p 1.
    """
    (y, a), (_, b) = check(labels, first), check(labels, second)
    if min((y == 0).sum(), (y == 1).sum()) < 2:
        raise ValueError("two images of each kind are needed at least: one tells nothing of its spread")
    parts = zip(_placements(y, a), _placements(y, b), strict=True)
    variance = float(sum(np.var(mine - other, ddof=1) / len(mine) for mine, other in parts))
    auc_a, auc_b = roc_auc(y, a), roc_auc(y, b)
    difference, half = auc_a - auc_b, float(norm.ppf(0.975) * np.sqrt(variance))
    z = difference / np.sqrt(variance) if variance else 0.0
    low, high = (-1.0, 1.0) if difference and not variance else (difference - half, difference + half)
    return {
        "auc_a": auc_a,
        "auc_b": auc_b,
        "difference": difference,
        "low": low,
        "high": high,
        "z": float(z),
        "p": float(2 * norm.sf(abs(z))),
    }


def resamples(member: npt.NDArray[np.int64], times: int = RESAMPLES) -> Iterator[npt.NDArray[np.int64]]:
    """Yield how often each image is drawn, (N,), where the groups that ``member`` (N,) numbers are; by a fixed seed."""
    random, count = np.random.default_rng(0), int(member.max()) + 1
    for _ in range(times):
        yield np.bincount(random.integers(count, size=count), minlength=count)[member]


def _bootstrap(y: npt.NDArray[np.int64], s: Floats, member: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Return the interval of the AUC over `resamples`; draws that lack a kind are left out."""
    _, rank = np.unique(s, return_inverse=True)
    found = []
    for weight in resamples(member):
        abnormal, normal = np.bincount(rank, weight * y), np.bincount(rank, weight * (1 - y))
        if abnormal.any() and normal.any():
            below = np.cumsum(normal) - normal / 2  # normal images below each score, ties counting half
            found.append(abnormal @ below / (abnormal.sum() * normal.sum()))
    low, high = np.quantile(found, TAILS)
    return float(low), float(high)


def average_precision(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Return the average precision of abnormal images."""
    return float(average_precision_score(*check(labels, scores)))


def confusion(labels: npt.ArrayLike, scores: npt.ArrayLike, threshold: float) -> dict[str, float]:
    """Return accuracy, F1, sensitivity and specificity where a score at or above the threshold is called abnormal."""
    y, s = check(labels, scores)
    if np.isnan(threshold):
        raise ValueError("threshold is nan; it must be a number, such as the threshold of a Calibration")
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
    """Return the score at or above which calling abnormal is most often right; the highest of equals.

    Where it is best to call no image abnormal, that is the next float above the highest score. Chosen by the very
    labels that it is then measured on, as in published tables, it flatters accuracy and F1.
    """
    y, s = check(labels, scores)
    false, true, thresholds = roc_curve(y, s, drop_intermediate=False)
    right = np.rint(true * (y == 1).sum() + (1 - false) * (y == 0).sum())
    above = max(np.nextafter(s.max(), np.inf), s.max() + np.finfo(np.float64).tiny)  # no denormal: they are flushed
    return float(min(thresholds[np.argmax(right)], above))


def sensitivity_at_specificity(labels: npt.ArrayLike, scores: npt.ArrayLike, specificity: float = 0.95) -> float:
    """Return the highest sensitivity of all thresholds whose specificity is at least as given, in [0, 1]."""
    y, s = check(labels, scores)
    if not 0 <= specificity <= 1:
        raise ValueError(f"specificity is {specificity}; it must lie in [0, 1], such as 0.95")
    normal = np.sort(s[y == 0])[::-1]
    alarms = int(np.sum((len(normal) - np.arange(1, len(normal) + 1)) / len(normal) >= specificity))
    return 1.0 if alarms == len(normal) else float(np.mean(s[y == 1] > normal[alarms]))


def pixel_metrics(maps: Sequence[npt.ArrayLike], masks: Sequence[npt.ArrayLike]) -> dict[str, float]:
    """Return AUROC, AP and the best Dice over all thresholds, exactly, of the pixels of all images together.

    There is one map and one mask, of equal shape, an image; masks are bool, or 0 and 1.
    """
    if len(maps) != len(masks):
        raise ValueError(f"there are {len(maps)} maps and {len(masks)} masks; one of each an image is needed")
    return paired_pixel_metrics(list(zip(maps, masks, strict=True)))


class OneKind(ValueError):
    """All pixels are abnormal, or all normal: there is nothing to measure."""

    def __init__(self, abnormal: int, normal: int) -> None:
        super().__init__(f"masks mark {abnormal} pixels abnormal and {normal} normal; both kinds are needed")
        self.abnormal = abnormal


def paired_pixel_metrics(pairs: Iterable[tuple[npt.ArrayLike, npt.ArrayLike]]) -> dict[str, float]:
    """Return what `pixel_metrics` does for pairs of map and mask, which are iterated twice and not kept.

    Memory holds one image and the values of abnormal pixels: no other threshold can be best.
    """
    abnormal = np.concatenate([np.empty(0, np.float32), *(heat[mask] for heat, mask in _checked(pairs))])
    values, counts = np.unique(abnormal, return_counts=True)
    hits = np.cumsum(counts[::-1])[::-1]  # abnormal pixels at or above each value
    below, up_to, normals = np.zeros(len(values), np.int64), np.zeros(len(values), np.int64), 0
    for heat, mask in _checked(pairs):
        normal = np.sort(heat[~mask])
        below += np.searchsorted(normal, values, "left")
        up_to += np.searchsorted(normal, values, "right")
        normals += len(normal)
    if not (len(abnormal) and normals):
        raise OneKind(len(abnormal), normals)
    alarms = normals - below
    return {
        "auroc": float(counts @ (below + up_to) / (2 * len(abnormal) * normals)),
        "ap": float(counts @ (hits / (hits + alarms)) / len(abnormal)),
        "best_dice": float(np.max(2 * hits / (hits + alarms + len(abnormal)))),
    }


def _checked(
    pairs: Iterable[tuple[npt.ArrayLike, npt.ArrayLike]],
) -> Iterator[tuple[Values, npt.NDArray[np.bool_]]]:
    """Yield each map with its mask; ValueError for a pair that does not fit."""
    for i, pair in enumerate(pairs):
        heat, mask = map(np.asarray, pair)
        if heat.shape != mask.shape:
            raise ValueError(
                f"map {i} has shape {heat.shape}, its mask {mask.shape}; bring one to the size of the other"
            )
        if not np.isfinite(heat).all():
            raise ValueError(f"{(~np.isfinite(heat)).sum()} of {heat.size} pixels of map {i} are not finite")
        if not np.isin(mask, (0, 1)).all():
            raise ValueError(f"mask {i} holds values other than 0 and 1, up to {mask.max()}; compare it with > 0 first")
        yield heat, mask.astype(bool)


def histogram_kl(original: npt.ArrayLike, reconstruction: npt.ArrayLike, bins: int = 256) -> float:
    """Return the Kullback-Leibler divergence of the intensities of a reconstruction from the original's, in nats.

    Both are one image each, of any shape, float in [0, 1]: KL(P || Q) of histograms of ``bins`` equal bins, P of the
    original, Q of the reconstruction. `EPSILON` stands in for the fraction of an empty bin, so that it is finite.
    ValueError where an image is empty or leaves [0, 1].
    """
    if bins < 1:
        raise ValueError(f"bins is {bins}; at least 1 is needed, such as 256")
    p, q = (_histogram(name, x, bins) for name, x in (("original", original), ("reconstruction", reconstruction)))
    return float(np.sum(p * np.log(p / q)))


def _histogram(name: str, image: npt.ArrayLike, bins: int) -> Floats:
    """Return the fraction of the pixels in each of so many equal bins of [0, 1], none zero, their sum one."""
    values = np.asarray(image, dtype=np.float64).ravel()
    if not (len(values) and values.min() >= 0 and values.max() <= 1):
        held = f"{values.min():.4g} to {values.max():.4g}" if len(values) else "no pixels"
        raise ValueError(f"the {name} holds {held}; intensities in [0, 1] are needed")
    counts = np.histogram(values, bins, (0, 1))[0] + EPSILON * len(values)
    shares: Floats = counts / counts.sum()
    return shares
