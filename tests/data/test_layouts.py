"""Layouts of folders as people keep them: what is learnt from, and where the reading stops."""

import time
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import PIL.Image
import pytest

import loligo
from loligo import cli
from loligo.data import folder_names, inputs, manifest
from loligo.data.dataset import no_rejections
from loligo.data.manifest import Listing
from loligo.data.places import Layout
from loligo.data.sources import folder

LEARN, ASIDE = ("train", 0), ("validation", 1)
NORMAL, ABNORMAL, UNKNOWN = ("test", 0), ("test", 1), ("test", None)


def save(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(zlib.crc32(name.encode())).integers(0, 256, (4, 4), np.uint8)
        PIL.Image.fromarray(pixels).save(root / name)


def tree(root, folders):
    """Make a folder with so many images in each of the folders named."""
    for name, count in folders.items():
        save(root, *(str(Path(name) / f"{Path(name).name[:3]}{i:03}.png") for i in range(count)))
    return root


def taken(listing):
    """Count images by split and label."""
    pairs = zip(listing.rows["split"], listing.rows["label"], strict=True)
    found = [(split, None if pd.isna(label) else int(label)) for split, label in pairs]
    return {pair: found.count(pair) for pair in found}


def learnt(root, **layout):
    """Count what a training takes from a folder, before anything is held out."""
    listing = folder.listed(root, "train", Layout(**layout))
    return taken(listing._replace(rows=manifest.as_normals(listing.rows, 0, 0)))


CLEAR = {
    "kaggle, one folder more": (
        {f"x/x/{s}/{c}": n for s, n in (("train", 8), ("test", 4)) for c in ("NORMAL", "PNEUMONIA")},
        {LEARN: 8, ASIDE: 8, NORMAL: 4, ABNORMAL: 4},
    ),
    "mvtec": ({"train/good": 4, "test/good": 2, "test/some_kind": 3}, {LEARN: 4, NORMAL: 2, ABNORMAL: 3}),
    "mvtec, no good test": ({"train/good": 4, "test/some_kind": 3}, {LEARN: 4, ABNORMAL: 3}),
    "bmad": (
        {"train/good": 4, "valid/Ungood/img": 2, "test/good/img": 2, "test/Ungood/img": 3},
        {LEARN: 4, ASIDE: 2, NORMAL: 2, ABNORMAL: 3},
    ),
    "anomalib": ({"normal_dir": 5, "abnormal_dir": 2}, {LEARN: 5, ASIDE: 2}),
    "plural": ({"normals": 5, "abnormals": 2}, {LEARN: 5, ASIDE: 2}),
    "numbered": ({"0_normal": 5, "1_pneumonia": 2}, {LEARN: 5, ASIDE: 2}),
    "cases": ({"normal cases": 5, "tumour cases": 2}, {LEARN: 5, ASIDE: 2}),
    "control": ({"control": 5, "disease": 2}, {LEARN: 5, ASIDE: 2}),
    "sign": ({"neg": 5, "pos": 2}, {LEARN: 5, ASIDE: 2}),
    "digit": ({"0": 5, "1": 2}, {LEARN: 5, ASIDE: 2}),
    "digits in splits": ({"train/0": 5, "test/0": 2, "test/1": 3}, {LEARN: 5, NORMAL: 2, ABNORMAL: 3}),
    "brain tumours": (
        {"Training/notumor": 5, "Training/glioma": 2, "Testing/notumor": 1},
        {LEARN: 5, ASIDE: 2, NORMAL: 1},
    ),
    "split and class in one": (
        {"train_normal": 5, "test_normal": 2, "test_abnormal": 3},
        {LEARN: 5, NORMAL: 2, ABNORMAL: 3},
    ),
    "class above split": ({"healthy/train": 5, "healthy/test": 2, "sick/test": 3}, {LEARN: 5, NORMAL: 2, ABNORMAL: 3}),
    "sites above": ({"siteA/normal": 5, "siteB/normal": 4, "siteB/lesions": 2}, {LEARN: 9, ASIDE: 2}),
    "patients below": ({"normal/p1": 3, "normal/p2": 3, "abnormal/p3": 2}, {LEARN: 6, ASIDE: 2}),
    "patients above": ({"p1/normal": 3, "p2/normal": 3, "p2/abnormal": 2}, {LEARN: 6, ASIDE: 2}),
    "site, class, patient": ({"a/Train/no_finding/001": 3, "a/Test/Mass/002": 3}, {LEARN: 3, ABNORMAL: 3}),
    "patients alone": ({"p1": 3, "p2": 3, "p3": 3}, {LEARN: 9}),
    "numbers": ({"1001": 3, "1002": 3, "1003": 3}, {LEARN: 9}),
    "wards": ({"ward_a": 3, "ward_b": 3}, {LEARN: 6}),
    "years": ({"2019": 3, "2020": 3}, {LEARN: 6}),
    "views": ({"PA": 3, "lateral": 3}, {LEARN: 6}),
    "one folder": ({"export": 3}, {LEARN: 3}),
    "one folder beside images": ({"": 3, "older": 3}, {LEARN: 6}),
    "many names": ({f"{a}{b}son": 1 for a in "abcdef" for b in "klmno"}, {LEARN: 30}),
    "train without classes": ({"train": 5, "test/normal": 2, "test/abnormal": 2}, {LEARN: 5, NORMAL: 2, ABNORMAL: 2}),
    "train of patients": ({"train/p1": 5, "train/p2": 5, "test/abnormal": 2}, {LEARN: 10, ABNORMAL: 2}),
    "normals with abnormal ones in a folder": ({"": 5, "pneumonia": 2}, {LEARN: 5, ASIDE: 2}),
    "calibration": ({"train/normal": 5, "calibration/normal": 2}, {LEARN: 5, ("calibration", 0): 2}),
}


@pytest.mark.parametrize("name", CLEAR)
def test_layouts_that_are_understood(tmp_path, name):
    folders, expected = CLEAR[name]
    assert learnt(tree(tmp_path / "data", folders)) == expected


UNCLEAR = {
    "ward beside normal": ({"normal": 4, "ward_a": 3}, r"3 images in ward_a; beside them lie normal\."),
    "patients beside normal": (
        {"NORMAL": 4, "p1": 3, "p2": 2},
        r"5 images in p1 \(3\), p2 \(2\); beside them lie NORMAL",
    ),
    "unknown beside normal": (
        {"normal": 4, "benign": 3, "malignant": 2},
        r"benign; beside .*malignant \(2\), normal \(4\)",
    ),
    "unknown beside abnormal": ({"ward_a": 4, "pneumonia": 3}, "ward_a; beside them lie pneumonia"),
    "images beside classes": ({"": 1, "normal": 4, "abnormal": 3}, "1 images in the folder itself; beside"),
    "images beside classes of a split": (
        {"train": 1, "train/normal": 4},
        "1 images in train; beside them lie train/normal",
    ),
    "folder beside splits": ({"train/good": 4, "extra": 3}, "extra; they lie outside of the train folder"),
    "folder beside a plain train": ({"train": 4, "extra": 3}, "extra; they lie outside of the train folder"),
    "two words": ({"cats": 4, "dogs": 3}, r"7 images in cats \(4\), dogs \(3\); these may be classes"),
    "two words deep": (
        {"a/train/mild": 4, "a/train/severe": 3},
        r"a/train/mild \(4\), a/train/severe \(3\); these may",
    ),
    "grades": ({"0": 4, "1": 3, "2": 2}, r"0 \(4\), 1 \(3\), 2 \(2\); these may be classes"),
    "letters": ({"A": 4, "B": 3}, r"A \(4\), B \(3\); these may be classes"),
    "domains": ({"trainA": 4, "trainB": 3, "testA": 1}, r"trainA \(4\), trainB \(3\); these may be classes"),
    "unknown class of a split": ({"train/fractured": 4, "train/not_fractured": 3}, "3 images in train/not_fractured;"),
    "numbered classes": ({"class0": 4, "class1": 3}, "these may be classes"),
    "not without any disease": ({"COVID": 4, "non-COVID": 3}, "non-COVID; beside them lie COVID"),
    "a patient without class": ({"p1/normal": 4, "p2": 3}, "p2; beside them lie p1/normal"),
}


@pytest.mark.parametrize("name", UNCLEAR)
def test_layouts_that_are_unclear_stop_a_training_and_name_the_way_out(tmp_path, name):
    folders, message = UNCLEAR[name]
    root = tree(tmp_path / "data", folders)
    with pytest.raises(ValueError, match=rf"data: it is not clear .*{message}.*--normal DIR .*--abnormal DIR"):
        folder.listed(root, "train")
    assert len(folder.listed(root, "test", to_learn=False).rows) == sum(folders.values())


def test_a_user_settles_what_names_do_not_say(tmp_path, monkeypatch):
    root = tree(tmp_path / "data", {"normal": 4, "ward_a": 3, "benign/p1": 2, "marks": 2})
    assert learnt(root, normal=["ward_a"], abnormal=["benign"]) == {LEARN: 7, ASIDE: 2, UNKNOWN: 2}
    monkeypatch.chdir(tmp_path)
    assert learnt(root, abnormal=["data/benign", root / "marks"]) == {LEARN: 7, ASIDE: 4}
    assert learnt(root, normal=["."], abnormal=["benign"], masks=["marks"]) == {LEARN: 7, ASIDE: 2}
    with pytest.raises(ValueError, match=r"nowhere: there is no such folder in .*data"):
        learnt(root, normal=["nowhere"])
    with pytest.raises(ValueError, match="ward_a is given as normal and as abnormal"):
        learnt(root, normal=["ward_a"], abnormal=["ward_a"])
    assert learnt(root, normal="ward_a", abnormal="benign") == {LEARN: 7, ASIDE: 2, UNKNOWN: 2}


def test_the_options_are_those_of_the_commands_and_of_python(tmp_path, capsys):
    root, out = tree(tmp_path / "data", {"normal": 6, "ward_a": 6, "benign": 2}), tmp_path / "m.csv"
    for command in (
        ["index", "folder", root, "-o", out],
        ["train", "gaussian", "--data", root, "--out", tmp_path / "run"],
    ):
        with pytest.raises(SystemExit) as stopped:
            cli.main([*map(str, command)])
        assert stopped.value.code == 2 and "8 images in benign (2), ward_a (6); beside" in capsys.readouterr().err
    assert not out.exists()
    cli.main(["index", "folder", str(root), "-o", str(out), "--normal", "ward_a", "--abnormal", "benign"])
    assert taken(Listing(manifest.read(out), no_rejections())) == {LEARN: 11, ("calibration", 0): 1, ASIDE: 2}
    run = loligo.train("gaussian", root, tmp_path / "a", preset="tiny", normal=["ward_a"], abnormal=["benign"])
    assert (run.about["data"]["train"], run.about["data"]["calibration"]) == (10, 12)  # one of ten folds is not seen


def test_what_is_said_of_sub_folders_needs_a_folder(tmp_path):
    root = tree(tmp_path / "data", {"normal": 4, "pneumonia": 3})
    files = [root / "normal" / f"nor00{i}.png" for i in range(4)]
    with pytest.raises(ValueError, match="say what lies in a folder; a list of files is given: leave them out"):
        inputs.resolve(files, purpose="train", layout=Layout(normal=["."]))
    assert set(inputs.resolve(files, purpose="train", layout=Layout(patient=r"(\d)\.")).rows["patient"]) == set("0123")
    table = pd.DataFrame({"path": list(map(str, files)), "split": "train"})
    assert len(inputs.resolve(table, purpose="train", layout=Layout([], [], [], "")).rows) == 4
    with pytest.raises(ValueError, match="a manifest is given"):
        inputs.resolve(table, purpose="train", layout=Layout(patient="folder"))
    with pytest.raises(ValueError, match=r"normal, .*pneumonia are several folders; give the one that holds them"):
        inputs.resolve(sorted(root.iterdir()), purpose="train")


def test_a_folder_named_normal_explains_what_is_in_it(tmp_path):
    root = tree(tmp_path / "normals", {"Leiden": 4, "Utrecht": 3})
    assert learnt(root) == {LEARN: 7}
    tree(root, {"tumour": 2})
    with pytest.raises(ValueError, match=r"Leiden \(4\), Utrecht \(3\); beside them lie tumour"):
        learnt(root)


def test_the_command_is_told_what_folders_were_taken_for(tmp_path):
    root = tree(tmp_path / "data", {"train/NORMAL": 8, "train/PNEUMONIA": 2, "test/good": 2, "test/other": 1})
    assert list(folder.listed(root, "train").notes) == [
        "2 images in test/good: normal (test)",
        "1 images in test/other: abnormal, as beside normal ones (test)",
        "8 images in train/NORMAL: normal, to learn from",
        "2 images in train/PNEUMONIA: abnormal (validation, not learnt from)",
    ]
    assert folder.listed(tree(tmp_path / "flat", {"": 8}), "train").notes == ()
    (note,) = folder.listed(tree(tmp_path / "PNEUMONIA", {"": 8}), "train").notes
    assert note.startswith("PNEUMONIA sounds like abnormal images")


def test_images_that_have_masks_are_not_taken_for_normal(tmp_path):
    root = tree(tmp_path / "data", {"imagesTr": 3})
    save(root, "labelsTr/ima000.png")
    with pytest.raises(ValueError, match="1 images in imagesTr; they have masks, which mark what is abnormal"):
        folder.listed(root, "train")
    assert learnt(root, normal=["imagesTr"]) == {LEARN: 3}


MASKS = {
    "mvtec": ("test/crack/000.png", "ground_truth/crack/000_mask.png"),
    "anomalib": ("abnormal_dir/7.png", "mask_dir/7.png"),
    "bmad": ("test/Ungood/img/7.png", "test/Ungood/label/7.png"),
    "bmad, anomaly_mask": ("valid/Ungood/img/7.png", "valid/Ungood/anomaly_mask/7.png"),
    "of patients": ("abnormal/p2/7.png", "masks/p2/7.png"),
    "beside images": ("malignant/m (1).png", "malignant/m (1)_mask.png"),
    "one a patient": ("abnormal/p9/image.png", "abnormal/p9/mask.png"),
    "modality": ("abnormal/p9/p9_flair.png", "abnormal/p9/p9_seg.png"),
    "segmentations": ("tumour/7.png", "segmentations/7_segmentation.png"),
}


@pytest.mark.parametrize("name", MASKS)
def test_masks_find_their_images(tmp_path, name):
    image, mask = MASKS[name]
    save(tmp_path, "train/good/000.png", "train/normal/p1/7.png", "test/good/000.png", "normal/7.png", image, mask)
    found = folder.listed(tmp_path, "test").rows.set_index("path")["mask"]
    assert found[str(tmp_path / image)] == str(tmp_path / mask)
    assert (found != "").sum() == 1 and str(tmp_path / mask) not in found.index


def test_masks_without_an_image_are_rejected(tmp_path):
    save(tmp_path, "test/crack/000.png", "test/scratch/001.png", "ground_truth/crack/001_mask.png")
    save(tmp_path, "test/crack/x.png", "x/x.png", "ground_truth/x.png")
    rejected = folder.listed(tmp_path, "test").rejected
    assert [Path(path).name for path in rejected["path"]] == ["001_mask.png"]
    assert rejected["reason"].tolist() == ["it is a mask, and belongs to none of the images"]


def results(root):
    """Write what a scoring, a run and a generated set look like."""
    save(root, "maps/000_overlay.png", "maps/000_reconstruction.png", "figures/roc.png")
    (root / "scores.csv").write_text("path,split,score,p_value\n")
    (root / "rejected.csv").write_text("path,reason,during\n")
    run = root / "runs" / "a"
    save(run, "maps/0.png", "scores/new/maps/1.png", "figures/2.png")
    (run / "config.yaml").write_text("method: gaussian\nmethod_config: {}\n")
    save(root, "made/images/0.png", "made/images/0_nsa.png", "made/masks/0_nsa.png")
    (root / "made" / "manifest.csv").write_text("path,split,label,source\nimages/0.png,test,0,synthetic\n")


@pytest.mark.parametrize("purpose", ["train", "score"])
def test_results_are_never_inputs(tmp_path, purpose):
    root = tree(tmp_path / "data", {"": 8})
    results(root)
    found = inputs.resolve(root, purpose=purpose)
    assert len(found.rows) == 8 and found.rejected.empty
    assert found.notes[-1].endswith("maps, rejected.csv and 5 more: results of loligo, passed over")
    with pytest.raises(
        FileNotFoundError, match=r"no image below .*made but results of loligo .*give the manifest\.csv"
    ):
        inputs.resolve(root / "made", purpose=purpose)


def test_a_table_of_the_user_is_no_result(tmp_path):
    root = tree(tmp_path / "data", {"maps": 8})
    (root / "scores.csv").write_text("image,reader1,reader2\n")
    found = folder.listed(root, "train")
    assert len(found.rows) == 8 and list(found.rejected["reason"].str[:29]) == ["its content is text or CSV, n"]


def test_what_systems_leave_is_passed_over(tmp_path):
    root = tree(tmp_path / "data", {"normal": 4})
    save(root, "normal/@eaDir/nor000.png/SYNOPHOTO_THUMB_M.png", "__MACOSX/normal/nor000.png", ".Trash/a.png")
    for name in ("._nor000.png", ".DS_Store", "Thumbs.db", "desktop.ini"):
        (root / "normal" / name).write_bytes(b"\0\5\x16\7")
    found = folder.listed(root, "train")
    assert len(found.rows) == 4 and found.rejected.empty


def test_patients_are_told_by_folders_or_names(tmp_path):
    root = tree(tmp_path / "data", {"normal/anna": 3, "normal/bert": 3, "abnormal/carl": 2, "normal/dora/scans": 1})

    def patients(**layout):
        return set(folder.listed(root, "train", Layout(**layout)).rows["patient"])

    assert patients() == {""}
    assert patients(patient="folder") == {"anna", "bert", "carl", "dora"}
    assert patients(patient=r"^([a-z]+)\d") == {"ann", "ber", "car", "sca"}
    assert patients(patient="(anna|bert)") == {"anna", "bert", ""}
    with pytest.raises(ValueError, match=r"patient '\[a' is neither 'folder' nor a regular expression"):
        patients(patient="[a")
    with pytest.raises(ValueError, match=r"patient '_(.*)_' is found in no file's name, such as car000\.png"):
        patients(patient="_(.*)_")
    with pytest.raises(ValueError, match="no sub-folder that could be a patient's"):
        folder.listed(tree(tmp_path / "flat", {"": 3}), "train", Layout(patient="folder"))
    notes = folder.listed(root, "train").notes
    assert notes[-1].startswith("4 sub-folders: if each is one patient, say --patient folder")


def test_folders_named_as_patients_are_held_out_whole(tmp_path):
    root = tree(tmp_path / "data", {f"p{i}/study1": 3 for i in range(1, 11)})
    found = inputs.resolve(root, purpose="train").with_calibration(0.1, 0)
    assert found.rows["split"].value_counts().to_dict() == {"train": 27, "calibration": 3}
    assert found.rows.groupby("patient")["split"].nunique().eq(1).all()
    assert "10 patients are told by their folders, each kept in one split" in found.notes
    assert set(folder.listed(tree(tmp_path / "one", {"p1": 4}), "train").rows["patient"]) == {""}


def test_normal_images_of_patients_who_have_abnormal_ones_are_put_aside(tmp_path):
    root = tree(tmp_path / "data", {f"p{i}/normal": 2 for i in range(4)} | {"p0/abnormal": 1})
    rows = folder.listed(root, "train", Layout(patient="folder")).rows
    assert set(rows.loc[rows["split"] == "validation", "patient"]) == {"p0"}
    assert (rows["split"] == "train").sum() == 6


def test_copies_are_held_out_together_and_counted(tmp_path):
    root = tmp_path / "data"
    save(root, *(f"{i}.png" for i in range(6)))
    for i in range(6):
        for name in ("copy_of_", "export2_", "old_"):
            (root / f"{name}{i}.png").write_bytes((root / f"{i}.png").read_bytes())
    found = inputs.resolve(root, purpose="train").with_calibration(0.1, 0)
    assert found.rows["split"].value_counts().to_dict() == {"train": 20, "calibration": 4}
    number = found.rows["path"].str.extract(r"(\d)\.png$", expand=False)
    assert found.rows.groupby(number)["split"].nunique().eq(1).all()
    (note,) = found.notes
    assert note.startswith("18 images are byte for byte copies of others, such as ")
    assert note.endswith("; copies stand in one split")


def test_copies_across_the_splits_of_a_manifest_are_counted(tmp_path):
    save(tmp_path, *(f"{i}.png" for i in range(6)))
    for copy, i in ((3, 0), (4, 1), (5, 0)):
        (tmp_path / f"{copy}.png").write_bytes((tmp_path / f"{i}.png").read_bytes())
    splits = ["train", "train", "train", "calibration", "calibration", "test"]
    rows = "".join(f"{i}.png,{split},{int(i == 5)}\n" for i, split in enumerate(splits))
    (tmp_path / "m.csv").write_text("path,split,label\n" + rows)
    found = inputs.resolve(tmp_path / "m.csv", purpose="train").with_calibration(0.1, 0)
    assert list(found.rows["split"]) == splits
    assert [note.split(":")[0] for note in found.notes] == [
        f"3 images are byte for byte copies of others, such as {tmp_path / '3.png'} of {tmp_path / '0.png'}",
        "2 images of calibration are copies of training images and score too low",
        "1 images of test are copies of training images and score too low",
        "1 images have copies with the other label; give each one label",
    ]
    assert inputs.resolve(tmp_path / "m.csv", purpose="score").notes == ()


def test_folders_that_link_to_each_other_are_entered_once(tmp_path):
    names = [f"s{i}" for i in range(12)]
    for name in names:
        save(tmp_path, f"{name}/{name}.png")
        for other in names:
            (tmp_path / name / f"to_{other}").symlink_to(tmp_path / other)
    began = time.perf_counter()
    assert len(folder.listed(tmp_path, "train").rows) == 12
    assert time.perf_counter() - began < 5
    (tmp_path / "test").symlink_to(tmp_path / "s3")
    with pytest.raises(ValueError, match=r"s3 and .*test are one folder in two splits or classes"):
        folder.listed(tmp_path, "train")


def test_a_folder_that_cannot_be_opened_is_rejected(tmp_path, monkeypatch):
    root, opened = tree(tmp_path / "data", {"p1": 3, "p2": 3}), Path.iterdir

    def closed(path):
        if path.name == "p2":
            raise PermissionError(13, "Permission denied")
        return opened(path)

    monkeypatch.setattr(Path, "iterdir", closed)
    found = folder.listed(root, "train")
    assert len(found.rows) == 3
    assert found.rejected.to_numpy().tolist() == [[str(root / "p2"), "the folder cannot be opened (Permission denied)"]]
    with pytest.raises(FileNotFoundError, match=r"no image below .*p2: the folder cannot be opened"):
        folder.listed(root / "p2", "train")


def test_a_link_to_a_folder_above_leads_nowhere(tmp_path):
    save(tmp_path, "elsewhere/a.png", "data/b.png")
    (tmp_path / "data" / "up").symlink_to("/")
    (tmp_path / "data" / "above").symlink_to(tmp_path)
    assert len(folder.listed(tmp_path / "data", "train").rows) == 1


def test_masks_of_normal_images_are_left_out_and_said(tmp_path):
    root = tree(tmp_path / "data", {"COVID/images": 2, "Normal/images": 3})
    save(root, "COVID/masks/ima000.png", "Normal/masks/ima000.png", "Normal/masks/ima001.png")
    found = folder.listed(root, "train")
    assert found.rows["mask"].map(bool).tolist() == [True, False, False, False, False]
    assert "those of 2 normal ones are left out (do masks mark anatomy here?)" in found.notes[-1]


def test_deep_folders_are_read(tmp_path):
    depths = [Path(str(tmp_path) + "/d" * depth) for depth in range(1, 1101)]
    try:
        for here in depths:
            here.mkdir()
        save(depths[0], "a.png")
        for here in depths[99::100]:
            (here / "b.png").write_bytes((depths[0] / "a.png").read_bytes() + str(len(here.parts)).encode())
        began = time.perf_counter()
        assert len(folder.index(tmp_path)) == 12
        assert time.perf_counter() - began < 5
    finally:
        for path in [depths[0] / "a.png", *(here / "b.png" for here in depths[99::100])]:
            path.unlink(missing_ok=True)
        for here in reversed(depths):  # pytest would recur too deep to remove them
            here.rmdir()


@pytest.mark.parametrize(
    ("name", "split", "kind"),
    [
        ("No Finding", "", "normal"),
        ("No Lung Opacity _ Not Normal", "", "abnormal"),
        ("no_tumor", "", "normal"),
        ("No_Pneumonia", "", ""),
        ("near normal", "", ""),
        ("normal pressure hydrocephalus", "", ""),
        ("normal_vs_abnormal", "", ""),
        ("Leiden_normal", "", "normal"),
        ("healthy_controls", "", "normal"),
        ("quality control", "", ""),
        ("tumour_masks", "", "mask"),
        ("imagesTs", "test", ""),
        ("stress_test", "", ""),
        ("validation_set", "validation", ""),
        ("normal-train", "train", "normal"),
        ("pos 12", "", "abnormal"),
        ("lying_pos_supine", "", ""),
        ("gesund", "", ""),
    ],
)
def test_names_are_read_word_by_word(name, split, kind):
    found = folder_names.read(name)
    assert (found.split, found.kind) == (split, kind)
