"""De-identified images: nothing that was planted is left, studies stay together, pixels stay equal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from dicom_files import NAME, PATIENT, ROOT, series, tool, write
from dicom_results import validated
from loligo import io
from loligo.cli import main
from loligo.dicom import profile
from loligo.dicom.deidentify import deidentify

STORED = np.arange(600, dtype=np.uint16).reshape(30, 20)
DAY, WORD = "19531224", "PLANTED"
TEXTS = """
    InstitutionName InstitutionAddress InstitutionalDepartmentName ReferringPhysicianName PerformingPhysicianName
    NameOfPhysiciansReadingStudy OperatorsName RequestingPhysician OtherPatientNames PatientBirthName
    PatientMotherBirthName MedicalRecordLocator EthnicGroup Occupation AdditionalPatientHistory PatientComments
    StudyDescription SeriesDescription StationName DeviceSerialNumber AccessionNumber StudyID RequestedProcedureID
    ScheduledProcedureStepID PerformedProcedureStepID PerformedProcedureStepDescription ProtocolName ImageComments
    PatientAddress PatientTelephoneNumbers IssuerOfPatientID OtherPatientIDs AdmissionID CurrentPatientLocation
    PatientReligiousPreference ContrastBolusAgent DetectorID
"""
"""Elements that the standard's profile names, listed by hand, in which a word is planted."""
DAYS = """
    PatientBirthDate StudyDate SeriesDate AcquisitionDate ContentDate InstanceCreationDate
    PerformedProcedureStepStartDate DateOfLastCalibration
"""


def planted(**tags: Any) -> dict[str, Any]:
    """Return elements with a name, an id, a day or a UID in them, some in sequences and some private."""
    kept: dict[str, Any] = {word: f"{WORD} {i}" if "ID" not in word else WORD for i, word in enumerate(TEXTS.split())}
    kept |= dict.fromkeys(DAYS.split(), DAY) | {"AcquisitionDateTime": f"{DAY}101112", "BurnedInAnnotation": "NO"}
    request, code, source = Dataset(), Dataset(), Dataset()
    request.RequestedProcedureDescription = request.RequestingPhysician = NAME
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "T-1", "99X", "kept"
    request.ScheduledProtocolCodeSequence = [code]
    source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = uid.CTImageStorage, f"{ROOT}5"
    nested = Dataset()
    nested.AnatomicRegionSequence, nested.PersonName = [code], NAME
    kept |= {"RequestAttributesSequence": [request], "SourceImageSequence": [source], "ViewCodeSequence": [nested]}
    return kept | tags


def secrets(content: bytes) -> list[bytes]:
    return [
        word
        for word in (NAME.encode(), PATIENT.encode(), WORD.encode(), DAY.encode(), ROOT.encode())
        if word in content
    ]


def test_nothing_planted_is_left_and_the_image_stays_valid(tmp_path: Path) -> None:
    path = write(tmp_path / "in" / "image", STORED, PatientSex="F", ViewPosition="PA", **planted())
    ds = pydicom.dcmread(path)
    block = ds.private_block(0x0029, "PLANTED CREATOR", create=True)
    block.add_new(1, "LO", NAME)
    ds.add_new(0x60003000, "OW", WORD.encode() + b"\0")
    ds.preamble = WORD.encode().ljust(128, b"\0")
    ds.file_meta.SourceApplicationEntityTitle = WORD
    ds.save_as(path)
    assert len(secrets(path.read_bytes())) == 5
    written, rejected = deidentify(tmp_path / "in", tmp_path / "out")
    assert rejected.empty and list(written["path"]) == [str(path)]
    made = tmp_path / "out" / written["file"][0]
    assert secrets(made.read_bytes()) == [] and not secrets(str(written["file"][0]).encode())
    new = pydicom.dcmread(made)
    assert new.PatientIdentityRemoved == "YES" and new.DeidentificationMethodCodeSequence[0].CodeValue == "113100"
    assert new.PatientID == new.PatientName and str(new.PatientID).startswith("p") and len(new.PatientID) == 17
    assert new.ViewPosition == "PA" and new.Modality == "CR" and "PatientAge" not in new
    assert new.ViewCodeSequence[0].AnatomicRegionSequence[0].CodeMeaning == "kept"
    assert new.SourceImageSequence[0].ReferencedSOPClassUID == uid.CTImageStorage
    np.testing.assert_array_equal(new.pixel_array, STORED)
    np.testing.assert_array_equal(io.load(made).pixels, io.load(path).pixels)
    before = {line.split("<")[1] for line in validated(path) if "<" in line}
    after = {line.split("<")[1] for line in validated(made) if "<" in line}
    assert after <= before, "no error that the planted image did not have"


