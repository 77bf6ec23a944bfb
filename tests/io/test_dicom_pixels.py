"""Stored values: each transfer syntax against the values that were written, or a second decoder; and bounds."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_fragments, generate_frames

from dicom_files import dataset, tool, write
from loligo import io
from loligo.io import dicom_header, dicom_pixels

pytest.importorskip("gdcm", reason="python-gdcm is not installed")


def noise(bits: int, signed: bool = False, shape: tuple[int, int] = (37, 50)) -> np.ndarray:
    """Return smooth values with some of full range, so that predictors meet their ends."""
    random, top = np.random.default_rng(bits), (1 << bits) - 1
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    values = (rows * columns / rows.max() / columns.max() * top + random.normal(0, top / 50, shape)).clip(0, top)
    values[random.random(shape) < 0.05] = top
    values[random.random(shape) < 0.05] = 0
    kind = ("i" if signed else "u") + ("1" if bits <= 8 else "2")
    return (values.astype(np.int64) - ((1 << bits - 1) if signed else 0)).astype(kind)


def decoded(path: Path) -> np.ndarray:
    header = dicom_header.load(path, pixels=True)
    return dicom_pixels.frame(header, dicom_pixels.layout(header))


@pytest.mark.parametrize(("bits", "signed"), [(8, False), (12, False), (12, True), (16, False), (16, True)])
@pytest.mark.parametrize("how", [("dcmconv", "+ti"), ("dcmconv", "+tb"), ("dcmconv", "+td"), ("dcmcrle",)])
def test_plain_syntaxes_give_what_was_written(how: tuple[str, ...], bits: int, signed: bool, tmp_path: Path) -> None:
    stored = noise(bits, signed)
    tool(how[0], *how[1:], write(tmp_path / "a", stored, bits), tmp_path / "b")
    np.testing.assert_array_equal(decoded(tmp_path / "b"), stored)


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("how", [("+e1",), *(("+el", "+sv", n) for n in range(1, 8))])
def test_jpeg_lossless_gives_what_was_written(how: tuple[object, ...], bits: int, tmp_path: Path) -> None:
    """By dcmtk's encoder, with every predictor."""
    stored = noise(bits)
    tool("dcmcjpeg", *how, write(tmp_path / "a", stored, bits), tmp_path / "b")
    assert dicom_header.load(tmp_path / "b").syntax in (uid.JPEGLossless, uid.JPEGLosslessSV1)
    np.testing.assert_array_equal(decoded(tmp_path / "b"), stored)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_jpeg_ls_gives_what_was_written(bits: int, signed: bool, tmp_path: Path) -> None:
    stored = noise(bits, signed)
    tool("dcmcjpls", write(tmp_path / "a", stored, bits), tmp_path / "b")
    np.testing.assert_array_equal(decoded(tmp_path / "b"), stored)


@pytest.mark.parametrize("how", [("dcmcjpeg", "+eb", 8), ("dcmcjpeg", "+ee", 8), ("dcmcjpeg", "+ee", 12)])
def test_lossy_jpeg_is_that_of_dcmtk(how: tuple[str, str, int], tmp_path: Path) -> None:
    encoder, option, bits = how
    tool(encoder, option, write(tmp_path / "a", noise(bits), bits), tmp_path / "b")
    tool("dcmdjpeg", tmp_path / "b", tmp_path / "c")
    np.testing.assert_allclose(decoded(tmp_path / "b"), decoded(tmp_path / "c"), atol=1 if bits == 8 else 0)


def test_jpeg_ls_near_lossless_is_that_of_dcmtk(tmp_path: Path) -> None:
    tool("dcmcjpls", "+en", "+md", 3, write(tmp_path / "a", noise(12)), tmp_path / "b")
    tool("dcmdjpls", tmp_path / "b", tmp_path / "c")
    np.testing.assert_array_equal(decoded(tmp_path / "b"), decoded(tmp_path / "c"))


@pytest.mark.parametrize(("bits", "signed"), [(8, False), (12, False), (12, True), (16, False), (16, True)])
@pytest.mark.parametrize("syntax", [uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless])
def test_what_pydicom_compresses_is_what_was_written(syntax: uid.UID, bits: int, signed: bool, tmp_path: Path) -> None:
    ds = dataset(noise(bits, signed), bits)
    ds.compress(syntax, generate_instance_uid=False)
    ds.save_as(tmp_path / "a")
    np.testing.assert_array_equal(decoded(tmp_path / "a"), noise(bits, signed))


