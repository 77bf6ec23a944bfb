"""DICOM objects by a validator, read back by highdicom, and laid on their source by hand-computed places."""

from __future__ import annotations

from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from dicom_files import NAME, PATIENT
from dicom_results import (
    CENTRE,
    DIGEST,
    IMAGES,
    SHAPE,
    SOURCES,
    SPACING,
    TURN,
    VOLUMES,
    Planted,
    about,
    result,
    validated,
)
from loligo import NOTICE, dicom

ALL = ("sr", "pm", "seg", "ko", "pdf", "sc")
HALF = 0.5  # pixel


@pytest.fixture(scope="module", params=list(SOURCES))
def planted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return SOURCES[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def written(planted: Planted, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write the objects of each kind, as files."""
    folder, found = tmp_path_factory.mktemp("objects"), {}
    for kind in ALL[:-2]:
        for made in dicom.objects(result(planted.path), planted.path, about(), [kind]):
            made.save_as(folder / kind, enforce_file_format=True)
            found[kind] = folder / kind
    return found


def test_all_kinds_are_made_and_pass_the_validator(written: dict[str, Path]) -> None:
    assert set(written) == {"sr", "pm", "seg", "ko"}
    assert [(kind, error) for kind, path in written.items() for error in validated(path)] == []


@pytest.mark.parametrize("name", ["cr", "dx", "ct"])
def test_sheet_and_overlay_pass_the_validator(name: str, tmp_path: Path) -> None:
    planted = SOURCES[name](tmp_path)
    kinds = ["sc"]
    try:
        dicom.check(["pdf"])
        kinds.append("pdf")
    except ValueError as error:
        assert "WeasyPrint" in str(error)
    found = dicom.objects(result(planted.path), planted.path, about(), kinds)
    assert len(found) == len(kinds) - (name in VOLUMES)
    for i, made in enumerate(found):
        made.save_as(tmp_path / f"{i}", enforce_file_format=True)
        assert validated(tmp_path / f"{i}") == []
        if "EncapsulatedDocument" in made:
            assert made.EncapsulatedDocument.startswith(b"%PDF") and made.MIMETypeOfEncapsulatedDocument.endswith("pdf")
        else:
            assert made.pixel_array.shape == (*SHAPE, 3)


def test_patient_study_and_source_are_those_of_the_image(planted: Planted, written: dict[str, Path]) -> None:
    source = pydicom.dcmread(planted.path)
    series = set()
    for path in written.values():
        made = pydicom.dcmread(path)
        assert (made.PatientName, made.PatientID, made.StudyInstanceUID) == (NAME, PATIENT, source.StudyInstanceUID)
        assert made.SeriesInstanceUID != source.SeriesInstanceUID
        series.add(made.SeriesInstanceUID)
        assert source.SOPInstanceUID in referenced(made) or "ko" in path.name
    assert len(series) == len(written)


def referenced(made: Dataset) -> set[str]:
    found = set()
    for element in made.iterall():
        if element.keyword == "ReferencedSOPInstanceUID":
            found.add(str(element.value))
    return found


def places(made: Dataset) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return position, directions and spacing of each frame of an object by its functional groups alone."""
    shared, found = made.SharedFunctionalGroupsSequence[0], []
    turn = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
    spacing = np.array(shared.PixelMeasuresSequence[0].PixelSpacing, float)
    for frame in made.PerFrameFunctionalGroupsSequence:
        found.append((np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float), turn, spacing))
    return found


def centre(frames: np.ndarray, made: Dataset, volume: bool) -> np.ndarray:
    """Return the centre of weights (N, rows, columns): in pixels of an image, in mm of a volume."""
    n, rows, columns = (grid.ravel() for grid in np.indices(frames.shape))
    points = np.stack([rows, columns], axis=1).astype(float)
    if volume:
        at = places(made)
        points = np.array(
            [
                at[k][0] + c * at[k][2][1] * at[k][1][0] + r * at[k][2][0] * at[k][1][1]
                for k, r, c in zip(n, rows, columns, strict=True)
            ]
        )
    return frames.ravel() @ points / frames.sum()


def test_the_map_lies_on_the_landmark(planted: Planted, written: dict[str, Path]) -> None:
    made = pydicom.dcmread(written["pm"])
    stored = np.frombuffer(made.FloatPixelData, "<f4").reshape(-1, made.Rows, made.Columns)
    mapping = made.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    heat = stored * mapping.RealWorldValueSlope + mapping.RealWorldValueIntercept
    assert set(np.unique(heat)) == {-1.0, 5.0}, "the raw map of 0 and 6, less the typical peak of 1"
    volume = planted.centre.shape == (3,)
    np.testing.assert_allclose(centre(np.maximum(heat, 0), made, volume), planted.centre, atol=1e-4)
    if volume:
        source = pydicom.dcmread(planted.path)
        assert made.FrameOfReferenceUID == source.FrameOfReferenceUID
    read = hd.imread(written["pm"])
    np.testing.assert_array_equal(read.pixel_array.reshape(stored.shape), stored)


def test_segments_lie_on_the_landmark(planted: Planted, written: dict[str, Path]) -> None:
    made = pydicom.dcmread(written["seg"])
    count = made.NumberOfFrames * made.Rows * made.Columns
    bits = np.unpackbits(np.frombuffer(made.PixelData, np.uint8), bitorder="little", count=count)
    frames = bits.reshape(-1, made.Rows, made.Columns).astype(float)
    volume = planted.centre.shape == (3,)
    found = centre(frames, made, volume)
    assert np.abs(found - planted.centre).max() <= HALF * (min(SPACING) if volume else 1)
    assert ("FrameOfReferenceUID" in made) == volume
    assert [item.SegmentLabel for item in made.SegmentSequence] == ["Anomaly 1"]
    read = hd.seg.segread(written["seg"])
    assert read.number_of_segments == 1 and read.get_tracking_ids()[0][0] == "Anomaly 1"
    for frame in made.PerFrameFunctionalGroupsSequence:
        assert frame.DerivationImageSequence[0].SourceImageSequence[0].SpatialLocationsPreserved == "YES"


def test_each_frame_names_the_slice_that_it_lies_on(planted: Planted, written: dict[str, Path]) -> None:
    files = [pydicom.dcmread(path) for path in planted.path.parent.iterdir()]
    if planted.centre.shape != (3,):
        return
    made = pydicom.dcmread(written["pm"])
    for frame in made.PerFrameFunctionalGroupsSequence:
        reference = frame.DerivationImageSequence[0].SourceImageSequence[0]
        (one,) = [ds for ds in files if ds.SOPInstanceUID == reference.ReferencedSOPInstanceUID]
        if "NumberOfFrames" in one:
            one = one.PerFrameFunctionalGroupsSequence[reference.ReferencedFrameNumber - 1].PlanePositionSequence[0]
        position = frame.PlanePositionSequence[0].ImagePositionPatient
        np.testing.assert_allclose(position, one.ImagePositionPatient, atol=1e-6)


def numbers(report: hd.sr.MeasurementReport) -> dict[str, float]:
    (group,) = report.get_image_measurement_groups()
    return {item.name.value: float(item.value) for item in group.get_measurements()}


def test_the_report_says_score_flag_model_and_population(written: dict[str, Path]) -> None:
    read = hd.sr.srread(written["sr"])
    found = numbers(read.content)
    assert found["SCORE"] == 41.5 and found["RATE"] == 0.05 and found["ANOMALY"] == 0.97
    assert found["PVALUE"] == pytest.approx(1 / 40) and found["THRESHOLD"] == pytest.approx(38, abs=1e-9)
    (group,) = read.content.get_image_measurement_groups()
    (flag,) = [item for item in group.get_qualitative_evaluations() if item.name.value == "FLAG"]
    assert flag.value.value == "FLAGGED" and flag.value.scheme_designator == "99LOLIGO"
    said = texts(pydicom.dcmread(written["sr"]))
    assert "loligo padim" in said and f"SHA-256 of the weights: {DIGEST}" in said and "0.1.0" in said
    assert f"{NOTICE} Trained on 39 normal images (zhanglab; CR or DX)." in said
    assert "Warnings of the input: no_window." in said
    assert read.content[0].ContentTemplateSequence[0].TemplateIdentifier == "1500"


def texts(made: Dataset) -> list[str]:
    return [str(element.value) for element in made.iterall() if element.keyword == "TextValue"]


def test_outlines_of_the_report_lie_around_the_landmark(planted: Planted, written: dict[str, Path]) -> None:
    made = pydicom.dcmread(written["sr"])
    items = [item for item in walk(made) if item.get("ValueType") in ("SCOORD", "SCOORD3D")]
    assert items
    if planted.centre.shape == (2,):
        (item,) = items
        points = np.array(item.GraphicData).reshape(-1, 2)
        assert item.GraphicType == "POLYLINE" and (points[0] == points[-1]).all()
        middle = (points.min(axis=0) + points.max(axis=0)) / 2
        # a pixel's centre is half a pixel from its upper left corner, where an image's coordinates begin
        assert np.abs(middle - np.array(CENTRE)[::-1] - 0.5).max() <= HALF
        assert np.abs(np.ptp(points, axis=0) - 6).max() <= 1
        assert item.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID in referenced(made)
        return
    points = np.concatenate([np.array(item.GraphicData).reshape(-1, 3) for item in items])
    assert {item.ReferencedFrameOfReferenceUID for item in items} == {pydicom.dcmread(planted.path).FrameOfReferenceUID}
    assert all(item.GraphicType == "POLYGON" for item in items)
    along = np.stack([points @ TURN[0], points @ TURN[1], points @ np.cross(*TURN)], axis=1)
    wanted = np.array([planted.centre @ TURN[0], planted.centre @ TURN[1], planted.centre @ np.cross(*TURN)])
    off = np.abs((along.min(axis=0) + along.max(axis=0)) / 2 - wanted)
    assert (off <= HALF * np.array([SPACING[1], SPACING[0], 2.5])).all()


def walk(item: Dataset) -> list[Dataset]:
    found = [item]
    for child in item.get("ContentSequence", []):
        found += walk(child)
    return found


def test_key_objects_are_the_flagged_images(planted: Planted, written: dict[str, Path]) -> None:
    made = pydicom.dcmread(written["ko"])
    assert made.ConceptNameCodeSequence[0].CodeValue == codes.DCM.OfInterest.value
    own = [pydicom.dcmread(path) for path in planted.path.parent.iterdir()]
    listed = {
        str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
        for item in walk(made)
        if item.get("ValueType") == "IMAGE"
    }
    assert listed <= {str(ds.SOPInstanceUID) for ds in own}
    assert len(listed) == (3 if len(own) > 1 else 1), "of a series the slices with a region"
    assert any("Research use only" in text and "false-alarm rate 0.05" in text for text in texts(made))


def test_every_object_has_notice_equipment_and_nothing_of_this_machine(
    planted: Planted, written: dict[str, Path]
) -> None:
    for path in written.values():
        made, content = pydicom.dcmread(path), path.read_bytes()
        assert "research use only" in made.SeriesDescription
        (equipment,) = [one for one in made.ContributingEquipmentSequence if one.get("DeviceUID")]
        assert equipment.DeviceUID.startswith("2.25.") and equipment.DeviceSerialNumber == DIGEST
        assert equipment.ManufacturerModelName == "loligo padim" and equipment.SoftwareVersions == "0.1.0"
        assert NOTICE in equipment.ContributionDescription and "39 normal images" in equipment.ContributionDescription
        assert made.Manufacturer == "loligo" and made.get("ContentQualification", "RESEARCH") == "RESEARCH"
        for word in (planted.path.parent.name, str(planted.path.parent.parent), "/tmp", "/home", "/root"):
            assert word.encode() not in content, word


def test_a_repeat_has_equal_bytes_and_another_model_other_uids(
    planted: Planted, written: dict[str, Path], tmp_path: Path
) -> None:
    for kind, path in written.items():
        (again,) = dicom.objects(result(planted.path), planted.path, about(), [kind])
        again.save_as(tmp_path / kind, enforce_file_format=True)
        assert (tmp_path / kind).read_bytes() == path.read_bytes(), kind
        (other,) = dicom.objects(result(planted.path), planted.path, about(identity="e" * 64), [kind])
        was = pydicom.dcmread(path)
        assert other.SOPInstanceUID != was.SOPInstanceUID and other.SeriesInstanceUID != was.SeriesInstanceUID
        assert was.SOPInstanceUID.startswith("2.25.") and len(was.SOPInstanceUID) <= 64


def test_what_the_result_lacks_is_not_made(tmp_path: Path) -> None:
    planted = IMAGES["cr"](tmp_path)
    calm = result(planted.path, flag=False, heat=np.zeros(SHAPE, np.float32))
    kinds = [made.Modality for made in dicom.objects(calm, planted.path, about())]
    assert kinds == ["SR", "OT"], "neither a region nor a flag"
    spread = result(planted.path, heat=np.full(SHAPE, 9, np.float32))
    made = dicom.objects(spread, planted.path, about())
    assert [one.Modality for one in made] == ["SR", "OT", "KO"]
    assert any("100% of the image is hot" in text for text in texts(made[0]))
