"""The drift alarm: exact p-values, a capital that is fair, few false alarms, soon where something changes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from conftest import anatomy, dataset, ready, write_images
from loligo import api, cli, monitoring
from loligo.data import acquisition
from loligo.drift import BETS, JUMP, Drift, Stream
from loligo.methods.gaussian import Gaussian, GaussianConfig


def followed(reference: np.ndarray, stream: np.ndarray, seed: int = 0) -> tuple[Drift, float]:
    """Return the alarm after a stream, and after how many studies it came."""
    drift, place = Drift.begin({"score": reference}), math.inf
    drift.seed = seed
    for number, value in enumerate(stream, 1):
        drift.add({"score": value})
        if drift.alarms:
            place = min(place, number)
    return drift, place


def test_a_p_value_is_the_rank_among_all_before() -> None:
    random = np.random.default_rng(0)
    values, stream = random.integers(0, 9, 60).astype(float), Stream([])
    for i, value in enumerate(values):
        chance = random.random()
        before = values[: i + 1]
        expected = ((before > value).sum() + chance * (before == value).sum()) / (i + 1)
        assert stream.add(value, chance) == pytest.approx(expected)
    assert stream.values == sorted(values)


def test_p_values_of_exchangeable_studies_are_uniform_and_independent_though_they_tie() -> None:
    random, found = np.random.default_rng(1), []
    for _ in range(2000):
        stream = Stream(sorted(random.integers(0, 5, 20).astype(float)))
        found.append([stream.add(float(random.integers(0, 5)), random.random()) for _ in range(3)])
    p = np.array(found)
    cells = np.histogramdd(p, bins=[4, 4, 4], range=[(0, 1)] * 3)[0]
    expected = 2000 / 64
    assert np.sum((cells - expected) ** 2 / expected) < 92.0  # chi-squared, 63 degrees of freedom, 1 %


def test_the_capital_is_the_mixture_over_all_ways_to_bet_by_brute_force() -> None:
    p, slopes = [0.02, 0.3, 0.9, 0.1], (0.0, *BETS)
    move = np.full((5, 5), 0.0)
    move[0, 0], move[0, 1:] = 1 - JUMP, JUMP / 4
    for i in range(1, 5):
        move[i, i], move[i, 0] = 1 - JUMP, JUMP
    total = 0.0
    for path in np.ndindex(*[5] * len(p)):
        weight, state = 1.0, 0
        for value, following in zip(p, path, strict=True):
            weight *= move[state, following] * (1 + slopes[following] * (value - 0.5))
            state = following
        total += weight
    stream = Stream(list(np.linspace(1, 2, 10**5)))  # so many that a value's place among them is its p-value
    for value in p:
        stream.add(2 - value, 0.5)
    assert math.exp(stream.wealth) == pytest.approx(total, rel=1e-4)
    assert sum(stream.capital) == pytest.approx(1)


def test_the_capital_does_not_grow_in_the_mean_for_any_p_value_grid() -> None:
    grid = (np.arange(1000) + 0.5) / 1000
    for bet in BETS:
        assert np.mean(1 + bet * (grid - 0.5)) == pytest.approx(1) and (1 + bet * (grid - 0.5)).min() >= 0


def test_at_most_5_of_100_streams_of_1000_undrifted_studies_raise_the_alarm() -> None:
    random = np.random.default_rng(2)
    found = [followed(random.normal(size=100), random.normal(size=1000), seed) for seed in range(100)]
    assert sum(place < math.inf for _, place in found) <= 5
    decayed = [drift.streams["score"].wealth for drift, _ in found]
    assert np.median(decayed) > math.log(0.1)  # capital is left to find what changes later


@pytest.mark.parametrize(("by", "way"), [(1.0, "higher"), (-1.0, "lower")])
def test_a_shift_is_found_within_100_studies_in_either_direction_also_late(by: float, way: str) -> None:
    random = np.random.default_rng(3)
    for late in (0, 600):
        for seed in range(10):
            stream = np.concatenate([random.normal(size=late), random.normal(by, 1, 100)])
            drift, place = followed(random.normal(size=200), stream, seed)
            assert late < place <= late + 100
            assert drift.alarms == {"score": way} and f"score has become {way}" in drift.told


def test_an_alarm_stays() -> None:
    random = np.random.default_rng(0)
    drift, place = followed(random.normal(size=50), np.concatenate([np.full(60, 9.0), random.normal(size=300)]))
    assert place < 60 and drift.alarms


def test_a_change_of_contrast_is_found_within_100_studies_where_scores_hardly_tell() -> None:
    model = Gaussian(GaussianConfig(size=32, side=8, components=4)).eval()
    model.fit(lambda: iter([dataset(anatomy(60)).batch(range(60))])) if False else None
    detector = _fitted(model)
    before, after = anatomy(200, seed=5), anatomy(100, seed=6)
    drift = Drift.begin(monitoring.measure(detector, dataset(before[:100])))
    for study in _studies(monitoring.measure(detector, dataset(before[100:]))):
        drift.add(study)
    assert not drift.alarms
    faded = acquisition.corrupt(after[:, 0], "contrast", 2, range(100))[:, None]
    for number, study in enumerate(_studies(monitoring.measure(detector, dataset(faded))), 1):
        drift.add(study)
        if drift.alarms:
            break
    assert number < 100 and drift.alarms["contrast"] == "lower"
