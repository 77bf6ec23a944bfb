"""Data sets in memory: what counts as an image, how it is scaled, and that nothing is written."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import PIL.Image
import pytest
import torch

from loligo import io
from loligo.data import cache
from loligo.data.arrays import from_images
from loligo.data.preprocessing import Preprocessing
from loligo.types import Geometry, Image, VolumeHeader

P = Preprocessing(16)
NOISE = np.random.default_rng(0).random((3, 30, 20))


def brain(path: Path) -> Path:
    nib.save(nib.Nifti1Image(NOISE.transpose(1, 2, 0).astype(np.float32), np.eye(4)), path.with_suffix(".nii"))
    return path.with_suffix(".nii").rename(path)


def test_arrays_of_any_kind_are_one_image(tmp_path: Path) -> None:
    levels = np.rint(NOISE * 255).astype(np.uint8)
    PIL.Image.fromarray(levels[0]).save(tmp_path / "a.png")
    scaled = levels[0].astype(np.float64) / 255
    given = [levels[0], scaled, levels[0].astype(np.uint16) * 257, Image(scaled.astype(np.float32)[None])]
    given += [tmp_path / "a.png", str(tmp_path / "a.png"), torch.from_numpy(scaled)]
    data = from_images(given, P)
    assert len(data) == len(data.rows) == 7 and data.counts is None and data.rejected.empty
    assert data.batch(range(7)).shape == (7, 1, 16, 16)
    np.testing.assert_array_equal(data.pixels[:], np.repeat(data.pixels[:1], 7, 0))
    assert data.rows["path"].tolist() == [f"image {i}" for i in range(4)] + [str(tmp_path / "a.png")] * 2 + ["image 6"]
    assert data.geometries[0] == Geometry((30, 20))
    assert data.geometries[4] == Geometry((30, 20), source=tmp_path / "a.png")


def test_a_stack_is_many_images_and_an_array_is_one() -> None:
    assert len(from_images(NOISE, P)) == len(from_images(list(NOISE), P)) == len(from_images(NOISE[:, None], P)) == 3
    assert len(from_images(NOISE[0], P)) == 1
    assert len(from_images(NOISE > 0.5, P)) == 3
    np.testing.assert_array_equal(from_images(NOISE, P).pixels[:], from_images(list(NOISE), P).pixels[:])


def test_pixels_are_those_of_the_cache_and_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pandas as pd

    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path, image in zip(paths, NOISE, strict=True):
        PIL.Image.fromarray(np.rint(image * 65535).astype(np.uint16)).save(path)
    loaded = cache.load(pd.DataFrame({"path": map(str, paths)}), P, folder=tmp_path / "cache", progress=False)
    monkeypatch.setenv("LOLIGO_CACHE", str(tmp_path / "none"))
    before = sorted(os.walk(tmp_path))
    data = from_images(paths, P)
    np.testing.assert_array_equal(data.pixels[:], loaded.pixels[:])
    assert tuple(data.geometries) == tuple(loaded.geometries)
    assert sorted(os.walk(tmp_path)) == before


def test_volumes_are_their_slices(tmp_path: Path) -> None:
    path = brain(tmp_path / "a")
    position = Preprocessing(16, window="unit", position=True)
    data = from_images([path, io.load(path)], position)
    assert data.counts == (3, 3) and data.batch([0, 5]).shape == (2, 2, 16, 16)
    for geometry in data.geometries:
        assert type(geometry) is VolumeHeader and geometry.shape == (30, 20, 3) and geometry.source == path


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (NOISE[0] * 255, r"image 1: its values run from [\d.e-]+ to 254\.\d+; floats must lie in \[0, 1\]: divide"),
        (NOISE[0] - 0.5, r"image 1: its values run from -0\.\d+ to 0\.\d+; floats"),
        (np.where(NOISE[0] < 0.5, np.nan, NOISE[0]), r"image 1: \d+ of 600 values are NaN or infinite"),
        (np.zeros((4, 4), int), "image 1: its type is int64, which does not say what is white; give uint8"),
        (np.zeros((4, 4), object), "image 1: its type is object"),
        (np.zeros((2, 4, 4)), r"image 1: its shape is \(2, 4, 4\); give \(H, W\)"),
        (np.zeros((0, 4)), r"image 1: its shape is \(0, 4\)"),
        (np.zeros(4), r"image 1: its shape is \(4,\)"),
        (None, r"image 1: its shape is \(\)"),
        (Image(np.full((1, 4, 4), 2, np.float32)), "image 1: its values run from 2 to 2"),
        (Image(np.zeros((3, 4, 4), np.float32)), "image 1: .* has 3 channels"),
        ("nowhere.png", r"nowhere\.png: cannot be read \(No such file"),
    ],
)
def test_one_that_cannot_be_used_is_named(image: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_images([NOISE[0], image], P)


def test_no_images_a_wrong_stack_and_mixed_kinds_are_refused(tmp_path: Path) -> None:
    for none in ([], np.zeros((0, 4, 4))):
        with pytest.raises(ValueError, match="there are no images; give arrays"):
            from_images(none, P)
    with pytest.raises(ValueError, match=r"shape \(4,\) is neither an image \(H, W\) nor a stack"):
        from_images(np.zeros(4), P)
    with pytest.raises(ValueError, match=r"images \(image 1, \.\.\.\) and volumes \(.*brain, \.\.\.\) are mixed"):
        from_images([brain(tmp_path / "brain"), NOISE[0]], Preprocessing(16, window="unit"))
