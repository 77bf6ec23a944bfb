"""Headers as they come: what is odd is repaired or refused, and never repeated in a message or a log."""

from __future__ import annotations

import logging
import sys
import warnings
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import matplotlib.path
import numpy as np
import pydicom
import pytest

from dicom_files import NAME, ROOT, series, write
from dicom_results import IMAGES, SHAPE, STEP, TURN, about, image, result, slab, validated, volume
from loligo import dicom
from loligo.dicom import findings, writers
from loligo.io.content import UnreadableImage

STORED = np.arange(960, dtype=np.uint16).reshape(SHAPE)


def made(path: Path, kind: str = "sr", **changed: Any) -> pydicom.Dataset:
    (one,) = dicom.objects(result(path), path, about(**changed), [kind])
    return one


@pytest.mark.parametrize("kind", ["sr", "pm", "seg", "ko"])
def test_odd_values_of_a_header_become_empty(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    odd = {"PatientSex": "X", "StudyDate": "19531301", "StudyTime": "99", "PatientBirthDate": "unknown"}
    odd |= {"InstanceNumber": "-3", "PatientName": "PLANTED", "ReferringPhysicianName": NAME}
    with warnings.catch_warnings(record=True):
        path = image(**odd)(tmp_path).path
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = made(path, kind)
    found.save_as(tmp_path / kind, enforce_file_format=True)
    emptied = ("PatientSex", "StudyDate", "StudyTime", "PatientBirthDate")
    assert not any(found[word].value for word in emptied) and found.InstanceNumber == 1
    assert "PLANTED" not in caplog.text and not [one for one in said if "PLANTED" in str(one.message)]
    assert validated(tmp_path / kind) == []


def test_what_others_warn_of_meanwhile_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Filters of warnings are the process's: whatever other threads warn of while objects are made must be seen."""
    path = image()(tmp_path).path
    monkeypatch.setitem(writers.WRITERS, "sr", lambda subject: warnings.warn("of another thread", stacklevel=1))
    with pytest.warns(UserWarning, match="of another thread"):
        assert dicom.objects(result(path), path, about(), ["sr"]) == []


def test_a_name_keeps_its_letters_in_any_character_set(tmp_path: Path) -> None:
    name = "Yamada^Tarou=山田^太郎"
    path = image(SpecificCharacterSet=["", "ISO 2022 IR 87"], PatientName=name)(tmp_path).path
    for kind in ("sr", "pm", "seg", "ko"):
        made(path, kind).save_as(tmp_path / kind, enforce_file_format=True)
        found = pydicom.dcmread(tmp_path / kind)
        assert str(found.PatientName) == name and found.SpecificCharacterSet == "ISO_IR 192"


@pytest.mark.filterwarnings("ignore:Invalid value")  # pydicom's, as this test writes one
@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"StudyInstanceUID": ""}, r"has no valid Study Instance UID \(0020,000D\), which its objects must repeat"),
        ({"SeriesInstanceUID": ""}, r"has no valid Series Instance UID"),
        ({"SOPInstanceUID": "1.2.PLANTED"}, r"has no valid SOP Instance UID"),
    ],
)
def test_an_image_without_identifiers_is_refused(tags: dict[str, Any], reason: str, tmp_path: Path) -> None:
    path = image()(tmp_path).path
    ds = pydicom.dcmread(path)
    for word, value in tags.items():
        ds[word]._value = value
    ds.save_as(path)
    with pytest.raises(UnreadableImage, match=reason) as error:
        made(path)
    assert ROOT not in str(error.value) and "PLANTED" not in str(error.value)


def test_what_is_not_dicom_or_has_changed_is_refused(tmp_path: Path) -> None:
    path = image()(tmp_path).path
    found = result(path)
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    with pytest.raises(UnreadableImage, match="is not DICOM; objects are made of DICOM images alone"):
        dicom.objects(found, tmp_path / "a.png", about())
    write(path, STORED.T)
    with pytest.raises(UnreadableImage, match=r"is of 24 x 40 pixels, its map of \(40, 24\): it changed since"):
        dicom.objects(found, path, about())
    nan = replace(result(image()(tmp_path).path), network_map=np.full(SHAPE, np.nan, np.float32))
    with pytest.raises(UnreadableImage, match="its map is not a number"):
        dicom.objects(nan, path, about())


def test_a_series_without_frame_of_reference_is_refused_and_without_thickness_is_not(tmp_path: Path) -> None:
    for name, tags, word in (("a", {"FrameOfReferenceUID": None}, "Frame"), ("b", {"SliceThickness": None}, "")):
        path = volume(**tags)(tmp_path / name).path
        if word:
            with pytest.raises(UnreadableImage, match=r"has no Frame of Reference UID \(0020,0052\)"):
                made(path, "pm")
        else:
            measures = made(path, "pm").SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
            assert float(measures.SliceThickness) == pytest.approx(2.5)


