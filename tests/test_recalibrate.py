"""A run calibrated at another site: its rate holds there, it is whole in itself, and what it came from is untouched."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import loligo
from conftest import anatomy, blob, write_images
from loligo import api, cli, recalibration
from loligo.calibration import Calibration
from loligo.data import manifest
from loligo.detector import Detector
from loligo.runs.run import Run

PLAIN = {"precision": "float32"}


def brighter(images: np.ndarray) -> np.ndarray:
    """Return images as another site makes them."""
    return np.clip(images * 1.15 + 0.02, 0, 1)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("home")
    write_images(folder / "data" / "train", anatomy(120, 64))
    write_images(folder / "data" / "test" / "normal", anatomy(12, 64, seed=2))
    write_images(folder / "data" / "test" / "abnormal", blob(anatomy(12, 64, seed=3)))
    return loligo.train("gaussian", folder / "data", folder / "run", preset="tiny", train=PLAIN, folds=0)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    write_images(folder, brighter(anatomy(40, 64, seed=11)))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_false_alarms_hold_at_the_new_site_and_did_not_before(run: Run, site: Path, tmp_path: Path) -> None:
    new = loligo.recalibrate(run, site, tmp_path / "b")
    fresh = brighter(anatomy(300, 64, seed=12))[:, 0]
    alarms = {one: np.mean([p.flag for p in Detector.load(one).predict(fresh)]) for one in (run.folder, new.folder)}
    low, high = Detector.load(new).calibration.interval
    assert alarms[run.folder] > 0.2 and low - 0.02 <= alarms[new.folder] <= high + 0.02


def test_the_new_run_is_whole_in_itself_and_the_old_one_stays(run: Run, site: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(run.folder, home)
    before, old = contents(home), Run.load(home)
    new = loligo.recalibrate(old, site, tmp_path / "b")
    assert contents(home) == before and old.about == Run.load(home).about
    shutil.rmtree(home)
    assert [p.name for p in tmp_path.iterdir()] == ["b"]
    detector = Detector.load(tmp_path / "b")
    unchanged = Detector.load(run)
    shown = anatomy(3, 64, seed=5)[:, 0]
    assert [p.score for p in detector.predict(shown)] == [p.score for p in unchanged.predict(shown)]
    expected = detector.measure(detector.images(manifest.read(new.files.manifest).query("split == 'calibration'")))
    np.testing.assert_array_equal(detector.calibration.scores, np.sort(expected[0]))
    assert (detector.calibration.typical_peak, new.about["data"]["calibration"]) == (np.median(expected[1]), 40)
    assert new.about["data"]["recalibrated_from"] == str(home)
    table = api.score(new)
    assert len(table) == 24
    assert {"clean", "paper"} <= set(api.evaluate(new))
    assert "flags 4.9 % of normals like the 40 normals of the calibration" in api.report(new).read_text()
    page = api.sheet(new, table["path"][0], tmp_path / "a.html").read_text().replace("\u00a0", " ")
    assert "95 % interval" in page


def test_the_manifest_keeps_what_was_trained_on_and_calibrates_on_the_site(
    run: Run, site: Path, tmp_path: Path
) -> None:
    before, after = run.manifest(), loligo.recalibrate(run, site, tmp_path / "b").manifest()
    for split in ("train", "test"):
        assert set(after.loc[after["split"] == split, "path"]) == set(before.loc[before["split"] == split, "path"])
    assert set(after.loc[after["split"] == "calibration", "path"]) == {str(path) for path in site.glob("*.png")}
    seen = api.score(tmp_path / "b", site, tmp_path / "scored")
    assert seen["warnings"].str.contains("seen_in_training").all()


def test_images_of_the_training_copies_and_other_things_are_left_out(run: Run, site: Path, tmp_path: Path) -> None:
    folder = tmp_path / "normals"
    shutil.copytree(site, folder)
    rows = run.manifest()
    trained, held = (rows.loc[rows["split"] == split, "path"].iloc[0] for split in ("train", "calibration"))
    shutil.copy(trained, folder / "trained.png")
    shutil.copy(held, folder / "held.png")
    shutil.copy(folder / "000.png", folder / "twice.png")
    write_images(folder, 1 - anatomy(1, 64, seed=4), "negative")
    (folder / "note.txt").write_text("no image")
    new = loligo.recalibrate(run, folder, tmp_path / "b")
    left = new.files.read_rejected()
    said = dict(zip(left["path"].map(lambda path: Path(path).name), left["reason"], strict=True))
    assert set(said) == {"trained.png", "twice.png", "negative000.png", "note.txt"}
    assert said["trained.png"] == "the run was trained on it"
    assert said["twice.png"] == "it is a copy of another one"
    assert said["negative000.png"].startswith("not scored: it shows something else")
    assert new.about["data"]["calibration"] == 41  # what the run was calibrated on is new to the method
    with pytest.raises(ValueError, match="9 different normal images of a site are too few; give 10 or more"):
        loligo.recalibrate(run, sorted(site.glob("*.png"))[:9], tmp_path / "c")
    with pytest.raises(
        ValueError, match=r"0 different normal .* cannot be used, the first: .*the run was trained on it"
    ):
        loligo.recalibrate(run, list(rows.loc[rows["split"] == "train", "path"]), tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_patients_of_the_training_are_left_out_and_those_of_the_site_are_not_tested_on(
    site: Path, tmp_path: Path
) -> None:
    paths = write_images(tmp_path / "data", anatomy(60, 64))
    rows = pd.DataFrame(
        {"path": map(str, paths), "split": "train", "patient": [f"p{i}" for i in range(60)], "label": 0}
    )
    rows.loc[50:, "split"] = "test"
    run = loligo.train("gaussian", rows, tmp_path / "run", preset="tiny", train=PLAIN)
    normals = pd.DataFrame({"path": map(str, sorted(site.glob("*.png"))), "split": "test", "label": 0})
    train = run.manifest().query("split == 'train'")["patient"].iloc[0]
    normals["patient"] = [train, "p55", *[f"s{i}" for i in range(38)]]
    new = loligo.recalibrate(run, normals, tmp_path / "b")
    assert list(new.files.read_rejected()["reason"]) == ["the run was trained on an image of its patient"]
    assert "p55" not in set(new.manifest().query("split == 'test'")["patient"])
    assert len(new.manifest().query("split == 'test'")) == 9


def test_abnormal_images_are_left_out_and_alone_refused(
    run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_images(tmp_path / "new" / "normal", brighter(anatomy(12, 64, seed=13)))
    write_images(tmp_path / "new" / "abnormal", blob(brighter(anatomy(5, 64, seed=14))))
    new = loligo.recalibrate(run, tmp_path / "new", tmp_path / "b")
    assert new.about["data"]["calibration"] == 12
    assert "5 of 17 images are labelled abnormal and left out" in caplog.text
    sick = pd.DataFrame({"path": [str(p) for p in (tmp_path / "new" / "abnormal").glob("*")], "label": 1})
    with pytest.raises(ValueError, match="all 5 images are labelled abnormal"):
        loligo.recalibrate(run, sick, tmp_path / "c")


def test_ten_normals_say_what_they_can_and_a_shift_says_what_it_rests_on(
    run: Run, site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ten = [str(path) for path in sorted(site.glob("*.png"))[:10]]
    cli.main(["recalibrate", str(run.folder), *ten, "--out", str(tmp_path / "b")])
    said = capsys.readouterr().out
    assert "calibrated on 10 normal images; p from 0.091" in said
    assert "only 10 normal images to calibrate on: no p-value can fall below 0.091" in said
    assert "flags 9.1 % of normals like the 10 normals of the calibration (95 % interval 0.25 to 31 %)" in said
    assert Calibration.load(tmp_path / "b" / "calibration.json").false_alarm_rate == pytest.approx(1 / 11)
    cli.main(["recalibrate", str(run.folder), *ten, "--out", str(tmp_path / "c"), "--shift"])
    assert "moved to the mean of 10 of this site" in capsys.readouterr().out
    plain, moved = (Calibration.load(tmp_path / name / "calibration.json") for name in "bc")
    own = Calibration.load(run.files.calibration)
    assert moved.shifted_by == 10 and moved.mean == pytest.approx(plain.mean)
    np.testing.assert_allclose(np.diff(moved.scores), np.diff(own.scores), atol=1e-9)
    assert (moved.typical_peak, moved.map_scale) == (plain.typical_peak, plain.map_scale)


def test_another_rate_is_kept_and_a_taken_folder_refused(run: Run, site: Path, tmp_path: Path) -> None:
    new = loligo.recalibrate(run, site, tmp_path / "b", false_alarm_rate=0.2)
    assert Run.load(new.folder).false_alarm_rate == 0.2
    assert Detector.load(new).calibration.false_alarm_rate == 0.2
    with pytest.raises(ValueError, match=r"b is there already, and nothing is written over"):
        loligo.recalibrate(run, site, tmp_path / "b")


def test_a_kill_leaves_nothing_at_the_new_place(
    run: Run, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(run.folder)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(recalibration.manifest, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        loligo.recalibrate(run, site, tmp_path / "b")
    assert not list(tmp_path.iterdir()) and contents(run.folder) == before


def test_weights_are_copied_where_they_cannot_be_linked(
    run: Run, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refused)
    new = loligo.recalibrate(run, site, tmp_path / "b")
    assert new.files.model.read_bytes() == run.files.model.read_bytes()
    assert new.files.model.stat().st_ino != run.files.model.stat().st_ino


def test_a_run_of_images_in_memory_is_recalibrated_too(site: Path, tmp_path: Path) -> None:
    saved = Detector.fit("gaussian", anatomy(40, 64)[:, 0], preset="tiny", train=PLAIN).save(tmp_path / "a")
    new = loligo.recalibrate(saved, site, tmp_path / "b")
    assert len(new.manifest()) == 40 and Detector.load(new).calibration.folds == 0
    assert json.loads(new.files.calibration.read_text())["false_alarm_interval"][1] < 0.15
