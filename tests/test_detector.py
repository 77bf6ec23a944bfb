"""A detector: arrays, images or paths in; predictions on their own grids out; nothing written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import loligo
from conftest import anatomy, dataset, write_images
from loligo import Detector, Image, api
from loligo.runs.run import Run
from loligo.runs.settings import Settings

PLAIN = {"precision": "float32"}
QUICK = PLAIN | {"epochs": 1}


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector.fit("gaussian", anatomy(40, 64)[:, 0], preset="tiny", train=PLAIN)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("detector")
    write_images(folder / "normals", anatomy(40, 64))
    return loligo.train("ae", folder / "normals", folder / "run", preset="tiny", train=QUICK)


def tree(folder: Path) -> dict[str, float]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_prediction_lies_on_the_image_and_nothing_is_written(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOLIGO_CACHE", str(tmp_path / "cache"))
    before = tree(run.folder)
    (prediction,) = Detector.load(run.folder).predict([np.zeros((300, 500))])
    assert prediction.map is not None
    assert prediction.map.shape == (300, 500)
    assert prediction.geometry.shape == (300, 500)
    assert prediction.reconstruction is not None
    assert prediction.reconstruction.shape == (300, 500)
    assert 0 < prediction.p_value <= 1
    assert prediction.flag == (prediction.score >= Detector.load(run).calibration.threshold)
    assert tree(run.folder) == before
    assert not (tmp_path / "cache").exists()
    assert capfd.readouterr() == ("", "")


def test_arrays_images_and_paths_of_the_same_pixels_score_as_the_command_does(run: Run, tmp_path: Path) -> None:
    images = anatomy(5, 64, seed=3)
    paths = write_images(tmp_path / "new", images)
    eight = np.round(images[:, 0] * 255).astype(np.uint8)
    detector = loligo.load(run)
    table = api.score(run, tmp_path / "new", tmp_path / "out").sort_values("path", ignore_index=True)
    for given in (
        eight,
        list(eight),
        [Image(e[None] / np.float32(255)) for e in eight],
        paths,
        [str(p) for p in paths],
    ):
        predictions = detector.predict(given)
        np.testing.assert_array_equal([p.score for p in predictions], table["score"])
        np.testing.assert_array_equal([p.p_value for p in predictions], table["p_value"])
        np.testing.assert_array_equal([p.flag for p in predictions], table["flag"] == 1)
    saved = np.load(tmp_path / "out" / table["map"][0])
    np.testing.assert_allclose(saved, detector.predict(eight[:1])[0].map, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("aspect", ["squash", "pad"])
def test_the_map_of_a_wide_image_peaks_where_the_anomaly_is(aspect: str) -> None:
    normal = np.random.default_rng(0).normal(0.5, 0.01, (30, 64, 128)).astype(np.float32)
    detector = Detector.fit("gaussian", normal, preset="tiny", train=PLAIN, preprocessing={"aspect": aspect}, side=64)
    changed = normal[0].copy()
    changed[20:28, 90:106] = 1
    heat = detector.predict([changed])[0].map - detector.predict([normal[0]])[0].map
    weight = np.clip(heat, 0, None) ** 2
    rows, columns = np.mgrid[:64, :128]
    centre = [(weight * axis).sum() / weight.sum() for axis in (rows, columns)]
    assert centre == pytest.approx([23.5, 97.5], abs=0.5)


def test_what_was_saved_predicts_the_same(detector: Detector, tmp_path: Path) -> None:
    detector.save(tmp_path / "run")
    new = anatomy(4, 64, seed=5)[:, 0]
    loaded = Detector.load(tmp_path / "run")
    assert [p.score for p in loaded.predict(new)] == [p.score for p in detector.predict(new)]
    assert loaded.calibration.threshold == detector.calibration.threshold
    with pytest.raises(ValueError, match="holds a run already; choose another folder"):
        detector.save(tmp_path / "run")
    paths = write_images(tmp_path / "new", new[:, None])
    assert len(api.score(tmp_path / "run", tmp_path / "new")) == 4  # the command line takes it, too
    assert api.sheet(tmp_path / "run", paths[0], tmp_path / "a.html").is_file()
    assert api.report(tmp_path / "run").is_file()
    with pytest.raises(ValueError, match="give a folder or files to score"):
        api.score(tmp_path / "run")


def test_in_memory_one_process_trains() -> None:
    with pytest.raises(ValueError, match=r"train\.devices is 2"):
        Detector.fit("ae", anatomy(10, 64)[:, 0], preset="tiny", train={"devices": 2})


def test_the_false_alarm_rate_can_change_without_training(run: Run, detector: Detector) -> None:
    assert Detector.load(run, false_alarm_rate=0.5).calibration.threshold < Detector.load(run).calibration.threshold
    with pytest.raises(ValueError, match=r"false_alarm_rate is 1\.5"):
        Detector.load(run, false_alarm_rate=1.5)


def test_calibration_and_scoring_use_one_precision(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = Run.load(run.folder)
    assert stored.train.precision == "float32"
    assert stored.precision == "float32"
    stored.about["precision"] = "bf16"
    assert Detector.of(stored, stored.model()).dtype is torch.bfloat16  # whatever this machine would choose


def test_a_precision_that_auto_chose_is_kept(tmp_path: Path) -> None:
    write_images(tmp_path / "normals", anatomy(12, 64))
    made = loligo.train("ae", tmp_path / "normals", tmp_path / "run", preset="tiny", train={"epochs": 1})
    assert Run.load(made.folder).train.precision == "auto"
    assert Run.load(made.folder).precision in ("bf16", "float32")


def test_without_calibration_there_are_scores_but_no_predictions() -> None:
    settings = Settings.of("gaussian", "tiny")
    bare = Detector(settings.new_model(), settings, settings.preprocess())
    data = dataset(anatomy(3, 64))
    assert bare.scores(data).shape == (3,)
    with pytest.raises(ValueError, match="not calibrated"):
        list(bare.predictions(data))


@pytest.mark.parametrize(
    ("images", "match"),
    [
        ([], "there are no images"),
        ([np.full((4, 4), 300.0)], r"image 0: .*floats must lie in \[0, 1\]"),
        ([np.zeros((8, 8)), np.full((8, 8), np.nan)], "image 1: .*NaN"),
        (["missing.png"], r"missing\.png"),
    ],
)
def test_what_cannot_be_used_is_named(detector: Detector, images: list[object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        detector.predict(images)


def test_options_are_those_of_the_method() -> None:
    with pytest.raises(ValueError, match="gaussian has no 'sides'; did you mean 'side'"):
        Detector.fit("gaussian", anatomy(10, 64)[:, 0], sides=3)


def test_a_device_that_is_not_there_is_said(run: Run) -> None:
    with pytest.raises(ValueError, match="device is 'quantum'; this machine has cpu"):
        Detector.load(run, device="quantum")