def test_jpeg_2000_is_that_of_gdcm(tmp_path: Path) -> None:
    ds = dataset(noise(12))
    ds.compress(uid.JPEG2000, j2k_cr=[5], generate_instance_uid=False)
    ds.save_as(tmp_path / "a")
    by_gdcm = pydicom.dcmread(tmp_path / "a", force=True)
    by_gdcm.pixel_array_options(decoding_plugin="gdcm")
    np.testing.assert_array_equal(decoded(tmp_path / "a"), by_gdcm.pixel_array)


def test_rle_reads_no_further_than_the_header_says(tmp_path: Path) -> None:
    """One run of 128 a byte: what is longer than the image is not decoded."""
    segment = b"\x81\x07" * 100_000
    frame = struct.pack("<16I", 1, 64, *[0] * 14) + segment
    ds = dataset(np.zeros((16, 16), np.uint8), 8)
    ds.file_meta.TransferSyntaxUID = uid.RLELossless
    ds.PixelData = encapsulate([frame])
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    ds.save_as(tmp_path / "a")
    assert (decoded(tmp_path / "a") == 7).all()
    ds.PixelData = encapsulate([frame[:66]])
    ds["PixelData"].is_undefined_length = True
    ds.save_as(tmp_path / "a")
    with pytest.raises(io.UnreadableImage, match="RLE Lossless, are cut short or damaged"):
        decoded(tmp_path / "a")


@pytest.mark.parametrize("syntax", [uid.JPEGLSLossless, uid.JPEG2000Lossless])
def test_a_frame_of_another_size_than_its_header_says_is_not_decoded(syntax: uid.UID, tmp_path: Path) -> None:
    ds = dataset(noise(12))
    ds.compress(syntax, generate_instance_uid=False)
    ds.Rows = 38
    ds.save_as(tmp_path / "a")
    with pytest.raises(io.UnreadableImage, match=r"say 37 x 50 pixels of 1 x \d+ bit, its header 38 x 50 of at most"):
        decoded(tmp_path / "a")


def test_sizes_are_refused_before_anything_is_allocated(tmp_path: Path) -> None:
    path = write(tmp_path / "a", noise(12), Rows=65535, Columns=65535)
    with pytest.raises(io.UnreadableImage, match=r"has 65535 x 65535 pixels in 1 frames; 1 of each to 80,000,000"):
        io.read(path)
    path = write(tmp_path / "b", noise(12), Rows=0)
    with pytest.raises(io.UnreadableImage, match="has 0 x 50 pixels"):
        io.read(path)


def test_pixels_that_are_too_few_or_too_many_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a", noise(12), Rows=38)
    with pytest.raises(io.UnreadableImage, match=r"is cut short: it holds 3,700 of 3,800 bytes of pixels"):
        io.read(path)
    path = write(tmp_path / "b", noise(12), Rows=18)
    with pytest.raises(io.UnreadableImage, match=r"holds 3,700 bytes of pixels where its header says 1,800"):
        io.read(path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"\xff\xc4", b"\xde\xc4"),  # a table that is none
        (b"\xff\xc4", b"junk\xff\xc4"),
        (b"\xff\xda", b"\xff\xfe"),  # no scan
        (b"\xff\xc4", b"\xff\xe0\0\x10JFIF\0\2\0\0\0\1\0\1\0\0\xff\xc4"),
    ],
)
@pytest.mark.parametrize("how", ["+e1", "+ee"])
def test_a_damaged_header_of_a_frame_is_refused_before_gdcm_ends_the_process(
    how: str, old: bytes, new: bytes, tmp_path: Path
) -> None:
    tool("dcmcjpeg", how, write(tmp_path / "a", noise(12)), tmp_path / "b")
    ds = pydicom.dcmread(tmp_path / "b")
    (frame,) = generate_frames(ds.PixelData, number_of_frames=1)
    assert old in frame
    ds.PixelData = encapsulate([frame.replace(old, new, 1)])
    ds.save_as(tmp_path / "c")
    with pytest.raises(io.UnreadableImage, match="damaged"):
        decoded(tmp_path / "c")


