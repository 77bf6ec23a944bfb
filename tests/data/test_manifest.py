import os
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import PIL.Image
import pytest

from loligo.data import inputs, manifest
from loligo.data.dataset import AllRejected


def frame(**columns):
    return pd.DataFrame({"path": ["/d/a.png", "/d/b.png"], "split": ["train", "test"]} | columns)


def save(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(
            np.random.default_rng(zlib.crc32(str(path).encode())).integers(0, 256, (4, 4), np.uint8)
        ).save(path)


def test_check_fills_what_is_optional():
    checked = manifest.check(frame(age=[3, 4]))
    assert checked["label"].dtype == "Int64"
    assert checked["label"].isna().all()
    assert (checked[["patient", "mask", "source"]] == "").all(axis=None)
    assert list(checked["age"]) == [3, 4]


@pytest.mark.parametrize("label", [[0, 1], [0.0, 1.0], ["0", "1"], pd.array([0, 1], "Int64")])
def test_check_takes_labels_of_any_kind(label):
    assert list(manifest.check(frame(label=label))["label"]) == [0, 1]


@pytest.mark.parametrize("none", [None, np.nan, "", pd.NA])
def test_check_takes_any_empty_label_and_patient(none):
    checked = manifest.check(frame(label=[0, none], patient=["p", none]))
    assert list(checked["label"].isna()) == [False, True]
    assert list(checked["patient"]) == ["p", ""]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"split": ["train", "fold1"]}, "split 'fold1' is not one of train, calibration, validation, test"),
        ({"label": [0, 2]}, r"label 2 is not 0 \(normal\), 1 \(abnormal\) or empty"),
        (
            {"label": ["1", "0"]},
            r"1 abnormal image\(s\) \(label 1\) in train or calibration.*/d/a\.png; move",
        ),
        ({"path": ["/d/a.png"] * 2}, r"path stands in more than one row: /d/a\.png"),
        ({"path": ["/d/a.png", ""]}, r"path is empty in 1 row\(s\), the first is row 2"),
        ({"patient": ["p7", "p7"]}, r"1 patient\(s\) stand in more than one split: p7"),
    ],
)
def test_check_names_what_is_wrong(columns, message):
    with pytest.raises(ValueError, match=message):
        manifest.check(frame(**columns))


def test_check_names_ten_overlapping_patients_and_counts_the_rest():
    n = 13
    rows = {"path": [f"{i}" for i in range(2 * n)], "split": ["train"] * n + ["test"] * n}
    with pytest.raises(ValueError, match=r"13 patient\(s\).*: 0, 1, 10, .* and 3 more, .* 0 and 13; keep each in one"):
        manifest.check(pd.DataFrame(rows | {"patient": [*map(str, range(n))] * 2}))


def test_missing_column_and_no_rows_fail():
    with pytest.raises(ValueError, match="column split is missing; found path"):
        manifest.check(frame()[["path"]])
    with pytest.raises(ValueError, match="the manifest has no rows"):
        manifest.check(frame().head(0))


@pytest.mark.parametrize("name", ["m.csv", "m.parquet"])
def test_written_manifest_reads_back_and_moves_with_its_folder(tmp_path, name):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    first, second = tmp_path / "first", tmp_path / "second"
    written = manifest.check(
        frame(
            path=[str(first / "x" / "a.png"), "/far/b.png"],
            mask=["", str(first / "a_mask.png")],
            patient=["007", "NA"],
            label=[0, None],
        )
    )
    manifest.write(written, first / name)
    pd.testing.assert_frame_equal(manifest.read(first / name), written)
    first.rename(second)
    moved = manifest.read(second / name)
    assert list(moved["path"]) == [str(second / "x" / "a.png"), "/far/b.png"]
    assert moved["mask"][1] == str(second / "a_mask.png")


