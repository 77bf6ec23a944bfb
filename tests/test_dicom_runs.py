"""DICOM through the verbs: mixed folders, what is rejected, maps on the images' own grids, and no patient written."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from pydicom import uid

from conftest import anatomy
from dicom_files import NAME, PATIENT, ROOT, series, write
from loligo import api, io
from loligo.cli import main
from loligo.data import cache
from loligo.data.preprocessing import Preprocessing
from loligo.detector import Detector
from loligo.io import nifti
from loligo.recalibration import recalibrate
from loligo.runs.run import Run

SECRETS = (NAME, PATIENT, ROOT, "PLANTED", "19531224")


def stored(seed: int, shape: tuple[int, int] = (40, 24)) -> np.ndarray:
    """Return a radiograph that is not square, 12 bits."""
    image = anatomy(1, 40, seed)[0, 0][: shape[0], : shape[1]]
    return (image * 4095).round().astype(np.uint16)


def normals(folder: Path, count: int = 24) -> None:
    for i in range(count):
        tags = {"PatientID": f"{PATIENT}{i // 2}", "PatientBirthDate": "19531224", "ViewPosition": "PA"}
        tags |= {"WindowCenter": [2048, 1000], "WindowWidth": [4096, 500], "StudyDescription": NAME}
        tags |= {"PhotometricInterpretation": "MONOCHROME1"} if i % 2 else {}
        tags |= {"PatientAge": f"{20 + 2 * i:03d}Y", "BodyPartExamined": "CHEST"}
        image = stored(i)
        write(folder / f"site{i % 2}" / f"IM{i}", 4095 - image if i % 2 else image, **tags)


def others(folder: Path) -> None:
    """Write what a study holds beside radiographs."""
    write(folder / "report", stored(0), storage=uid.ComprehensiveSRStorage, Modality="SR")
    write(folder / "state", stored(0), storage=uid.GrayscaleSoftcopyPresentationStateStorage, Modality="PR")
    write(folder / "capture", stored(0), storage=uid.SecondaryCaptureImageStorage, Modality="OT")
    write(folder / "mammogram", stored(0), storage=uid.DigitalMammographyXRayImageStorageForPresentation, Modality="MG")
    series(folder / "ct", np.zeros((3, 8, 8), np.int16))
    series(folder / "scout", np.zeros((1, 8, 8), np.int16), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    (folder / "DICOMDIR").write_bytes(bytes(128) + b"DICM")


def cut(folder: Path) -> None:
    """Write a file whose header says more than any other's, and that has half of its pixels."""
    whole = write(folder / "cut", stored(0), ViewPosition="LL", PatientAge="090Y").read_bytes()
    (folder / "cut").write_bytes(whole[:-960])


