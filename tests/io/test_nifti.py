"""NIfTI in and out: orientation and place against nibabel and by hand, every refusal, and slices."""

from __future__ import annotations

import gzip
import itertools
import struct
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from loligo.io import UnreadableImage, nifti, nifti_header, planes
from loligo.types import Volume

SHAPE = (5, 6, 7)
DIM, DATATYPE, PIXDIM, OFFSET, SLOPE, UNITS = 40, 70, 76, 108, 112, 123  # bytes of a NIfTI-1 header
QFORM_CODE, SFORM_CODE, QUATERN, SROW_X, MAGIC = 252, 254, 256, 280, 344


def noise(shape: tuple[int, ...] = SHAPE, dtype: type = np.float32) -> np.ndarray:
    return np.random.default_rng(0).integers(-99, 999, shape).astype(dtype)


def affine(axes: str = "RAS", spacing: tuple[float, ...] = (1, 1, 1), degrees: float = 0) -> np.ndarray:
    """Lead voxels to mm: index i runs to axes[i], everything then turned about the vertical and the right-left axis."""
    towards = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
    matrix = np.eye(4)
    matrix[:3, :3] = 0
    for column, (letter, side) in enumerate(zip(axes, spacing, strict=True)):
        row, sign = towards[letter]
        matrix[row, column] = sign * side
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    matrix[:3, :3] = turn @ matrix[:3, :3]
    matrix[:3, 3] = (-20, 30, 7.5)
    return matrix


def saved(path: Path, array: np.ndarray, matrix: np.ndarray | None = None) -> Path:
    nib.save(nib.Nifti1Image(array, affine() if matrix is None else matrix), path)
    return path


def patched(path: Path, *changes: tuple[int, str, tuple[float, ...]]) -> Path:
    """Save an unpacked file, then write numbers of a struct format at byte offsets of its header."""
    saved(path, noise())
    raw = bytearray(path.read_bytes())
    for offset, kind, values in changes:
        struct.pack_into(f"<{len(values)}{kind}", raw, offset, *values)
    path.write_bytes(raw)
    return path


def refuse(path: Path, match: str) -> None:
    with pytest.raises(UnreadableImage, match=match) as caught:
        nifti.read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".NII.GZ"])
def test_a_file_in_ras_order_is_read_as_it_is(tmp_path: Path, suffix: str) -> None:
    path = saved(tmp_path / f"a{suffix}", noise(), affine(spacing=(1, 2, 3)))
    volume = nifti.read(path)
    np.testing.assert_array_equal(volume.voxels, noise())
    np.testing.assert_array_equal(volume.affine, affine(spacing=(1, 2, 3)))
    assert (volume.voxels.dtype, volume.affine.dtype) == (np.float32, np.float64)
    assert (volume.shape, volume.spacing, volume.source) == (SHAPE, (1, 2, 3), path)
    assert (volume.file_shape, volume.file_axes) == (SHAPE, ("R", "A", "S"))


def test_lps_is_turned_by_hand(tmp_path: Path) -> None:
    volume = nifti.read(saved(tmp_path / "a.nii", noise(), affine("LPS", (1, 2, 3))))
    np.testing.assert_array_equal(volume.voxels, noise()[::-1, ::-1])
    # the first voxel is the file's (4, 5, 0), at -20 - 4 x 1 and 30 - 5 x 2
    np.testing.assert_array_equal(volume.affine, [[1, 0, 0, -24], [0, 2, 0, 20], [0, 0, 3, 7.5], [0, 0, 0, 1]])


@pytest.mark.parametrize("degrees", [0, 20])
def test_all_48_orientations_agree_with_nibabel_and_go_back_exactly(tmp_path: Path, degrees: float) -> None:
    pairs = ("RL", "AP", "SI")
    for order in itertools.permutations(pairs):
        for axes in itertools.product(*order):
            matrix = affine("".join(axes), (1, 2, 3), degrees)
            path, back = tmp_path / "a.nii", tmp_path / "b.nii"
            nifti.save(path, noise(), matrix, 4)
            volume, oracle = nifti.read(path), nib.as_closest_canonical(nib.load(path))
            np.testing.assert_array_equal(volume.voxels, oracle.get_fdata(dtype=np.float32))
            np.testing.assert_allclose(volume.affine, oracle.affine, atol=1e-6)
            np.testing.assert_allclose(volume.spacing, oracle.header.get_zooms(), rtol=1e-6)
            nifti.write(back, volume.voxels, volume)
            written, given = nib.load(back), nib.load(path)
            np.testing.assert_array_equal(written.get_fdata(), noise())
            np.testing.assert_array_equal(written.affine, given.affine)
            assert written.get_sform(coded=True)[1] == written.get_qform(coded=True)[1] == 4


