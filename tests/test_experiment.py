"""Whole experiments on generated trees of the public sets' own layouts, by the documented commands."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from conftest import anatomy, blob, write_images
from loligo import experiment
from loligo.cli import main
from loligo.data.sources import chexpert
from loligo.runs.run import Run

NORMAL, ABNORMAL, SIZE = 40, 30, 64
QUICK = ["--preset", "tiny", "--train.epochs", "2"]


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((pixels * 255).round().astype(np.uint8)).save(path, quality=95)


def films(seed: int) -> list[tuple[bool, np.ndarray]]:
    """Draw (abnormal, pixels (H, W)) of each patient."""
    healthy, ill = anatomy(NORMAL, SIZE, seed), blob(anatomy(ABNORMAL, SIZE, seed + 1))
    return [(False, image[0]) for image in healthy] + [(True, image[0]) for image in ill]


def write_chexpert(root: Path) -> None:
    """Write CheXpert-v1.0-small: JPEG files, train.csv and valid.csv with all 19 columns, lateral views among them."""
    for split, first in (("train", 1), ("valid", 64541)):
        rows = []
        for i, (ill, pixels) in enumerate(films(first)[:: 1 if split == "train" else 7]):
            study = f"{split}/patient{first + i:05}/study1"
            said = {"Path": f"CheXpert-v1.0-small/{study}/view1_frontal.jpg", "Sex": "Male", "Age": 60}
            said |= {"Frontal/Lateral": "Frontal", "AP/PA": "PA", chexpert.NO_FINDING: None if ill else 1}
            said |= dict.fromkeys([*chexpert.FINDINGS, chexpert.DEVICES])
            said |= {"Edema": 1, "Fracture": -1} if ill else {}
            side = {"Path": f"CheXpert-v1.0-small/{study}/view2_lateral.jpg", "Frontal/Lateral": "Lateral"}
            lateral = side | {"AP/PA": None}
            rows += [said, said | lateral]
            save(root / study / "view1_frontal.jpg", pixels)
            save(root / study / "view2_lateral.jpg", pixels)
        pd.DataFrame(rows).to_csv(root / f"{split}.csv", index=False)


def write_covidx(root: Path) -> None:
    """Write COVIDx: lists of patient, file, class and origin, and PNG files in train/ and test/."""
    for split, first in (("train", 0), ("test", 500)):
        lines = []
        for i, (ill, pixels) in enumerate(films(first + 9)):
            name = f"{split}-{i}.png"
            lines.append(f"{first + i} {name} {('pneumonia', 'COVID-19')[i % 2] if ill else 'normal'} rsna")
            save(root / split / name, pixels)
        (root / f"{split}_COVIDx9A.txt").write_text("\n".join(lines) + "\n")


TREES = {"chexpert": write_chexpert, "covidx": write_covidx}


@pytest.fixture(scope="module", params=sorted(TREES))
def tree(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    root = tmp_path_factory.mktemp(request.param)
    TREES[request.param](root)
    return request.param, root


def test_index_train_score_and_evaluate_one_by_one(
    tree: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source, root), run = tree, str(tmp_path / "run")
    main(["index", source, str(root), "-o", str(tmp_path / "m.csv"), "--validation", "0.1"])
    main(
        ["train", "ae", "--data", str(tmp_path / "m.csv"), "--out", run, *QUICK, "--train.evaluate_every_epoch", "true"]
    )
    main(["score", run])
    main(["evaluate", run])
    assert "AUC (95 % interval)" in capsys.readouterr().out
    listed, scores = pd.read_csv(tmp_path / "m.csv"), pd.read_csv(tmp_path / "run" / "scores" / "test" / "scores.csv")
    assert len(scores) == (listed["split"] == "test").sum() > 10
    assert len(pd.read_csv(tmp_path / "run" / "rejected.csv")) == 0
    metrics = json.loads((tmp_path / "run" / "scores" / "test" / "metrics.json").read_text())
    assert metrics["clean"]["auc"] > 0.7
    assert "best on labelled validation" in metrics["paper"]["note"]


def test_one_command_does_the_same(tree: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (source, root), run, results = tree, tmp_path / "run", tmp_path / "results.csv"
    command = ["experiment", source, "gaussian", "--data", str(root), "--out", str(run), "--preset", "tiny"]
    main([*command, "--index.seed", "3", "--results", str(results)])
    out = capsys.readouterr().out
    assert "AUC (95 % interval)" in out and str(run / "scores" / "test" / "report.html") in out
    assert all((run / "scores" / "test" / name).is_file() for name in ("report.html", "figures/roc.png"))
    manifest = Run.load(run).manifest()
    expected = experiment.DATASETS[source](root, seed=3)
    assert manifest["path"].tolist() == expected["path"].tolist()
    assert manifest["split"].tolist() == expected["split"].tolist()
    assert pd.read_csv(results)["dataset"].tolist() == [source, source]
    made = (run / "model.safetensors").stat().st_mtime_ns
    main([*command, "--index.seed", "3"])
    assert (run / "model.safetensors").stat().st_mtime_ns == made
    with pytest.raises(SystemExit):
        main([*command, "--index.seed", "4"])
    assert "was trained on other images" in capsys.readouterr().err


def test_a_folder_with_splits_and_classes(tmp_path: Path) -> None:
    write_images(tmp_path / "data" / "train" / "normal", anatomy(40, SIZE))
    write_images(tmp_path / "data" / "test" / "normal", anatomy(10, SIZE, seed=1))
    write_images(tmp_path / "data" / "test" / "ill", blob(anatomy(10, SIZE, seed=2)))
    found = experiment.run("folder", "gaussian", tmp_path / "data", tmp_path / "run", preset="tiny")
    assert (found["clean"]["n_normal"], found["clean"]["n_abnormal"]) == (10, 10)
    assert (Run.load(tmp_path / "run").manifest()["split"] == "calibration").sum() == 4
    write_images(tmp_path / "data" / "test" / "ill", blob(anatomy(3, SIZE, seed=3)), "more")
    found = experiment.run("folder", "gaussian", tmp_path / "data", tmp_path / "run", preset="tiny")
    assert found["clean"]["n_abnormal"] == 13  # what is new is scored, without a new training


def test_an_experiment_without_test_labels_is_refused_before_it_trains(tmp_path: Path) -> None:
    write_images(tmp_path / "data" / "normal", anatomy(40, SIZE))
    with pytest.raises(ValueError, match=r"has test labels \{\}; metrics need normal \(0\) and abnormal \(1\)"):
        experiment.run("folder", "gaussian", tmp_path / "data", tmp_path / "run", preset="tiny")
    assert not (tmp_path / "run").exists()


def test_digit_anatomy_is_drawn_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = experiment.digit_anatomy.write
    small = {"calibration": 10, "test": 8, "per_kind": 4}
    monkeypatch.setattr(experiment.digit_anatomy, "write", lambda folder, **given: write(folder, **small, **given))
    index = {"seed": 5, "train": 30}
    experiment.run("digit_anatomy", "gaussian", tmp_path / "digits", tmp_path / "a", preset="tiny", index=index)
    drawn = (tmp_path / "digits" / "manifest.csv").stat().st_mtime_ns
    found = experiment.run("digit_anatomy", "gaussian", tmp_path / "digits", tmp_path / "b", preset="tiny")
    assert (tmp_path / "digits" / "manifest.csv").stat().st_mtime_ns == drawn
    assert set(found["kinds"]) == {"novel", "disorder", "missing", "flipped"}


def test_a_set_that_was_drawn_otherwise_is_not_taken_for_it(tmp_path: Path) -> None:
    experiment.digit_anatomy.write(tmp_path, train=4, calibration=2, test=2, per_kind=1, validation=0, seed=3)
    draw = experiment.DATASETS["digit_anatomy"]
    assert len(draw(tmp_path, seed=3)) == 12
    with pytest.raises(ValueError, match="holds a set of seed 3, not 7; choose another folder"):
        draw(tmp_path, seed=7)
    with pytest.raises(ValueError, match="holds a set of source digit_anatomy, not digit_anatomy_mnist"):
        draw(tmp_path, seed=3, mnist=tmp_path)
    assert len(draw(tmp_path, train=4)) == 12
    with pytest.raises(ValueError, match="holds a set of 4 images to train on, not 5; choose another folder"):
        draw(tmp_path, train=5)


def test_mixed_training_by_its_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_covidx(tmp_path / "data")
    main(["index", "covidx", str(tmp_path / "data"), "-o", str(tmp_path / "m.csv"), "--validation", "0.5"])
    command = ["contaminate", "ae", "--data", str(tmp_path / "m.csv"), "--abnormal", str(tmp_path / "m.csv")]
    main([*command, "--out", str(tmp_path / "out"), "--rates", "0", "0.2", "--seeds", "0", "1", *QUICK])
    assert "contamination.png" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "out" / "contamination.csv").sort_values(["rate", "seed"], ignore_index=True)
    assert table[["rate", "seed"]].to_numpy().tolist() == [[0, 0], [0, 1], [0.2, 0], [0.2, 1]]
    assert table["n_abnormal"].tolist() == [0, 0, *[round(0.2 * n) for n in table["n_train"][2:]]]
    assert set(table["epochs"]) == {2} and (tmp_path / "out" / "contamination.png").is_file()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["experiment"],
            "the first argument is DATASET: one of chexpert, covidx, dicom, digit_anatomy, folder, mood, toy_brains, "
            "zhanglab",
        ),
        (["experiment", "chexprt", "ae"], "did you mean 'chexpert'"),
        (["experiment", "covidx"], "the second argument is METHOD"),
        (["experiment", "covidx", "squib"], "did you mean 'squid'"),
        (["experiment", "covidx", "ae", "--index.viev", "PA"], "has no option --index.viev"),
        (["contaminate", "ae", "--rate", "0.1"], "did you mean '--rates'"),
        (["contaminate", "ae", "--train.seed", "1"], "has no option --train.seed"),
    ],
)
def test_wrong_input_is_one_line(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1


def test_an_unknown_data_set_is_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no data set 'covid'; did you mean 'covidx'\?"):
        experiment.run("covid", "gaussian", tmp_path, tmp_path / "run")