def test_a_study_stays_one_and_a_repeat_gives_the_same(tmp_path: Path) -> None:
    study = {"StudyInstanceUID": f"{ROOT}1", "FrameOfReferenceUID": f"{ROOT}2"}
    source = Dataset()
    paths = series(tmp_path / "in" / "ct", np.zeros((4, 8, 8), np.int16), **study)
    first = pydicom.dcmread(paths[0])
    source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = first.SOPClassUID, first.SOPInstanceUID
    write(tmp_path / "in" / "cr", STORED, SourceImageSequence=[source], **study)
    write(tmp_path / "in" / "other", STORED, PatientID=f"{PATIENT}2")
    tables = [deidentify(tmp_path / "in", tmp_path / name)[0] for name in ("a", "b")]
    assert len(tables[0]) == 6 and tables[0].equals(tables[1])
    for name in tables[0]["file"]:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    new = [pydicom.dcmread(tmp_path / "a" / name) for name in tables[0]["file"]]
    ct, cr = [ds for ds in new if ds.Modality == "CT"], [ds for ds in new if ds.Modality == "CR"]
    assert len({ds.StudyInstanceUID for ds in [*ct, cr[0]]}) == 1 and cr[0].StudyInstanceUID != cr[1].StudyInstanceUID
    assert len({ds.FrameOfReferenceUID for ds in [*ct, cr[0]]}) == 1 and len({ds.SeriesInstanceUID for ds in ct}) == 1
    assert len({ds.SOPInstanceUID for ds in new}) == 6 and len({ds.PatientID for ds in new}) == 2
    assert cr[0].SourceImageSequence[0].ReferencedSOPInstanceUID in {ds.SOPInstanceUID for ds in ct}
    assert all(ds.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID for ds in new)
    volume = io.load(
        tmp_path
        / "a"
        / next(name for name in tables[0]["file"] if "CT" in str(pydicom.dcmread(tmp_path / "a" / name).Modality))
    )
    assert volume.geometry.shape == (8, 8, 4)  # type: ignore[union-attr]


def test_another_key_gives_other_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "in", STORED)
    found = []
    for name in ("a", "b"):
        monkeypatch.setenv("LOLIGO_PATIENT_KEY", str(tmp_path / f"{name}.key"))
        written, _ = deidentify(tmp_path / "in", tmp_path / name)
        found.append(pydicom.dcmread(tmp_path / name / written["file"][0]))
    assert found[0].PatientID != found[1].PatientID and found[0].SOPInstanceUID != found[1].SOPInstanceUID


@pytest.mark.parametrize(
    "options", [["--write-xfer-little"], ["--write-xfer-big"], ["--write-xfer-implicit"], ["--write-xfer-deflated"]]
)
def test_every_encoding_stays_what_it_is(options: list[str], tmp_path: Path) -> None:
    path = write(tmp_path / "plain", STORED, **planted())
    (tmp_path / "in").mkdir()
    tool("dcmconv", *options, path, tmp_path / "in" / "image")
    written, _ = deidentify(tmp_path / "in", tmp_path / "out")
    made = tmp_path / "out" / written["file"][0]
    assert (
        pydicom.dcmread(made).file_meta.TransferSyntaxUID
        == pydicom.dcmread(tmp_path / "in" / "image").file_meta.TransferSyntaxUID
    )
    np.testing.assert_array_equal(io.load(made).pixels, io.load(path).pixels)
    tool("dcmconv", "--write-xfer-little", made, tmp_path / "again")
    assert secrets((tmp_path / "again").read_bytes()) == []