@pytest.mark.parametrize("name", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize(("axes", "degrees"), [("RAS", 0), ("LPS", 0), ("PIR", 0), ("LPS", 25)])
def test_landmarks_keep_their_place_through_slices_and_back(
    tmp_path: Path, axes: str, degrees: float, name: planes.Axis
) -> None:
    matrix, stored = affine(axes, (1, 2, 3), degrees), np.zeros((9, 10, 11), np.int16)
    landmarks = {7: (2, 3, 4), 8: (8, 0, 10), 9: (0, 9, 1)}
    for value, place in landmarks.items():
        stored[place] = value
    volume = nifti.read(saved(tmp_path / "image.nii.gz", stored, matrix))
    cut = planes.slices(volume.voxels, name)
    nifti.write(tmp_path / "map.nii.gz", planes.stack(cut * 10, name), volume)
    written = nib.load(tmp_path / "map.nii.gz")
    heat = written.get_fdata()
    assert heat.shape == stored.shape and written.get_data_dtype() == np.float32
    for value, place in landmarks.items():
        (index,) = np.argwhere(heat == value * 10)
        (inside,) = np.argwhere(volume.voxels == value)
        world = (matrix @ (*place, 1))[:3]
        assert tuple(index) == place
        np.testing.assert_allclose((written.affine @ (*index, 1))[:3], world, atol=1e-5)
        np.testing.assert_allclose((volume.affine @ (*inside, 1))[:3], world, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "place"),
    [  # of the voxel 1 from the left, 2 from the back, 3 from the feet, of 5 x 6 x 7: slice, row, column
        ("axial", (3, 6 - 1 - 2, 5 - 1 - 1)),
        ("coronal", (2, 7 - 1 - 3, 5 - 1 - 1)),
        ("sagittal", (1, 7 - 1 - 3, 6 - 1 - 2)),
    ],
)
def test_slices_hang_as_if_the_viewer_faced_the_patient(name: planes.Axis, place: tuple[int, ...]) -> None:
    voxels = np.zeros(SHAPE, bool)
    voxels[1, 2, 3] = True
    cut = planes.slices(voxels, name)
    assert cut.dtype == bool and cut.flags.c_contiguous
    assert np.argwhere(cut).tolist() == [list(place)]
    np.testing.assert_array_equal(planes.stack(planes.slices(noise(), name), name), noise())


def test_positions_of_slices() -> None:
    assert planes.positions(5).tolist() == [-0.5, -0.25, 0, 0.25, 0.5]
    assert planes.positions(1).tolist() == [0]
    assert planes.positions(3).dtype == np.float32
    with pytest.raises(ValueError, match="0 slices have no positions"):
        planes.positions(0)


