import gzip
import os
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import PIL.Image
import pytest

import dicom_files
from loligo.data import inputs, sources
from loligo.data.sources import chexpert, covidx, folder, zhanglab

DATA = Path(os.environ.get("LOLIGO_DATA") or Path(__file__).parents[2] / ".." / "shared" / "data")


def save(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(
            np.random.default_rng(zlib.crc32(str(path).encode())).integers(0, 256, (4, 4), np.uint8)
        ).save(path)


def counts(frame, *columns):
    return frame.groupby(list(columns), dropna=False).size().to_dict()


def test_unknown_source_suggests_the_nearest(tmp_path):
    with pytest.raises(ValueError, match=r"source 'zhang-lab' is not one of folder, .* did you mean 'zhanglab'"):
        sources.index("zhang-lab", tmp_path)


@pytest.mark.parametrize("source", sources.SOURCES)
def test_empty_root_is_an_error_that_names_it(tmp_path, source):
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        sources.index(source, tmp_path)


def test_folder_reads_splits_and_classes_in_any_case(tmp_path):
    save(*(tmp_path / s / c / "a.png" for s in ("Train", "valid", "TEST") for c in ("No_Finding", "Mass")))
    save(tmp_path / "test" / "loose.png")
    (tmp_path / "test" / "notes.txt").write_text("notes")
    save(tmp_path / ".hidden" / "b.png")
    found = folder.listed(tmp_path, "train").rows
    assert counts(found[found["label"].notna()], "split", "label") == {
        ("train", 0): 1,
        ("validation", 0): 1,
        ("validation", 1): 2,  # one was set aside from train
        ("test", 0): 1,
        ("test", 1): 1,
    }
    assert list(found["split"][found["label"].isna()]) == ["test"]


def test_folder_without_a_normal_class_knows_no_label(tmp_path):
    save(tmp_path / "ward1" / "a.png", tmp_path / "ward2" / "b.png")
    assert folder.listed(tmp_path, "train").rows["label"].isna().all()


def test_folder_holds_out_what_a_training_asks_for(tmp_path):
    save(*(tmp_path / "train" / "NORMAL" / f"{i:02}.png" for i in range(20)), tmp_path / "test" / "ill" / "a.png")
    found = folder.index(tmp_path)
    assert counts(found, "split", "label") == {("train", 0): 18, ("calibration", 0): 2, ("test", 1): 1}
    pd.testing.assert_frame_equal(found, inputs.resolve(tmp_path, purpose="train").with_calibration(0.1, 0).rows)
    assert (folder.index(tmp_path, calibration=0.5)["split"] == "calibration").sum() == 10
    assert not folder.index(tmp_path, seed=1).equals(found)
    save(tmp_path / "calibration" / "NORMAL" / "b.png")
    assert (folder.index(tmp_path)["split"] == "calibration").sum() == 1


def test_folder_follows_links_but_not_in_circles_and_lists_those_to_nothing(tmp_path):
    save(tmp_path / "data" / "a.png", tmp_path / "far" / "ill" / "b.png")
    (tmp_path / "data" / "ill").symlink_to(tmp_path / "far" / "ill")
    (tmp_path / "far" / "ill" / "back").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "loop").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "gone.png").symlink_to("nowhere.png")
    (tmp_path / "data" / "self.png").symlink_to("self.png")
    rows, rejected, _ = folder.listed(tmp_path / "data", "test")
    names = [[str(Path(path).relative_to(tmp_path / "data")) for path in table["path"]] for table in (rows, rejected)]
    assert names == [["a.png", "ill/b.png"], ["gone.png", "self.png"]]
    assert rejected["reason"].str.startswith("cannot be read (").all()


def test_folder_lists_a_file_once_however_many_links_show_it(tmp_path):
    save(*(tmp_path / "a" / f"{i}.png" for i in range(20)))
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "a" / "x.png").symlink_to("0.png")
    found = folder.index(tmp_path)
    assert len(found) == 20 and found["path"].str.contains("/a/[0-9]").all()
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "0.png").symlink_to(tmp_path / "a" / "0.png")
    with pytest.raises(ValueError, match=r"a/0\.png and .*test/0\.png are one file in two splits or classes"):
        folder.index(tmp_path)


