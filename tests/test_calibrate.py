import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta

from loligo.calibration import Calibration, outlook, q_values


def test_p_values_count_normals_at_or_above() -> None:
    calibration = Calibration.fit([3.0, 1.0, 2.0, 2.0])
    np.testing.assert_allclose(calibration.p_value([0, 2, 2.5, 3, 9]), [1, 4 / 5, 2 / 5, 2 / 5, 1 / 5])


def test_p_values_are_those_of_nonconform() -> None:
    nonconform = pytest.importorskip("nonconform", reason="nonconform, which needs Python 3.12, is not installed")
    random = np.random.default_rng(0)
    for count in (1, 9, 37, 500):
        for normals, scores in (
            (random.normal(size=count), random.normal(1, 1, 200)),
            (random.integers(0, 6, count).astype(float), np.arange(-1.0, 8.0)),  # ties
        ):
            expected = nonconform.Empirical().compute_p_values(scores, normals)
            np.testing.assert_allclose(Calibration.fit(normals).p_value(scores), expected, rtol=1e-12)


def test_anomaly_score_is_one_minus_the_sigmoid_of_the_papers_discriminator() -> None:
    logits = np.array([0.3, -2.0, 1.5])
    calibration = Calibration.fit(-logits)
    expected = 1 - 1 / (1 + np.exp(-(logits - logits.mean()) / logits.std()))
    np.testing.assert_allclose(calibration.anomaly_score(-logits), expected)


@given(st.lists(st.integers(0, 20), min_size=1, max_size=60), st.sampled_from([0.01, 0.05, 0.1, 0.3]))
@settings(deadline=None, max_examples=100)
def test_threshold_flags_exactly_the_p_values_within_the_rate(values: list[int], rate: float) -> None:
    calibration = Calibration.fit(values, rate)
    scores = np.concatenate([np.arange(-1, 23), np.arange(-1, 23) + 1e-9])
    within = calibration.p_value(scores) <= calibration.false_alarm_rate * (1 + 1e-12)
    np.testing.assert_array_equal(scores >= calibration.threshold, within)


def test_false_alarms_keep_to_the_rate_on_noise() -> None:
    random, alarms = np.random.default_rng(0), []
    for _ in range(1000):
        calibration = Calibration.fit(random.normal(size=99), 0.05)
        alarms.append(np.mean(random.normal(size=50) >= calibration.threshold))
    assert np.mean(alarms) == pytest.approx(0.05, abs=0.004)


def test_few_normals_raise_the_rate_to_what_they_can_show() -> None:
    calibration = Calibration.fit([1.0, 2.0, 3.0], 0.05)
    assert calibration.false_alarm_rate == 0.25
    assert calibration.threshold == np.nextafter(3.0, np.inf)


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    calibration = replace(Calibration.fit(np.random.default_rng(0).normal(size=30)), typical_peak=0.05, map_scale=0.1)
    calibration.save(tmp_path / "calibration.json")
    loaded = Calibration.load(tmp_path / "calibration.json")
    np.testing.assert_array_equal(loaded.scores, calibration.scores)
    assert (loaded.threshold, loaded.typical_peak, loaded.map_scale) == (calibration.threshold, 0.05, 0.1)
    assert replace(calibration.at(0.2), false_alarm_rate=0.05).map_scale == 0.1


def test_colours_run_from_the_typical_peak_to_what_1_in_20_normals_reach() -> None:
    calibration = Calibration.fit([1.0]).with_peaks(np.arange(1.0, 101.0))
    assert (calibration.typical_peak, calibration.map_scale) == (50.5, 96.0)
    assert calibration.heat(np.float32([50.5, 96, 5])).tolist() == pytest.approx([0, 1, -1])
    assert Calibration.fit([1.0]).with_peaks([3.0, 1, 2]).map_scale == 3  # of few the highest