def test_read_names_the_manifest(tmp_path):
    (tmp_path / "m.csv").write_text("path,split\na.png,fold1\n")
    with pytest.raises(ValueError, match=r"m\.csv: split 'fold1'"):
        manifest.read(tmp_path / "m.csv")
    (tmp_path / "zero.csv").touch()
    with pytest.raises(ValueError, match=r"zero\.csv: "):
        manifest.read(tmp_path / "zero.csv")
    with pytest.raises(FileNotFoundError, match=r"none\.csv does not exist"):
        manifest.read(tmp_path / "none.csv")
    with pytest.raises(ValueError, match=r"a manifest ends in \.csv or \.parquet, not '\.txt'"):
        manifest.write(frame(), tmp_path / "m.txt")


def test_a_path_is_written_in_one_way(tmp_path, monkeypatch):
    (tmp_path / "below").mkdir()
    (tmp_path / "m.csv").write_text("path,split\na.png,train\n./b.png,train\nbelow/../c.png,test\n")
    monkeypatch.chdir(tmp_path / "below")
    expected = [str(tmp_path / name) for name in ("a.png", "b.png", "c.png")]
    assert list(manifest.read(Path("../m.csv"))["path"]) == expected
    assert list(manifest.read(Path("..") / "below" / ".." / "m.csv")["path"]) == expected
    (tmp_path / "m.csv").write_text("path,split\na.png,train\n./a.png,train\n")
    with pytest.raises(ValueError, match=r"m\.csv: path stands in more than one row: .*a\.png"):
        manifest.read(tmp_path / "m.csv")


def test_resolve_plain_folder(tmp_path):
    save(*(tmp_path / f"{i}.png" for i in range(20)))
    train = inputs.resolve(tmp_path, purpose="train").with_calibration(0.1, 0).rows
    assert (train["label"] == 0).all()
    assert train["split"].value_counts().to_dict() == {"train": 18, "calibration": 2}
    score = inputs.resolve(str(tmp_path), purpose="score").rows
    assert set(score["split"]) == {"test"}
    assert score["label"].isna().all()


def test_what_is_held_out_can_be_read(tmp_path):
    save(*(tmp_path / f"{i}.png" for i in range(12)))
    whole = inputs.resolve(tmp_path, purpose="train").with_calibration(0.1, 0).rows
    (held,) = whole.loc[whole["split"] == "calibration", "path"]
    Path(held).write_bytes(Path(held).read_bytes()[:40])
    again = inputs.resolve(tmp_path, purpose="train").with_calibration(0.1, 0).rows
    assert list(again["path"]) == list(whole["path"])
    assert again["split"].value_counts().to_dict() == {"train": 11, "calibration": 1}
    assert again.set_index("path")["split"][held] == "train"  # where loading rejects it, with its reason
    for path in again["path"]:
        Path(path).write_bytes(Path(path).read_bytes()[:40] + path.encode())
    pd.testing.assert_frame_equal(inputs.resolve(tmp_path, purpose="train").with_calibration(0.1, 0).rows, whole)


def test_resolve_class_folders(tmp_path):
    save(*(tmp_path / name / f"{i}.png" for name in ("NORMAL", "PNEUMONIA") for i in range(10)))
    score = inputs.resolve(tmp_path, purpose="score").rows
    assert (set(score["split"]), score["label"].sum()) == ({"test"}, 10)
    train = inputs.resolve(tmp_path, purpose="train").with_calibration(0.1, 0).rows
    assert train["split"].value_counts().to_dict() == {"validation": 10, "train": 9, "calibration": 1}


def test_resolve_files_and_manifest(tmp_path):
    save(tmp_path / "a.png", tmp_path / "b.png")
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    assert list(inputs.resolve(files, purpose="score").rows["path"]) == [str(path) for path in files]
    manifest.write(frame(path=[str(path) for path in files]), tmp_path / "m.csv")
    taken = inputs.resolve(tmp_path / "m.csv", purpose="train").rows
    assert list(taken["split"]) == ["train", "test"]


