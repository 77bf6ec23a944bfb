"""What a DICOM file is taken for, what is refused and how that is said, and what its header says of the image."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.dataset import Dataset

from dicom_files import NAME, PATIENT, ROOT, series, write
from loligo import io
from loligo.io import dicom_kind
from loligo.types import Acquisition, Image

DATA = Path(os.environ.get("LOLIGO_DATA") or Path(__file__).parents[2] / ".." / "shared" / "data")
PLAIN = np.zeros((8, 9), np.uint16)
SECONDARY = uid.SecondaryCaptureImageStorage


@pytest.mark.parametrize("syntax", ["+ti", "+te", "+tb"])
@pytest.mark.parametrize("preamble", [True, False])
def test_dicom_is_known_by_its_content(syntax: str, preamble: bool, tmp_path: Path) -> None:
    names = {"+ti": uid.ImplicitVRLittleEndian, "+te": uid.ExplicitVRLittleEndian, "+tb": uid.ExplicitVRBigEndian}
    path = write(tmp_path / "no_suffix", PLAIN)
    ds = pydicom.dcmread(path)
    if syntax == "+tb":
        ds.PixelData = PLAIN.astype(">u2").tobytes()
    implicit, little = names[syntax] == uid.ImplicitVRLittleEndian, names[syntax] != uid.ExplicitVRBigEndian
    if preamble:
        ds.file_meta.TransferSyntaxUID = names[syntax]
    else:
        ds.preamble, ds.file_meta = None, pydicom.dataset.FileMetaDataset()
    how = {"implicit_vr": implicit, "little_endian": little, "enforce_file_format": preamble}
    pydicom.dcmwrite(path, ds, force_encoding=not preamble, **how)
    assert io.describe(path) == "DICOM" and io.kind(path) == "image"
    assert io.read(path).geometry.shape == (8, 9)


def test_a_file_that_begins_as_tiff_and_is_dicom_is_dicom(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", PLAIN)
    path.write_bytes(b"II*\0" + path.read_bytes()[4:])
    assert io.describe(path) == "DICOM" and isinstance(io.load(path), Image)


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        (
            {"storage": uid.ComprehensiveSRStorage, "Modality": "SR"},
            r"\(0008,0016\) is Comprehensive SR Storage \(Modality SR",
        ),
        ({"storage": uid.GrayscaleSoftcopyPresentationStateStorage, "Modality": "PR"}, "Softcopy Presentation State"),
        (
            {"storage": SECONDARY, "Modality": "OT"},
            r"is Secondary Capture Image Storage \(Modality OT\); images of CR, DX",
        ),
        ({"storage": SECONDARY}, "is Secondary Capture Image Storage"),
        ({"storage": uid.UltrasoundImageStorage, "Modality": "US"}, "is Ultrasound Image Storage"),
        (
            {"storage": uid.CTImageStorage, "Modality": "CT", "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
            "LOCALIZER",
        ),
        ({"PresentationIntentType": "FOR PROCESSING"}, r"\(0008,0068\) is FOR PROCESSING.*FOR PRESENTATION is allowed"),
        ({"Modality": "NM"}, r"Modality \(0008,0060\) is NM; CR, DX, IO, MG, PX, RF, XA are allowed"),
        ({"Modality": "Doe^Jane"}, r"Modality \(0008,0060\) is no such code; "),
        ({"storage": f"{ROOT}77", "Modality": "CR"}, "none of the standard's"),
        ({"storage": uid.MediaStorageDirectoryStorage}, "is a DICOM directory, no image; give the folder"),
    ],
)
def test_what_is_no_image_is_refused_with_tag_value_and_what_is_allowed(
    tags: dict[str, Any], said: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "a", PLAIN, **tags)
    with pytest.raises(io.UnreadableImage, match=said) as error:
        io.kind(path)
    assert ROOT not in str(error.value) and NAME not in str(error.value) and "Jane" not in str(error.value)


def test_a_secondary_capture_that_says_its_view_is_a_radiograph(tmp_path: Path) -> None:
    """As in the RSNA pneumonia set, whose radiographs went through JPEG files."""
    assert io.kind(write(tmp_path / "a", PLAIN, storage=SECONDARY, ViewPosition="PA")) == "image"


def test_the_header_says_how_an_image_was_taken(tmp_path: Path) -> None:
    view = Dataset()
    view.CodeValue = "R-10214"
    tags = {"ViewCodeSequence": [view], "ImageLaterality": "U", "BodyPartExamined": "CHEST", "PatientAge": "006M"}
    tags |= {"Manufacturer": "Maker", "ImagerPixelSpacing": [0.2, 0.1], "PatientOrientation": ["L", "F"]}
    image = io.read(write(tmp_path / "a", PLAIN, **tags))
    assert image.acquisition == Acquisition("CR", "PA", "U", "CHEST", 0.5, "Maker", "detector")
    assert image.spacing == (0.2, 0.1) and image.orientation == ("L", "F")


@pytest.mark.parametrize(
    ("own", "imager", "spacing", "where"),
    [
        (None, None, None, ""),
        ([0.3, 0.4], None, (0.3, 0.4), "detector"),
        ([0.3, 0.4], [0.3, 0.4], (0.3, 0.4), "detector"),
        ([0.2, 0.3], [0.3, 0.4], (0.2, 0.3), "body"),
        (None, [0.3, 0.4], (0.3, 0.4), "detector"),
        ([0, 0], None, None, ""),
    ],
)
def test_spacing_and_where_it_holds(own: Any, imager: Any, spacing: Any, where: str, tmp_path: Path) -> None:
    image = io.read(write(tmp_path / "a", PLAIN, PixelSpacing=own, ImagerPixelSpacing=imager))
    assert image.spacing == spacing and image.acquisition and image.acquisition.spacing_at == where


@pytest.mark.parametrize(
    ("text", "age"), [("062Y", 62), ("62", 62), ("095Y", 90), ("007D", 0.02), ("", None), ("old", None)]
)
def test_ages(text: str, age: float | None, tmp_path: Path) -> None:
    path = write(tmp_path / "a", PLAIN)
    raw = pydicom.dcmread(path)
    raw.add_new(0x00101010, "LO", text)
    raw.save_as(path)
    found = dicom_kind.look(path).acquisition
    assert found and found.age == age


def test_a_patient_is_told_by_id_and_issuer_else_name_and_birth_else_study(tmp_path: Path) -> None:
    def patient(name: str, **tags: Any) -> str:
        return dicom_kind.look(write(tmp_path / name, PLAIN, **tags)).patient

    assert patient("a") == patient("b") and PATIENT in patient("a")
    assert patient("c", IssuerOfPatientID="Other") != patient("a")
    unnamed = {"PatientID": "", "PatientBirthDate": "19700101"}
    assert patient("d", **unnamed) == patient("e", **unnamed) and NAME in patient("d", **unnamed)
    nobody = {"PatientID": "", "PatientName": "", "StudyInstanceUID": f"{ROOT}5"}
    assert f"{ROOT}5" in patient("f", **nobody)
    assert patient("g", PatientID="", PatientName="", StudyInstanceUID="") == ""


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    path = write(tmp_path / "a", PLAIN)
    assert dicom_kind.look(path).kind == "image"
    write(path, PLAIN, Modality="NM", PatientID="someone else")
    assert dicom_kind.look(path).kind == ""


def test_broken_headers_say_nothing_of_their_values(tmp_path: Path) -> None:
    path = write(tmp_path / "a", PLAIN)
    data = path.read_bytes()
    place = data.index(b"\x28\0\x10\0US")
    path.write_bytes(data[:place] + b"\x28\0\x10\0DS\x0c\0" + NAME.encode() + data[place + 10 :])
    with pytest.raises(io.UnreadableImage) as error:
        io.load(path)
    assert NAME not in str(error.value) and "Rows (0028,0010)" in str(error.value)


@pytest.mark.skipif(not (DATA / "dicom").is_dir(), reason="the real radiographs are not at hand")
def test_a_real_radiograph_and_its_negative_are_one_image() -> None:
    plain, negative = (io.read(DATA / "dicom" / f"chest_pa_monochrome{n}.dcm") for n in (2, 1))
    np.testing.assert_allclose(plain.pixels, 1 - negative.pixels, atol=1e-6)
    assert plain.spacing == (0.168, 0.168) and plain.acquisition and plain.acquisition.view == "PA"


def test_localizers_do_not_belong_to_their_series(tmp_path: Path) -> None:
    paths = series(tmp_path, np.zeros((4, 5, 6), np.int16))
    ds = pydicom.dcmread(paths[0])
    ds.ImageType, ds.ImageOrientationPatient = ["ORIGINAL", "PRIMARY", "LOCALIZER"], [0, 1, 0, 0, 0, -1]
    ds.save_as(tmp_path / "scout")
    assert len(io.files(paths[0])) == 4 and io.files(tmp_path / "scout") == (tmp_path / "scout",)
