"""Warnings of an image by itself, in memory, through the cache and in a data set's parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import PIL.Image
import pytest

from conftest import anatomy
from loligo.data import cache, checks
from loligo.data.arrays import from_images
from loligo.data.preprocessing import Preprocessing
from loligo.types import Volume

GREY = np.round(anatomy(1, 64)[0, 0] / anatomy(1, 64).max() * 65535).astype(np.uint16)


def hot(pixels: np.ndarray, count: int) -> np.ndarray:
    changed = pixels.copy()
    changed.reshape(-1)[:count] = 65535
    return changed


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (GREY, ()),
        ((GREY >> 8).astype(np.uint8), ()),
        (GREY >> 4, ("narrow_range",)),  # 12 bit in 16
        (hot(GREY >> 4, 1), ("narrow_range",)),  # and a dead pixel
        (hot(GREY >> 4, 100), ("narrow_range",)),  # and a marker
        (np.where(np.indices((64, 64))[0] < 60, 0, GREY.max()).astype(np.uint16), ()),  # black but for a strip
        (np.zeros((64, 64), np.uint8), ("blank",)),
        (np.full((64, 64), 255, np.uint8), ("blank",)),
        (hot(np.full((64, 64), 300, np.uint16), 9), ("blank",)),
        (np.random.default_rng(0).integers(90, 93, (64, 64)).astype(np.uint8), ("blank",)),
        (np.full((1, 1), 7, np.uint8), ("blank", "tiny")),
        ((GREY[::8, ::8] >> 8).astype(np.uint8), ("tiny",)),
        (GREY[28:37, :], ("tiny",)),
    ],
)
def test_what_is_odd_about_an_image_is_named_in_memory_and_from_a_file_alike(
    pixels: np.ndarray, expected: tuple[str, ...], tmp_path: Path
) -> None:
    assert from_images([pixels], Preprocessing(64)).warnings == (expected,)
    PIL.Image.fromarray(pixels).save(tmp_path / "a.png")
    rows = pd.DataFrame({"path": [str(tmp_path / "a.png")]})
    for _ in range(2):  # decoded, then from the cache
        data = cache.load(rows, Preprocessing(64), folder=tmp_path / "cache", progress=False)
        assert data.warnings == (expected,)


def test_a_volume_has_no_range_of_its_file_but_may_be_blank_or_tiny() -> None:
    def of(voxels: np.ndarray, size: int) -> tuple[str, ...]:
        place = (voxels.shape, np.eye(4), (1.0, 1.0, 1.0), voxels.shape, ("R", "A", "S"), {})
        volume = Volume(Path("a.nii"), *place, voxels=voxels.astype(np.float32))  # type: ignore[arg-type]
        return from_images([volume], Preprocessing(size, window="unit")).warnings[0]

    dim = np.random.default_rng(0).random((20, 24, 6)) * 0.3
    assert of(dim, 64) == ()
    assert of(dim[:, :9], 64) == ("tiny",)
    assert of(np.where(np.arange(20)[:, None, None] == 3, 0.5, np.full((20, 24, 6), 0.503)), 64) == ("blank",)


def test_slices_of_air_hold_no_tissue() -> None:
    slices = np.zeros((6, 1, 32, 32), np.uint16)
    slices[1:4] = np.round(anatomy(3, 32) * 65535)
    slices[4] = np.random.default_rng(0).integers(0, 900, (32, 32))  # noise
    assert checks.tissue(slices) == (False, True, True, True, False, False)
    assert checks.tissue(slices[:1]) == (True,) and checks.tissue(slices[5:] + 7) == (True,)


def test_parts_of_a_data_set_keep_their_warnings_and_contents(tmp_path: Path) -> None:
    for name, pixels in {"a": GREY, "b": GREY >> 4, "c": 0 * GREY}.items():
        PIL.Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    paths = [tmp_path / f"{name}.png" for name in "abc"]
    data = from_images(paths, Preprocessing(16))
    assert data.contents == tuple(cache.wanted(str(path), Preprocessing(16), tmp_path).content for path in paths)
    part = data.subset([1, 2])
    assert part.warnings == (("narrow_range",), ("blank",)) and part.contents == data.contents[1:]
    assert from_images([GREY], Preprocessing(16)).contents == ("",)


def test_a_summary_counts_images() -> None:
    said = checks.summary([("narrow_range",), ("blank", "narrow_range"), (), ("narrow_range",)])
    assert said[0] == "1 of 4 training images: it shows nothing: nearly all of its pixels have one value"
    assert said[1].startswith("3 of 4 training images: each uses less than half of its file's range, as 12-bit")
    assert len(said) == 2 and checks.summary([(), ()]) == []


def test_warnings_are_joined_in_one_order() -> None:
    assert checks.ordered(("copy", "blank"), ("tiny", "copy")) == ("blank", "tiny", "copy")
    assert set(checks.WARNINGS) == {
        "narrow_range", "other_range", "blank", "tiny", "inverted", "copy", "seen_in_training", "unlike_training",
        "extent", "no_window", "out_of_scope", "other_view", "other_body_part", "other_age"}  # fmt: skip
    assert all(said.startswith("The image ") and said.endswith(".") for said in checks.WARNINGS.values())
