import weakref
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.stats import entropy
from sklearn import metrics as oracle

from loligo.evaluation import metrics
from loligo.types import Again


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


@pytest.mark.parametrize("ties", [False, True])
def test_delong_test_agrees_with_the_plain_covariances(ties: bool) -> None:
    (y, a), (_, b) = cases(2, ties=ties), cases(2)
    b = np.round(b + np.random.default_rng(5).normal(size=len(y)), 1 if ties else 9)

    def wins(s: np.ndarray) -> np.ndarray:
        return (s[y == 1][:, None] > s[y == 0]) + 0.5 * (s[y == 1][:, None] == s[y == 0])

    covariance = sum(np.cov([wins(a).mean(i), wins(b).mean(i)]) / wins(a).shape[1 - i] for i in (0, 1))
    difference = oracle.roc_auc_score(y, a) - oracle.roc_auc_score(y, b)
    z = difference / np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    found = metrics.delong_test(y, a, b)
    assert (found["difference"], found["z"]) == pytest.approx((difference, z))
    assert found["p"] == pytest.approx(2 * stats.norm.sf(abs(z)))
    assert found["low"] < found["difference"] < found["high"]
    assert metrics.delong_test(y, b, a)["z"] == pytest.approx(-z)


def test_delong_test_by_hand() -> None:
    # Shares of the other kind: (1, 1/2) and (1, 1/2) against (1, 1) and (1, 1): variance 1/16 + 1/16.
    found = metrics.delong_test([1, 1, 0, 0], [3, 1, 0, 2], [4, 3, 1, 2])
    assert (found["auc_a"], found["auc_b"], found["difference"]) == (0.75, 1, -0.25)
    assert (found["z"], found["p"]) == pytest.approx((-np.sqrt(0.5), 0.4795001), abs=1e-6)
    same = metrics.delong_test([1, 1, 0, 0], [3, 1, 0, 2], [30, 10, 0, 20])
    assert (same["difference"], same["z"], same["p"]) == (0, 0, 1)
    four = metrics.delong_test([0, 0, 1, 1], [0, 1, 2, 3], [1, 1, 1, 1])  # 1 against 0.5, without variance
    assert (four["difference"], four["low"], four["high"], four["z"], four["p"]) == (0.5, -1, 1, 0, 1)
    with pytest.raises(ValueError, match="two images of each kind are needed"):
        metrics.delong_test([1, 0, 0], [1, 0, 0], [1, 2, 3])


def test_delong_test_finds_as_many_differences_as_chance_has() -> None:
    random, found, y = np.random.default_rng(0), [], np.repeat([0, 1], 50)
    for _ in range(400):
        shared = random.normal(size=100) + y
        found.append(metrics.delong_test(y, *(shared + random.normal(size=(2, 100))))["p"] < 0.05)
    assert 0.025 <= np.mean(found) <= 0.08


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


def test_interval_of_a_small_case_by_hand() -> None:
    # Abnormal 3, 1 against normal 0, 2: AUC 3/4, components (1, 1/2) and (1, 1/2), variance 1/16 + 1/16.
    for groups in (None, list("abcde")):  # equal scores tell nothing
        assert metrics.roc_auc_interval([0, 0, 0, 1, 1], [7.0] * 5, groups=groups) == (0.5, 0.0, 1.0)
    auc, low, high = metrics.roc_auc_interval([1, 1, 0, 0], [3, 1, 0, 2])
    half = 1.959964 * np.sqrt(1 / 8) / (3 / 16)
    assert (auc, low, high) == pytest.approx((0.75, 1 / (1 + np.exp(half) / 3), 1 / (1 + np.exp(-half) / 3)))
    assert metrics.delong_variance([1, 1, 0, 0], [3, 1, 0, 2]) == pytest.approx(1 / 8)


def test_bootstrap_agrees_with_drawing_rows_of_each_patient() -> None:
    y, s = cases(6, n=80, ties=True)
    patients = np.array([f"p{i:02d}" for i in np.random.default_rng(6).integers(25, size=80)])
    names, random, found = np.unique(patients), np.random.default_rng(0), []
    for _ in range(1000):
        rows = np.concatenate(
            [np.flatnonzero(patients == names[i]) for i in random.integers(len(names), size=len(names))]
        )
        if len(set(y[rows])) == 2:
            ahead = s[rows][y[rows] == 1][:, None] - s[rows][y[rows] == 0]
            found.append(np.mean((ahead > 0) + 0.5 * (ahead == 0)))
    auc, low, high = metrics.roc_auc_interval(y, s, groups=patients)
    assert auc == oracle.roc_auc_score(y, s)
    assert (low, high) == pytest.approx(tuple(np.quantile(found, [0.025, 0.975])))