def test_folder_pairs_mvtec_masks(tmp_path):
    save(tmp_path / "train/good/000.png", tmp_path / "test/good/000.png", tmp_path / "test/crack/000.png")
    save(tmp_path / "ground_truth/crack/000_mask.png")
    found = folder.index(tmp_path, calibration=0).set_index("path")["mask"]
    assert found.to_dict() == {
        str(tmp_path / "train/good/000.png"): "",
        str(tmp_path / "test/good/000.png"): "",
        str(tmp_path / "test/crack/000.png"): str(tmp_path / "ground_truth/crack/000_mask.png"),
    }
    save(tmp_path / "ground_truth/crack/001_mask.png")
    rejected = folder.listed(tmp_path, "train").rejected
    assert [Path(path).name for path in rejected["path"]] == ["001_mask.png"]
    assert rejected["reason"][0] == "it is a mask, and belongs to none of the images"


def test_zhanglab_by_generated_names(tmp_path):
    save(*(tmp_path / "train" / "NORMAL" / f"IM-{i:04}-000{j}.jpeg" for i in range(40) for j in (1, 2)))
    save(*(tmp_path / "train" / "PNEUMONIA" / f"person{i}_virus_{i}.jpeg" for i in range(20)))
    save(tmp_path / "test" / "NORMAL" / "NORMAL2-IM-0001-0001.jpeg")
    save(tmp_path / "test" / "PNEUMONIA" / "person7_bacteria_9.jpeg")
    found = zhanglab.index(tmp_path)
    assert counts(found, "split", "label") == {
        ("train", 0): 68,
        ("calibration", 0): 8,
        ("validation", 0): 4,
        ("validation", 1): 1,
        ("test", 0): 1,
        ("test", 1): 1,
    }
    assert set(found["patient"]) >= {"IM-0003", "NORMAL2-IM-0001 (test)", "person7_bacteria (test)"}
    assert counts(zhanglab.index(tmp_path, pneumonia=1), "split", "label")["validation", 1] == 20
    save(tmp_path / "test" / "NORMAL" / "other.jpeg")
    with pytest.raises(ValueError, match=r"other\.jpeg: not a ZhangLab name"):
        zhanglab.index(tmp_path)


@pytest.mark.skipif(not (DATA / "zhanglab").is_dir(), reason="no ZhangLab set; point LOLIGO_DATA at its parent")
def test_zhanglab_real_counts():
    found = sources.index("zhanglab", DATA / "zhanglab")
    assert counts(found[found["split"] == "test"], "label") == {0: 234, 1: 390}
    normal = found[(found["label"] == 0) & (found["split"] != "test")]
    assert len(normal) == 1341
    patients = normal.groupby("split")["patient"].nunique()
    assert patients.to_dict() == {"train": 1029, "calibration": 121, "validation": 61}
    everything = zhanglab.index(DATA / "zhanglab", pneumonia=1)
    assert ((everything["split"] == "validation") & (everything["label"] == 1)).sum() == 3875


CHEXPERT = [
    "Path",
    "Sex",
    "Age",
    "Frontal/Lateral",
    "AP/PA",
    chexpert.NO_FINDING,
    *chexpert.FINDINGS,
    chexpert.DEVICES,
]


def film(patient, view="PA", split="train", study=1, **said):
    side = "Lateral" if view == "" else "Frontal"
    path = f"CheXpert-v1.0-small/{split}/patient{patient:05}/study{study}/view1_{side.lower()}.jpg"
    row = {"Path": path, "Sex": "Female", "Age": 50, "Frontal/Lateral": side, "AP/PA": view}
    return row | {name.replace("_", " "): value for name, value in said.items()}


def write_chexpert(root, train, valid=()):
    for name, rows in (("train.csv", train), ("valid.csv", valid)):
        if rows:
            pd.DataFrame(rows, columns=CHEXPERT).to_csv(root / name, index=False)


def few(**options):
    return {"calibration": 0, "validation": 0, "test": 0} | options


def test_chexpert_labels(tmp_path):
    write_chexpert(
        tmp_path,
        [
            film(1, No_Finding=1),
            film(2, Edema=1, Pneumonia=-1),
            film(3, Edema=-1),
            film(4, No_Finding=1, Support_Devices=1),
            film(5),
            film(6, No_Finding=1, Edema=0),
        ],
    )

    def labels(uncertainty):
        found = chexpert.index(tmp_path, uncertainty=uncertainty, **few(test=1 / 3))
        everyone = chexpert._rows(tmp_path, "train.csv", uncertainty)
        assert found["split"].isin(("train", "test")).all()
        return [None if pd.isna(label) else label for label in everyone["label"]]

    assert labels("exclude") == [0, 1, None, None, None, 0]
    assert labels("normal") == [0, 1, 0, None, None, 0]
    assert labels("abnormal") == [0, 1, 1, None, None, 0]


