"""The run folder's tables, read as they were written; files that a table names, only where they may lie."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from loligo.runs.folder import RunFolder

HEAD = "path,split,label,score,anomaly_score,p_value,flag"


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    (tmp_path / "run" / "maps").mkdir(parents=True)
    return RunFolder(tmp_path / "run")


def scores(folder: RunFolder, **columns: object) -> pd.DataFrame:
    table = pd.DataFrame({"path": ["a.png", "NA"], "split": "test", "label": pd.array([1, None], dtype="Int64")})
    table = table.assign(score=[1.5, -2.0], anomaly_score=0.5, p_value=0.1, flag=[1, 0]).assign(**columns)
    folder.write_scores(table)
    return table


def test_scores_are_read_as_they_were_written(folder: RunFolder) -> None:
    table = scores(folder, patient=["007", ""], kind=["None", "7"], map=["maps/a.npy", ""])
    found = folder.read_scores()
    pd.testing.assert_frame_equal(found[list(table)], table, check_dtype=False)
    assert found["label"].dtype == "Int64" and found["mask"].tolist() == ["", ""]


def test_labels_may_be_written_as_other_programs_do(folder: RunFolder) -> None:
    folder.scores.write_text(f"{HEAD}\na,test,1.0,1,1,1,1\nb,test,,1,1,1,1\n")
    assert folder.read_scores()["label"].fillna(-1).tolist() == [1, -1]


def test_metrics_of_earlier_scores_go_with_them(folder: RunFolder) -> None:
    folder.write_metrics({"auc": 0.5})
    assert folder.read_metrics() == {"auc": 0.5}
    scores(folder)
    assert folder.read_metrics() is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lacks the column path, split, label, score, .*; it has no columns"),
        ("path,score\nx,1\n", "lacks the column split, label, anomaly_score, p_value, flag; it has path, score"),
        (f"{HEAD}\na,test,,b,0,0,0\n", "column score is not all numbers"),
        (f"{HEAD}\na,test,,,0,0,0\n", "score is not a finite number in 1 of 1 rows"),
        (f"{HEAD}\na,test,2,1,0,0,0\n", r"label 2 is not 0 \(normal\)"),
        (f"{HEAD}\n", "has no rows"),
    ],
)
def test_a_table_that_is_none_of_scores_is_named(text: str, message: str, folder: RunFolder) -> None:
    folder.scores.write_text(text)
    with pytest.raises(ValueError, match=rf"scores\.csv: {message}"):
        folder.read_scores()


def test_missing_scores_say_what_makes_them_and_other_files_are_none(folder: RunFolder) -> None:
    with pytest.raises(ValueError, match=r"has no scores\.csv; make it with 'loligo score"):
        folder.read_scores()
    known = (folder.read_config(), folder.read_history(), folder.read_epochs(), folder.read_rejected())
    assert known == (None,) * 4


@pytest.mark.parametrize("text", ["- 1", "{"])
def test_a_configuration_that_is_no_mapping_is_named(text: str, folder: RunFolder) -> None:
    folder.config.write_text(text)
    with pytest.raises(ValueError, match=r"config\.yaml: "):
        folder.read_config()


def test_each_stage_replaces_its_own_rejected_files_alone(folder: RunFolder) -> None:
    for name, during in (("a", "training"), ("b", "scoring"), ("c", "scoring")):
        folder.add_rejected(pd.DataFrame({"path": [name], "reason": ["broken"]}), during)  # type: ignore[arg-type]
    found = folder.read_rejected()
    assert found is not None
    assert found[["path", "during"]].to_numpy().tolist() == [["a", "training"], ["c", "scoring"]]
    folder.add_rejected(pd.DataFrame(columns=["path", "reason"]), "scoring")
    found = folder.read_rejected()
    assert found is not None and found["path"].tolist() == ["a"]


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


def test_a_table_may_name_files_below_maps_alone(folder: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "secret.npy").touch()
    (folder.maps / "link.npy").symlink_to(tmp_path / "secret.npy")
    (folder.maps / "inside.npy").symlink_to(folder.maps / "a.npy")
    assert folder.artefact("maps/a.npy") == folder.maps / "a.npy"
    assert folder.artefact("maps/inside.npy") == folder.maps / "inside.npy"
    names = (str(tmp_path / "secret.npy"), str(folder.maps / "a.npy"), "../secret.npy", "maps/../../secret.npy")
    for name in (*names, "maps/../config.yaml", "maps/link.npy", "other/a.npy", "config.yaml", "", "maps/\0"):
        with pytest.raises(ValueError, match=r"only files below its own maps/|null"):
            folder.artefact(name)


def test_maps_may_lie_on_another_disk(folder: RunFolder, tmp_path: Path) -> None:
    folder.maps.rmdir()
    (tmp_path / "disk").mkdir()
    folder.maps.symlink_to(tmp_path / "disk")
    assert folder.artefact("maps/a.npy") == folder.maps / "a.npy"