@pytest.mark.parametrize("groups", [None, range(50)])
@pytest.mark.parametrize(("abnormal", "normal"), [(2, 2), (3, 47), (20, 30), (33, 7)])
def test_a_perfect_ranking_is_not_taken_for_certain(abnormal: int, normal: int, groups: range | None) -> None:
    y, s = np.repeat([1, 0], [abnormal, normal]), np.concatenate([np.arange(abnormal) + 0.5, -np.arange(normal)])
    named = None if groups is None else np.array(groups)[: len(y)]
    bound = 0.025 ** (1 / min(abnormal, normal))
    assert metrics.roc_auc_interval(y, s, groups=named) == pytest.approx((1, bound, 1))
    assert metrics.roc_auc_interval(y, -s, groups=named) == pytest.approx((0, 0, 1 - bound))


def test_a_patient_with_both_kinds_counts_once_in_the_bound() -> None:
    y, s = np.tile([0, 1], 10), np.tile([0.0, 1.0], 10)
    _, low, _ = metrics.roc_auc_interval(y, s, groups=np.repeat(np.arange(10), 2))
    assert low == pytest.approx(0.025 ** (1 / 5))


def test_perfect_rankings_of_weak_scores_are_covered() -> None:
    # Three against three, true AUC 0.9: one ranking in some is perfect, and its interval must reach down to 0.9.
    random, shift, hits, y = np.random.default_rng(1), 1.8124, [], np.repeat([1, 0], 3)
    for _ in range(300):
        _, low, high = metrics.roc_auc_interval(y, random.normal(size=6) + shift * y)
        hits.append(low <= 0.9 <= high)
    assert np.mean(hits) > 0.93


@pytest.mark.parametrize("groups", [None, [1, 2, 3, 4]])
def test_one_image_of_a_kind_leaves_the_interval_open(groups: list[int] | None) -> None:
    assert metrics.roc_auc_interval([1, 0, 0, 0], [2, 1, 3, 0], groups=groups) == (pytest.approx(2 / 3), 0, 1)


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


def test_where_calling_none_abnormal_is_best_the_threshold_stays_finite() -> None:
    threshold = metrics.best_accuracy_threshold([1, 0, 0, 0], [0.1, 0.2, 0.3, 0.4])
    assert threshold == np.nextafter(0.4, 1)
    assert metrics.confusion([1, 0, 0, 0], [0.1, 0.2, 0.3, 0.4], threshold)["accuracy"] == 0.75


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 9)), min_size=4, max_size=40),
    st.sampled_from([0, 0.3, 0.5, 0.7, 0.9, 0.95, 1]),
)
@settings(deadline=None, max_examples=100)
def test_sensitivity_at_specificity_is_the_best_of_all_thresholds(pairs: list[tuple[bool, int]], least: float) -> None:
    y, s = np.array([p[0] for p in pairs], int), np.array([p[1] for p in pairs], float)
    if len(set(y)) < 2:
        return
    found = [(np.mean(s[y == 1] >= t), (s[y == 0] < t).sum() / (y == 0).sum()) for t in [*s, np.inf]]
    best = max(sensitivity for sensitivity, specificity in found if specificity >= least)
    assert metrics.sensitivity_at_specificity(y, s, least) == pytest.approx(best)


