"""Every normal image scored by a model that did not see it, against a loop written out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from conftest import anatomy, write_images
from loligo import api, cross_calibration
from loligo.calibration import Calibration
from loligo.data.splits import folds
from loligo.detector import Detector
from loligo.runs.run import Run
from loligo.training import images, loop

COUNT = 30


@pytest.fixture(scope="module")
def normals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("normals")
    write_images(folder, anatomy(COUNT, 64))
    return folder


@pytest.fixture(scope="module")
def run(normals: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return api.train("gaussian", normals, tmp_path_factory.mktemp("runs") / "a", preset="tiny")


def test_few_normals_all_train_and_all_calibrate(run: Run) -> None:
    data = run.about["data"]
    assert (data["train"], data["calibration"], data["folds"], data["false_alarm_rate"]) == (27, COUNT, 10, 0.05)
    assert set(run.manifest()["split"]) == {"train"}
    assert not (run.folder / "folds").exists()


def test_each_image_is_scored_by_a_model_that_did_not_see_it(run: Run) -> None:
    data = images.load(run, run.manifest())
    fold, scores = folds(data.rows, 10, 0, pd.Series(data.contents)).to_numpy(), np.zeros(COUNT)
    for number in range(10):
        torch.manual_seed(0)
        model = run.new_model()
        loop.fit(model, data.subset(np.flatnonzero(fold != number)), run.train, precision=run.precision, progress=False)
        own = np.flatnonzero(fold == number)
        scores[own] = Detector.of(run, model.eval()).scores(data.subset(own))
        if number == 0:
            np.testing.assert_array_equal(Detector.load(run).scores(data.subset(own)), scores[own])
    kept = Calibration.load(run.files.calibration)
    np.testing.assert_allclose(kept.scores, np.sort(scores))


def test_copies_are_in_one_fold_count_once_and_nothing_but_copies_is_refused(tmp_path: Path) -> None:
    for i in range(2):
        write_images(tmp_path / f"{i}", anatomy(6, 64))
    rows = pd.DataFrame({"path": [str(path) for path in sorted(tmp_path.glob("*/*.png"))], "split": "train"})
    run = api.train("gaussian", rows, tmp_path / "run", preset="tiny", folds=3)
    assert (run.about["data"]["train"], run.about["data"]["calibration"], run.about["data"]["folds"]) == (8, 6, 3)
    assert len(set(Calibration.load(run.files.calibration).scores)) == 6
    with pytest.raises(ValueError, match="all 12 normal images are of one patient, or copies of one"):
        api.train("gaussian", rows.assign(patient="a"), tmp_path / "one", preset="tiny", folds=3)
    with pytest.raises(ValueError, match="5 different normal images to train and calibrate on are too few"):
        api.train("gaussian", rows[~rows["path"].str.contains("000")], tmp_path / "few", preset="tiny")


def test_copies_that_are_held_out_count_once(normals: Path, tmp_path: Path) -> None:
    held = write_images(tmp_path / "held", np.repeat(anatomy(5, 64, seed=9), 3, axis=0))
    run = api.train("gaussian", normals, tmp_path / "run", preset="tiny", calibration=held)
    assert len(Calibration.load(run.files.calibration).scores) == 5


def test_a_fold_that_was_finished_is_not_trained_again(
    run: Run, normals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit, calls = loop.fit, []

    def counted(*args: object, **kwargs: object) -> pd.DataFrame:
        calls.append(1)
        if len(calls) == 5:  # the models of four folds are finished
            raise KeyboardInterrupt
        return fit(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(cross_calibration.loop, "fit", counted)
    with pytest.raises(KeyboardInterrupt):
        api.train("gaussian", normals, tmp_path / "run", preset="tiny")
    again = api.train("gaussian", normals, tmp_path / "run", preset="tiny")
    assert len(calls) == 5 + 1 + 6
    assert again.files.calibration.read_text() == run.files.calibration.read_text()


def test_patients_are_in_one_fold() -> None:
    rows = pd.DataFrame({"path": [f"/d/{i}.png" for i in range(60)], "patient": [f"{i // 4}" for i in range(60)]})
    found = folds(rows, 10, 0, pd.Series([""] * 60))
    assert found.groupby(rows["patient"]).nunique().max() == 1
    assert sorted(found.value_counts()) == [4] * 5 + [8] * 5


@pytest.mark.parametrize(
    ("options", "split", "scored"),
    [
        ({"folds": 0}, {"train": 26, "calibration": 4}, 4),
        ({"folds": 0, "held_out": 0.5}, {"train": 15, "calibration": 15}, 15),
        ({"folds": 3, "false_alarm_rate": 0.2}, {"train": 30}, 30),
        ({"false_alarm_rate": 0.5}, {"train": 26, "calibration": 4}, 4),
    ],
)
def test_what_is_held_out_is_an_option(
    options: dict[str, float], split: dict[str, int], scored: int, normals: Path, tmp_path: Path
) -> None:
    run = api.train("gaussian", normals, tmp_path / "run", preset="tiny", **options)  # type: ignore[arg-type]
    assert run.manifest()["split"].value_counts().to_dict() == split
    assert len(Calibration.load(run.files.calibration).scores) == scored


def test_calibration_images_may_be_given_apart(normals: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "held", anatomy(19, 64, seed=5))
    run = api.train("gaussian", normals, tmp_path / "run", preset="tiny", calibration=tmp_path / "held")
    assert (run.about["data"]["train"], run.about["data"]["calibration"]) == (COUNT, 19)
    with pytest.raises(ValueError, match="stands in more than one row"):
        api.train("gaussian", normals, tmp_path / "other", preset="tiny", calibration=normals)
    with pytest.raises(ValueError, match="19 calibration images, which 5 folds do not need"):
        api.train("gaussian", normals, tmp_path / "b", preset="tiny", calibration=tmp_path / "held", folds=5)


def test_too_few_normals_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    write_images(tmp_path / "few", anatomy(5, 64))
    with pytest.raises(ValueError, match="5 different normal images to train and calibrate on are too few: 6 are"):
        api.train("gaussian", tmp_path / "few", tmp_path / "run", preset="tiny")
    assert not (tmp_path / "run").exists()