@pytest.mark.parametrize("peak", [-2.0, 0.0, 7.0])
def test_colours_have_a_range_where_all_normals_peak_alike(peak: float) -> None:
    calibration = Calibration.fit([1.0]).with_peaks([peak] * 3)
    assert calibration.typical_peak == peak and np.isfinite(calibration.heat(np.float32([peak, 9]))).all()


@pytest.mark.parametrize(
    ("scores", "rate", "message"),
    [
        ([], 0.05, "no calibration scores"),
        ([1, np.inf], 0.05, "1 of 2 calibration scores are not finite"),
        ([1, 2], 0.0, "false_alarm_rate is 0.0"),
    ],
)
def test_unfit_input_is_named(scores: list[float], rate: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Calibration.fit(scores, rate)


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="training of this run was not finished"):
        Calibration.load(tmp_path / "calibration.json")


def test_equal_scores_do_not_divide_by_zero() -> None:
    assert Calibration.fit([2.0, 2.0]).anomaly_score([2.0]) == [0.5]


def test_a_threshold_above_zero_is_no_denormal_that_the_processor_may_flush() -> None:
    assert Calibration.fit([-1.0, 0.0]).threshold >= np.finfo(np.float64).tiny
    assert Calibration.fit([0.1, 0.1, 0.1]).anomaly_score([0.1]) == [0.5]  # the plain mean of these is not 0.1


def test_p_values_of_normals_are_uniform() -> None:
    random = np.random.default_rng(1)
    p = np.array([Calibration.fit(random.normal(size=19)).p_value(random.normal()) for _ in range(4000)])
    counts = np.bincount(np.rint(p * 20).astype(int), minlength=21)
    assert counts[0] == 0 and counts.sum() == 4000
    assert np.sum((counts[1:] - 200) ** 2 / 200) < 36.2  # chi-squared, 19 degrees of freedom, 1 %


def test_a_score_that_is_nan_has_no_p_value() -> None:
    calibration = Calibration.fit([1.0, 2.0])
    for judge in (calibration.p_value, calibration.anomaly_score):
        with pytest.raises(ValueError, match="1 of 2 scores are NaN"):
            judge([0.5, np.nan])


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"scores": [], "false_alarm_rate": 0.05, "map_scale": 1}',
        '{"scores": [1], "false_alarm_rate": null, "map_scale": 1}',
        '{"scores": [1], "false_alarm_rate": 0.1, "typical_peak": 1, "map_scale": 1}',
        '{"scores": [1], "false_alarm_rate": 0.1, "typical_peak": 1, "map_scale": NaN}',
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "calibration.json").write_text(text)
    with pytest.raises(ValueError, match=r"calibration\.json is not a calibration .*train the run again"):
        Calibration.load(tmp_path / "calibration.json")


@pytest.mark.parametrize(
    ("shift", "count", "said"),
    [
        (0, 40, ""),
        (9, 40, "40 of 40 images are flagged"),
        (1.5, 40, "score higher"),
        (-2, 40, "score lower"),
        (9, 9, ""),
    ],
)
def test_images_that_are_as_a_whole_unlike_the_normals_are_remarked_on(shift: float, count: int, said: str) -> None:
    random = np.random.default_rng(0)
    calibration = Calibration.fit(random.normal(size=100))
    found = calibration.remark(random.normal(size=count) + shift)
    assert said in found and bool(said) == bool(found)


@pytest.mark.parametrize(
    ("count", "rate", "pool", "said"),
    [
        (19, 0.05, 190, ""),
        (99, 0.01, 0, ""),
        (18, 0.05, 0, "no p-value can fall below 0.053"),
        (4, 0.05, 40, "0.2, and that is the false-alarm rate instead of 0.05, which needs 19, some 190 normal images"),
    ],
)
def test_what_few_normals_can_tell_is_said(count: int, rate: float, pool: int, said: str) -> None:
    found = outlook(count, rate, pool)
    assert said in found and bool(said) == bool(found)
    assert (Calibration.fit(np.arange(count), rate).false_alarm_rate > rate) == bool(said)