def test_resolve_refuses_what_it_cannot_take(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such file or folder; give a manifest"):
        inputs.resolve(tmp_path / "nowhere", purpose="score")
    with pytest.raises(FileNotFoundError, match=r"no image below"):
        inputs.resolve(tmp_path, purpose="score")
    (tmp_path / "notes.txt").write_text("notes")
    for given in (tmp_path, [tmp_path / "notes.txt"]):
        with pytest.raises(
            AllRejected, match=r"all 1 images were rejected, the first: .*notes\.txt: its content is text or CSV, not"
        ) as caught:
            inputs.resolve(given, purpose="score")
        assert caught.value.rejected["path"].tolist() == [str(tmp_path / "notes.txt")]
    with pytest.raises(ValueError, match="the manifest has no rows"):
        inputs.resolve([], purpose="score")


@pytest.mark.parametrize("named", [False, True])
def test_what_is_no_image_is_listed_apart_with_its_reason(tmp_path, named, caplog):
    save(*(tmp_path / f"{i}.png" for i in range(12)))
    PIL.Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "IM000001", "JPEG")
    (tmp_path / "a.dcm").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "b").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "letter.pdf").write_bytes(b"%PDF-1.4")
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "empty.png").touch()
    for hidden in (".DS_Store", "._0.png", "Thumbs.db", "desktop.ini"):
        (tmp_path / hidden).write_bytes(b"\xd0\xcf\x11\xe0")
    shown = sorted(path for path in tmp_path.iterdir() if path.exists() and path.name[0] not in ".Td")
    given = shown if named else tmp_path
    for purpose in ("train", "score"):
        rows, rejected, _ = inputs.resolve(given, purpose=purpose)
        assert len(rows) == 13 and str(tmp_path / "IM000001") in set(rows["path"])
        found = {Path(path).name: reason for path, reason in zip(rejected["path"], rejected["reason"], strict=True)}
        known = {
            "a.dcm": "is DICOM that holds nothing of an image",
            "b": "is DICOM that holds nothing of an image",
            "letter.pdf": "its content is P",
        }
        more = {"gone.png": "cannot be read (No such file", "empty.png": "it is empty"}
        for name, begin in (known | ({"sub": "is a folder"} if named else more)).items():
            assert found.pop(name).startswith(begin)
        assert not found
    assert not caplog.records
    assert len(inputs.resolve(given, purpose="score").accepted()) == 13
    (said,) = caplog.messages
    assert said.startswith(f"{4 if named else 5} files were passed over: 2 DICOM, ") and "1 PDF" in said
    assert f"; the first is {tmp_path / 'a.dcm'}: is DICOM that holds nothing" in said


