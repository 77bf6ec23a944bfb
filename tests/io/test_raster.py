import struct
import time
import tracemalloc
import zlib

import numpy as np
import PIL.Image
import PIL.ImageFile
import pytest

from loligo import io
from loligo.io import raster


def noise(height=20, width=30, dtype=np.uint8, channels=()):
    values = np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, (height, width, *channels))
    return values.astype(dtype)


def png(width, height, depth, colour_type, rows=b""):
    """Write a PNG by hand: Pillow cannot write all that it may be given to read."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def refuse(path, match):
    with pytest.raises(io.UnreadableImage, match=match) as caught:
        io.read(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".TIFF"])
def test_8_bit_grey_is_divided_by_255(tmp_path, suffix):
    values, path = noise(), tmp_path / f"a{suffix}"
    PIL.Image.fromarray(values).save(path)
    image = io.read(path)
    assert (image.pixels.dtype, image.pixels.shape) == (np.float32, (1, 20, 30))
    assert (image.source, image.spacing) == (path, None)
    np.testing.assert_array_equal(image.pixels[0], values.astype(np.float32) / 255)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_grey_keeps_all_its_levels(tmp_path, suffix):
    values, path = noise(dtype=np.uint16), tmp_path / f"a{suffix}"
    PIL.Image.fromarray(values).save(path)
    np.testing.assert_array_equal(np.rint(io.read(path).pixels[0] * 65535), values)


def test_16_bit_tiff_whose_zero_is_white_is_inverted(tmp_path):
    values, path = noise(dtype=np.uint16), tmp_path / "a.tif"
    PIL.Image.fromarray(values).save(path, tiffinfo={262: 0})
    with PIL.Image.open(path) as opened:
        assert opened.tag_v2[262] == 0
    np.testing.assert_array_equal(np.rint(io.read(path).pixels[0] * 65535), 65535 - values.astype(int))


def test_one_bit_is_black_and_white(tmp_path):
    PIL.Image.fromarray(noise() > 127).save(tmp_path / "a.png")
    np.testing.assert_array_equal(io.read(tmp_path / "a.png").pixels[0], noise() > 127)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P"])
def test_equal_channels_are_folded(tmp_path, mode):
    grey = PIL.Image.fromarray(noise())
    grey.convert(mode).save(tmp_path / "a.png")
    np.testing.assert_array_equal(io.read(tmp_path / "a.png").pixels, io_grey(grey))


def io_grey(image):
    return np.asarray(image, np.float32)[None] / 255


def test_grey_jpeg_with_three_channels_may_differ_by_two_levels(tmp_path):
    path = tmp_path / "a.jpg"
    PIL.Image.fromarray(np.full((16, 16, 3), (100, 100, 102), np.uint8)).save(path, quality=100)
    with PIL.Image.open(path) as opened:
        assert np.ptp(np.asarray(opened), axis=2).max() in (1, 2)
    assert io.read(path).pixels.shape == (1, 16, 16)
    PIL.Image.fromarray(np.full((16, 16, 3), (100, 100, 102), np.uint8)).save(tmp_path / "a.png")
    refuse(tmp_path / "a.png", "in colour .channels differ by 2 of 255, allowed 0")


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_colour_photo_is_refused(tmp_path, suffix):
    PIL.Image.fromarray(noise(channels=(3,))).save(tmp_path / f"a{suffix}")
    refuse(tmp_path / f"a{suffix}", "is in colour .*convert it to grey")


def test_coloured_palette_is_refused(tmp_path):
    PIL.Image.fromarray(noise(channels=(3,))).quantize(8).save(tmp_path / "a.png")
    refuse(tmp_path / "a.png", "is in colour")


def test_transparency_is_refused(tmp_path):
    image = PIL.Image.fromarray(noise()).convert("LA")
    image.putpixel((0, 0), (9, 254))
    image.save(tmp_path / "a.png")
    refuse(tmp_path / "a.png", "partly transparent")


def test_deep_grey_with_a_transparent_value_is_refused(tmp_path):
    PIL.Image.fromarray(noise(dtype=np.uint16)).save(tmp_path / "a.png", transparency=5)
    refuse(tmp_path / "a.png", "16-bit grey with a transparent value")


def test_16_bit_channels_that_would_lose_precision_are_refused(tmp_path):
    values = np.repeat(noise(dtype=np.uint16)[..., None], 3, 2).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    (tmp_path / "a.png").write_bytes(png(30, 20, 16, 2, rows))
    refuse(tmp_path / "a.png", "16-bit pixels that are not one unsigned grey channel")


@pytest.mark.parametrize("value", [0.5, np.nan])
def test_float_pixels_are_refused(tmp_path, value):
    PIL.Image.fromarray(np.full((4, 4), value, np.float32)).save(tmp_path / "a.tif")
    refuse(tmp_path / "a.tif", "mode F have no grey range")


def test_32_bit_pixels_are_refused(tmp_path):
    PIL.Image.fromarray(np.full((4, 4), 70000, np.int32)).save(tmp_path / "a.tif")
    refuse(tmp_path / "a.tif", "mode I have no grey range")


@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_several_frames_are_refused(tmp_path, suffix):
    frames = [PIL.Image.fromarray(noise()), PIL.Image.fromarray(255 - noise())]
    frames[0].save(tmp_path / f"a{suffix}", save_all=True, append_images=frames[1:])
    refuse(tmp_path / f"a{suffix}", "holds several frames where one is allowed")


@pytest.mark.parametrize("suffix", [".tif", ".png"])
@pytest.mark.parametrize(
    ("orientation", "upright"),
    [(3, lambda a: np.rot90(a, 2)), (5, np.transpose), (6, lambda a: np.rot90(a, -1)), (8, np.rot90)],
)
def test_exif_orientation_is_respected(tmp_path, suffix, orientation, upright):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    PIL.Image.fromarray(noise()).save(tmp_path / f"a{suffix}", exif=exif)
    np.testing.assert_array_equal(io.read(tmp_path / f"a{suffix}").pixels[0], upright(noise() / np.float32(255)))


def test_60000_by_60000_is_refused_by_its_header(tmp_path):
    (tmp_path / "a.png").write_bytes(png(60000, 60000, 8, 0))
    refuse(tmp_path / "a.png", "more than 80,000,000 pixels")


@pytest.mark.parametrize("side", [9000, 10000])
def test_limit_lies_below_pillows_own(tmp_path, side, recwarn):
    (tmp_path / "a.png").write_bytes(png(side, side, 8, 0))
    refuse(tmp_path / "a.png", f"{side} x {side} is more than 80,000,000 pixels")
    assert raster.MAX_PIXELS < PIL.Image.MAX_IMAGE_PIXELS


def test_broken_files_are_refused(tmp_path):
    (tmp_path / "text.png").write_text("not an image")
    refuse(tmp_path / "text.png", "its content is text or CSV, not DICOM, PNG, JPEG, BMP, TIFF or NIfTI; leave it out")
    (tmp_path / "zero.jpg").touch()
    refuse(tmp_path / "zero.jpg", "it is empty, 0 bytes")
    refuse(tmp_path / "absent.png", "No such file")
    (tmp_path / "folder.png").mkdir()
    refuse(tmp_path / "folder.png", "is a folder, not a regular file")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_truncated_files_are_refused(tmp_path, suffix, part):
    path = tmp_path / f"a{suffix}"
    PIL.Image.fromarray(noise(64, 64)).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    refuse(path, ".")


def test_truncated_files_are_refused_whatever_another_library_told_pillow(tmp_path, monkeypatch):
    monkeypatch.setattr(PIL.ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    path = tmp_path / "cut.jpg"
    PIL.Image.fromarray(noise(64, 64)).save(path)
    path.write_bytes(path.read_bytes()[:-800])
    refuse(path, "is cut short")


def test_one_side_is_bounded_however_narrow_an_image_is(tmp_path):
    (tmp_path / "a.png").write_bytes(png(80_000_000, 1, 8, 0, bytes(1000)))
    refuse(tmp_path / "a.png", "80000000 x 1 has a side of more than 65,536 pixels; crop it")


def test_a_jpeg_of_few_bytes_is_not_filled_up(tmp_path):
    path = tmp_path / "a.jpg"
    PIL.Image.fromarray(noise(64, 64)).save(path)
    raw = bytearray(path.read_bytes())
    start = raw.index(b"\xff\xc0") + 5
    raw[start : start + 4] = struct.pack(">HH", 8000, 9900)
    path.write_bytes(raw)
    refuse(path, "claims 9900 x 8000 pixels in [0-9]+ bytes; it is cut short")
    PIL.Image.fromarray(np.zeros((4000, 4000), np.uint8)).save(path, quality=1, optimize=True)
    assert io.read(path).pixels.shape == (1, 4000, 4000)


def test_counting_frames_does_not_take_the_square_of_their_number(tmp_path):
    directory = struct.pack("<H", 1) + struct.pack("<HHII", 256, 3, 1, 1)  # width 1
    raw = b"II*\0" + struct.pack("<I", 8)
    for i in range(20_000):
        raw += directory + struct.pack("<I", 8 + (i + 1) * 18 if i < 19_999 else 0)
    (tmp_path / "a.tif").write_bytes(raw)
    begin = time.process_time()
    refuse(tmp_path / "a.tif", ".")
    assert time.process_time() - begin < 2


def test_a_large_palette_takes_no_more_memory_than_its_pixels(tmp_path):
    pixels = np.zeros((3000, 2000), np.uint8)
    pixels[5, 7] = 1
    image = PIL.Image.fromarray(pixels).convert("P")
    image.putpalette([0, 0, 0, 200, 200, 200])
    image.save(tmp_path / "a.png")
    tracemalloc.start()
    grey = io.read(tmp_path / "a.png").pixels
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert grey[0, 5, 7] == np.float32(200) / np.float32(255) and np.count_nonzero(grey) == 1
    assert peak < 9 * pixels.size
    assert io.reader(tmp_path / "a.png").weigh(tmp_path / "a.png") > peak


def test_run_length_code_is_bounded_and_read_below(tmp_path):
    def bitmap(width, height, codes):
        head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(codes), 0, 0, 256, 256)
        colours = bytes(v for i in range(256) for v in (i, i, i, 0))
        return b"BM" + struct.pack("<IHHI", 1078 + len(codes), 0, 0, 1078) + head + colours + codes

    path = tmp_path / "a.bmp"
    path.write_bytes(bitmap(60_000, 1_000, b"\0\0" * 1000))
    refuse(path, "60000 x 1000 pixels in run-length code; save it as PNG")
    path.write_bytes(bitmap(8, 2, b"\x08\x07\0\0\x08\xff\0\x01"))
    np.testing.assert_array_equal(io.read(path).pixels[0] * 255, [[255] * 8, [7] * 8])
    path.write_bytes(bitmap(8, 2, b"\x08\x07\0\0"))
    refuse(path, "is cut short")


def test_a_mask_of_a_palette_is_read_by_its_numbers(tmp_path):
    numbers = np.array([[0, 1, 2, 255]], np.uint8)
    image = PIL.Image.fromarray(numbers).convert("P")
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 0, 0] + [0] * 756 + [224, 224, 192])
    image.save(tmp_path / "a.png")
    assert raster.read_labels(tmp_path / "a.png").tolist() == [[False, True, True, True]]
    image.putpalette([255, 255, 255, 0, 0, 0] + [9] * 762)  # grey: what is black is unmarked
    image.save(tmp_path / "a.png")
    assert raster.read_labels(tmp_path / "a.png").tolist() == [[True, False, True, True]]
    image.putpalette([250, 255, 255, 128, 0, 0] + [0] * 762)
    image.save(tmp_path / "a.png")
    with pytest.raises(io.UnreadableImage, match=r"its colour number 0 is \(250, 255, 255\), not black"):
        raster.read_labels(tmp_path / "a.png")


@pytest.mark.parametrize(("name", "options"), [("a.png", {"format": "JPEG"}), ("a.tif", {"compression": "jpeg"})])
def test_a_mask_is_no_jpeg_whatever_its_name(tmp_path, name, options):
    PIL.Image.fromarray(noise()).save(tmp_path / name, **options)
    with pytest.raises(io.UnreadableImage, match="a mask cannot be JPEG, which blurs its edges; save it as PNG"):
        raster.read_labels(tmp_path / name)
