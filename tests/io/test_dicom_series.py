"""CT and MR as volumes: where each voxel lies, by hand and by highdicom, and what makes no volume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.dataset import Dataset

from dicom_files import dataset, series, write
from loligo import io
from loligo.io import nifti
from loligo.types import Volume

TURN = np.array([[0.8, 0.6, 0.0], [-0.36, 0.48, 0.8]])
"""Oblique directions of columns and rows, upright on each other."""
NORMAL = np.cross(*TURN)


def volume(path: Path) -> Volume:
    found = io.load(path)
    assert isinstance(found, Volume)
    return found


def landmark(shape: tuple[int, int, int] = (6, 10, 12), at: tuple[int, int, int] = (4, 7, 3)) -> np.ndarray:
    voxels = np.random.default_rng(0).integers(0, 1000, shape).astype(np.int16)
    voxels[at] = 3000
    return voxels


def world(found: Volume) -> np.ndarray:
    """Return where the brightest voxel lies, in RAS mm."""
    at = np.unravel_index(int(found.voxels.argmax()), found.voxels.shape)
    return (found.affine @ (*at, 1))[:3]


@pytest.mark.parametrize(
    ("directions", "step"),
    [
        ((1, 0, 0, 0, 1, 0), (0, 0, 2.5)),
        ((1, 0, 0, 0, 1, 0), (0, 0, -2.5)),
        ((0, 1, 0, 0, 0, -1), (-2.5, 0, 0)),
        ((-1, 0, 0, 0, 0, -1), (0, -2.5, 0)),
        (tuple(TURN.ravel()), tuple(2.5 * NORMAL)),
        (tuple(TURN.ravel()), tuple(-2.5 * NORMAL)),
    ],
)
def test_a_landmark_lies_where_its_header_says(directions: Any, step: Any, tmp_path: Path) -> None:
    """By hand, PS3.3 C.7.6.2.1.1: position + column index * column spacing * first direction + ..., LPS to RAS."""
    k, row, column = at = (4, 7, 3)
    origin, (high, wide) = np.array([-11.0, 23.5, 40.0]), (0.7, 0.9)
    paths = series(tmp_path, landmark(at=at), directions=directions, step=step, origin=origin, spacing=(high, wide))
    found = volume(paths[2])
    lps = origin + column * wide * np.array(directions[:3]) + row * high * np.array(directions[3:]) + k * np.array(step)
    np.testing.assert_allclose(world(found), lps * (-1, -1, 1), atol=1e-4)
    assert found.voxels.max() == 3000 - 1024 and found.voxels.dtype == np.float32
    axes = np.abs(found.affine[:3, :3]).argmax(0)
    assert sorted(axes) == [0, 1, 2] and (np.diag(found.affine[axes, :][:, :3]) > 0).all()


def test_a_map_written_onto_a_series_lies_on_it(tmp_path: Path) -> None:
    paths = series(tmp_path / "s", landmark(), directions=tuple(TURN.ravel()), step=tuple(2.0 * NORMAL))
    found = volume(paths[0])
    nifti.write(tmp_path / "map.nii.gz", found.voxels, found.geometry)
    back = nifti.read(tmp_path / "map.nii.gz")
    np.testing.assert_array_equal(back.voxels, found.voxels)
    np.testing.assert_allclose(world(back), world(found), atol=1e-3)
    assert back.file_shape == (12, 10, 6)


def test_each_file_of_a_series_stands_for_all(tmp_path: Path) -> None:
    paths = series(tmp_path, landmark())
    series(tmp_path, landmark() // 2)  # replaces files of the same names
    other = series(tmp_path / "other", landmark() // 3)
    paths = sorted(tmp_path.glob("IM*"))
    assert io.files(paths[3]) == tuple(paths)
    assert io.files(other[0]) == tuple(sorted(other))
    for path in paths:
        np.testing.assert_array_equal(volume(path).voxels, volume(paths[0]).voxels)
    assert io.read_header(paths[0]).shape == (12, 10, 6)


def test_two_series_in_a_folder_are_two_volumes(tmp_path: Path) -> None:
    first, second = series(tmp_path / "a", landmark()), series(tmp_path / "b", landmark() // 2)
    for path in second:
        path.rename(tmp_path / "a" / f"b{path.name}")
    assert len(io.files(first[0])) == len(io.files(tmp_path / "a" / f"b{second[0].name}")) == 6


def test_each_slice_has_its_own_rescale(tmp_path: Path) -> None:
    paths = series(tmp_path, np.full((3, 4, 4), 10, np.int16), modality="MR")
    for k, path in enumerate(paths):
        ds = pydicom.dcmread(path)
        ds.RescaleSlope, ds.RescaleIntercept = k + 1, k
        ds.save_as(path)
    np.testing.assert_array_equal(volume(paths[0]).voxels[0, 0], [10, 21, 32])


def test_padding_is_the_lowest_voxel(tmp_path: Path) -> None:
    voxels = landmark()
    voxels[:, 0, 0] = -2000
    found = volume(series(tmp_path, voxels, PixelPaddingValue=-2000)[0])
    assert found.voxels.min() == voxels[voxels > -2000].min() - 1024


def test_one_slice_has_its_thickness(tmp_path: Path) -> None:
    found = volume(series(tmp_path, landmark()[:1])[0])
    assert found.shape == (12, 10, 1) and found.spacing[2] == 2.0


def change(paths: list[Path], k: int, **tags: Any) -> None:
    ds = pydicom.dcmread(paths[k])
    for name, value in tags.items():
        setattr(ds, name, value)
    ds.save_as(paths[k])


@pytest.mark.parametrize(
    ("k", "tags", "said"),
    [
        (2, {"ImagePositionPatient": [0, 0, 3.0]}, r"its 6 slices lie 1 to 3 mm apart \(are some missing\?\)"),
        (2, {"ImagePositionPatient": [0, 0, 2.0]}, r"has 2 slices in one place \(two are 0 mm apart\)"),
        (2, {"ImagePositionPatient": [1, 0, 4.0]}, r"slices lie 2 to 2 mm apart"),
        (2, {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, r"slices of several directions \(cosines differ by 1\)"),
        (2, {"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, r"\(0020,0037\) is not of two upright directions"),
        (2, {"Rows": 5, "PixelData": bytes(120)}, r"slices of 2 sizes \(5 x 12, 10 x 12\); one is allowed"),
        (
            2,
            {"FrameOfReferenceUID": "1.2.3"},
            r"2 values of Frame of Reference UID \(0020,0052\), so that its slices lie",
        ),
        (2, {"PixelSpacing": [2, 1]}, r"several values of Pixel Spacing \(0028,0030\)"),
        (2, {"PixelSpacing": None}, r"has no Pixel Spacing \(0028,0030\), so that it has no place"),
        (2, {"ImagePositionPatient": None}, r"has no Image Position \(Patient\) \(0020,0032\)"),
        (
            2,
            {"RescaleIntercept": None},
            r"has no Rescale Intercept \(0028,1052\) and Slope, so that its values are not HU",
        ),
        (2, {"RescaleType": "OD"}, r"Rescale Type \(0028,1054\) is OD; HU is allowed"),
    ],
)
def test_what_makes_no_grid_is_refused(k: int, tags: dict[str, Any], said: str, tmp_path: Path) -> None:
    paths = series(tmp_path, landmark())
    change(paths, k, **tags)
    with pytest.raises(io.UnreadableImage, match=said):
        io.load(paths[0])


def test_a_missing_slice_is_found_wherever_it_was(tmp_path: Path) -> None:
    for k in range(1, 29):
        paths = series(tmp_path / str(k), np.zeros((30, 4, 4), np.int16))
        paths[k].unlink()
        with pytest.raises(io.UnreadableImage, match="its 29 slices lie 2 to 4 mm apart"):
            io.load(paths[0])


def test_a_tilted_gantry_is_refused_with_its_angle(tmp_path: Path) -> None:
    paths = series(tmp_path, landmark(), step=(0, 2 * np.sin(np.radians(12)), 2 * np.cos(np.radians(12))))
    with pytest.raises(io.UnreadableImage, match=r"shifted along 12.00 degrees \(a tilted gantry\?\); 0 is allowed"):
        io.load(paths[0])


def test_positions_that_are_rounded_are_a_grid(tmp_path: Path) -> None:
    paths = series(tmp_path, np.zeros((20, 4, 4), np.int16))
    for k in range(20):
        change(paths, k, ImagePositionPatient=[0, 0, round(k * 0.625, 1)])
    assert volume(paths[0]).spacing[2] == pytest.approx(0.625, abs=0.003)


def enhanced(voxels: np.ndarray, order: list[int]) -> Dataset:
    """Return an Enhanced MR whose frames stand in another order than they lie."""
    ds = dataset(voxels[order], 16, uid.EnhancedMRImageStorage, Modality="MR")
    shared, frames = Dataset(), []
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [Dataset()], [Dataset()]
    shared.PixelMeasuresSequence[0].PixelSpacing, shared.PixelMeasuresSequence[0].SliceThickness = [0.7, 0.9], 2
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    for k in order:
        frame = Dataset()
        frame.PlanePositionSequence, frame.PixelValueTransformationSequence = [Dataset()], [Dataset()]
        frame.PlanePositionSequence[0].ImagePositionPatient = [5, 6, 2.0 * k]
        frame.PixelValueTransformationSequence[0].RescaleSlope = 2
        frame.PixelValueTransformationSequence[0].RescaleIntercept = k
        frames.append(frame)
    ds.SharedFunctionalGroupsSequence, ds.PerFrameFunctionalGroupsSequence = [shared], frames
    return ds


def test_frames_of_an_enhanced_file_are_sorted_by_their_place(tmp_path: Path) -> None:
    voxels = landmark()
    enhanced(voxels, [3, 0, 5, 1, 4, 2]).save_as(tmp_path / "a", enforce_file_format=True)
    found = volume(tmp_path / "a")
    expected = (2.0 * voxels + np.arange(6)[:, None, None]).astype(np.float32)  # (z, row, column), LPS
    np.testing.assert_array_equal(found.voxels, expected.transpose(2, 1, 0)[::-1, ::-1])
    np.testing.assert_allclose(found.spacing, (0.9, 0.7, 2), rtol=1e-6)


def test_a_series_and_its_conversion_by_highdicom_are_one_volume(tmp_path: Path) -> None:
    legacy = pytest.importorskip("highdicom.legacy")
    oblique = {"directions": tuple(TURN.ravel()), "step": tuple(2.0 * NORMAL)}
    paths = series(
        tmp_path / "s", landmark(), **oblique, StudyID="1", SeriesNumber=1, PatientBirthDate="", PatientSex=""
    )
    given = []
    for path in paths:
        ds = pydicom.dcmread(path)
        for word in (
            "AccessionNumber",
            "StudyDate",
            "StudyTime",
            "ReferringPhysicianName",
            "PositionReferenceIndicator",
        ):
            setattr(ds, word, ds.get(word, ""))
        ds.ImageType, ds.FrameType, ds.KVP = ["ORIGINAL", "PRIMARY", "AXIAL"], None, 120
        ds.AcquisitionNumber, ds.BurnedInAnnotation = 1, "NO"
        given.append(ds)
    made = legacy.LegacyConvertedEnhancedCTImage(given, uid.generate_uid(), 2, uid.generate_uid(), 1)
    made.save_as(tmp_path / "enhanced", enforce_file_format=True)
    one, other = volume(paths[0]), volume(tmp_path / "enhanced")
    np.testing.assert_array_equal(one.voxels, other.voxels)
    np.testing.assert_allclose(one.affine, other.affine, atol=1e-5)


def test_a_film_is_refused(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a", np.zeros((5, 4, 4), np.uint16), storage=uid.XRayAngiographicImageStorage, Modality="XA"
    )
    with pytest.raises(io.UnreadableImage, match=r"Number of Frames \(0028,0008\) is 5, a film or tomosynthesis; 1 is"):
        io.load(path)
    path = write(tmp_path / "b", np.zeros((5, 4, 4), np.uint16), storage=uid.MRImageStorage, Modality="MR")
    with pytest.raises(io.UnreadableImage, match=r"is 5, and Per-Frame Functional Groups Sequence .* 0 of them lie"):
        io.load(path)
