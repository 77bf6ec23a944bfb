"""Training-set contamination: exact counts, the same samples by the same seed, clean splits left alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import PIL.Image
import pytest

from conftest import anatomy, blob, write_images
from loligo import contamination as module
from loligo.contamination import candidates, contaminate, mixed, training_size
from loligo.data import manifest
from loligo.runs.run import Run

TRAIN, ABNORMAL = 40, 24


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest with all splits; its validation split holds the abnormal images, two a patient."""
    root = tmp_path_factory.mktemp("data")
    rows = []
    for split, count in (("train", TRAIN), ("calibration", 12), ("validation", 3), ("test", 10)):
        for i, path in enumerate(write_images(root / split, anatomy(count, 32, seed=len(split)))):
            rows.append({"path": str(path), "split": split, "label": 0, "patient": f"{split}{i}"})
    for split, count in (("validation", ABNORMAL), ("test", 10)):
        for i, path in enumerate(write_images(root / split, blob(anatomy(count, 32, seed=50)), "b")):
            rows.append({"path": str(path), "split": split, "label": 1, "patient": f"ill {split}{i // 2}"})
    manifest.write(manifest.check(pd.DataFrame(rows)), root / "m.csv")
    return root / "m.csv"


@pytest.fixture
def rows(data: Path) -> pd.DataFrame:
    return manifest.read(data)


def run(data: Path, out: Path, method: str = "gaussian", **options: object) -> pd.DataFrame:
    return contaminate(method, data, data, out, preset="tiny", **options)  # type: ignore[arg-type]


def part(rows: pd.DataFrame, split: str) -> list[str]:
    return rows.loc[rows["split"] == split, "path"].tolist()


def test_a_rate_of_the_normals_is_replaced_exactly(data: Path, rows: pd.DataFrame, tmp_path: Path) -> None:
    table = run(data, tmp_path, rates=(0, 0.1, 0.25, 0.5))
    assert table["rate"].tolist() == [0, 0.1, 0.25, 0.5]
    assert table["n_train"].tolist() == [TRAIN] * 4
    assert table["n_abnormal"].tolist() == [0, 4, 10, 20]
    abnormal = set(rows.loc[rows["label"] == 1, "path"])
    for rate, count in zip(table["rate"], table["n_abnormal"], strict=True):
        kept = Run.load(tmp_path / "gaussian" / f"rate_{rate:.2f}_seed_0").manifest()
        trained = kept[kept["split"] == "train"]
        assert len(set(trained["path"]) & abnormal) == count
        assert set(trained.loc[trained["contaminant"] == 1, "path"]) == set(trained["path"]) & abnormal
        assert trained.loc[trained["contaminant"] == 1, "label"].isna().all()
        for split in ("calibration", "test"):
            assert part(kept, split) == part(rows, split)
            assert (kept.loc[kept["split"] == split, "contaminant"] == 0).all()
        assert kept.loc[kept["split"] == "validation", "label"].tolist() == [0, 0, 0]


def test_rows_hold_the_clean_protocol_of_their_run(data: Path, tmp_path: Path) -> None:
    import json

    table = run(data, tmp_path, rates=(0.5,))
    measured = json.loads(
        (tmp_path / "gaussian" / "rate_0.50_seed_0" / "scores" / "test" / "metrics.json").read_text()
    )["clean"]
    for key in ("auc", "auc_low", "auc_high", "ap"):
        assert table[key][0] == pytest.approx(measured[key], abs=1e-5)
    assert set(table["protocol"]) == {"clean"}


def test_finished_runs_are_not_made_again(data: Path, tmp_path: Path) -> None:
    before = run(data, tmp_path, rates=(0, 0.5))
    model = tmp_path / "gaussian" / "rate_0.50_seed_0" / "model.safetensors"
    made = model.stat().st_mtime_ns
    (tmp_path / "gaussian" / "rate_0.00_seed_0" / "calibration.json").unlink()  # as where it was cut off
    after = run(data, tmp_path, rates=(0, 0.5, 0.1))
    assert model.stat().st_mtime_ns == made
    assert (tmp_path / "gaussian" / "rate_0.00_seed_0" / "calibration.json").is_file()
    assert after["rate"].tolist() == [0, 0.1, 0.5]
    same = [c for c in before if c not in ("train_seconds", "commit", "images_per_s")]
    pd.testing.assert_frame_equal(after[after["rate"] != 0.1].reset_index(drop=True)[same], before[same])


