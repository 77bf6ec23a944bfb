"""Test sets of synthetic anomalies: what is written, from which images, and the command."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from test_synthetic import picture

from loligo import cli
from loligo.data import findings, manifest, synthetic, synthetic_set


@pytest.fixture
def rows(tmp_path: Path) -> pd.DataFrame:
    """Write four pictures of different sizes: two normal ones to test on, an abnormal one, one to train on."""
    found = []
    for i, (split, label) in enumerate([("test", 0), ("test", 0), ("test", 1), ("train", 0)]):
        path = tmp_path / "in" / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray((picture((64 + 8 * i, 72), i) * 255).astype(np.uint8)).save(path)
        found.append({"path": str(path), "split": split, "label": label, "patient": f"p{i}"})
    return manifest.check(pd.DataFrame(found))


def pixels(path: object) -> np.ndarray:
    return np.asarray(Image.open(str(path)))


def test_each_normal_image_and_its_changed_copies_are_written(rows: pd.DataFrame, tmp_path: Path) -> None:
    frame = synthetic_set.write(tmp_path / "set", rows)
    assert frame["kind"].tolist() == ["normal", *synthetic.KINDS] * 2
    assert set(frame["split"]) == {"test"} and set(frame["source"]) == {"synthetic"}
    assert set(frame["origin"]) == set(rows["path"][:2]) and set(frame["patient"]) == {"p0", "p1"}
    for row in frame.itertuples():
        image, origin = pixels(row.path), pixels(row.origin)
        assert image.shape == origin.shape and image.dtype == np.uint8
        if row.kind == "normal":
            assert row.label == 0 and row.mask == ""
            np.testing.assert_array_equal(image, origin)
            continue
        mask = pixels(row.mask) > 0
        assert row.label == 1 and mask.any()
        np.testing.assert_array_equal(image[~mask], origin[~mask])
        assert (image != origin)[mask].mean() > 0.5


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in folder.rglob("*.png")}


def test_the_same_seed_gives_the_same_bytes_whatever_else_is_made(rows: pd.DataFrame, tmp_path: Path) -> None:
    synthetic_set.write(tmp_path / "a", rows)
    synthetic_set.write(tmp_path / "b", rows, kinds=["nsa", "cutpaste"])
    synthetic_set.write(tmp_path / "c", rows, seed=1)
    a, b, c = (bytes_of(tmp_path / name) for name in "abc")
    assert b.items() < a.items()
    assert a.keys() == c.keys()
    assert not [name for name in a if "normal" not in name and name.startswith("images") and a[name] == c[name]]


def test_what_cannot_be_made_is_told(rows: pd.DataFrame, tmp_path: Path) -> None:
    out = tmp_path / "set"
    with pytest.raises(ValueError, match=r"there is no kind 'cutpast'; .*cutpaste"):
        synthetic_set.write(out, rows, kinds=["cutpast"])
    with pytest.raises(ValueError, match="no normal images in split validation; name another split"):
        synthetic_set.write(out, rows, split="validation")
    with pytest.raises(ValueError, match="fpi needs two images or more; split train has one normal image"):
        synthetic_set.write(out, rows, split="train")
    with pytest.raises(ValueError, match="no kind is given; allowed: cutpaste"):
        synthetic_set.write(out, rows, kinds=[])
    assert len(synthetic_set.write(out, rows, split="train", kinds=["nsa"])) == 2
    (out / "mine.txt").touch()
    with pytest.raises(FileExistsError, match=r"mine\.txt, not an earlier synthetic set alone"):
        synthetic_set.write(out, rows)
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(rows["path"][3])
    with pytest.raises(ValueError, match="no cutpaste can be seen in it; is it of one grey"):
        synthetic_set.write(tmp_path / "black", rows, split="train", kinds=["cutpaste"])
    assert not (tmp_path / "black").exists()


def test_a_copy_in_which_nothing_can_be_seen_is_left_out_with_a_warning(
    rows: pd.DataFrame, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(rows["path"][0])
    frame = synthetic_set.write(tmp_path / "out", rows, kinds=["cutpaste"])
    assert frame["label"].sum() == (frame["label"] == 0).sum() - 1
    assert f"{rows['path'][0]}: no cutpaste can be seen in it" in caplog.text


def test_the_command_makes_a_set_of_a_folder(
    rows: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["synthesize", str(tmp_path / "in"), "--kinds", "cutpaste", "pii", "-o", str(tmp_path / "set")])
    assert "manifest.csv: 4 normal images, 8 abnormal" in capsys.readouterr().out
    frame = manifest.read(tmp_path / "set" / "manifest.csv")
    assert set(frame["kind"]) == {"normal", "cutpaste", "pii"}
    with pytest.raises(SystemExit):
        cli.main(["synthesize", str(tmp_path / "in"), "--kinds", "tumour", "-o", str(tmp_path / "other")])
    assert "there is no kind 'tumour'" in capsys.readouterr().err


def test_findings_are_kinds_of_a_set_too_and_help_names_every_kind(
    rows: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kinds = ["opacity", "misplaced", "nsa", "device"]
    frame = synthetic_set.write(tmp_path / "set", rows, kinds=kinds)
    assert frame["kind"].tolist() == ["normal", *kinds] * 2
    for row in frame[frame["label"] == 1].itertuples():
        image, origin, mask = pixels(row.path), pixels(row.origin), pixels(row.mask) > 0
        np.testing.assert_array_equal(image[~mask], origin[~mask])
        assert (image != origin)[mask].mean() > 0.5
    synthetic_set.write(tmp_path / "other", rows, kinds=["device"])
    assert bytes_of(tmp_path / "other").items() < bytes_of(tmp_path / "set").items()
    with pytest.raises(SystemExit):
        cli.main(["synthesize", "--help"])
    assert set(synthetic.KINDS + findings.KINDS) <= set(re.findall(r"\w+", capsys.readouterr().out))
