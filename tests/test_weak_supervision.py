"""Weakly supervised methods on files: where their abnormal images come from, and that no other method is given any."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from conftest import anatomy, swapped, write_images
from loligo import api, methods
from loligo.contamination import contaminate
from loligo.data import manifest
from loligo.data.splits import ABNORMAL
from loligo.evaluation import results
from loligo.experiment import complete
from loligo.runs.run import Run
from loligo.runs.settings import Settings
from loligo.sklearn import AnomalyDetector
from loligo.training import loop

TRAIN = {"epochs": 2, "batch_size": 8, "precision": "float32", "device": "cpu"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    write_images(root / "normal", anatomy(24, 64))
    write_images(root / "abnormal", swapped(anatomy(6, 64, seed=1)))
    return root


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return api.train("ddpm_guided", folder, tmp_path_factory.mktemp("run") / "a", preset="tiny", train=TRAIN)


def test_abnormal_images_of_a_folder_are_learnt_from(run: Run, folder: Path) -> None:
    kept = run.manifest()
    assert kept["split"].value_counts().to_dict() == {"train": 20, "calibration": 4, ABNORMAL: 6}
    assert set(kept.loc[kept["split"] == ABNORMAL, "path"]) == set(map(str, (folder / "abnormal").iterdir()))
    assert Run.load(run.folder).about["data"][ABNORMAL] == 6


def test_what_was_learnt_from_is_known_when_it_is_scored(run: Run, folder: Path, tmp_path: Path) -> None:
    new = write_images(tmp_path, swapped(anatomy(1, 64, seed=5)), "new")
    table = api.score(run, [folder / "abnormal" / "000.png", *new], maps="none").set_index("path")
    assert "seen_in_training" in table.loc[str(folder / "abnormal" / "000.png"), "warnings"]
    assert "seen_in_training" not in table.loc[str(new[0]), "warnings"]


def test_a_finished_run_is_known_again(run: Run, folder: Path) -> None:
    rows = pd.DataFrame({"path": sorted(map(str, folder.glob("*/*.png")))})
    known = run.manifest().set_index("path")["split"].replace(ABNORMAL, "validation")
    rows = rows.assign(split=rows["path"].map(known), label=rows["path"].str.contains("abnormal").astype(int))
    complete(run, manifest.check(rows))
    assert (Run.load(run.folder).manifest()["split"] == ABNORMAL).sum() == 6


def test_normal_images_alone_are_refused_and_leave_nothing(folder: Path, tmp_path: Path) -> None:
    for name in ("ddpm_guided", "syndiff"):
        with pytest.raises(ValueError, match=f"{name} is weakly supervised: it learns what tells abnormal images from"):
            api.train(name, folder / "normal", tmp_path / name, preset="tiny", train=TRAIN)
        assert not (tmp_path / name).exists()


def test_other_methods_are_given_none(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = sorted(map(str, folder.glob("*/*.png")))
    split = [ABNORMAL if "/abnormal/" in path else "train" for path in paths]
    rows, given, fit = pd.DataFrame({"path": paths, "split": split}), [], loop.fit

    def spy(method: object, data: object, *rest: object, **options: object) -> pd.DataFrame:
        given.append((data, options))
        return fit(method, data, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "fit", spy)
    done = api.train("gaussian", rows, tmp_path / "g", preset="tiny")
    (data, options), *_ = given
    assert not data.rows["path"].str.contains("/abnormal/").any()  # type: ignore[attr-defined]
    assert options["abnormal"] is None
    assert set(done.manifest()["split"]) <= {"train", "calibration"}
    assert ABNORMAL not in done.about["data"]


def test_rows_of_results_say_it(run: Run) -> None:
    found = {"auc": 0.5, "auc_low": 0.4, "auc_high": 0.6, "ap": 0.5, "accuracy": 0.5, "f1": 0.5}
    assert results.row(run, {"clean": found}, "clean")["weakly_supervised"] is True
    assert methods.table()[[name for name, *_ in methods.table()].index("syndiff")][3].startswith("WEAKLY SUPERVISED")
    assert "[weakly supervised]" in methods.list_methods()["ddpm_guided"]
    assert methods.told("syndiff").startswith("syndiff (weakly supervised): ")


def test_contamination_is_not_for_them(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="syndiff is given abnormal images to train on"):
        contaminate("syndiff", "a.csv", "a.csv", tmp_path)


def test_the_estimator_gives_them_what_is_labelled_1() -> None:
    images = np.concatenate([anatomy(20, 64), swapped(anatomy(6, 64, seed=1))])
    labels = np.repeat([0, 1], [20, 6])
    estimator = AnomalyDetector("syndiff", preset="tiny", train=TRAIN)
    assert estimator.fit(images, labels).decision_function(images).shape == (26,)
    with pytest.raises(ValueError, match="syndiff is weakly supervised"):
        AnomalyDetector("syndiff", preset="tiny", train=TRAIN).fit(images[:20])


def test_settings_know_what_a_method_is_given() -> None:
    rows = manifest.check(pd.DataFrame({"path": ["/a", "/b"], "split": ["train", "validation"], "label": [0, 1]}))
    assert Settings.of("syndiff").given(rows)["split"].tolist() == ["train", ABNORMAL]
    assert Settings.of("ae").given(rows)["split"].tolist() == ["train", "validation"]
