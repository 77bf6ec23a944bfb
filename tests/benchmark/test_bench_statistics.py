"""Intervals, ranks and calibration of p-values, against plain loops, published tables and scipy."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn import metrics as oracle

from loligo.evaluation import metrics
from loligo.evaluation import statistics as module


def cases(seed: int = 0, n: int = 70, ties: bool = True) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return labels, two seeds' scores, and patients of one kind each."""
    random = np.random.default_rng(seed)
    patients = np.sort(random.integers(25, size=n))
    y = (patients % 2).astype(int)
    s = random.normal(size=(2, n)) + y
    return y, np.round(s, 1 if ties else 9), np.array([f"p{p:02}" for p in patients])


def plain(y: np.ndarray, s: np.ndarray, threshold: float) -> dict[str, float]:
    called = s >= threshold
    false, true, _ = oracle.roc_curve(y, s, drop_intermediate=False)
    return {
        "auc": oracle.roc_auc_score(y, s),
        "ap": oracle.average_precision_score(y, s),
        "accuracy": oracle.accuracy_score(y, called),
        "f1": oracle.f1_score(y, called),
        "sensitivity": oracle.recall_score(y, called),
        "specificity": oracle.recall_score(1 - y, ~called),
        "sensitivity_at_95": true[1 - false >= 0.95 - 1e-12].max(),
    }


@pytest.mark.parametrize("ties", [False, True])
def test_metrics_agree_with_scikit_learn(ties: bool) -> None:
    y, s, _ = cases(ties=ties)
    assert module.measure(y, s[0], 0.4) == pytest.approx(plain(y, s[0], 0.4))
    assert tuple(module.measure(y, s[0], 0.4)) == module.METRICS


@pytest.mark.parametrize("by_patient", [False, True])
def test_the_bootstrap_agrees_with_drawing_rows_of_each_patient(by_patient: bool) -> None:
    y, s, patients = cases()
    names = np.unique(patients) if by_patient else np.arange(len(y))
    of = patients if by_patient else np.arange(len(y))
    random, found = np.random.default_rng(0), []
    for _ in range(60):
        drawn = names[random.integers(len(names), size=len(names))]
        rows = np.concatenate([np.flatnonzero(of == name) for name in drawn])
        if len(set(y[rows])) == 2:
            both = [plain(y[rows], s[i][rows], t) for i, t in enumerate((0.4, 0.6))]
            found.append({name: (both[0][name] + both[1][name]) / 2 for name in both[0]})
    expected = pd.DataFrame(found).quantile([0.025, 0.975])
    got = module.bootstrap(y, s, (0.4, 0.6), patients if by_patient else None, times=60)
    for name in module.METRICS:
        assert got[name] == pytest.approx(tuple(expected[name]), abs=1e-12), name


def test_of_one_seed_the_interval_is_that_of_the_report() -> None:
    y, s, patients = cases(4)
    assert module.bootstrap(y, s[:1], (0.4,), patients)["auc"] == pytest.approx(
        metrics.roc_auc_interval(y, s[0], groups=patients)[1:]
    )
    low, high = module.bootstrap(y, y[None].astype(float), (0.5,), patients)["auc"]
    assert 0.5 < low < high == 1  # a perfect ranking is not taken for certain


def test_draws_in_chunks_are_the_same_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    y, s, patients = cases()
    whole = module.bootstrap(y, s, (0.4, 0.6), patients, times=50)
    monkeypatch.setattr(module, "_CHUNK", 7 * len(y))
    assert module.bootstrap(y, s, (0.4, 0.6), patients, times=50) == whole


def test_intervals_by_patient_cover_the_truth_as_often_as_they_say() -> None:
    truth, hits, random = 0.760250, 0, np.random.default_rng(1)
    for _ in range(100):
        patients = np.repeat(np.arange(40), 3)
        y = patients % 2
        s = (random.normal(size=40) + np.arange(40) % 2)[patients]
        low, high = module.bootstrap(y, s[None], (0.5,), patients, times=200)["auc"]
        hits += low <= truth <= high
    assert 0.87 <= hits / 100 <= 0.99