def test_a_series_with_fewer_slices_than_its_map_is_refused(tmp_path: Path) -> None:
    path = volume()(tmp_path).path
    found = result(path)
    (path.parent / "IM0001").unlink()
    with pytest.raises(UnreadableImage, match="has 5 slices, its map 6: it changed since"):
        dicom.objects(found, path, about())


def test_a_region_of_one_slice_is_a_polygon_in_space(tmp_path: Path) -> None:
    voxels = np.zeros_like(slab())
    voxels[3, 4:12, 2:9] = 1000
    where = {"directions": TURN.ravel(), "step": STEP}
    path = series(tmp_path / "ct", voxels, **where)[0]
    report = made(path)
    report.save_as(tmp_path / "sr", enforce_file_format=True)
    assert validated(tmp_path / "sr") == []
    items = [item for item in report.iterall() if item.keyword == "GraphicData"]
    assert len(items) == 1
    normal = np.cross(*TURN)
    np.testing.assert_allclose(np.array(items[0].value).reshape(-1, 3) @ normal, 3 * STEP @ normal, atol=1e-4)


@pytest.mark.parametrize("seed", range(8))
def test_filling_takes_the_pixels_whose_centres_lie_within(seed: int) -> None:
    random = np.random.default_rng(seed)
    angles = np.sort(random.uniform(0, 2 * np.pi, 40))
    radius = random.uniform(4, 14, 40)[:, None]
    outside = np.array([17.0, 15.0]) + radius * np.stack([np.sin(angles), np.cos(angles)], axis=1)
    lines = [np.vstack([line, line[:1]]) for line in (outside, np.array([17.0, 15]) + 0.2 * (outside - [17, 15])[::-1])]
    centres = np.stack(np.indices((36, 30)), axis=-1).reshape(-1, 2) + 0.5
    inside = [matplotlib.path.Path(line).contains_points(centres).reshape(36, 30) for line in lines]
    np.testing.assert_array_equal(findings.filled(lines, (36, 30)), inside[0] ^ inside[1])
    kept = findings.outer(lines)
    assert len(kept) == 1 and kept[0] is lines[0]


def test_what_is_unknown_or_missing_is_said_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="there is no DICOM object 'segg'; did you mean 'seg'"):
        dicom.check(["segg"])
    with pytest.raises(ValueError, match="no kind of DICOM object is named; allowed are sr, pm, seg"):
        dicom.check([])
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(ValueError, match=r"written by highdicom: pip install 'loligo\[dicom\]'"):
        dicom.check(["sr"])


def test_key_objects_are_of_one_study(tmp_path: Path) -> None:
    one, two = (image(**{"StudyInstanceUID": f"{ROOT}{i}"})(tmp_path / str(i)).path for i in (1, 2))
    other = write(tmp_path / "3", STORED, StudyInstanceUID=f"{ROOT}1")
    found = dicom.key_objects([(result(path), path) for path in (one, other)], about())
    assert len(found.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence) == 2
    turned = dicom.key_objects([(result(path), path) for path in (other, one)], about())
    assert turned.SOPInstanceUID == found.SOPInstanceUID, "their order does not matter"
    with pytest.raises(ValueError, match="of one study; images of 2 were given"):
        dicom.key_objects([(result(path), path) for path in (one, two)], about())


def test_an_image_lies_on_the_plane_that_its_orientation_says(tmp_path: Path) -> None:
    """Parametric maps of projections have a plane, in a frame of reference that nothing else has."""
    found = made(IMAGES["dx"](tmp_path).path, "pm")
    shared = found.SharedFunctionalGroupsSequence[0]
    assert list(shared.PlaneOrientationSequence[0].ImageOrientationPatient) == [1, 0, 0, 0, 0, -1]
    assert list(shared.PixelMeasuresSequence[0].PixelSpacing) == [0.2, 0.3]
    assert found.FrameOfReferenceUID != f"{ROOT}7" and found.Laterality == "R"
    plain = made(IMAGES["cr"](tmp_path).path, "pm").SharedFunctionalGroupsSequence[0]
    assert list(plain.PlaneOrientationSequence[0].ImageOrientationPatient) == [1, 0, 0, 0, 1, 0]


def test_dates_are_those_of_the_source_or_as_given(tmp_path: Path) -> None:
    path = image(StudyDate="20010203", ContentDate="20010204", ContentTime="101112.5")(tmp_path).path
    kept = ("ContentDate", "ContentTime", "InstanceCreationDate", "StudyDate")
    assert [str(made(path)[word].value) for word in kept] == ["20010204", "101112", "20010204", "20010203"]
    (given,) = dicom.objects(result(path), path, about(), ["sr"], datetime(2020, 5, 6, 7, 8, 9))
    assert [str(given[word].value) for word in kept] == ["20200506", "070809", "20200506", "20010203"]
