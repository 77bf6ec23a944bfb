"""From a trained run and a file to a sheet: the same numbers as by score, bad files, missing training images."""

from __future__ import annotations

import contextlib
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from conftest import anatomy, blob, write_images
from loligo import api
from loligo.cli import main
from loligo.reports.sheet import page as sheets
from loligo.reports.sheet.case import Case
from loligo.reports.sheet.examine import Examiner
from loligo.runs.run import Run
from loligo.runs.scores import find


def examine(run: Run, path: Path) -> Case:
    return Examiner(run)(path)


@pytest.fixture(scope="module")
def normals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("normals")
    write_images(folder, anatomy(40, 64))
    return folder


@pytest.fixture(scope="module")
def run(normals: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return api.train("gaussian", normals, tmp_path_factory.mktemp("runs") / "a", preset="tiny")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return write_images(tmp_path / "new", blob(anatomy(1, 64, seed=7)))[0]


def fails(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1
    return error


def test_a_sheet_has_the_numbers_of_score(run: Run, image: Path, tmp_path: Path) -> None:
    table = api.score(run, [image], tmp_path / "scored")
    case = examine(run, image)
    row = table.iloc[0]
    assert case.score == pytest.approx(row["score"])
    assert case.p_value == pytest.approx(row["p_value"])
    assert case.flagged == bool(row["flag"])
    assert case.map is not None
    np.testing.assert_array_equal(case.map, np.load(tmp_path / "scored" / row["map"]))
    assert (case.method, case.run, "; ".join(case.warnings)) == ("gaussian", "a", row["warnings"])
    assert [normal.source.parent for normal in case.normals] == [Path(run.manifest()["path"][0]).parent] * 3


def test_the_map_lies_on_the_grid_of_the_image(run: Run, tmp_path: Path) -> None:
    wide = np.asarray(Image.fromarray(blob(anatomy(1, 64, seed=7))[0, 0]).resize((150, 90)))
    (path,) = write_images(tmp_path, wide.clip(0, 1)[None, None])
    case = examine(run, path)
    assert case.map is not None and case.map.shape == (90, 150)
    assert case.hot is not None and case.hot.peak > 1


def test_a_method_that_is_given_slice_positions_has_sheets_of_images(
    normals: Path, image: Path, tmp_path: Path
) -> None:
    run = api.train("vae", normals, tmp_path / "run", preset="tiny", options={"position": True}, train={"epochs": 1})
    table = api.score(run, [image], tmp_path / "scored", maps="none")
    assert examine(run, image).score == pytest.approx(table["score"][0])


def test_the_command_writes_a_page_where_it_is_told(
    run: Run, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "there" / "case.html"
    main(["sheet", str(run.folder), str(image), "-o", str(out)])
    assert str(out) in capsys.readouterr().out
    page = out.read_text(encoding="utf-8")
    assert "000.png" in page and str(tmp_path) not in page and str(run.folder.parent) not in page


def test_the_page_is_named_after_the_image_unless_told(
    run: Run, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    wanted = []
    monkeypatch.setattr(sheets, "check", wanted.append)
    monkeypatch.setattr(sheets, "write", lambda cases, out: out)
    assert api.sheet(run.folder, image) == Path("000.pdf")
    assert wanted == [Path("000.pdf")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("cut.png", "half", r"cut.png: is cut short"),
        ("empty.png", b"", r"empty.png: it is empty, 0 bytes"),
        ("colour.png", "colour", r"colour.png: is in colour"),
        ("notes.png", b"hello", r"notes.png: its content is text"),
        ("notes.txt", b"hello", r"notes.txt: its content is text"),
        ("nowhere.png", None, r"nowhere.png: no such file; give an image"),
    ],
)
def test_a_file_that_is_no_radiograph_is_one_line(
    run: Run,
    image: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    content: object,
    message: str,
) -> None:
    with contextlib.suppress(ValueError):  # Pango may be missing
        sheets.check(Path("case.pdf"))  # loads what has Pillow read files that are cut short
    path, out = tmp_path / name, tmp_path / "case.html"
    if content == "half":
        path.write_bytes(image.read_bytes()[:600])
    elif content == "colour":
        Image.fromarray(np.dstack([np.full((64, 64), level, np.uint8) for level in (0, 90, 200)])).save(path)
    elif content is not None:
        path.write_bytes(content)  # type: ignore[arg-type]
    assert message in fails(["sheet", str(run.folder), str(path), "-o", str(out)], capsys)
    assert not out.exists()


def test_a_folder_and_a_wrong_suffix_are_one_line(
    run: Run, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "no such file; give an image" in fails(["sheet", str(run.folder), str(tmp_path)], capsys)
    error = fails(["sheet", str(run.folder), str(image), "-o", str(tmp_path / "case.doc")], capsys)
    assert "a sheet ends in .pdf or .html, not '.doc'" in error


def test_a_run_that_is_not_trained_is_refused(
    run: Run, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half = tmp_path / "half"
    shutil.copytree(run.folder, half)
    (half / "calibration.json").unlink()
    argv = [str(image), "-o", str(tmp_path / "case.html")]
    assert "the training of this run was not finished" in fails(["sheet", str(half), *argv], capsys)
    assert "not a run folder" in fails(["sheet", str(tmp_path), *argv], capsys)


def test_without_the_training_images_there_is_a_sentence_in_their_place(image: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "gone", anatomy(30, 64))
    run = api.train("gaussian", tmp_path / "gone", tmp_path / "run", preset="tiny")
    shutil.rmtree(tmp_path / "gone")
    page = api.sheet(run, image, tmp_path / "case.html").read_text(encoding="utf-8")
    assert "The training images are not at hand" in page


def test_images_that_the_run_has_seen_are_known(run: Run, tmp_path: Path) -> None:
    rows = run.manifest()
    trained = Path(rows["path"].iloc[0])
    copy = tmp_path / "copy.png"
    shutil.copy(trained, copy)
    (tmp_path / "link.png").symlink_to(trained)
    for path in (trained, copy, tmp_path / "link.png"):
        assert "seen_in_training" in examine(run, path).warnings
    page = api.sheet(run, copy, tmp_path / "case.html").read_text(encoding="utf-8")
    assert "The image is one that the method was trained or calibrated on" in page


def test_of_several_images_one_that_fails_is_told_and_the_others_have_their_sheet(
    run: Run, image: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"")
    page = api.sheet(run, [bad, image, tmp_path / "gone.png", image], tmp_path / "all.html").read_text(encoding="utf-8")
    assert page.count("<article>") == 2
    assert [one in caplog.text for one in ("bad.png: it is empty", "gone.png: no such file")] == [True, True]
    with pytest.raises(ValueError, match=r"gone\.png: no such file"):
        api.sheet(run, [bad, tmp_path / "gone.png"], tmp_path / "none.html")
    assert not (tmp_path / "none.html").exists()


def test_sheets_of_all_that_is_flagged_the_most_abnormal_first(
    normals: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = api.train("gaussian", normals, tmp_path / "run", preset="tiny")
    argv = ["sheet", str(run.folder), "-o", str(tmp_path / "flagged.html")]
    capsys.readouterr()
    assert "has scored nothing yet" in fails([*argv, "--flagged"], capsys)
    images = np.concatenate([anatomy(3, 64, seed=9), blob(anatomy(2, 64, seed=7))])
    table = api.score(run, write_images(tmp_path / "new", images))
    flagged = table[table["flag"] == 1].sort_values("score", ascending=False)
    main([*argv, "--flagged"])
    page = (tmp_path / "flagged.html").read_text(encoding="utf-8")
    names = [Path(path).name for path in flagged["path"]]
    assert re.findall(r"<h1>(.*?)</h1>", page) == names and len(names) >= 2
    assert "sheet needs IMAGE" in fails(argv, capsys)
    assert "a.png" in fails([*argv, "a.png", "--flagged"], capsys)  # either, not both
    path = find(run.folder).scores
    pd.read_csv(path).assign(flag=0).to_csv(path, index=False)
    assert "none of 5 images is flagged; name the images" in fails([*argv, "--flagged"], capsys)


def test_a_score_that_is_no_number_is_told(run: Run, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = run.model()
    model.mean.fill_(float("nan"))
    monkeypatch.setattr(Run, "model", lambda _: model)
    with pytest.raises(ValueError, match=r"000\.png: its score is not a number"):
        examine(run, image)