def test_wrong_axes_are_refused() -> None:
    with pytest.raises(ValueError, match="axis 'axiel' is not one of axial, coronal, sagittal; did you mean 'axial'"):
        planes.slices(noise(), "axiel")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"shape \(5, 6\) has 2 axes; three are needed"):
        planes.stack(noise()[..., 0], "axial")


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.uint16, np.float64])
def test_integers_are_scaled_as_the_header_says(tmp_path: Path, dtype: type) -> None:
    values = noise(dtype=dtype)
    image = nib.Nifti1Image(values, affine())
    image.header.set_slope_inter(0.5, -1024)
    nib.save(image, tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(nifti.read(tmp_path / "a.nii.gz").voxels, values.astype(np.float32) * 0.5 - 1024)


def test_nifti_2_and_big_endian_are_read(tmp_path: Path) -> None:
    nib.save(nib.Nifti2Image(noise(), affine()), tmp_path / "two.nii.gz")
    nib.save(nib.Nifti1Image(noise(), affine(), nib.Nifti1Header(endianness=">")), tmp_path / "big.nii")
    assert (tmp_path / "big.nii").read_bytes()[:4] == struct.pack(">i", 348)
    for name in ("two.nii.gz", "big.nii"):
        np.testing.assert_array_equal(nifti.read(tmp_path / name).voxels, noise())


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("codes", [(3, 1), (4, 1), (2, 0), (0, 3)])
def test_what_is_written_lies_on_its_volume_by_either_affine(
    tmp_path: Path, kind: type[nib.Nifti1Image], codes: tuple[int, int]
) -> None:
    """Viewers that follow the qform and those that follow the sform: the two may disagree, by registration."""
    image = kind(noise(), None)
    image.set_sform(affine("LPS", (1, 2, 3)), codes[0])
    image.set_qform(affine("PIR", (1, 2, 3), 20), codes[1])
    nib.save(image, tmp_path / "a.nii")
    volume = nifti.read(tmp_path / "a.nii")
    nifti.write(tmp_path / "b.nii.gz", volume.voxels, volume)
    given, written = nib.load(tmp_path / "a.nii").header, nib.load(tmp_path / "b.nii.gz").header
    assert (int(written["sform_code"]), int(written["qform_code"])) == codes
    np.testing.assert_allclose(written.get_sform(), given.get_sform(), atol=1e-5)
    np.testing.assert_allclose(written.get_qform(), given.get_qform(), atol=1e-5)
    np.testing.assert_allclose(written["pixdim"], given["pixdim"])
    np.testing.assert_array_equal(nib.load(tmp_path / "b.nii.gz").get_fdata(), noise())


def test_an_axis_of_length_one_is_dropped_and_written_back(tmp_path: Path) -> None:
    volume = nifti.read(saved(tmp_path / "a.nii", noise((*SHAPE, 1)), affine("LPS")))
    assert volume.voxels.shape == volume.shape == SHAPE
    nifti.write(tmp_path / "b.nii", volume.voxels, volume)
    np.testing.assert_array_equal(nib.load(tmp_path / "b.nii").get_fdata(), noise((*SHAPE, 1)))


def test_a_qform_alone_is_enough_and_qfac_may_be_0(tmp_path: Path) -> None:
    image = nib.Nifti1Image(noise(), None)
    image.set_qform(affine("LPS", (1, 2, 3), 20), 1)
    nib.save(image, tmp_path / "a.nii")
    volume = nifti.read(tmp_path / "a.nii")
    np.testing.assert_allclose(volume.affine, nib.as_closest_canonical(image).affine, atol=1e-5)
    nifti.write(tmp_path / "map.nii", volume.voxels, volume)
    written = nib.load(tmp_path / "map.nii")
    assert (written.get_sform(coded=True)[1], written.get_qform(coded=True)[1]) == (0, 1)
    np.testing.assert_allclose(written.affine, affine("LPS", (1, 2, 3), 20), atol=1e-5)
    path = patched(tmp_path / "b.nii", (SFORM_CODE, "h", (0,)), (QFORM_CODE, "h", (1,)), (PIXDIM, "f", (0,)))
    np.testing.assert_array_equal(nifti.read(path).voxels, noise())


def test_the_header_is_read_without_the_voxels(tmp_path: Path) -> None:
    path = patched(tmp_path / "a.nii")
    path.write_bytes(path.read_bytes()[:352])
    assert nifti.read_header(path).shape == SHAPE
    refuse(path, "its voxels cannot be decoded .Expected 840 bytes, got 0")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ([(DIM, "h", (4, 5, 3, 2, 7))], r"has shape 5 x 3 x 2 x 7 where one volume of three axes is allowed; split"),
        ([(DIM, "h", (2, 5, 6))], "says that it has 2 axes"),
        ([(DIM, "h", (0,))], "says that it has 0 axes, where one volume of three is allowed"),
        ([(DIM, "h", (3, 5, -6, 7))], "5 x -6 x 7; a side must be 1 or more"),
        ([(DIM, "h", (3, 2000, 2000, 2000))], "2000 x 2000 x 2000 is more than 536,870,912 voxels"),
        ([(DIM, "h", (99, 5, 6, 7))], "says that it has 99 axes"),
        ([(DATATYPE, "h", (128,))], "are not one real number each"),  # colour
        ([(DATATYPE, "h", (32,))], "voxels of type complex64 are not one real number each"),
        ([(DATATYPE, "h", (77,))], "its header cannot be understood"),
        ([(OFFSET, "f", (8,))], "its voxels begin at byte 8; 348 or more is allowed"),
        ([(OFFSET, "f", (1e30,))], "its voxels begin at byte 1e[+]30"),
        ([(OFFSET, "f", (float("nan"),))], "its voxels begin at byte nan"),
        ([(UNITS, "B", (3,))], "its spacing is in micron; only mm"),
        ([(SFORM_CODE, "h", (0,)), (QFORM_CODE, "h", (0,))], "has no affine .sform_code and qform_code are 0.*convert"),
        ([(PIXDIM, "f", (1, 1, 0, 1))], "its pixdim says a spacing of 1 x 0 x 1 mm; each must be finite and above 0"),
        ([(PIXDIM, "f", (1, -1, 1, 1))], "its pixdim says a spacing of -1 x 1 x 1 mm"),
        ([(PIXDIM, "f", (1, 1, 1, float("nan")))], "its pixdim says a spacing of 1 x 1 x nan mm"),
        ([(PIXDIM, "f", (1, 2, 1, 1))], "its pixdim says a spacing of 2 x 1 x 1 mm, its affine 1 x 1 x 1 mm"),
        ([(SROW_X, "f", (1, 0.1, 0, 0))], r"its axes 0 and 1 meet at 84\.29 degrees, not 90"),
        ([(SROW_X, "f", (float("inf"), 0, 0, 0))], "its affine .*inf.* is not finite"),
        ([(SROW_X, "f", (0, 0, 0, 0))], "or lacks an axis"),
        ([(SFORM_CODE, "h", (0,)), (QFORM_CODE, "h", (1,)), (QUATERN, "f", (1, 1, 1))], "affine cannot be computed"),
        ([(MAGIC, "4s", (b"ni1\0",))], "is the header of a pair of files"),
        ([(MAGIC, "4s", (b"abcd",))], "its content is not NIfTI"),
        ([(0, "i", (347,))], "its content is not NIfTI"),
    ],
)
def test_headers_that_cannot_be_meant_are_refused(
    tmp_path: Path, changes: list[tuple[int, str, tuple[float, ...]]], match: str
) -> None:
    path = patched(tmp_path / "a.nii", *changes)
    refuse(path, match)
    with pytest.raises(UnreadableImage, match=match):
        nifti.read_header(path)


