"""Grey of radiographs: against the formulae by hand, pydicom's functions, and dcmtk's renderer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from pydicom.pixels import apply_modality_lut, apply_voi, apply_windowing

from dicom_files import dataset, lut, tool, write
from loligo import io

RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)


def grey(path: Path, stored: np.ndarray = RAMP, bits: int = 12, voi: int = 1, **tags: Any) -> np.ndarray:
    image = io.read(write(path / "a", stored, bits, **tags), voi)
    assert image.pixels.dtype == np.float32 and image.pixels.shape == (1, *stored.shape)
    return image.pixels[0]


def test_a_linear_window_by_hand(tmp_path: Path) -> None:
    """C.11.2.1.2.1: centre 2048, width 4096 maps 0 to 0 and 4095 to 1; width 1 is a threshold."""
    found = grey(tmp_path, WindowCenter=2048, WindowWidth=4096)
    np.testing.assert_allclose(found.ravel(), np.arange(4096) / 4095, atol=1e-7)
    found = grey(tmp_path, WindowCenter=100, WindowWidth=1).ravel()
    assert found[99] == 0 and found[100] == 1


def test_linear_exact_and_sigmoid_by_hand(tmp_path: Path) -> None:
    window = {"WindowCenter": 1000, "WindowWidth": 500}
    exact = grey(tmp_path, VOILUTFunction="LINEAR_EXACT", **window).ravel()
    np.testing.assert_allclose(exact[[0, 750, 1000, 1125, 1250, 4095]], [0, 0, 0.5, 0.75, 1, 1], atol=1e-7)
    curve = grey(tmp_path, VOILUTFunction="SIGMOID", **window).ravel()
    np.testing.assert_allclose(curve[[500, 1000, 1250]], 1 / (1 + np.exp([4.0, 0, -2])), rtol=1e-6)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("signed", [False, True])
def test_windows_agree_with_pydicom(function: str, signed: bool, tmp_path: Path) -> None:
    stored = (RAMP.astype(np.int16) - 2048) if signed else RAMP
    tags = {"WindowCenter": 40.5, "WindowWidth": 700, "RescaleSlope": 0.5, "RescaleIntercept": -100}
    tags["VOILUTFunction"] = function
    ds = dataset(stored, **tags)
    shown = apply_windowing(apply_modality_lut(stored, ds), ds)
    low, high = (apply_modality_lut(np.array([end]), ds)[0] for end in ((-2048, 2047) if signed else (0, 4095)))
    np.testing.assert_allclose(grey(tmp_path, stored, **tags), (shown - low) / (high - low), atol=1e-6)


@pytest.mark.parametrize("first", [0, 500, -300])
def test_voi_luts_agree_with_pydicom(first: int, tmp_path: Path) -> None:
    entries = np.random.default_rng(0).integers(0, 1 << 14, 2000)
    signed = first < 0
    stored = (RAMP.astype(np.int16) - 2048) if signed else RAMP
    tags = {"VOILUTSequence": [lut(first, entries, 14)]}
    expected = apply_voi(stored, dataset(stored, **tags)) / (2.0**14 - 1)
    np.testing.assert_allclose(grey(tmp_path, stored, **tags), expected, atol=1e-6)


def test_a_modality_lut_takes_the_place_of_the_rescale(tmp_path: Path) -> None:
    entries = np.random.default_rng(1).integers(0, 1 << 10, 4096)
    tags = {"ModalityLUTSequence": [lut(0, entries, 10)], "RescaleSlope": 7}
    found = grey(tmp_path, **tags)
    np.testing.assert_allclose(found.ravel(), entries / 1023, atol=1e-6)


def test_a_modality_lut_agrees_with_pydicom(tmp_path: Path) -> None:
    entries = np.random.default_rng(1).integers(0, 1 << 16, 3000)
    tags = {"ModalityLUTSequence": [lut(200, entries, 16)]}
    np.testing.assert_allclose(
        grey(tmp_path, **tags), apply_modality_lut(RAMP, dataset(RAMP, **tags)) / 65535, atol=1e-6
    )


def test_a_lut_of_8_bits_may_lie_two_entries_in_a_word(tmp_path: Path) -> None:
    entries = np.arange(255, -1, -1, dtype=np.uint8)
    item = lut(0, entries, 8)
    item[0x00283006].value = entries.tobytes()
    stored = np.arange(256, dtype=np.uint8).reshape(16, 16)
    found = grey(tmp_path, stored, 8, VOILUTSequence=[item])
    np.testing.assert_allclose(found.ravel(), entries / 255, atol=1e-7)


def test_luts_and_windows_are_chosen_by_number(tmp_path: Path) -> None:
    tags = {"VOILUTSequence": [lut(0, np.full(4096, 77), 8)], "WindowCenter": [100, 3000], "WindowWidth": [1, 1]}
    assert (grey(tmp_path, voi=1, **tags) == np.float32(77 / 255)).all()
    assert [int(np.argmax(grey(tmp_path, voi=n, **tags))) for n in (2, 3)] == [100, 3000]
    np.testing.assert_allclose(grey(tmp_path, voi=0, **tags).ravel(), np.arange(4096) / 4095, atol=1e-7)
    with pytest.raises(io.UnreadableImage, match=r"has 3 VOI LUTs and windows, no number 4; 0 \(the full range\) to 3"):
        grey(tmp_path, voi=4, **tags)


@pytest.mark.parametrize("bits", [8, 10, 12, 15, 16])
@pytest.mark.parametrize("signed", [False, True])
def test_without_a_window_black_and_white_are_the_ends_of_what_may_be_stored(
    bits: int, signed: bool, tmp_path: Path
) -> None:
    low = -(1 << bits - 1) if signed else 0
    kind = ("i" if signed else "u") + ("1" if bits == 8 else "2")
    stored = np.linspace(low, low + (1 << bits) - 1, 256).astype(kind).reshape(16, 16)
    path = write(tmp_path / "a", stored, bits)
    image = io.read(path)
    assert image.remarks == ("no_window",) and io.read(path, 0).remarks == ()
    np.testing.assert_allclose(image.pixels[0], (stored.astype(float) - low) / ((1 << bits) - 1), atol=1e-7)


def test_a_falling_rescale_keeps_the_meaning_of_values(tmp_path: Path) -> None:
    found = grey(tmp_path, RescaleSlope=-1, RescaleIntercept=4095).ravel()
    assert found[0] == 1 and found[-1] == 0


def test_monochrome1_is_inverted_and_the_presentation_lut_agrees(tmp_path: Path) -> None:
    plain = grey(tmp_path)
    for shape in ({}, {"PresentationLUTShape": "INVERSE"}):
        np.testing.assert_allclose(
            grey(tmp_path, PhotometricInterpretation="MONOCHROME1", **shape), 1 - plain, atol=1e-7
        )
    np.testing.assert_array_equal(grey(tmp_path, PresentationLUTShape="IDENTITY"), plain)
    with pytest.raises(io.UnreadableImage, match=r"Presentation LUT Shape \(2050,0020\) is IDENTITY with MONOCHROME1"):
        grey(tmp_path, PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="IDENTITY")


@pytest.mark.parametrize("meaning", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_whatever_is_white(meaning: str, tmp_path: Path) -> None:
    tags = {"PhotometricInterpretation": meaning, "WindowCenter": 2000, "WindowWidth": 3000}
    plain = grey(tmp_path, **tags).ravel()
    found = grey(tmp_path, PixelPaddingValue=4095, **tags).ravel()
    assert found[4095] == 0 and (found[:4095] == plain[:4095]).all()
    found = grey(tmp_path, PixelPaddingValue=10, PixelPaddingRangeLimit=0, **tags).ravel()
    assert (found[:11] == 0).all() and (found[11:] == plain[11:]).all()


def test_signed_padding(tmp_path: Path) -> None:
    stored = RAMP.astype(np.int16) - 2048
    found = grey(tmp_path, stored, PhotometricInterpretation="MONOCHROME1", PixelPaddingValue=-2048)
    assert found.ravel()[0] == 0 and found.ravel()[1] > 0.99


def test_high_bits_beyond_those_stored_do_not_count(tmp_path: Path) -> None:
    dirt = np.random.default_rng(0).integers(0, 16, RAMP.shape, np.uint16) << 12
    np.testing.assert_array_equal(grey(tmp_path, RAMP | dirt), grey(tmp_path))
    signed = RAMP.astype(np.int16) - 2048
    dirty = ((signed.astype(np.uint16) & 0xFFF) | dirt).view(np.int16)
    np.testing.assert_array_equal(grey(tmp_path, dirty), grey(tmp_path, signed))


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"WindowCenter": 1, "WindowWidth": 0}, r"Window Width \(0028,1051\) is 0; 1 or more is allowed with LINEAR"),
        ({"WindowCenter": 1, "WindowWidth": 2, "VOILUTFunction": "CUBIC"}, r"\(0028,1056\) is CUBIC; LINEAR, LINEAR_"),
        ({"WindowCenter": [1, 2], "WindowWidth": 2}, r"has 2 of Window Center \(0028,1050\) and 1 of Window Width"),
        ({"RescaleSlope": 0}, r"Rescale Slope \(0028,1053\) is 0"),
        (
            {"PhotometricInterpretation": "PALETTE COLOR"},
            r"\(0028,0004\) is PALETTE COLOR; MONOCHROME1 and MONOCHROME2",
        ),
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, r"\(0028,0004\) is RGB; MONOCHROME1 and"),
        ({"VOILUTSequence": [lut(0, np.full(9, 300), 8)]}, r"highest entry, 300, is more than its 8 bits hold"),
        ({"HighBit": 15}, r"High Bit \(0028,0102\) is 15; 11 is allowed with 12 bits stored"),
        ({"BitsStored": 17}, r"Bits Stored \(0028,0101\) is 17; 1 to 16 are allowed"),
    ],
)
def test_what_makes_no_sense_is_refused_with_tag_value_and_what_is_allowed(
    tags: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(io.UnreadableImage, match=said):
        grey(tmp_path, **tags)


@pytest.mark.parametrize(
    ("tags", "option"),
    [
        ({"WindowCenter": 1800, "WindowWidth": 900}, ("+Wi", "1")),
        ({"WindowCenter": 1800, "WindowWidth": 900, "VOILUTFunction": "SIGMOID"}, ("+Wi", "1")),
        (
            {"WindowCenter": [9, 1700.5], "WindowWidth": [9, 1200], "RescaleSlope": 2, "RescaleIntercept": 0},
            ("+Wi", "2"),
        ),
        ({"VOILUTSequence": [lut(100, np.arange(0, 65536, 64) ** 2 // 65536, 16)]}, ("+Wl", "1")),
        ({}, ("-W",)),
    ],
)
@pytest.mark.parametrize("meaning", ["MONOCHROME1", "MONOCHROME2"])
def test_grey_is_that_of_dcmtk(tags: dict[str, Any], option: tuple[str, ...], meaning: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a", RAMP, PhotometricInterpretation=meaning, **tags)
    voi = {"+Wi": int(option[-1]) if option[-1].isdigit() else 1}.get(option[0], 1)
    tool("dcmj2pnm", "+on2", *(option if tags else ("+Ww", "2048", "4096")), path, tmp_path / "a.png")
    expected = np.asarray(PIL.Image.open(tmp_path / "a.png")).astype(float) / 65535
    np.testing.assert_allclose(io.read(path, voi).pixels[0], expected, atol=1.5 / 4095)