@pytest.mark.parametrize(
    ("maps", "masks", "message"),
    [
        ([[0.1, 0.2]], [[0, 1], [0, 1]], "1 maps and 2 masks"),
        ([[0.1, 0.2], [0.1, 0.2]], [[0, 1], [0, 1, 1]], r"map 1 has shape \(2,\), its mask \(3,\)"),
        ([[0.1, np.nan]], [[0, 1]], "1 of 2 pixels of map 0 are not finite"),
        ([[0.1, 0.2]], [[0, 255]], "mask 0 holds values other than 0 and 1, up to 255"),
        ([[0.1, 0.2]], [[0, 0]], "0 pixels abnormal and 2 normal"),
        ([], [], "0 pixels abnormal and 0 normal"),
    ],
)
def test_unfit_maps_are_named(maps: list[list[float]], masks: list[list[int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metrics.pixel_metrics(maps, masks)


def test_maps_that_are_read_one_at_a_time_are_not_kept() -> None:
    random = np.random.default_rng(6)
    masks = [random.random(50) < 0.3 for _ in range(4)]
    maps = [np.round(random.random(50), 1) for _ in masks]
    alive: list[weakref.ref[np.ndarray]] = []

    def pairs() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for heat, mask in zip(maps, masks, strict=True):
            assert sum(one() is not None for one in alive) <= 1
            own = heat.copy()
            alive.append(weakref.ref(own))
            yield own, mask
            del own

    assert metrics.paired_pixel_metrics(Again(pairs)) == metrics.pixel_metrics(maps, masks)
    assert len(alive) == 8


def test_pixel_metrics_agree_with_brute_force() -> None:
    random = np.random.default_rng(5)
    masks = [random.random((6, 7)) < 0.3 for _ in range(3)]
    maps = [np.round(random.random((6, 7)) + mask, 1) for mask in masks]
    y, s = np.concatenate([m.ravel() for m in masks]), np.concatenate([m.ravel() for m in maps])
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
        ([0, 1, 0.5], [1, 2, 3], r"labels hold \[0, 0.5, 1\]"),
        ([0, 1, np.nan], [1, 2, 3], r"labels hold \[0, 1, nan\]"),
        ([0, 1], [1, np.nan], "1 of 2 scores are not finite"),
        ([0, 1, 1], [1, 2], "3 labels and 2 scores"),
    ],
)
def test_unfit_input_is_named(labels: list[int], scores: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metrics.roc_auc(labels, scores)


def test_unfit_options_are_named() -> None:
    y, s = [0, 0, 1, 1], [1, 2, 3, 1]
    with pytest.raises(ValueError, match="3 groups and 4 scores"):
        metrics.roc_auc_interval(y, s, groups=["a", "b", "c"])
    with pytest.raises(ValueError, match="2 of 4 images have no group; name the patient"):
        metrics.roc_auc_interval(y, s, groups=["a", "", "c", None])
    with pytest.raises(ValueError, match="threshold is nan"):
        metrics.confusion(y, s, float("nan"))
    with pytest.raises(ValueError, match="specificity is 95"):
        metrics.sensitivity_at_specificity(y, s, 95)


@pytest.mark.parametrize("bins", [1, 16, 256])
def test_histogram_kl_agrees_with_scipy(bins: int) -> None:
    random = np.random.default_rng(4)
    p, q = random.beta(2, 5, (1, 64, 64)).astype(np.float32), random.beta(3, 3, (1, 32, 32)).astype(np.float32)
    p[0, 0, :2], q[0, 0, :2] = (0, 1), (0, 1)  # both ends of the range are counted
    shares = [np.histogram(x, bins, (0, 1))[0] / x.size + metrics.EPSILON for x in (p, q)]
    assert metrics.histogram_kl(p, q, bins) == pytest.approx(entropy(*shares), rel=1e-9, abs=1e-15)


def test_histogram_kl_of_equal_intensities_is_zero_wherever_they_lie() -> None:
    x = np.random.default_rng(5).random((32, 32), dtype=np.float32)
    assert metrics.histogram_kl(x, x[::-1].T) == pytest.approx(0, abs=1e-15)


def test_histogram_kl_counts_what_the_reconstruction_lacks() -> None:
    half, black = np.repeat([0.0, 1.0], 50), np.zeros(100)
    expected = 0.5 * np.log(0.5) + 0.5 * np.log(0.5 / metrics.EPSILON)  # by hand: half the pixels have no counterpart
    assert metrics.histogram_kl(half, black) == pytest.approx(expected, rel=1e-6)
    assert metrics.histogram_kl(black, half) == pytest.approx(np.log(2), rel=1e-6)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.array([0.5, 1.2]), r"reconstruction holds 0\.5 to 1\.2; intensities in \[0, 1\]"),
        (np.array([0.5, np.nan]), "reconstruction holds nan"),
        (np.array([]), "reconstruction holds no pixels"),
    ],
)
def test_histogram_kl_refuses_what_is_no_image(image: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metrics.histogram_kl(np.zeros(4), image)
    with pytest.raises(ValueError, match="bins is 0"):
        metrics.histogram_kl(np.zeros(4), np.zeros(4), 0)