def test_shear_within_rounding_is_allowed(tmp_path: Path) -> None:
    path = patched(tmp_path / "a.nii", (SROW_X, "f", (1, 0.9 * nifti_header.SHEAR_TOLERANCE, 0, 0)))
    np.testing.assert_array_equal(nifti.read(path).voxels, noise())


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 1e300])
def test_voxels_that_are_no_numbers_are_counted(tmp_path: Path, wrong: float) -> None:
    values = noise(dtype=np.float64)
    values[:2, 0, 0] = wrong
    refuse(saved(tmp_path / "a.nii.gz", values), "2 of 210 voxels are NaN, infinite or beyond float32")


def test_files_that_are_not_nifti_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.nii").write_text("not a volume" * 99)
    refuse(tmp_path / "text.nii", "its content is not NIfTI")
    (tmp_path / "text.nii.gz").write_text("not a volume" * 99)
    refuse(tmp_path / "text.nii.gz", "its content is not NIfTI")
    (tmp_path / "short.nii").write_bytes(struct.pack("<i", 348))
    refuse(tmp_path / "short.nii", "its content is not NIfTI")
    (tmp_path / "zero.nii.gz").touch()
    refuse(tmp_path / "zero.nii.gz", "it is empty, 0 bytes")
    (tmp_path / "packed.nii.gz").write_bytes(gzip.compress(b""))
    refuse(tmp_path / "packed.nii.gz", "its content is not NIfTI")
    refuse(tmp_path / "absent.nii", "No such file")
    (tmp_path / "folder.nii").mkdir()
    refuse(tmp_path / "folder.nii", "is a folder, not a regular file")