@pytest.mark.parametrize(("n", "rate"), [(19, 0.05), (50, 0.05), (142, 0.05), (142, 0.2)])
def test_the_rate_of_a_threshold_lies_in_its_interval_in_95_of_100_calibrations(n: int, rate: float) -> None:
    random, inside, rates = np.random.default_rng(0), [], []
    for _ in range(4000):
        calibration = Calibration.fit(random.random(n), rate)
        rates.append(1 - calibration.threshold)  # of uniform scores
        low, high = calibration.interval
        inside.append(low <= rates[-1] <= high)
    assert np.mean(inside) == pytest.approx(0.95, abs=0.015)
    assert np.mean(rates) == pytest.approx(calibration.expected, rel=0.05)
    k = round(calibration.expected * (n + 1))
    assert calibration.interval == pytest.approx(beta.interval(0.95, k, n + 1 - k))


def test_where_scores_tie_the_rate_lies_lower_than_the_interval_says() -> None:
    random, above = np.random.default_rng(0), []
    for _ in range(2000):
        calibration = Calibration.fit(random.integers(0, 8, 60), 0.2)
        above.append(np.mean(np.arange(8) >= calibration.threshold) > calibration.interval[1])
    assert np.mean(above) <= 0.03


def test_a_shift_moves_the_scores_to_the_mean_of_a_site_and_its_interval_says_how_sure_that_is() -> None:
    random, inside = np.random.default_rng(0), []
    for _ in range(500):
        own = Calibration.fit(random.normal(size=140)).with_peaks(np.arange(1.0, 9.0))
        moved = own.shifted(random.normal(3, 1, size=10))
        low, high = moved.interval
        true = 1 - 0.5 * (1 + math.erf((moved.threshold - 3) / math.sqrt(2)))
        inside.append(low <= true <= high)
    assert np.mean(inside) >= 0.95
    assert (moved.shifted_by, moved.folds, moved.map_scale, len(moved.scores)) == (10, 0, own.map_scale, 140)
    np.testing.assert_allclose(moved.scores - own.scores, moved.mean - own.mean)
    assert moved.interval[1] - moved.interval[0] > own.interval[1] - own.interval[0]
    assert "moved to the mean of 10 of this site" in moved.told
    assert moved.at(0.3).shifted_by == 10


def test_the_interval_is_told_and_kept_for_readers(tmp_path: Path) -> None:
    calibration = Calibration.fit(np.arange(39.0), 0.05)
    low = beta.ppf(0.025, 2, 38)
    assert (
        f"flags 5 % of normals like the 39 normals of the calibration (95 % interval {100 * low:.2g} to"
        in calibration.told
    )
    calibration.shifted([1.0, 2.0]).save(tmp_path / "a.json")
    assert Calibration.load(tmp_path / "a.json").shifted_by == 2
    assert json.loads((tmp_path / "a.json").read_text())["false_alarm_interval"][0] < low


def test_q_values_are_those_of_benjamini_and_hochberg_by_hand() -> None:
    p = np.array([0.01, 0.8, 0.02, 0.03, 0.5])
    ordered = np.sort(p)
    by_hand = [min(5 * ordered[j] / (j + 1) for j in range(i, 5)) for i in range(5)]
    np.testing.assert_allclose(q_values(p), np.array(by_hand)[np.argsort(np.argsort(p))])
    assert q_values([]).shape == (0,)


def test_false_discoveries_of_worklists_that_share_a_calibration_keep_to_the_rate() -> None:
    random, proportions, found = np.random.default_rng(0), [], []
    for _ in range(1500):
        calibration = Calibration.fit(random.normal(size=200))
        abnormal = np.arange(50) < 10
        called = q_values(calibration.p_value(random.normal(size=50) + 4 * abnormal)) <= 0.2
        proportions.append((called & ~abnormal).sum() / max(called.sum(), 1))
        found.append(called[abnormal].mean())
    assert np.mean(proportions) <= 0.2 * 0.8 + 0.01  # at most alpha times the part of normals (Bates et al. 2023)
    assert np.mean(found) > 0.5
