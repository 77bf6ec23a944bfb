"""Readers chosen by content: what each kind of file is called, and what is refused before it is opened."""

from __future__ import annotations

import gzip
import io as streams
import os
import socket
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import PIL.Image
import pytest

from loligo import io
from loligo.types import Image, Volume

READABLE = "DICOM, PNG, JPEG, BMP, TIFF or NIfTI"
GREY = PIL.Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))


def packed(kind: str) -> bytes:
    stream = streams.BytesIO()
    GREY.save(stream, kind)
    return stream.getvalue()


def zipped() -> bytes:
    stream = streams.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a.txt", "a")
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF"])
@pytest.mark.parametrize("name", ["scan", "IM000001.dcm", "a.nii.gz"])
def test_an_image_is_told_by_its_content_whatever_its_name(tmp_path: Path, kind: str, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(packed(kind))
    assert io.kind(path) == "image"
    assert isinstance(io.load(path), Image)
    assert io.read(path).pixels.shape == (1, 8, 8)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_volume_is_told_by_its_content(tmp_path: Path, kind: type, pack: type, order: str) -> None:
    header = kind.header_class(endianness=order)
    image = kind(np.ones((2, 3, 4), np.float32), np.eye(4), header)
    image.set_sform(np.eye(4), 1)
    path = tmp_path / "scan"
    path.write_bytes(pack(image.to_bytes()))
    assert io.kind(path) == "volume"
    assert isinstance(io.load(path), Volume)
    with pytest.raises(io.UnreadableImage, match=r"scan: is a volume \(NIfTI\) where an image is needed"):
        io.read(path)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"%PDF-1.7\n%\xe2\xe3", "PDF"),
        (packed("GIF"), "GIF"),
        (packed("WEBP"), "WebP"),
        (packed("JPEG2000"), "JPEG 2000"),
        (zipped(), "zip, or an office document"),
        (gzip.compress(b"abc", mtime=0), "gzip of something else"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1" + bytes(99), "an old office document or Windows thumbnails"),
        (b"  <!DOCTYPE html><p>", "HTML"),
        (b"<?xml version='1.0'?><a/>", "XML"),
        (b"path,split\na.png,train\n", "text or CSV"),
        (b"BMI,age\n21,30\n" * 9, "text or CSV"),
        ("Übersicht ü".encode() * 900, "text or CSV"),
        (b"\x93NUMPY\x01\x00", "a NumPy array"),
    ],
)
def test_foreign_content_is_named_with_what_can_be_read_and_what_to_do(
    tmp_path: Path, content: bytes, name: str
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(io.UnreadableImage, match=rf"a\.png: its content is {name}, not {READABLE}; [a-z]+ ") as caught:
        io.kind(path)
    for read in (io.read, io.load):
        with pytest.raises(io.UnreadableImage) as again:
            read(path)
        assert str(again.value) == str(caught.value)
    assert io.describe(path) == name


@pytest.mark.parametrize("content", [b"\x00\x01\x02\xff" * 40, b"\xff", b"\x1f\x8b", b"caf\xe9 " * 900])
def test_unknown_content_is_refused_too(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(io.UnreadableImage, match=f"its content is .*not {READABLE}"):
        io.kind(tmp_path / "a")


def irregular(folder: Path, kind: str) -> Path:
    path = folder / "a.png"
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a link to a pipe":
        os.mkfifo(folder / "pipe")
        path.symlink_to(folder / "pipe")
    elif kind == "a device":
        path.symlink_to("/dev/zero")
    elif kind == "a socket":
        with socket.socket(socket.AF_UNIX) as own:
            own.bind(str(path))
    else:
        path.mkdir()
    return path


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
@pytest.mark.parametrize("kind", ["a pipe", "a link to a pipe", "a device", "a socket", "a folder"])
def test_what_is_no_regular_file_is_refused_before_it_is_opened(kind: str, tmp_path: Path) -> None:
    path = irregular(tmp_path, kind)
    for read in (io.kind, io.read, io.load):
        with pytest.raises(io.UnreadableImage, match=rf"a\.png: is {kind.removeprefix('a link to ')}.*regular file"):
            read(path)
    assert io.describe(path) == "unreadable"


def test_a_name_that_no_file_can_have_is_refused() -> None:
    with pytest.raises(io.UnreadableImage, match=r"cannot be read \(embedded null byte"):
        io.kind(Path("a\0b.png"))
