"""The run folder's tables, read as they were written; files that a table names, only where they may lie."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from loligo.runs.folder import RunFolder
from loligo.runs.scores import ScoreFolder, find

HEAD = "path,split,label,score,anomaly_score,p_value,flag"


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    (tmp_path / "run").mkdir()
    return RunFolder(tmp_path / "run")


@pytest.fixture
def scoring(folder: RunFolder) -> ScoreFolder:
    (folder.scorings / "new" / "maps").mkdir(parents=True)
    return ScoreFolder(folder.scorings / "new")


def scores(scoring: ScoreFolder, **columns: object) -> pd.DataFrame:
    table = pd.DataFrame({"path": ["/d/a.png", "/d/NA"], "split": "test", "label": pd.array([1, None], dtype="Int64")})
    table = table.assign(score=[1.5, -2.0], anomaly_score=0.5, p_value=0.1, flag=[1, 0]).assign(**columns)
    scoring.write_scores(table, pd.DataFrame({"path": ["/d/c.png"], "reason": ["broken"]}))
    return table


def test_scores_are_read_as_they_were_written(scoring: ScoreFolder) -> None:
    table = scores(scoring, patient=["007", ""], kind=["None", "7"], map=["maps/a.npy", ""])
    found = scoring.read_scores()
    pd.testing.assert_frame_equal(found[list(table)], table, check_dtype=False)
    assert found["label"].dtype == "Int64" and found["mask"].tolist() == ["", ""]
    assert scoring.read_rejected().to_numpy().tolist() == [["/d/c.png", "broken"]]


def test_labels_may_be_written_as_other_programs_do(scoring: ScoreFolder) -> None:
    scoring.scores.write_text(f"{HEAD}\na,test,1.0,1,1,1,1\nb,test,,1,1,1,1\n")
    assert scoring.read_scores()["label"].fillna(-1).tolist() == [1, -1]


def test_paths_move_with_what_lies_beside_the_run(folder: RunFolder, scoring: ScoreFolder, tmp_path: Path) -> None:
    scores(scoring, path=[str(tmp_path / "new" / "a.png"), "/d/b.png"])
    assert pd.read_csv(scoring.scores)["path"][0] == "../../../new/a.png"
    moved = ScoreFolder(tmp_path.rename(tmp_path.with_name("moved")) / scoring.path.relative_to(tmp_path))
    assert moved.read_scores()["path"].tolist() == [str(tmp_path.with_name("moved") / "new" / "a.png"), "/d/b.png"]


def test_paths_through_a_link_stay_whole(scoring: ScoreFolder, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(scoring.path)
    scores(ScoreFolder(tmp_path / "link"), path=[str(tmp_path / "new" / "a.png"), "/d/b.png"])
    assert pd.read_csv(scoring.scores)["path"][0] == str(tmp_path / "new" / "a.png")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lacks the column path, score, .*; it has no columns"),
        ("path,score\nx,1\n", "lacks the column anomaly_score, p_value, flag; it has path, score"),
        (f"{HEAD}\na,test,,b,0,0,0\n", "column score is not all numbers"),
        (f"{HEAD}\na,test,,,0,0,0\n", "score is not a finite number in 1 of 1 rows"),
        (f"{HEAD}\na,test,2,1,0,0,0\n", r"label 2 is not 0 \(normal\)"),
        (f"{HEAD}\n", "has no rows"),
    ],
)
def test_a_table_that_is_none_of_scores_is_named(text: str, message: str, scoring: ScoreFolder) -> None:
    scoring.scores.write_text(text)
    with pytest.raises(ValueError, match=rf"scores\.csv: {message}"):
        scoring.read_scores()


def test_missing_scores_say_what_makes_them_and_other_files_are_none(folder: RunFolder, scoring: ScoreFolder) -> None:
    with pytest.raises(ValueError, match=r"has no scores\.csv; make one with 'loligo score"):
        scoring.read_scores()
    assert (scoring.read_metrics(), len(scoring.read_rejected())) == (None, 0)
    known = (folder.read_config(), folder.read_history(), folder.read_epochs(), folder.read_rejected())
    assert known == (None,) * 4


def test_a_run_stands_for_its_latest_scoring_and_says_what_it_lacks(folder: RunFolder, scoring: ScoreFolder) -> None:
    for file, message in (
        (None, "is neither a run folder nor one of a scoring"),
        (folder.config, "its training is not finished"),
        (folder.calibration, "has scored nothing yet"),
    ):
        if file:
            file.touch()
        with pytest.raises(ValueError, match=message):
            find(folder.path)
    scores(scoring)
    later = ScoreFolder(folder.scorings / "a")
    scores(later)
    assert find(folder.path) == later and find(scoring.path) == scoring
    assert (later.run, scoring.run) == (folder, folder)


def test_a_scoring_whose_run_is_gone_says_where_it_was(scoring: ScoreFolder, folder: RunFolder) -> None:
    scoring.write_about({"run": "/gone/run"})
    with pytest.raises(ValueError, match="the run that scored is not at /gone/run any more"):
        assert scoring.run


@pytest.mark.parametrize("text", ["- 1", "{"])
def test_a_configuration_that_is_no_mapping_is_named(text: str, folder: RunFolder) -> None:
    folder.config.write_text(text)
    with pytest.raises(ValueError, match=r"config\.yaml: "):
        folder.read_config()


def test_an_epoch_takes_the_place_of_what_a_killed_training_left(folder: RunFolder) -> None:
    rows = pd.DataFrame({"path": ["a"], "split": "test", "label": [0], "patient": ["01"]})
    for epoch, score in ((1, 0.1), (2, 0.2), (3, 0.3), (2, 0.9)):
        folder.append_epoch(rows.assign(epoch=epoch, score=score), epoch)
    found = folder.read_epochs()
    assert found is not None and found[["epoch", "score"]].to_numpy().tolist() == [[1, 0.1], [2, 0.9]]
    assert found["patient"].tolist() == ["01", "01"]


def test_a_history_may_hold_nothing(folder: RunFolder) -> None:
    folder.write_history([])
    found = folder.read_history()
    assert found is not None and found.empty
    folder.write_history([{"epoch": 1, "phase": "one", "loss": 0.5}])
    found = folder.read_history()
    assert found is not None and found.to_dict("records") == [{"epoch": 1, "phase": "one", "loss": 0.5}]
    folder.history.write_text("epoch,phase,loss\n1,one,x\n")
    with pytest.raises(ValueError, match=r"history\.csv: column loss is not all numbers"):
        folder.read_history()


def test_a_table_may_name_files_below_maps_alone(scoring: ScoreFolder, tmp_path: Path) -> None:
    (tmp_path / "secret.npy").touch()
    (scoring.maps / "link.npy").symlink_to(tmp_path / "secret.npy")
    (scoring.maps / "inside.npy").symlink_to(scoring.maps / "a.npy")
    assert scoring.artefact("maps/a.npy") == scoring.maps / "a.npy"
    assert scoring.artefact("maps/inside.npy") == scoring.maps / "inside.npy"
    names = (str(tmp_path / "secret.npy"), str(scoring.maps / "a.npy"), "../secret.npy", "maps/../../secret.npy")
    for name in (*names, "maps/../config.yaml", "maps/link.npy", "other/a.npy", "config.yaml", "", "maps/\0"):
        with pytest.raises(ValueError, match=r"only files below its own maps/|null"):
            scoring.artefact(name)


def test_maps_may_lie_on_another_disk(scoring: ScoreFolder, tmp_path: Path) -> None:
    scoring.maps.rmdir()
    (tmp_path / "disk").mkdir()
    scoring.maps.symlink_to(tmp_path / "disk")
    assert scoring.artefact("maps/a.npy") == scoring.maps / "a.npy"