def test_the_name_of_a_file_does_not_matter(tmp_path: Path) -> None:
    saved(tmp_path / "a.nii.gz", noise()).rename(tmp_path / "packed.png")
    saved(tmp_path / "a.nii", noise()).rename(tmp_path / "plain.nii.gz")
    for name in ("packed.png", "plain.nii.gz"):
        np.testing.assert_array_equal(nifti.read(tmp_path / name).voxels, noise())


def test_a_claim_that_no_gzip_can_hold_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    changes = [(DIM, "h", (3, 512, 512, 2048)), (DATATYPE, "h", (64,))]
    path = patched(tmp_path / "a.nii", *changes)
    packed = tmp_path / "a.nii.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()[:352]))
    refuse(packed, "claims 4,294,967,296 bytes of voxels, which its [0-9]+ bytes cannot hold")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("part", [0.05, 0.3, 0.6, 0.99])
def test_truncated_files_are_refused(tmp_path: Path, suffix: str, part: float) -> None:
    path = saved(tmp_path / f"a{suffix}", noise())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    refuse(path, ".")


def test_a_flipped_bit_in_packed_voxels_is_noticed(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.nii.gz", noise())
    packed = gzip.compress(gzip.decompress(path.read_bytes()), 0)  # stored, not deflated: only the checksum can tell
    path.write_bytes(packed[:-100] + bytes([packed[-100] ^ 1]) + packed[-99:])
    refuse(path, "its voxels cannot be decoded .CRC check failed")


def test_writing_needs_the_shape_and_the_suffix(tmp_path: Path) -> None:
    volume = nifti.read(saved(tmp_path / "a.nii", noise(), affine("PIR")))
    with pytest.raises(ValueError, match=r"b\.nii: voxels have shape \(5, 6, 7\); .*a\.nii has \(7, 5, 6\) in RAS"):
        nifti.write(tmp_path / "b.nii", noise(), volume)
    with pytest.raises(ValueError, match=r"b\.png: the name of a volume ends in \.nii or \.nii\.gz"):
        nifti.write(tmp_path / "b.png", volume.voxels, volume)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.nii"]


def test_the_same_volume_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.nii.gz", "other/b.nii.gz"):
        nifti.save(tmp_path / name, noise(), affine(), 1)
    first, second = ((tmp_path / name).read_bytes() for name in ("a.nii.gz", "other/b.nii.gz"))
    assert gzip.decompress(first) == gzip.decompress(second)


def test_a_mask_in_another_order_of_axes_fits_its_image(tmp_path: Path) -> None:
    values = noise()
    image = nifti.read(saved(tmp_path / "image.nii", values, affine("LPS", (1, 2, 3))))
    mask = nib.as_closest_canonical(nib.Nifti1Image((values > 500).astype(np.uint8), affine("LPS", (1, 2, 3))))
    nib.save(mask, tmp_path / "mask.nii.gz")
    found = nifti.read_mask(tmp_path / "mask.nii.gz", image)
    np.testing.assert_array_equal(found, image.voxels > 500)
    assert found.dtype == bool and found.any()


def test_a_mask_elsewhere_is_refused(tmp_path: Path) -> None:
    image, path = nifti.read(saved(tmp_path / "image.nii", noise())), tmp_path / "mask.nii"
    saved(path, np.ones((5, 6, 8), np.uint8))
    with pytest.raises(UnreadableImage, match=r"mask\.nii: has shape \(5, 6, 8\) .*image\.nii \(5, 6, 7\)"):
        nifti.read_mask(path, image)
    beside = affine()
    beside[1, 3] += 0.5
    saved(path, np.ones(SHAPE, np.uint8), beside)
    with pytest.raises(UnreadableImage, match=r"lies up to 0\.5 mm beside its image"):
        nifti.read_mask(path, image)
    beside[1, 3] -= 0.45
    saved(path, np.ones(SHAPE, np.uint8), beside)
    assert nifti.read_mask(path, image).all()


def spaced(tmp_path: Path, name: str, *spacing: float) -> Volume:
    return nifti.read(saved(tmp_path / name, noise(), affine(spacing=spacing)))


def test_volumes_of_another_spacing_are_named(tmp_path: Path) -> None:
    odd = spaced(tmp_path, "odd.nii", 1, 1, 2.5)
    alike = [spaced(tmp_path, f"{i}.nii", 1, 1, side) for i, side in enumerate((2, 2, 2.01))]
    assert nifti.check_spacing(alike) == (1, 1, 2)
    with pytest.raises(
        ValueError, match=r"1 of 4 volumes have another spacing than 1 x 1 x 2 mm: .*odd\.nii .1 x 1 x 2\.5"
    ):
        nifti.check_spacing([odd, *alike])
    with pytest.raises(ValueError, match=r"3 of 3 volumes have another spacing than 1 x 1 x 1 mm"):
        nifti.check_spacing(alike, expected=(1, 1, 1))
    with pytest.raises(ValueError, match="there are no volumes"):
        nifti.check_spacing([])


def two_forms(path: Path, qform: np.ndarray, sform: np.ndarray, codes: tuple[int, int]) -> Path:
    image = nib.Nifti1Image(noise(), None)
    image.set_qform(qform, codes[0])
    image.set_sform(sform, codes[1])
    nib.save(image, path)
    return path


@pytest.mark.parametrize("codes", [(1, 1), (1, 2), (2, 1)])
def test_a_qform_that_contradicts_the_sform_is_refused(tmp_path: Path, codes: tuple[int, int]) -> None:
    mirrored = affine() @ np.diag([-1.0, 1, 1, 1])
    refuse(two_forms(tmp_path / "a.nii", mirrored, affine(), codes), "disagree by up to 10 mm .* LAS and RAS")
    aside = affine()
    aside[0, 3] += 0.6
    refuse(two_forms(tmp_path / "a.nii", aside, affine(), codes), r"disagree by up to 0.6 mm")
    aside[0, 3] -= 0.3  # some tenth of a voxel
    nifti.read(two_forms(tmp_path / "a.nii", aside, affine(), codes))


@pytest.mark.parametrize("degrees", [10, 90, 179.9])
def test_a_qform_that_was_rounded_passes(tmp_path: Path, degrees: float) -> None:
    matrix = affine("LPS", (0.7, 0.7, 3), degrees)
    volume = nifti.read(two_forms(tmp_path / "a.nii", matrix, matrix, (1, 2)))
    np.testing.assert_allclose(sorted(volume.spacing), (0.7, 0.7, 3), rtol=1e-5)


@pytest.mark.parametrize("code", [3, 4])
def test_of_a_template_the_sform_is_followed(tmp_path: Path, code: int) -> None:
    sform = affine("LPS", (1, 2, 3))
    volume = nifti.read(two_forms(tmp_path / "a.nii", affine("RAS", (1, 2, 3), 20), sform, (1, code)))
    np.testing.assert_array_equal(volume.affine, nib.as_closest_canonical(nib.Nifti1Image(noise(), sform)).affine)


@pytest.mark.parametrize("spacing", [1e-4, 700.0])
def test_a_spacing_in_another_unit_is_refused(tmp_path: Path, spacing: float) -> None:
    refuse(
        saved(tmp_path / "a.nii", noise(), affine(spacing=(spacing,) * 3)), "0.001 to 100 are allowed; is its unit mm"
    )


def test_a_mask_marks_what_is_above_0(tmp_path: Path) -> None:
    labels = np.zeros(SHAPE, np.int16)
    labels[0], labels[1:3, 1:3, 1:3] = -1, 2
    volume = nifti.read(saved(tmp_path / "a.nii", noise()))
    np.testing.assert_array_equal(nifti.read_mask(saved(tmp_path / "m.nii", labels), volume), labels > 0)


def test_an_image_does_not_come_out_of_next_to_nothing_but_a_mask_may(tmp_path: Path) -> None:
    """A quarter of a gigabyte of zeros in 1/1000 of that; it is told by the header, before anything is unpacked."""
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape((512, 512, 512))
    header.set_sform(affine(), 1)
    header["vox_offset"] = 352
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(header.binaryblock + bytes(4)) + bytes(300_000))
    begin = time.process_time()
    refuse(
        path, r"claims 268,435,456 bytes of voxels, which its 300,[0-9]+ bytes cannot hold; it is empty or cut short"
    )
    assert time.process_time() - begin < 1
    nifti_header.refuse_claim(path, nifti_header.load(path), mask=True)
    small = saved(tmp_path / "b.nii.gz", np.zeros((64, 64, 64), np.int16))
    np.testing.assert_array_equal(nifti.read(small).voxels, 0)