REASONS = {
    "report": "its SOP Class UID (0008,0016) is Comprehensive SR Storage (Modality SR)",
    "state": "is Grayscale Softcopy Presentation State Storage",
    "capture": "is Secondary Capture Image Storage (Modality OT)",
    "mammogram": "its Modality (0008,0060) is MG; CR and DX, as of most training images, are allowed",
    "ct/IM0001": "its Modality (0008,0060) is CT; CR and DX",
    "scout/IM0001": "its Image Type (0008,0008) says LOCALIZER",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dicom")


@pytest.fixture(scope="module")
def run(place: Path) -> Run:
    normals(place / "in")
    others(place / "in")
    cut(place / "in")
    return api.train("gaussian", place / "in", place / "run", preset="tiny", preprocessing={"voi": 1})


def rejected(path: Path, root: Path) -> dict[str, str]:
    table = pd.read_csv(path)
    return {
        Path(one).relative_to(root).as_posix(): why for one, why in zip(table["path"], table["reason"], strict=True)
    }


def test_a_mixed_folder_trains_on_its_radiographs_alone(run: Run, place: Path) -> None:
    found = rejected(run.files.rejected, place / "in")
    assert found.pop("cut") == "is cut short: it holds 960 of 1,920 bytes of pixels"
    assert found.keys() == REASONS.keys()
    assert all(REASONS[name] in why and "allowed" in why for name, why in found.items())
    table = run.manifest()
    table = table[~table["path"].str.endswith("cut")]  # whose pixels nobody had read then
    assert len(table) == 24 and table["patient"].nunique() == 12 and set(table["view"]) == {"PA"}
    assert (table.groupby("patient")["split"].nunique() == 1).all()
    config = yaml.safe_load(run.files.config.read_text())
    assert config["preprocessing"]["voi"] == 1 and config["data"]["modalities"] == ["CR", "DX"]
    rules = {"views": ["PA"], "body_parts": ["CHEST"], "ages": [20, 66]}
    assert rules.items() <= config["data"].items()


def test_what_a_run_is_given_later_must_be_of_its_modality(run: Run, place: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    for i in range(3):
        write(new / f"a{i}", stored(90 + i), Modality="DX", WindowCenter=2048, WindowWidth=4096)
    write(new / "plain", stored(95))
    others(new)
    table = api.score(run, new, tmp_path / "out")
    assert sorted(Path(path).name for path in table["path"]) == ["a0", "a1", "a2", "plain"]
    assert rejected(tmp_path / "out" / "rejected.csv", new).keys() == REASONS.keys()
    warnings = {Path(path).name: names for path, names in zip(table["path"], table["warnings"], strict=True)}
    assert "no_window" in warnings["plain"] and "no_window" not in warnings["a0"]
    with pytest.raises(ValueError, match=r"mammogram: its Modality \(0008,0060\) is MG; CR and DX"):
        Detector.load(run).predict([new / "mammogram"])
    with pytest.raises(ValueError, match=r"mammogram: its Modality \(0008,0060\) is MG; CR and DX"):
        api.sheet(run, new / "mammogram", tmp_path / "a.html")


ODD = {
    "lateral": ({"ViewPosition": "LL"}, "lateral view: its View Position (0018,5101) is LL; PA is allowed"),
    "child": ({"PatientAge": "003Y"}, "patient of another age: its Patient's Age (0010,1010) is 3 years; 16 to 80 are"),
    "knee": ({"BodyPartExamined": "KNEE"}, "another part of the body: its Body Part Examined (0018,0015) is KNEE"),
}


def test_what_a_header_says_and_no_training_image_did_is_not_scored(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = tmp_path / "new"
    write(new / "same", stored(93), ViewPosition="PA", PatientAge="066Y", BodyPartExamined="CHEST")
    write(new / "bare", stored(94))
    for name, (tags, _) in ODD.items():
        write(new / name, stored(90), **tags)
    main(["score", str(run.folder), str(new), "--out", str(tmp_path / "out")])
    assert "2 images" in capsys.readouterr().out
    found = rejected(tmp_path / "out" / "rejected.csv", new)
    assert found.keys() == ODD.keys()
    assert all(found[name].startswith(f"not scored: {why}") for name, (_, why) in ODD.items())
    table = pd.read_csv(tmp_path / "out" / "scores.csv").fillna("")
    assert {Path(path).name for path in table["path"][:2]} == {"same", "bare"} and len(table) == 5
    assert set(table["reason"][2:]) == set(found.values()) and (table["score"][2:] == "").all()

    everything = api.score(run, new, tmp_path / "any", scope="any")
    names = {Path(path).name: said for path, said in zip(everything["path"], everything["warnings"], strict=True)}
    assert len(names) == 5 and "other_" not in names["same"] + names["bare"]
    for name, one in {"lateral": "other_view", "child": "other_age", "knee": "other_body_part"}.items():
        assert one in names[name].split("; ")
    (one,) = Detector.load(run).predict([new / "lateral"])
    assert "other_view" in one.warnings
    page = api.sheet(run, new / "knee", tmp_path / "a.html").read_text()
    assert "a Body Part Examined in its DICOM header that no training image has" in page


def test_a_run_of_before_these_rules_has_none_of_them(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.folder, tmp_path / "old")
    config = yaml.safe_load((tmp_path / "old" / "config.yaml").read_text())
    for name in ("views", "body_parts", "ages"):
        del config["data"][name]
    (tmp_path / "old" / "config.yaml").write_text(yaml.safe_dump(config))
    path = write(tmp_path / "new" / "a", stored(90), ViewPosition="LL", PatientAge="003Y")
    (one,) = Detector.load(tmp_path / "old").predict([path])
    assert not [name for name in one.warnings if name.startswith("other_")]
    again = Detector.load(run).save(tmp_path / "saved")  # and what is saved anew has them all
    assert again.headers == run.headers == Run.load(tmp_path / "saved").headers


def test_a_site_is_not_calibrated_on_what_is_not_scored(run: Run, tmp_path: Path) -> None:
    for i in range(12):
        write(tmp_path / "site" / f"{i}", stored(200 + i), ViewPosition="LL" if i < 2 else "PA", PatientID=f"S{i}")
    new = recalibrate(run, tmp_path / "site", tmp_path / "b")
    found = rejected(new.files.rejected, tmp_path / "site")
    assert sorted(found) == ["0", "1"] and all("not scored: lateral view" in why for why in found.values())
    assert new.headers == run.headers and new.about["data"]["calibration"] == 10


def test_a_map_lies_on_the_pixels_of_a_dicom_that_is_not_square(run: Run, tmp_path: Path) -> None:
    """Within half a pixel of the file, or of the network's grid where that is coarser."""
    detector = Detector.load(run)
    plain = stored(91)
    bright = plain.copy()
    bright[8:12, 14:18] = 4095
    paths = [write(tmp_path / f"{i}", image) for i, image in enumerate((plain, bright, 4095 - bright))]
    write(paths[2], 4095 - bright, PhotometricInterpretation="MONOCHROME1")
    maps = [one.map for one in detector.predict(paths)]
    assert all(heat is not None and heat.shape == plain.shape for heat in maps)
    np.testing.assert_allclose(maps[1], maps[2], rtol=1e-4, atol=1e-4)
    heat = np.maximum(maps[1] - maps[0], 0)
    weights = np.where(heat > heat.max() / 2, heat, 0)
    centre = [(weights * grid).sum() / weights.sum() for grid in np.indices(heat.shape)]
    coarse = np.maximum(0.5, 0.5 * np.array(plain.shape) / detector.preprocessing.size)
    assert (np.abs(np.array(centre) - (9.5, 15.5)) <= coarse + 0.5).all()


def test_the_window_of_a_run_decides_what_it_sees(run: Run, place: Path, tmp_path: Path) -> None:
    second = api.train("gaussian", place / "in", tmp_path / "run", preset="tiny", preprocessing={"voi": 2})
    path = place / "in" / "site0" / "IM0"
    assert Run.load(second.folder).preprocessing.voi == 2
    one, two = (cache.load(pd.DataFrame({"path": [str(path)]}), r.preprocess()).pixels[[0]] for r in (run, second))
    assert not np.array_equal(one, two)
    with pytest.raises(ValueError, match="no number 3"):
        cache.load(pd.DataFrame({"path": [str(path)]}), Preprocessing(16, voi=3))


def test_volumes_of_a_series_are_trained_on_and_scored_on_their_grid(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    directions, step = (0.8, 0.6, 0, 0, 0, -1), tuple(2.0 * np.cross((0.8, 0.6, 0), (0, 0, -1)))
    for i in range(8):
        voxels = (anatomy(5, 16, i)[:, 0] * 2400 + random.normal(0, 1, (5, 16, 16))).astype(np.int16)
        series(tmp_path / "in" / f"scan{i}", voxels, directions=directions, step=step, PatientID=f"{PATIENT}{i}")
    run = api.train("gaussian", tmp_path / "in", tmp_path / "run", preset="tiny", preprocessing={"window": "ct"})
    assert len(run.manifest()) == 8 and run.about["data"]["modalities"] == ["CT"]
    table = api.score(run, tmp_path / "in" / "scan0", tmp_path / "out")
    heat = nifti.read(tmp_path / "out" / table["map"][0])
    source = io.read_header(Path(table["path"][0]))
    np.testing.assert_allclose(heat.affine, source.affine, atol=1e-5)
    assert heat.shape == source.shape
    assert api.report(tmp_path / "out").is_file()
    assert api.sheet(run, table["path"][0], tmp_path / "sheet.html").is_file()


def written(folders: list[Path]) -> Iterator[tuple[Path, bytes]]:
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                yield path, path.read_bytes()


def test_no_patient_stands_in_anything_that_is_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Names, ids, dates of birth and UIDs stand in good, rejected and broken files; then all output is searched."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("LOLIGO_CACHE", str(tmp_path / "cache"))
    data, out = tmp_path / "in", tmp_path / "out"
    normals(data)
    others(data)
    for name, place, value in (
        ("broken", b"\x28\0\x10\0US", b"\x28\0\x10\0PN"),
        ("uid", b"\x28\0\x11\0US", b"\x28\0\x11\0UI"),
    ):
        whole = write(data / name, stored(0)).read_bytes()
        (data / name).write_bytes(whole.replace(place, value))
    whole = write(data / "cut", stored(0)).read_bytes()
    (data / "cut").write_bytes(whole[: len(whole) // 2])
    main(["index", "dicom", str(data), "-o", str(out / "m.csv")])
    main(["train", "gaussian", "--preset", "tiny", "--data", str(data), "--out", str(out / "run")])
    main(["score", str(out / "run"), str(data), "--out", str(out / "scores")])
    main(["report", str(out / "scores")])
    main(["sheet", str(out / "run"), str(data / "site0" / "IM0"), "-o", str(out / "sheet.html")])
    said = capfd.readouterr()
    everything = [*written([out, tmp_path / "cache"]), (Path("log"), (said.out + said.err + caplog.text).encode())]
    assert len(everything) > 40
    for secret in SECRETS:
        for path, content in everything:
            assert secret.encode() not in content and secret.encode() not in path.name.encode(), (secret, path)