def test_a_relative_and_an_absolute_path_of_one_image_are_the_same_image(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    split = ["train", "calibration", "test"]
    relative = pd.DataFrame({"path": ["a.png", "d/../b.png", "c.png"], "split": split})
    absolute = pd.DataFrame(
        {"path": [str(tmp_path / name) for name in ("a.png", "b.png", "other.png")], "split": split}
    )
    assert manifest.trained_on(relative) == manifest.trained_on(absolute)
    assert manifest.trained_on(relative) != manifest.trained_on(relative.assign(split=split[1::-1] + split[2:]))


ROWS = (("a.png", "train", "0", "007"), ("b, c.png", "calibration", "0", "NA"), ("d.png", "test", "1", ""))


def spreadsheet(separator=",", end="\n", trailing="", quote='"'):
    """Write a manifest as other programs do."""
    lines = [("path", "split", "label", "patient"), *ROWS]
    return end.join(separator.join(f"{quote}{cell}{quote}" for cell in line) + trailing for line in lines) + end


@pytest.mark.parametrize(
    "content",
    {
        "plain": spreadsheet().encode(),
        "trailing commas": spreadsheet(trailing=",").encode(),
        "trailing commas but in the header": spreadsheet(trailing=",,").replace(",,", "", 1).encode(),
        "Excel, semicolons": spreadsheet(";", "\r\n", quote="").encode("utf-8-sig"),
        "Excel, tabs": spreadsheet("\t", "\r\n", quote="").encode("utf-16"),
        "blanks": spreadsheet(";", " ;;\r\n\r\n", quote=" ").encode(),
        "capitals": spreadsheet().replace("path", "Path").replace("split", "SPLIT").replace("test", "Testing").encode(),
        "words": spreadsheet().replace('"0"', '"NORMAL"').replace('"1"', '"pneumonia"').encode(),
    }.values(),
    ids=lambda content: str(len(content)),
)
def test_read_takes_what_spreadsheets_write(tmp_path, content):
    (tmp_path / "m.csv").write_bytes(content)
    found = manifest.read(tmp_path / "m.csv")
    assert list(found["path"]) == [str(tmp_path / row[0]) for row in ROWS]
    assert [list(found[name]) for name in ("split", "label", "patient")] == [
        ["train", "calibration", "test"],
        [0, 0, 1],
        ["007", "NA", ""],
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty, 0 bytes"),
        (b"\n \n,\n", "it has no rows; the first must name the columns, such as path,split,label,patient"),
        (b"path,split\n", "the manifest has no rows"),
        (
            b"path,split\na, b.png,train\n",
            r"row 2 \(a, \.\.\.\) has 3 fields, the header 2; quote what has a ',' in it",
        ),
        (b"path,split,Path\na.png,train,b.png\n", "column path stands more than once"),
        (b'path,split\n"a.png,train\n', "it is no CSV table"),
        ("path,split\nM\u00fcller.png,train\n".encode("latin-1"), "it is no text in UTF-8; save it as CSV UTF-8"),
        (b"path,split,label\na.png,test,benign\n", r"label benign is not 0 \(normal\), 1 \(abnormal\) or empty"),
        (b"path,split,patient\na.png,train,P1\nb.png,test, P1 \n", r"1 patient\(s\) stand in more than one split: P1"),
        (b"path,label\na.png,0\n", "column split is missing; found path, label"),
        (b"path,split\na.png,train\n a.png ,train\n", "path stands in more than one row"),
    ],
)
def test_read_says_what_is_wrong_with_a_table(tmp_path, content, message):
    (tmp_path / "m.csv").write_bytes(content)
    with pytest.raises(ValueError, match=rf"m\.csv: {message}"):
        manifest.read(tmp_path / "m.csv")


def test_to_score_no_split_is_needed(tmp_path):
    save(tmp_path / "a.png", tmp_path / "b.png")
    (tmp_path / "m.csv").write_text("path;label\na.png;normal\nb.png;\n")
    assert list(inputs.resolve(tmp_path / "m.csv", purpose="score").rows["split"]) == ["test", "test"]
    frame = pd.DataFrame({"path": [str(tmp_path / "a.png")], "split": [None]})
    assert list(inputs.resolve(frame, purpose="score").rows["split"]) == ["test"]
    with pytest.raises(ValueError, match="column split is missing"):
        inputs.resolve(tmp_path / "m.csv", purpose="train")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_manifest_that_is_no_file_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "m.csv")
    with pytest.raises(ValueError, match=r"m\.csv: is a pipe \(FIFO\), not a regular file"):
        inputs.resolve(tmp_path / "m.csv", purpose="train")


def test_patients_are_the_same_however_they_are_typed():
    assert list(manifest.check(frame(patient=[7.0, None]))["patient"]) == ["7", ""]
    with pytest.raises(ValueError, match=r"more than one split: 7, the first with /d/a\.png and /d/b\.png; keep"):
        manifest.check(frame(patient=[7.0, " 7"]))


def test_a_name_with_a_blank_at_its_end_is_that_file(tmp_path):
    save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.png ")
    (tmp_path / "m.csv").write_text('path,split\n"a.png ",test\n"b.png ",test\n')
    assert list(manifest.read(tmp_path / "m.csv")["path"]) == [str(tmp_path / "a.png "), str(tmp_path / "b.png")]
