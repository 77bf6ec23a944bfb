"""Files that are no images, from the command line: each is listed with its reason, and none stops the others."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pytest

from conftest import anatomy, write_images
from loligo import api
from loligo.cli import main
from loligo.runs.run import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("normals")
    write_images(folder, anatomy(30))
    (folder / "case.dcm").write_bytes(bytes(128) + b"DICM")
    made = api.train("gaussian", folder, folder / "run", preset="tiny")
    rejected = pd.read_csv(made.folder / "rejected.csv")
    assert rejected["reason"].str.startswith("is DICOM that holds nothing").all() and len(rejected) == 1
    return made


@pytest.fixture
def new(tmp_path: Path) -> Path:
    folder = tmp_path / "new"
    write_images(folder, anatomy(3, seed=9))
    (folder / "000.png").rename(folder / "IM000001")
    (folder / "case.dcm").write_bytes(bytes(128) + b"DICM")
    (folder / "letter.pdf").write_bytes(b"%PDF-1.4")
    (folder / "wide.png").write_bytes((folder / "001.png").read_bytes()[:40])
    os.mkfifo(folder / "pipe.png")
    return folder


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
@pytest.mark.parametrize("named", [False, True])
def test_a_folder_and_its_files_by_name_are_scored_alike(
    run: Run, new: Path, named: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(path) for path in sorted(new.iterdir())] if named else [str(new)]
    main(["score", str(run.folder), *given, "--out", str(tmp_path / "out")])
    table, rejected = (pd.read_csv(tmp_path / "out" / name) for name in ("scores.csv", "rejected.csv"))
    assert sorted(Path(path).name for path in table["path"][:3]) == ["001.png", "002.png", "IM000001"]
    assert [Path(path).name for path in table["path"][3:]] == [Path(path).name for path in rejected["path"]]
    reasons = {Path(path).name: reason for path, reason in zip(rejected["path"], rejected["reason"], strict=True)}
    assert reasons.keys() == {"case.dcm", "letter.pdf", "pipe.png", "wide.png"}
    assert "DICOM" in reasons["case.dcm"] and "PDF" in reasons["letter.pdf"] and "a pipe" in reasons["pipe.png"]
    assert "4 files could not be used" in capsys.readouterr().err


def test_where_no_image_is_left_the_reasons_are_kept(run: Run, tmp_path: Path) -> None:
    (tmp_path / "letter.pdf").write_bytes(b"%PDF-1.4")
    with pytest.raises(ValueError, match=r"all 1 images were rejected, the first: .*letter\.pdf: its content is PDF"):
        api.score(run, tmp_path, tmp_path / "out")
    assert pd.read_csv(tmp_path / "out" / "rejected.csv")["path"].tolist() == [str(tmp_path / "letter.pdf")]


def test_indexing_says_what_was_passed_over(
    new: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    main(["index", "folder", str(new), "-o", str(tmp_path / "m.csv"), "--calibration", "0"])
    assert len(pd.read_csv(tmp_path / "m.csv")) == 4  # with the file that is cut short
    said = caplog.text + capsys.readouterr().err
    assert "3 files were passed over: " in said and "1 DICOM" in said and "1 PDF" in said and "1 unreadable" in said