def test_chexpert_splits_views_and_columns(tmp_path):
    train = [film(i, No_Finding=1) for i in range(40)] + [film(i, Edema=1) for i in range(100, 140)]
    train += [film(200, No_Finding=1), film(200, view="AP", study=2, Edema=1)]  # normal in this view alone
    train += [film(1, view="", study=2, No_Finding=1)]
    valid = [film(900, split="valid", No_Finding=1), film(901, split="valid", Edema=1)]
    write_chexpert(tmp_path, train, valid)
    found = chexpert.index(tmp_path)
    assert "patient00200" not in set(found["patient"][found["split"].isin(("train", "calibration"))])
    assert set(found["view"]) == {"PA"}
    assert list(found.loc[0, ["sex", "age", "view", "labeller"]]) == ["Female", 50, "PA", "reports"]
    assert found["path"][0].startswith(str(tmp_path / "train" / "patient"))
    expert = found[found["labeller"] == "radiologists"]
    assert counts(expert, "split", "label") == {("test", 0): 1, ("test", 1): 1}
    mined = found[found["labeller"] == "reports"]
    assert counts(mined[mined["label"] == 0], "split")["train"] == 32
    assert counts(mined[mined["label"] == 1], "split") == {"test": 2, "validation": 2}
    assert list(chexpert.index(tmp_path, view="lateral")["patient"]) == ["patient00001"]


def test_chexpert_errors(tmp_path):
    with pytest.raises(ValueError, match="view 'oblique' is not one of PA, AP, frontal, lateral"):
        chexpert.index(tmp_path, view="oblique")
    with pytest.raises(ValueError, match="uncertainty 'guess' is not one of exclude, normal, abnormal"):
        chexpert.index(tmp_path, uncertainty="guess")
    (tmp_path / "train.csv").write_text("Path,Sex\n")
    with pytest.raises(ValueError, match=r"train\.csv: column Age, Frontal/Lateral"):
        chexpert.index(tmp_path)


@pytest.mark.parametrize(
    ("column", "value", "allowed"),
    [
        ("Pneumonia", "posit", "1, 0, -1 or blank"),
        ("Edema", 2, "1, 0, -1 or blank"),
        ("Path", "CheXpert/train/p1/a.jpg", "patient00001"),
        ("Path", None, "patient00001"),
        ("Frontal/Lateral", None, "Frontal or Lateral"),
    ],
)
def test_chexpert_names_the_row_that_would_hide_a_patient_a_view_or_a_finding(tmp_path, column, value, allowed):
    rows = pd.DataFrame([film(i, No_Finding=1) for i in range(3)], columns=CHEXPERT).astype(object)
    rows.loc[1, column] = value
    rows.to_csv(tmp_path / "train.csv", index=False)
    with pytest.raises(ValueError, match=rf"train\.csv: {column} of row 3 is .*1 such rows; allowed is .*{allowed}"):
        chexpert.index(tmp_path)