@pytest.mark.parametrize("how", [("dcmcjpeg", "+e1"), ("dcmcjpls",), ("dcmcrle",)])
def test_a_frame_in_many_fragments_is_whole(how: tuple[str, ...], tmp_path: Path) -> None:
    stored = noise(12, shape=(64, 96))
    tool(*how, "+fs", 1, write(tmp_path / "a", stored), tmp_path / "b")
    assert len(list(generate_fragments(pydicom.dcmread(tmp_path / "b").PixelData))) > 3
    np.testing.assert_array_equal(decoded(tmp_path / "b"), stored)


@pytest.mark.parametrize("how", ["+ti", "-e", "+g"])
def test_pixels_of_icons_and_private_elements_are_not_those_of_the_image(how: str, tmp_path: Path) -> None:
    """Without VRs, with lengths that are not said, and with those of groups."""
    stored, icon = noise(12), Dataset()
    ds, small = dataset(stored), dataset(np.zeros((4, 4), np.uint8), 8)
    for word in ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelData"):
        icon[word] = small[word]
    icon.SamplesPerPixel, icon.PhotometricInterpretation = 1, "MONOCHROME1"
    ds.IconImageSequence = [icon]
    ds.private_block(0x0009, "ME", create=True).add_new(1, "SQ", [icon])
    ds.private_block(0x7FE1, "ME", create=True).add_new(1, "OB", b"more")
    ds.save_as(tmp_path / "a", enforce_file_format=True)
    tool("dcmconv", how, tmp_path / "a", tmp_path / "b")
    np.testing.assert_array_equal(decoded(tmp_path / "b"), stored)


@pytest.mark.parametrize("word", ["BitsStored", "PixelRepresentation"])
def test_a_header_that_does_not_say_what_its_values_are_is_refused(word: str, tmp_path: Path) -> None:
    """A guess would show some files wrongly."""
    path = write(tmp_path / "a", noise(12), 12, **{word: None})
    with pytest.raises(io.UnreadableImage, match=r"\(0028,010[13]\) holds nothing; one whole number is needed"):
        io.read(path)


def test_a_deflate_bomb_is_not_inflated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom_header, "MAX_INFLATED", 1 << 20)
    ds = dataset(noise(8), 8)
    ds.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    ds.save_as(tmp_path / "a", enforce_file_format=True)
    assert io.read(tmp_path / "a").pixels.shape == (1, 37, 50)
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    with (tmp_path / "a").open("rb") as stream:
        meta = stream.read(
            132 + 12 + pydicom.filereader.read_file_meta_info(tmp_path / "a").FileMetaInformationGroupLength
        )
    (tmp_path / "b").write_bytes(meta + packer.compress(bytes(2 << 20)) + packer.flush())
    with pytest.raises(io.UnreadableImage, match="inflates to more than 1,048,576 bytes"):
        io.read(tmp_path / "b")


@pytest.mark.parametrize(
    ("syntax", "missing", "package"),
    [
        (uid.JPEGLossless, "gdcm", "python-gdcm"),
        (uid.JPEG2000, "openjpeg", "pylibjpeg-openjpeg"),
        (uid.JPEGLSLossless, "jpeg_ls", "pyjpegls"),
    ],
)
def test_a_decoder_that_is_missing_is_named_with_how_to_get_it(
    syntax: uid.UID, missing: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = dicom_pixels.find_spec
    monkeypatch.setattr(dicom_pixels, "find_spec", lambda name: None if name == missing else found(name))
    ds = dataset(noise(12))
    ds.file_meta.TransferSyntaxUID = syntax
    ds.PixelData = encapsulate([b"ab"])
    ds["PixelData"].is_undefined_length = True
    ds.save_as(tmp_path / "a")
    with pytest.raises(io.UnreadableImage, match=rf"which {package} decodes: pip install 'loligo\[dicom\]'"):
        io.read(tmp_path / "a")


def test_another_transfer_syntax_is_named(tmp_path: Path) -> None:
    ds = dataset(noise(12))
    ds.file_meta.TransferSyntaxUID = uid.MPEG2MPML
    ds.PixelData = encapsulate([b"ab"])
    ds["PixelData"].is_undefined_length = True
    ds.save_as(tmp_path / "a")
    with pytest.raises(
        io.UnreadableImage, match=r"\(0002,0010\) is MPEG2 Main Profile / Main Level, which is not read"
    ):
        io.read(tmp_path / "a")