@pytest.mark.parametrize(("count", "q"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (10, 3.164)])
def test_the_critical_difference_is_that_of_demsar(count: int, q: float) -> None:
    aucs = pd.DataFrame(np.random.default_rng(0).uniform(size=(8, count)), columns=list("abcdefghij"[:count]))
    _, critical, _ = module.ranks(aucs)
    assert critical == pytest.approx(q * np.sqrt(count * (count + 1) / 48), rel=3e-4)


def test_ranks_by_hand() -> None:
    aucs = pd.DataFrame({"a": [0.9, 0.8, 0.7], "b": [0.8, 0.8, 0.9], "c": [0.5, 0.6, 0.5]})
    average, _, friedman = module.ranks(aucs)
    assert average.to_dict() == pytest.approx({"a": 4.5 / 3, "b": 4.5 / 3, "c": 3.0})
    assert friedman == pytest.approx(stats.friedmanchisquare(aucs["a"], aucs["b"], aucs["c"]).pvalue)
    with pytest.raises(ValueError, match="there are 1 data sets and 3 methods; ranks need two of each"):
        module.ranks(aucs.head(1))
    with pytest.raises(ValueError, match="an AUC is missing"):
        module.ranks(aucs.assign(c=[0.5, np.nan, 0.6]))


def test_on_noise_the_false_alarm_rate_is_the_nominal_one() -> None:
    random, observed, inside, times = np.random.default_rng(0), [], [], 1000
    for _ in range(times):
        table = module.false_alarms(random.normal(size=99), random.normal(size=60))
        observed.append(table["observed"])
        inside.append(table["observed"].between(table["low"] - 1e-9, table["high"] + 1e-9))
    found = pd.DataFrame(observed).reset_index(drop=True)
    table = module.false_alarms(np.arange(99), np.arange(60))
    for i, rate in enumerate(module.RATES):
        assert table["attainable"][i] == pytest.approx(rate)
        half = 3.3 * found[i].std() / np.sqrt(times)
        assert found[i].mean() - half <= rate <= found[i].mean() + half
        assert np.mean([row[i] for row in inside]) >= 0.94


def test_p_values_that_lie_are_found_out() -> None:
    random = np.random.default_rng(0)
    table = module.false_alarms(random.normal(size=200), random.normal(size=300) + 1).set_index("nominal")
    assert table.loc[0.05, "observed"] > table.loc[0.05, "high"]


def test_with_few_normals_a_low_rate_cannot_be_reached() -> None:
    table = module.false_alarms(np.arange(9), [100.0, 3.5], rates=(0.05, 0.1, 0.25))
    assert table["attainable"].tolist() == pytest.approx([0, 0.1, 0.2])
    assert table["observed"].tolist() == [0, 0.5, 0.5]


def test_holm_by_hand() -> None:
    assert module.holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert module.holm([0.5, 0.9]) == pytest.approx([1, 1])


def test_an_interval_of_no_width_is_an_exact_bound() -> None:
    y = np.repeat([0, 1], [30, 10])
    found = module.bootstrap(y, [y.astype(float)], (0.5,))
    assert found["sensitivity"] == pytest.approx((0.025 ** (1 / 10), 1))
    assert found["specificity"] == pytest.approx((0.025 ** (1 / 30), 1))
    assert found["accuracy"] == pytest.approx((0.025 ** (1 / 40), 1))
    assert found["ap"] == found["sensitivity_at_95"] == found["sensitivity"]
    upside_down = module.bootstrap(y, [1.0 - y], (0.5,))
    assert upside_down["sensitivity"] == pytest.approx((0, 1 - 0.025 ** (1 / 10)))


def test_one_patient_of_a_kind_tells_nothing() -> None:
    y, s = np.repeat([0, 1], [20, 10]), np.random.default_rng(0).normal(size=30)
    found = module.bootstrap(y, [s], (0.5,), [*(f"n{i}" for i in range(20)), *["a"] * 10])
    assert set(found.values()) == {(0.0, 1.0)}
