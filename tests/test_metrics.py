import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from loligo import metrics


def cases(seed: int, n: int = 60, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    y = random.permutation(np.arange(n) % 3 == 0).astype(int)
    s = random.normal(size=n) + y
    return y, np.round(s, 1 if ties else 9)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_ranking_agrees_with_scikit_learn(ties: bool, scale: float) -> None:
    y, s = cases(1, ties=ties)
    assert metrics.roc_auc(y, s * scale + 98) == oracle.roc_auc_score(y, s)
    assert metrics.average_precision(y, s * scale) == pytest.approx(oracle.average_precision_score(y, s))


@pytest.mark.parametrize("ties", [False, True])
def test_delong_variance_agrees_with_the_plain_formula(ties: bool) -> None:
    y, s = cases(2, ties=ties)
    positive, negative = s[y == 1], s[y == 0]
    wins = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    plain = np.var(wins.mean(1), ddof=1) / len(positive) + np.var(wins.mean(0), ddof=1) / len(negative)
    assert metrics.delong_variance(y, s) == pytest.approx(plain)


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    truth, hits = 0.760250, 0  # Phi(1 / sqrt(2)) for two unit Gaussians one apart
    random = np.random.default_rng(0)
    for _ in range(400):
        y = np.repeat([0, 1], 60)
        _, low, high = metrics.roc_auc_interval(y, random.normal(size=120) + y)
        hits += low <= truth <= high
    assert 0.92 <= hits / 400 <= 0.98


def test_bootstrap_by_patient_is_wider_where_images_repeat() -> None:
    y, s = cases(3, n=90)
    once = metrics.roc_auc_interval(y, s, groups=np.arange(90))
    copied = metrics.roc_auc_interval(np.repeat(y, 4), np.repeat(s, 4), groups=np.repeat(np.arange(90), 4))
    naive = metrics.roc_auc_interval(np.repeat(y, 4), np.repeat(s, 4))
    assert copied[2] - copied[1] == pytest.approx(once[2] - once[1], rel=0.15)
    assert naive[2] - naive[1] < 0.7 * (copied[2] - copied[1])


def test_a_perfect_ranking_has_no_interval_outside_it() -> None:
    assert metrics.roc_auc_interval([0, 0, 1, 1], [1, 2, 3, 4]) == (1, 1, 1)


@pytest.mark.parametrize("threshold", [-10, 0.3, 10])
def test_confusion_agrees_with_scikit_learn(threshold: float) -> None:
    y, s = cases(4)
    called = (s >= threshold).astype(int)
    found = metrics.confusion(y, s, threshold)
    assert found["accuracy"] == pytest.approx(oracle.accuracy_score(y, called))
    assert found["f1"] == pytest.approx(oracle.f1_score(y, called, zero_division=0))
    assert found["sensitivity"] == pytest.approx(oracle.recall_score(y, called))
    assert found["specificity"] == pytest.approx(oracle.recall_score(1 - y, 1 - called))


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=4, max_size=30))
@settings(deadline=None, max_examples=60)
def test_best_threshold_is_best_of_all(pairs: list[tuple[bool, int]]) -> None:
    y, s = np.array([p[0] for p in pairs], int), np.array([p[1] for p in pairs], float)
    if len(set(y)) < 2:
        return
    best = max(np.mean((s >= t) == y) for t in [*s, np.inf])
    assert metrics.confusion(y, s, metrics.best_accuracy_threshold(y, s))["accuracy"] == pytest.approx(best)


def test_pixel_metrics_agree_with_brute_force() -> None:
    random = np.random.default_rng(5)
    masks = [random.random((6, 7)) < 0.3 for _ in range(3)]
    maps = [np.round(random.random((6, 7)) + mask, 1) for mask in masks]
    y, s = np.concatenate([m.ravel() for m in masks]), np.concatenate([m.ravel() for m in maps]).astype(np.float32)
    found = metrics.pixel_metrics(maps, masks)
    dice = [2 * (y & (s >= t)).sum() / (y.sum() + (s >= t).sum()) for t in np.unique(s)]
    assert found["best_dice"] == pytest.approx(max(dice))
    assert found["auroc"] == pytest.approx(oracle.roc_auc_score(y, s))
    assert found["ap"] == pytest.approx(oracle.average_precision_score(y, s))


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([0, 0], [1, 2], r"labels hold \[0\]"),
        ([0, 2], [1, 2], r"labels hold \[0, 2\]"),
        ([0, 1], [1, np.nan], "1 of 2 scores are not finite"),
        ([0, 1, 1], [1, 2], "3 labels and 2 scores"),
    ],
)
def test_unfit_input_is_named(labels: list[int], scores: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metrics.roc_auc(labels, scores)