def test_compressed_pixels_stay_as_they_are(tmp_path: Path) -> None:
    path = write(tmp_path / "plain", STORED)
    (tmp_path / "in").mkdir()
    tool("dcmcjpeg", path, tmp_path / "in" / "image")
    written, _ = deidentify(tmp_path / "in", tmp_path / "out")
    was, now = pydicom.dcmread(tmp_path / "in" / "image"), pydicom.dcmread(tmp_path / "out" / written["file"][0])
    assert was.PixelData == now.PixelData and was.file_meta.TransferSyntaxUID == now.file_meta.TransferSyntaxUID


def test_text_in_pixels_is_refused_unless_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "in"
    capture = {"storage": uid.SecondaryCaptureImageStorage, "ViewPosition": "PA"}
    write(folder / "yes", STORED, BurnedInAnnotation="YES")
    write(folder / "capture", STORED, **capture)
    write(folder / "clean", STORED, BurnedInAnnotation="NO", **capture)
    write(folder / "plain", STORED)
    (folder / "text.txt").write_text("no image")
    written, rejected = deidentify(folder, tmp_path / "out")
    assert {Path(path).name for path in written["path"]} == {"clean", "plain"}
    reasons = {Path(path).name: why for path, why in zip(rejected["path"], rejected["reason"], strict=True)}
    assert "Burned In Annotation (0028,0301) is YES; NO is allowed, or --burned_in" in reasons["yes"]
    assert "(SC) that often has text burnt in, and its Burned In Annotation (0028,0301) is empty" in reasons["capture"]
    main(["deidentify", str(folder), "--out", str(tmp_path / "all"), "--burned_in"])
    said = capsys.readouterr()
    assert "4 files without names, ids, dates and UIDs" in said.out
    assert not secrets((said.out + said.err).encode())
    with pytest.raises(ValueError, match=r"out holds other files, and nothing is written over"):
        deidentify(folder, tmp_path / "out")
    with pytest.raises(ValueError, match="none of 1 files can be written"):
        deidentify(folder / "yes", tmp_path / "none")


def test_the_table_is_that_of_the_standard() -> None:
    """Actions of PS3.15 table E.1-1, copied by hand."""
    known = {
        **dict.fromkeys(
            ("PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate"), "Z"
        ),
        **dict.fromkeys(("PatientAge", "PatientWeight", "StudyDescription", "PatientComments", "MedicalAlerts"), "X"),
        **dict.fromkeys(("StudyInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID", "ReferencedSOPInstanceUID"), "U"),
        **dict.fromkeys(("ContentDate", "SeriesDate", "InstitutionName", "DeviceSerialNumber"), "D"),
        **dict.fromkeys(("SOPClassUID", "Modality", "ViewPosition", "Rows", "PixelSpacing", "Manufacturer"), "K"),
    }
    for word, wanted in known.items():
        tag = tag_for_keyword(word) or 0
        element = pydicom.DataElement(tag, pydicom.datadict.dictionary_VR(tag), None)
        assert profile.action(element) == wanted, word


def test_without_the_table_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile._table.cache_clear()
    monkeypatch.setitem(sys.modules, "dicomanonymizer.dicom_anonymization_databases.dicomfields_2026c", None)
    with pytest.raises(ValueError, match=r"the standard's table: pip install 'loligo\[dicom\]'"):
        deidentify(write(tmp_path / "in", STORED), tmp_path / "out")