def test_lists_that_are_no_text_or_empty_are_named(tmp_path):
    (tmp_path / "train.csv").write_bytes("Path,Sex".encode("utf-16"))
    with pytest.raises(ValueError, match=r"train\.csv is not a CSV table in UTF-8"):
        chexpert.index(tmp_path)
    write_covidx(tmp_path, ["1 a.png normal"], [])
    (tmp_path / "test.txt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"test\.txt is empty"):
        covidx.index(tmp_path)
    (tmp_path / "test.txt").write_bytes("1 M\xfcller.png normal".encode("latin-1"))
    with pytest.raises(ValueError, match=r"test\.txt is not text in UTF-8"):
        covidx.index(tmp_path)


def write_covidx(root, train, test, val=None):
    for name, lines in (("train", train), ("test", test), ("val", val)):
        if lines is not None:
            (root / f"{name}.txt").write_text("\n".join(lines) + "\n")


def test_covidx_lists(tmp_path):
    train = [f"{i} n{i}.png normal rsna" for i in range(40)] + [f"{i} c {i}.png COVID-19 cohen" for i in range(20)]
    write_covidx(tmp_path, train, ["x a.png normal", "y b.png pneumonia"], ["z v.png COVID-19 sirm"])
    save(tmp_path / "train" / "n0.png")
    found = covidx.index(tmp_path)
    assert counts(found, "split", "label") == {
        ("train", 0): 34,
        ("calibration", 0): 4,
        ("validation", 0): 2,
        ("validation", 1): 2,  # one of the train list, one of the val list
        ("test", 0): 1,
        ("test", 1): 1,
    }
    assert str(tmp_path / "test" / "a.png") in set(found["path"])
    assert {"x", "3 rsna", "z sirm"} <= set(found["patient"])


def test_covidx_errors(tmp_path):
    write_covidx(tmp_path, [f"{i} n{i}.png negative" for i in range(9)], ["x a.png positive"])
    with pytest.raises(ValueError, match="class 'negative' holds pneumonia of other causes"):
        covidx.index(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"none of the 10 listed files exists, such as .*n0\.png"):
        covidx.index(tmp_path, negative="normal")
    save(tmp_path / "train" / "n0.png")
    assert counts(covidx.index(tmp_path, negative="normal"), "split")["test"] == 1
    write_covidx(tmp_path, ["1 a.png flu"], ["x a.png positive"])
    with pytest.raises(ValueError, match=r"train\.txt:1: '1 a\.png flu' is not 'patient file class"):
        covidx.index(tmp_path)
    (tmp_path / "train_2.txt").touch()
    with pytest.raises(FileNotFoundError, match=r"one list train\*\.txt, found train\.txt, train_2\.txt"):
        covidx.index(tmp_path)


def test_covidx_patient_in_both_lists_is_named(tmp_path):
    write_covidx(tmp_path, [f"{i} n{i}.png normal" for i in range(9)], [f"{i} a{i}.png normal" for i in range(9)])
    save(tmp_path / "train" / "n0.png")
    with pytest.raises(ValueError, match=r"patient\(s\) stand in more than one split: 0, 1"):
        covidx.index(tmp_path)


@pytest.mark.parametrize("name", ["../../etc/a.png", "/etc/a.png"])
def test_lists_lead_nowhere_but_below_their_folder(tmp_path, name):
    write_covidx(tmp_path, [f"1 {name} normal"], ["x a.png positive"])
    with pytest.raises(ValueError, match=r"train\.txt:1: the file '.*a\.png' lies outside train/"):
        covidx.index(tmp_path)
    table = pd.DataFrame([film(1) | {"Path": f"CheXpert-v1.0-small/../{name}/patient00001/a.jpg"}], columns=CHEXPERT)
    table.to_csv(tmp_path / "train.csv", index=False)
    with pytest.raises(ValueError, match=r"Path of row 2 is .*allowed is a path below"):
        chexpert.index(tmp_path)


def test_what_an_index_passes_over_is_logged(tmp_path, caplog):
    save(*(tmp_path / "train" / "NORMAL" / f"IM-{i:04}-0001.jpeg" for i in range(40)))
    save(tmp_path / "train" / "PNEUMONIA" / "person1_virus_1.jpeg", tmp_path / "test" / "NORMAL" / "IM-0900-0001.jpeg")
    save(tmp_path / "test" / "PNEUMONIA" / "person7_bacteria_9.jpeg")
    (tmp_path / "test" / "NORMAL" / "IM-0901-0001.jpeg").write_text("notes")
    assert (zhanglab.index(tmp_path)["split"] == "test").sum() == 2
    assert len(folder.index(tmp_path, calibration=0)) == 43
    passed = "1 files were passed over: 1 text or CSV"
    assert [said.split(";")[0] for said in caplog.messages if "passed over" in said] == [passed] * 2


def write_each_source(root):
    """Write a few images as each source has them."""
    for split in ("train", "test"):
        first = 0 if split == "train" else 50
        save(*(root / "zhanglab" / split / "NORMAL" / f"IM-{first + i:04}-0001.jpeg" for i in range(20)))
        save(root / "zhanglab" / split / "PNEUMONIA" / f"person{first}_virus_{first}.jpeg")
    save(*(root / "folder" / "train" / "NORMAL" / f"{i}.png" for i in range(20)))
    save(*(root / "covidx" / "train" / f"{i}.png" for i in range(40)))
    write_covidx(root / "covidx", [f"{i} {i}.png normal" for i in range(40)], ["x a.png positive"])
    (root / "chexpert").mkdir()
    write_chexpert(root / "chexpert", [film(i, No_Finding=1) for i in range(40)])
    for i in range(20):
        dicom_files.write(root / "dicom" / f"{i}", np.full((8, 8), i, np.uint16), PatientID=str(i))
    (root / "mood" / "brain" / "brain_train").mkdir(parents=True)
    for i in range(20):
        header = gzip.compress((348).to_bytes(4, "little") + bytes([i]))
        (root / "mood" / "brain" / "brain_train" / f"{i}.nii.gz").write_bytes(header)


def test_every_source_passes_over_what_systems_leave(tmp_path):
    write_each_source(tmp_path)
    before = {name: sources.index(name, tmp_path / name) for name in sources.SOURCES}
    for path in [path for path in tmp_path.rglob("*") if path.is_file()]:
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7" + bytes(4092))
        (path.parent / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
        (path.parent / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    for name, rows in before.items():
        pd.testing.assert_frame_equal(sources.index(name, tmp_path / name), rows)
