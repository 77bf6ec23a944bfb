"""loligo score --dicom: objects of a whole folder, what has none and why, and repeats."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset

from conftest import anatomy
from dicom_files import NAME, PATIENT, ROOT, series, write
from dicom_results import validated
from loligo import api, dicom
from loligo.cli import main
from loligo.detector import Detector
from loligo.dicom.export import Export
from loligo.runs.run import DIGEST, Run

SECRETS = (NAME, PATIENT, ROOT, "PLANTED")


def stored(seed: int, bright: int = 0) -> np.ndarray:
    """Return a radiograph with a bright square of so many pixels a side."""
    grey = anatomy(1, 40, seed)[0, 0][:, :24]
    grey[5 : 5 + bright, 12 : 12 + bright] = 1
    return (grey * 4095).round().astype(np.uint16)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    place = tmp_path_factory.mktemp("run")
    for i in range(30):
        write(place / "in" / f"IM{i}", stored(i), PatientID=f"{PATIENT}{i}", StudyDescription=NAME)
    return api.train("gaussian", place / "in", place / "run", preset="tiny")


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of three studies, an image that is not DICOM, and one without Study Instance UID."""
    folder = tmp_path_factory.mktemp("new")
    for i in range(2):
        write(folder / f"a{i}", stored(90 + i, bright=(2, 8)[i]), StudyInstanceUID=f"{ROOT}1", InstanceNumber=i + 1)
    write(
        folder / "b",
        4095 - stored(92, bright=2),
        StudyInstanceUID=f"{ROOT}2",
        PhotometricInterpretation="MONOCHROME1",
    )
    write(folder / "c", stored(8), StudyInstanceUID=f"{ROOT}3")
    Image.fromarray((stored(95) // 16).astype(np.uint8)).save(folder / "plain.png")
    write(folder / "orphan", stored(94, bright=2), StudyInstanceUID="")
    return folder


def objects(folder: Path) -> dict[str, Dataset]:
    return {path.name: pydicom.dcmread(path) for path in sorted(folder.iterdir())}


def test_a_mixed_folder_has_objects_of_each_image_that_can_have_them(run: Run, new: Path, tmp_path: Path) -> None:
    table = api.score(run, new, tmp_path / "out", dicom=tmp_path / "objects", false_alarm_rate=0.1)
    assert len(table) == 6, "what has no objects is scored as well"
    rows = pd.read_csv(tmp_path / "out" / "objects.csv")
    found = objects(tmp_path / "objects")
    assert set(rows["file"]) == set(found) and table.attrs["objects"] == len(found)
    rejected = pd.read_csv(tmp_path / "out" / "rejected.csv")
    reasons = {Path(path).name: why for path, why in zip(rejected["path"], rejected["reason"], strict=True)}
    assert reasons["plain.png"].startswith("scored, but it has no DICOM objects: is not DICOM")
    assert "has no valid Study Instance UID (0020,000D)" in reasons["orphan"] and len(reasons) == 2
    flagged = {Path(path).name for path, flag in zip(table["path"], table["flag"], strict=True) if flag}
    assert {"a0", "a1", "b"} <= flagged and "c" not in flagged
    kinds = Counter(name.partition("_")[0] for name in found)
    assert kinds["sr"] == kinds["pm"] == 4 and kinds["ko"] == 2, "one list of key objects a flagged study"
    assert kinds["seg"] == 2, "a1 is hot all over, and c nowhere"
    (both,) = [ds for ds in found.values() if ds.Modality == "KO" and ds.StudyInstanceUID == f"{ROOT}1"]
    assert len(both.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence) == 2
    for name in found:
        assert validated(tmp_path / "objects" / name) == []


def test_the_map_and_the_model_are_those_of_the_scoring(run: Run, new: Path, tmp_path: Path) -> None:
    table = api.score(run, new / "a0", tmp_path / "out", dicom=tmp_path / "objects", dicom_objects=("sr", "pm"))
    heat = np.load(tmp_path / "out" / table["map"][0])
    found = {ds.SOPClassUID.keyword: ds for ds in objects(tmp_path / "objects").values()}
    made = found["ParametricMapStorage"]
    np.testing.assert_array_equal(np.frombuffer(made.FloatPixelData, "<f4").reshape(40, 24), heat)
    assert made.DeviceSerialNumber == run.about[DIGEST]
    said = [str(item.value) for item in found["Comprehensive3DSRStorage"].iterall() if item.keyword == "TextValue"]
    assert any("Trained on 26 normal images (folder; CR or DX)" in text or "normal images (" in text for text in said)
    assert made.ContributingEquipmentSequence[0].DeviceUID == dicom_device(run)


def dicom_device(run: Run) -> str:
    from loligo.dicom.common import device

    return device(dicom.About.of(Detector.load(run)))


def test_a_repeat_replaces_its_files_by_equal_ones(run: Run, new: Path, tmp_path: Path) -> None:
    before: dict[str, bytes] = {}
    for name in ("one", "two"):
        api.score(run, new, tmp_path / name, dicom=tmp_path / "objects", batch_size=3)
        now = {path.name: path.read_bytes() for path in (tmp_path / "objects").iterdir()}
        assert name == "one" or now == before
        before = now
    api.score(run, new, tmp_path / "three", dicom=tmp_path / "objects", false_alarm_rate=0.3)
    more = {path.name: path.read_bytes() for path in (tmp_path / "objects").iterdir()}
    assert before.items() < more.items(), "at another threshold the results are others, under other UIDs"


def test_no_patient_stands_in_a_name_a_table_or_what_is_printed(
    run: Run, new: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    main(["score", str(run.folder), str(new), "--out", str(tmp_path / "out"), "--dicom", str(tmp_path / "objects")])
    said = capfd.readouterr()
    assert f"{tmp_path / 'objects'}: " in said.out and "DICOM objects" in said.out and "2 files" in said.err
    texts = [said.out, said.err, *(path.name for path in (tmp_path / "objects").iterdir())]
    texts += [path.read_text() for path in (tmp_path / "out").glob("*.csv")]
    assert not [(secret, text) for secret in SECRETS for text in texts if secret in text]
    for path in (tmp_path / "objects").iterdir():
        content = path.read_bytes()
        for word in (str(tmp_path), str(new), new.name, run.folder.name + "/", "/tmp/"):
            assert word.encode() not in content, word


def test_wrong_folders_and_options_are_said_before_scoring(
    run: Run, new: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match=r"for DICOM objects lies in .*out, which is written at once"):
        api.score(run, new, tmp_path / "out", dicom=tmp_path / "out" / "dicom")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file; DICOM objects need a folder"):
        api.score(run, new, dicom=tmp_path / "file")
    with pytest.raises(ValueError, match="there is no DICOM object 'xr'"):
        api.score(run, new, dicom=tmp_path / "a", dicom_objects=["xr"])
    for argv, message in (
        (["--dicom_objects", "sr"], "name a folder with --dicom"),
        (["--dicom", str(tmp_path / "a"), "--dicom_objects", "sr,segg"], "did you mean 'seg'"),
    ):
        with pytest.raises(SystemExit):
            main(["score", str(run.folder), str(new), *argv])
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists() and not (tmp_path / "a").exists()


def test_a_full_disk_leaves_whole_objects_alone(
    run: Run, new: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if path.name.startswith("pm_"):
            written(path, bytes(content[:100]))
            raise OSError(28, "No space left on device")
        return written(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"cannot write .*pm_[0-9a-f]{32}\.dcm: No space left on device"):
        api.score(run, new / "a0", tmp_path / "out", dicom=tmp_path / "objects", maps="none")
    assert [path.name[:3] for path in (tmp_path / "objects").iterdir()] == ["sr_"]
    assert pydicom.dcmread(next((tmp_path / "objects").iterdir())).Modality == "SR"


def test_a_detector_that_is_not_saved_has_no_name(run: Run) -> None:
    made = Detector.fit("gaussian", anatomy(20, 32)[:, 0], preset="tiny")
    with pytest.raises(ValueError, match="by the SHA-256 of its file: save this detector"):
        dicom.About.of(made)
    assert dicom.About.of(Detector.load(run)).identity == dicom.About.of(Detector.load(run)).identity
    other = dicom.About.of(Detector.load(run, false_alarm_rate=0.4))
    assert other.identity != dicom.About.of(Detector.load(run)).identity


def test_objects_of_a_series_that_a_run_of_volumes_scored(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    turned = {"directions": (0.8, 0.6, 0, 0, 0, -1), "step": tuple(2.0 * np.cross((0.8, 0.6, 0), (0, 0, -1)))}
    for i in range(8):
        voxels = (anatomy(5, 16, i)[:, 0] * 2400 + random.normal(0, 1, (5, 16, 16))).astype(np.int16)
        series(tmp_path / "in" / f"scan{i}", voxels, **turned, PatientID=f"{PATIENT}{i}")
    run = api.train("gaussian", tmp_path / "in", tmp_path / "run", preset="tiny", preprocessing={"window": "ct"})
    api.score(run, tmp_path / "in" / "scan0", tmp_path / "out", dicom=tmp_path / "objects", dicom_objects=["pm", "sr"])
    found = objects(tmp_path / "objects")
    assert Counter(name[:2] for name in found) == {"pm": 1, "sr": 1}
    for name, ds in found.items():
        assert validated(tmp_path / "objects" / name) == []
        assert name.startswith("sr") or ds.NumberOfFrames == 5


def test_an_export_goes_on_after_an_image_that_fails(run: Run, new: Path, tmp_path: Path) -> None:
    detector = Detector.load(run)
    export = Export(tmp_path / "objects", dicom.About.of(detector), ["sr"])
    for prediction in detector.predict([new / "orphan", new / "c"]):
        export.add(prediction)
    for prediction in detector.predict(stored(1) / 4095):
        export.add(prediction)
    made, rejected = export.finish()
    assert [Path(path).name for path in made["path"]] == ["c"] and list(made["kind"]) == ["sr"]
    assert [Path(path).name for path in rejected["path"]] == ["orphan", "an array"]
