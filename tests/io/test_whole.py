"""Files of which pixels are missing, though Pillow reads them without a word; whole files of all kinds are read."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from test_raster import refuse

from loligo.io import load, whole

KINDS: list[dict[str, Any]] = [
    {},
    {"progressive": True},
    {"optimize": True},
    {"restart_marker_blocks": 3},
    {"restart_marker_rows": 1, "progressive": True},
]


def picture(height: int = 120, width: int = 91, bottom: int = 0) -> np.ndarray:
    """Draw a bright spot whose lower third has one grey level."""
    rows, columns = np.mgrid[:height, :width] / height
    grey = 255 * np.exp(-8 * ((columns - 0.4) ** 2 + (rows - 0.4) ** 2)) + np.random.default_rng(0).normal(
        0, 2, rows.shape
    )
    grey[-height // 3 :] = bottom
    return np.clip(grey, 0, 255).astype(np.uint8)


def jpeg(pixels: np.ndarray, **options: Any) -> bytes:
    PIL.Image.fromarray(pixels).save(stream := io.BytesIO(), "JPEG", **options)
    return stream.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(pixels: np.ndarray, rows: int, interlaced: int = 0, split: int = 1) -> bytes:
    """Write 8-bit grey with fewer rows than its header says, in so many chunks."""
    raw = zlib.compress(b"".join(b"\0" + row.tobytes() for row in pixels[:rows]))
    head = struct.pack(">IIBBBBB", *pixels.shape[::-1], 8, 0, 0, 0, interlaced)
    parts = [chunk(b"IDAT", bytes(part)) for part in np.array_split(np.frombuffer(raw, np.uint8), split)]
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + b"".join(parts) + chunk(b"IEND", b"")


@pytest.mark.parametrize("split", [1, 7])
def test_a_png_with_too_few_rows_is_cut_short(tmp_path: Path, split: int) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(picture(), 120, split=split))
    np.testing.assert_array_equal(np.rint(load(path).pixels[0] * 255), picture())
    for rows in (1, 119):
        path.write_bytes(png(picture(), rows, split=split))
        refuse(path, f"is cut short: it holds {rows * 92:,} of {120 * 92:,} bytes of pixels")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("size", [(1, 1), (9, 5), (64, 33)])
def test_whole_pngs_of_all_kinds_lack_nothing(mode: str, size: tuple[int, int]) -> None:
    grey = PIL.Image.fromarray(picture(*size))
    made = PIL.Image.fromarray(picture(*size).astype(np.uint16) * 257) if mode == "I;16" else grey.convert(mode)
    made.save(stream := io.BytesIO(), "PNG")
    assert whole.missing(stream.getvalue(), opened(stream.getvalue())) == ""


def test_rows_of_an_interlaced_png_are_counted(tmp_path: Path) -> None:
    """Of 9 x 5 pixels the seven passes hold 2, 1, 3, 4, 5, 12 and 18, in 1 + 1 + 1 + 2 + 1 + 3 + 2 rows of 1 more."""
    head = struct.pack(">IIBBBBB", 9, 5, 8, 0, 0, 0, 1)
    for held, said in ((45 + 11, ""), (45 + 11 - 1, "is cut short")):
        raw = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(held))) + chunk(b"IEND", b"")
        (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + raw)
        if said:
            refuse(tmp_path / "a.png", said)
        else:
            assert load(tmp_path / "a.png").pixels.shape == (1, 5, 9)


def test_a_png_whose_checksum_fails_is_damaged(tmp_path: Path) -> None:
    raw = zlib.compress(b"".join(b"\0" + row.tobytes() for row in picture()))
    head = struct.pack(">IIBBBBB", 91, 120, 8, 0, 0, 0, 0)
    broken = raw[:-4] + bytes(4)
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", broken) + chunk(b"IEND", b"")
    )
    refuse(tmp_path / "a.png", "is damaged: its pixels fail their checksum|cannot be decoded")


def opened(data: bytes) -> PIL.Image.Image:
    image = PIL.Image.open(io.BytesIO(data))
    image.load()
    return image


@pytest.mark.parametrize("options", KINDS)
@pytest.mark.parametrize("bottom", [0, 128])
def test_a_jpeg_with_an_early_end_is_cut_short_and_a_whole_one_is_not(options: dict[str, Any], bottom: int) -> None:
    data = jpeg(picture(bottom=bottom), **options)
    assert whole.missing(data, opened(data)) == ""
    first = data.index(b"\xff\xda") + 20
    for place in np.linspace(first, len(data) - 12, 25).astype(int):
        cut = data[:place].rstrip(b"\xff") + b"\xff\xd9"
        try:
            found = opened(cut)
        except OSError:  # Pillow notices itself where a scan's own header is cut
            continue
        if np.array_equal(found, opened(data)):
            continue  # the grey that is filled in is that of the picture
        assert "is cut short" in whole.missing(cut, opened(cut)), place


@pytest.mark.parametrize("options", [{"quality": q, "subsampling": s} for q in (1, 95) for s in (0, 2)])
def test_whole_jpegs_of_three_channels_and_odd_sizes_lack_nothing(options: dict[str, Any]) -> None:
    for height, width in ((1, 1), (7, 30), (17, 16)):
        for grey in (picture(height, width), np.full((height, width), 128, np.uint8)):
            for more in KINDS:
                data = jpeg(np.repeat(grey[..., None], 3, 2), **options, **more)
                assert whole.missing(data, opened(data)) == ""


def test_what_follows_the_end_of_a_jpeg_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg(picture()) + bytes(5000) + b"\xff\xda\xff\xd9 a camera's own")
    assert load(tmp_path / "a.jpg").pixels.shape == (1, 120, 91)


def test_a_progressive_jpeg_without_its_last_scans_is_cut_short(tmp_path: Path) -> None:
    data = jpeg(picture(), progressive=True)
    (tmp_path / "a.jpg").write_bytes(data[: data.rindex(b"\xff\xda")] + b"\xff\xd9")
    refuse(tmp_path / "a.jpg", "is cut short")


@pytest.mark.parametrize("options", KINDS[:4])
def test_zeros_in_the_codes_of_a_jpeg_are_damage(tmp_path: Path, options: dict[str, Any]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 200), np.uint8)
    data = bytearray(jpeg(noise, **options))
    middle = data.index(b"\xff\xda") + (len(data) - data.index(b"\xff\xda")) // 2
    data[middle : middle + 700] = bytes(700)
    (tmp_path / "a.jpg").write_bytes(data)
    refuse(tmp_path / "a.jpg", "is damaged: 70[0-9] zero bytes stand where pixels should|cannot be decoded")
    data[middle:] = bytes(len(data) - middle)
    (tmp_path / "a.jpg").write_bytes(data)
    refuse(tmp_path / "a.jpg", "zero bytes stand where pixels should|is cut short")


def test_zeros_of_a_flat_jpeg_are_its_pixels(tmp_path: Path) -> None:
    data = jpeg(np.full((2000, 2000), 60, np.uint8), optimize=True)
    assert bytes(1000) in data
    (tmp_path / "a.jpg").write_bytes(data)
    assert np.ptp(load(tmp_path / "a.jpg").pixels) == 0


@pytest.mark.parametrize("suffix", [".bmp", ".tif"])
def test_blocks_that_an_interrupted_copy_left_out_are_damage_and_black_pixels_are_not(
    tmp_path: Path, suffix: str
) -> None:
    path, pixels = tmp_path / f"a{suffix}", np.random.default_rng(0).integers(1, 256, (200, 211), np.uint8)
    PIL.Image.fromarray(pixels).save(path)
    data = bytearray(path.read_bytes())
    for begin, end in ((8192, 16384), (16384, len(data))):
        path.write_bytes(data[:begin] + bytes(end - begin) + data[end:])
        refuse(path, f"is damaged: .* zero bytes from byte {begin:,} on, as of an interrupted copy")
    pixels[:60] = 0
    pixels[-60:] = 0
    PIL.Image.fromarray(pixels).save(path)
    assert load(path).pixels[0, :60].max() == 0


def test_tiff_strips_beyond_the_end_are_missing(tmp_path: Path) -> None:
    for compression in (None, "tiff_lzw", "tiff_adobe_deflate"):
        path = tmp_path / "a.tif"
        PIL.Image.fromarray(picture(300, 300)).save(path, compression=compression)
        data = bytearray(path.read_bytes())
        (directory,) = struct.unpack_from("<I", data, 4)
        (entries,) = struct.unpack_from("<H", data, directory)
        for place in range(directory + 2, directory + 2 + 12 * entries, 12):
            tag, _, count, value = struct.unpack_from("<HHII", data, place)
            if tag == 273:  # StripOffsets
                struct.pack_into("<I", data, place + 8 if count == 1 else value + 4 * (count - 1), len(data) - 9)
        path.write_bytes(data)
        refuse(path, "is cut short")


def test_scans_of_a_jpeg_are_bounded(tmp_path: Path) -> None:
    data = jpeg(picture(), progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    (tmp_path / "a.jpg").write_bytes(data[:-2] + 1000 * last + b"\xff\xd9")
    refuse(tmp_path / "a.jpg", r"has 1,00[0-9] scans where 50 are allowed; save it anew")
