"""A scoring says what its threshold flags, leaves out what shows something else, and counts false discoveries."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import false_discovery_control

import loligo
from conftest import anatomy, blob, write_images
from loligo import api, cli
from loligo.data.dataset import AllRejected
from loligo.detector import Detector
from loligo.runs.run import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("scoring")
    write_images(folder / "normals", anatomy(80, 64))
    return loligo.train("gaussian", folder / "normals", folder / "run", preset="tiny", folds=0, held_out=0.5)


@pytest.fixture
def new(tmp_path: Path) -> Path:
    write_images(tmp_path / "new", anatomy(9, 64, seed=3))
    write_images(tmp_path / "new", blob(anatomy(4, 64, seed=4)), "blob")
    write_images(tmp_path / "new", 1 - anatomy(2, 64, seed=5), "negative")
    return tmp_path / "new"


def test_an_image_of_something_else_is_not_scored_and_says_why(
    run: Run, new: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["score", str(run.folder), str(new), "--out", str(tmp_path / "out")])
    said = capsys.readouterr()
    assert "13 images" in said.out and "2 files could not be used" in said.err
    assert "the threshold flags 4.9 % of normals like the 40 normals of the calibration (95 % interval" in said.out
    table = pd.read_csv(tmp_path / "out" / "scores.csv")
    left = table[table["reason"].notna()]
    assert sorted(Path(path).name for path in left["path"]) == ["negative000.png", "negative001.png"]
    assert left["reason"].str.startswith("not scored: it shows something else than the training images").all()
    assert left[["rank", "score", "p_value", "map"]].isna().all(axis=None)
    assert table.loc[table["reason"].isna(), "rank"].tolist() == list(range(1, 14))
    assert len(list((tmp_path / "out" / "maps").glob("*.npy"))) == 13
    rejected = pd.read_csv(tmp_path / "out" / "rejected.csv")["path"]
    assert sorted(Path(path).name for path in rejected) == ["negative000.png", "negative001.png"]
    assert api.report(tmp_path / "out").is_file()


def test_it_can_be_scored_all_the_same(run: Run, new: Path, tmp_path: Path) -> None:
    table = api.score(run, new, tmp_path / "out", scope="any")
    checked = api.score(run, new, tmp_path / "checked")
    assert len(table) == 15
    odd = table["path"].str.contains("negative")
    assert table.loc[odd, "warnings"].str.contains("out_of_scope").all()
    pd.testing.assert_series_equal(
        table[~odd].set_index("path")["score"], checked.set_index("path")["score"], check_exact=True
    )
    names = [one.warnings for one in Detector.load(run).predict(sorted(new.glob("negative*")))]
    assert all("out_of_scope" in one for one in names)


def test_nothing_but_something_else_is_an_error_with_the_reason(run: Run, new: Path) -> None:
    with pytest.raises(AllRejected, match=r"all 2 images were rejected, the first: .*negative000\.png: not scored"):
        api.score(run, sorted(new.glob("negative*")))


def test_metrics_say_how_many_were_left_out(run: Run, new: Path, tmp_path: Path) -> None:
    rows = pd.DataFrame({"path": [str(path) for path in sorted(new.glob("*.png"))]})
    rows["label"] = (~rows["path"].str.contains(r"/\d+\.png$")).astype(int)
    api.score(run, rows, tmp_path / "out")
    assert api.evaluate(tmp_path / "out")["scope_note"].startswith("2 images are out of scope and not among the 13")
    clean = api.evaluate(tmp_path / "out")["clean"]
    low, high = Detector.load(run).calibration.interval
    assert (clean["false_alarm_rate_low"], clean["false_alarm_rate_high"]) == (low, high)
    assert "95 % interval" in clean["note"]


def test_q_values_are_those_of_the_worklist(run: Run, new: Path, tmp_path: Path) -> None:
    assert "q_value" not in api.score(run, new, tmp_path / "plain")
    api.score(run, new, tmp_path / "out", q_value=True)
    table = pd.read_csv(tmp_path / "out" / "scores.csv").query("reason.isna()")
    np.testing.assert_allclose(table["q_value"], false_discovery_control(table["p_value"]), rtol=1e-4)
    assert list(table)[:4] == ["rank", "path", "p_value", "q_value"]
    assert api.report(tmp_path / "out").is_file()


def test_an_image_of_the_training_has_no_q_value(run: Run, new: Path, tmp_path: Path) -> None:
    seen = run.manifest()["path"].iloc[0]
    table = api.score(run, [*sorted(new.glob("0*.png")), Path(seen)], tmp_path / "out", q_value=True)
    of_it = table["path"] == seen
    assert table.loc[of_it, "q_value"].isna().all() and table.loc[~of_it, "q_value"].notna().all()