def test_a_commit_of_digits_stays_as_it_was(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for rate, commit in ((0.0, "0012345"), (0.5, "12e4567")):
        monkeypatch.setattr("loligo.training.cost.commit", lambda commit=commit: commit)
        run(data, tmp_path, rates=[rate])
    assert "0012345" in (tmp_path / "contamination.csv").read_text()
    assert run(data, tmp_path, rates=[0.0, 0.5])["commit"].tolist() == ["0012345", "12e4567"]


def test_methods_and_seeds_rate_a_table_and_a_picture(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path, rates=(0, 0.5), seeds=(0, 3))
    only = run(data, tmp_path, "ae", rates=(0, 0.5), train={"epochs": 1})
    assert set(only["method"]) == {"ae"}
    table = pd.read_csv(tmp_path / "contamination.csv")
    assert sorted(table[["method", "rate", "seed"]].to_numpy().tolist()) == [
        ["ae", 0, 0], ["ae", 0.5, 0],
        ["gaussian", 0, 0], ["gaussian", 0, 3], ["gaussian", 0.5, 0], ["gaussian", 0.5, 3],
    ]  # fmt: skip
    with PIL.Image.open(tmp_path / "contamination.png") as opened:
        assert np.asarray(opened.convert("L")).std() > 10


def test_the_curve_shows_means_and_every_interval() -> None:
    rows = [("a", 0.0, 0, 0.9), ("a", 0.5, 0, 0.7), ("a", 0.0, 1, 0.8), ("a", 0.5, 1, 0.6), ("b", 0.0, 0, 0.5)]
    table = pd.DataFrame(rows, columns=["method", "rate", "seed", "auc"])
    table = table.assign(auc_low=table["auc"] - 0.05, auc_high=table["auc"] + 0.02)
    (axes,) = module.draw(table).axes
    lines = {str(line.get_label()): line for line in axes.get_lines()}
    np.testing.assert_allclose(lines["a (2 seeds)"].get_xydata(), [[0, 0.85], [50, 0.65]])
    np.testing.assert_allclose(lines["b (1 seed)"].get_xydata(), [[0, 0.5]])
    ends = np.concatenate([np.asarray(bar.get_segments())[:, :, 1] for bar in axes.collections])
    np.testing.assert_allclose(ends, [[0.85, 0.92], [0.65, 0.72], [0.75, 0.82], [0.55, 0.62], [0.45, 0.52]])


def test_samples_are_nested_and_decided_by_the_seed(rows: pd.DataFrame) -> None:
    pool = candidates(rows, rows)
    rows = rows[rows["split"] != "validation"]

    def abnormal(rate: float, seed: int) -> set[str]:
        found = mixed(rows, pool, TRAIN, rate, seed)
        return set(found.loc[found["contaminant"] == 1, "path"])

    assert abnormal(0.3, 0) == abnormal(0.3, 0) != abnormal(0.3, 1)
    assert abnormal(0.1, 0) < abnormal(0.3, 0) < abnormal(0.5, 0)
    some, more = (mixed(rows, pool, TRAIN, rate, 0).query("contaminant == 0") for rate in (0.1, 0.3))
    assert set(part(more, "train")) < set(part(some, "train"))


@pytest.mark.parametrize(
    ("normals", "abnormal", "rate", "size"), [(40, 24, 0.5, 40), (40, 7, 0.5, 14), (10, 1, 0.3, 4)]
)
def test_training_size_is_the_largest_that_fits(normals: int, abnormal: int, rate: float, size: int) -> None:
    assert training_size(normals, abnormal, rate) == size
    assert round(rate * size) <= abnormal
    assert size == normals or round(rate * (size + 1)) > abnormal


def test_too_few_abnormal_images_shrink_every_rate(
    data: Path, rows: pd.DataFrame, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    few = [Path(path) for path in rows.loc[(rows["label"] == 1) & (rows["split"] == "validation"), "path"][:7]]
    table = contaminate("gaussian", data, few, tmp_path, rates=(0, 0.5), preset="tiny")
    assert table["n_train"].tolist() == [14, 14]
    assert table["n_abnormal"].tolist() == [0, 7]
    said = caplog.text
    assert "there are 7 abnormal images: enough for a rate of 0.175 of the 40 training images, not for 0.5" in said
    assert "every rate trains on 14 images" in said


def test_which_images_count_as_abnormal(data: Path, rows: pd.DataFrame, tmp_path: Path) -> None:
    abnormal = rows.loc[(rows["label"] == 1) & (rows["split"] == "validation"), "path"].tolist()
    assert candidates(data, rows)["path"].tolist() == abnormal  # those of its test split stay there
    assert candidates([Path(abnormal[0]), Path(abnormal[3])], rows)["path"].tolist() == [abnormal[0], abnormal[3]]
    plain = write_images(tmp_path / "plain", anatomy(2, 32))
    assert candidates(tmp_path / "plain", rows)["path"].tolist() == [str(path) for path in plain]
    classes = tmp_path / "classes"
    write_images(classes / "normal", anatomy(2, 32))
    ill = write_images(classes / "ill", anatomy(2, 32))
    assert candidates(classes, rows)["path"].tolist() == [str(path) for path in ill]


def test_patients_of_abnormal_images_leave_validation_and_may_not_be_tested(rows: pd.DataFrame) -> None:
    pool = candidates(rows, rows)
    some = pool.iloc[[0]]
    assert rows.loc[module._of_same(rows, some), "path"].tolist() == pool["path"][:2].tolist()  # two of one patient
    theirs = some.assign(patient="test1")
    with pytest.raises(ValueError, match=r"1 patient\(s\) stand in more than one split: test1"):
        mixed(rows[rows["split"] != "validation"], theirs, 2, 0.5, 0)


def test_unfit_data_is_reported_before_any_training(data: Path, rows: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"rates are \[0\.1, 1\.0\]; at least one is needed, each from 0 to below 1"):
        run(data, tmp_path, rates=[0.1, 1.0])
    with pytest.raises(ValueError, match="they must differ by a hundredth at least"):
        run(data, tmp_path, rates=[0.1, 0.101])
    healthy = rows[(rows["label"] == 0) | (rows["split"] != "test")]
    with pytest.raises(ValueError, match=r"has 10 images labelled normal \(0\) and 0 abnormal"):
        contaminate("gaussian", healthy, data, tmp_path)
    with pytest.raises(ValueError, match=r"given as abnormal 10 are \(label 1\), and 10 of those stand in"):
        contaminate("gaussian", data, rows[rows["split"] == "test"], tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_run_on_other_images_is_not_taken_for_this_one(data: Path, rows: pd.DataFrame, tmp_path: Path) -> None:
    run(data, tmp_path, rates=[0.1])
    abnormal = rows[(rows["label"] == 1) & (rows["split"] == "validation")]
    with pytest.raises(ValueError, match=r"rate_0\.10_seed_0 was trained on other images"):
        contaminate("gaussian", data, abnormal.iloc[12:].reset_index(drop=True), tmp_path, rates=[0.1], preset="tiny")


def test_an_image_that_cannot_be_read_stops_it_so_that_counts_are_exact(data: Path, tmp_path: Path) -> None:
    (tmp_path / "ill").mkdir()
    (tmp_path / "ill" / "broken.png").write_text("no image")
    with pytest.raises(ValueError, match=r"broken\.png"):
        contaminate("gaussian", data, tmp_path / "ill", tmp_path / "out", rates=[0.5], preset="tiny")
