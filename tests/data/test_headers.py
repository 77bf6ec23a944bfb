"""Patients of DICOM headers as keyed hashes, and columns of a manifest."""

from __future__ import annotations

import hashlib
import hmac
import stat
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from conftest import anatomy, write_images
from dicom_files import PATIENT, ROOT, series, write
from loligo.cli import main
from loligo.data import copies, headers, inputs, manifest
from loligo.data.sources import dicom

PLAIN = np.zeros((8, 9), np.uint16)


def radiographs(folder: Path, patients: list[str], **tags: object) -> list[Path]:
    random = np.random.default_rng(len(patients))
    return [
        write(folder / f"IM{i:03d}", random.integers(0, 4096, (8, 9)).astype(np.uint16), PatientID=one, **tags)
        for i, one in enumerate(patients)
    ]


def test_the_hash_is_hmac_sha_256() -> None:
    expected = hmac.digest(b"k" * 32, b"Jane", hashlib.sha256).hex()[:16]
    assert headers.hashed("Jane", b"k" * 32) == f"p{expected}" and headers.hashed("", b"k" * 32) == ""
    assert headers.hashed("Jane", b"l" * 32) != headers.hashed("Jane", b"k" * 32)


def test_the_key_is_random_kept_and_its_owners_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for name in ("a", "b"):
        monkeypatch.setenv("LOLIGO_PATIENT_KEY", str(tmp_path / name / "key"))
        found.append(headers.key())
        assert headers.key() == found[-1] and len(found[-1]) == 64
        assert stat.S_IMODE((tmp_path / name / "key").stat().st_mode) == 0o600
        assert [path.name for path in (tmp_path / name).iterdir()] == ["key"]
    assert found[0] != found[1]


def test_a_key_that_is_short_or_cannot_be_made_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text("secret")
    monkeypatch.setenv("LOLIGO_PATIENT_KEY", str(tmp_path / "key"))
    with pytest.raises(ValueError, match="its key has 6 bytes; 16 or more"):
        headers.key()
    monkeypatch.setenv("LOLIGO_PATIENT_KEY", str(tmp_path / "key" / "below"))
    with pytest.raises(OSError, match=r"the key for patients' names, .* set LOLIGO_PATIENT_KEY"):
        headers.key()


def test_patients_come_from_headers_and_stay_in_one_split(tmp_path: Path) -> None:
    radiographs(tmp_path, [f"id{i % 7}" for i in range(40)], BodyPartExamined="CHEST", PatientAge="040Y")
    rows = inputs.resolve(tmp_path, purpose="train").with_calibration(0.3, 0).rows
    assert rows["patient"].nunique() == 7 and rows["patient"].str.fullmatch("p[0-9a-f]{16}").all()
    assert (rows.groupby("patient")["split"].nunique() == 1).all() and rows["split"].nunique() == 2
    assert (rows["body_part"] == "CHEST").all() and (rows["age"] == 40).all() and (rows["modality"] == "CR").all()


def test_patients_in_train_and_test_folders_are_refused_without_their_ids(tmp_path: Path) -> None:
    for split in ("train", "test"):
        radiographs(tmp_path / split, [PATIENT, f"{split} alone"])
    with pytest.raises(
        ValueError, match=r"1 patient\(s\) stand in more than one split: p[0-9a-f]{16}, .*IM000 and"
    ) as e:
        inputs.resolve(tmp_path, purpose="train")
    assert PATIENT not in str(e.value)


def test_what_a_user_says_of_patients_counts(tmp_path: Path) -> None:
    radiographs(tmp_path, ["same"] * 4)
    found = inputs.resolve(tmp_path, purpose="train")
    assert any("all images have one Patient ID (0010,0020)" in note for note in found.notes)
    from loligo.data.places import Layout

    rows = inputs.resolve(tmp_path, purpose="train", layout=Layout(patient="(.*)")).rows
    assert rows["patient"].nunique() == 4


def test_a_series_is_one_row_and_copies_are_found_by_all_its_files(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).integers(0, 900, (4, 5, 6)).astype(np.int16)
    first = series(tmp_path / "a", voxels)
    (tmp_path / "b").mkdir()
    (tmp_path / "c").mkdir()
    for path in first:
        (tmp_path / "b" / path.name).write_bytes(path.read_bytes())
        if path != first[0]:
            (tmp_path / "c" / path.name).write_bytes(path.read_bytes())
    rows = inputs.resolve(tmp_path, purpose="score").rows
    assert [Path(path).name for path in rows["path"]] == ["IM0001", "IM0001", "IM0001"]
    found = copies.find(rows["path"])
    assert found[0] == found[1] != "" and found[2] == ""


def test_index_dicom_lists_dicom_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "in"
    radiographs(folder / "deep" / "er", [f"{PATIENT}{i}" for i in range(6)], ViewPosition="PA", Laterality="R")
    write(folder / "report", PLAIN, Modality="SR", storage="1.2.840.10008.5.1.4.1.1.88.33")
    (folder / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    write_images(folder, anatomy(2))
    main(["index", "dicom", str(folder), "-o", str(tmp_path / "m.csv"), "--calibration", "0.2"])
    table = pd.read_csv(tmp_path / "m.csv")
    assert len(table) == 6 and set(table["source"]) == {"dicom"} and set(table["view"]) == {"PA"}
    assert set(headers.COLUMNS) < set(table) and set(table["laterality"]) == {"R"}
    said = caplog.text + capsys.readouterr().err
    assert "3 files were passed over" in said and "DICOMDIR" not in said
    written = (tmp_path / "m.csv").read_text() + said
    assert PATIENT not in written and ROOT not in written
    assert manifest.read(tmp_path / "m.csv")["patient"].nunique() == 6


def test_index_dicom_where_there_is_none(tmp_path: Path) -> None:
    write_images(tmp_path, anatomy(2))
    with pytest.raises(FileNotFoundError, match="no DICOM file that can be used lies below it"):
        dicom.index(tmp_path)


def test_the_dicomdir_stands_for_its_folder(tmp_path: Path) -> None:
    radiographs(tmp_path / "below", ["a", "b"])
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    assert len(inputs.resolve(tmp_path / "DICOMDIR", purpose="score").rows) == 2


def test_pictures_beside_a_dicomdir_are_not_learnt_from(tmp_path: Path) -> None:
    """They are those of the viewer on the disc."""
    radiographs(tmp_path / "below", ["a", "b"])
    write_images(tmp_path, anatomy(2))
    assert len(inputs.resolve(tmp_path, purpose="train").rows) == 4
    (tmp_path / "dicomdir").write_bytes(bytes(128) + b"DICM")
    found = inputs.resolve(tmp_path, purpose="train")
    assert len(found.rows) == 2 and set(found.rows["modality"]) == {"CR"}
    assert found.rejected["reason"].str.startswith("its content is not DICOM, as are images beside").all()
