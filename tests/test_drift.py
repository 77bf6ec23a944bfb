"""The drift alarm: exact p-values, a capital that is fair, few false alarms, soon where something changes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from conftest import anatomy, dataset, write_images
from loligo import cli, monitoring
from loligo.data import acquisition
from loligo.detector import Detector
from loligo.drift import BETS, JUMP, Drift, Stream


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


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector.fit("gaussian", anatomy(40, 64)[:, 0], preset="tiny", train={"precision": "float32"})


def studies(measured: dict[str, np.ndarray]) -> list[dict[str, float]]:
    return [dict(zip(measured, values, strict=True)) for values in np.array(list(measured.values())).T]


def test_a_change_of_contrast_is_found_within_100_studies_by_the_images_themselves(detector: Detector) -> None:
    before, after = anatomy(200, 64, seed=5), anatomy(100, 64, seed=6)
    drift = Drift.begin(monitoring.measure(detector, dataset(before[:100])))
    for study in studies(monitoring.measure(detector, dataset(before[100:]))):
        drift.add(study)
    assert not drift.alarms and "no drift" in drift.told
    faded = acquisition.corrupt(after[:, 0], "contrast", 2, range(100))[:, None]
    for study in studies(monitoring.measure(detector, dataset(faded))):
        drift.add(study)
    assert drift.alarms["contrast"] == "lower"
    assert drift.limit == pytest.approx(math.log(400))  # four streams share the chance of a false alarm


def test_measures_are_those_of_the_pixels(detector: Detector) -> None:
    images = anatomy(3, 64, seed=7)
    found = monitoring.measure(detector, dataset(images))
    x = dataset(images).batch(range(3)).numpy()[:, 0]
    np.testing.assert_allclose(found["brightness"], x.mean((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(found["contrast"], x.std((1, 2), ddof=1), rtol=1e-5)
    np.testing.assert_allclose(found["sharpness"], np.abs(x[:, 1:] - x[:, :-1]).mean((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(found["score"], [one.score for one in detector.predict(x)], rtol=1e-3)


def test_what_was_saved_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=90)
    whole, _ = followed(values[:30], values[30:])
    part, _ = followed(values[:30], values[30:60])
    part.save(tmp_path / "drift.json")
    again = Drift.load(tmp_path / "drift.json")
    for value in values[60:]:
        again.add({"score": value})
    assert again == whole


@pytest.mark.parametrize(
    "change",
    [
        {"streams": {}},
        {"streams": {"score": {"values": [2.0, 1.0]}}},
        {"streams": {"score": {"values": [1.0], "capital": [1.0]}}},
        {"streams": {"score": {"values": [1.0]}, "contrast": {"values": []}}},
        {"streams": {"score": {"values": [math.nan]}}},
        {"streams": {"score": {"values": [1.0], "other": 1}}},
        {"streams": {"score": {"values": "abc"}}},
        {"alpha": 2},
        {"seed": None},
        {"nosuch": 1},
    ],
)
def test_a_broken_state_is_named(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "drift.json"
    Drift.begin({"score": np.arange(30.0)}).save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=r"drift\.json is no state of a drift alarm .*begin anew"):
        Drift.load(path)


def test_unfit_studies_are_refused_and_nothing_is_added() -> None:
    with pytest.raises(ValueError, match="19 studies are too few for a reference window; give 20 or more"):
        Drift.begin({"score": np.arange(19.0)})
    with pytest.raises(ValueError, match=r"alpha is 1\.0"):
        Drift.begin({"score": np.arange(20.0)}, alpha=1.0)
    drift = Drift.begin({"score": np.arange(20.0), "contrast": np.arange(20.0)})
    with pytest.raises(ValueError, match="the study has no contrast; it has score"):
        drift.add({"score": 1.0})
    with pytest.raises(ValueError, match="contrast is not a finite number"):
        drift.add({"score": 1.0, "contrast": math.nan})
    assert drift.count == 20


def test_the_command_begins_follows_alarms_and_refuses_another_method(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], detector: Detector
) -> None:
    detector.save(tmp_path / "run")
    for name, images in {
        "first": anatomy(60, 64, seed=5),
        "same": anatomy(30, 64, seed=6),
        "faded": 0.5 * anatomy(60, 64, seed=7),
    }.items():
        write_images(tmp_path / name, images)
    state = str(tmp_path / "state" / "drift.json")
    for name, count in (("first", 60), ("same", 90)):
        cli.main(["drift", state, str(tmp_path / "run"), str(tmp_path / name)])
        assert f"{count} studies; no drift" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        cli.main(["drift", state, str(tmp_path / "run"), str(tmp_path / "faded")])
    assert stop.value.code == 1
    assert "brightness has become lower" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        cli.main(["drift", state, str(tmp_path / "run"), str(tmp_path / "same"), "--alpha", "0.1"])
    assert stop.value.code == 2 and "--alpha cannot change what was begun" in capsys.readouterr().err
    other = Detector.fit("gaussian", anatomy(40, 64, seed=8)[:, 0], preset="tiny").save(tmp_path / "other")
    with pytest.raises(ValueError, match="follows scores of other weights"):
        monitoring.follow(state, other, tmp_path / "same")
