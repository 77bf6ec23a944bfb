"""Geometry: the pixels of before, and maps that come back to where their pixels came from."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from loligo.data.preprocessing import Preprocessing, resized_mask
from loligo.io import planes
from loligo.types import Image, Volume, VolumeHeader

SHAPES = [(100, 60), (60, 100), (20, 13), (13, 20), (48, 48), (200, 31), (37, 300)]
ASPECTS = ["squash", "pad"]


def image(shape: tuple[int, ...], seed: int = 0) -> Image:
    return Image(np.random.default_rng(seed).random((1, *shape), np.float32), spacing=(0.2, 0.3))


def volume(voxels: np.ndarray) -> Volume:
    names = [field.name for field in fields(VolumeHeader)]
    known = dict.fromkeys(names) | {"source": Path("a.nii"), "shape": voxels.shape, "spacing": (1.0, 1.0, 1.0)}
    return Volume(**known, voxels=voxels.astype(np.float32))


@pytest.mark.parametrize("shape", SHAPES)
def test_squashing_gives_the_levels_of_pillow_in_float32(shape: tuple[int, int]) -> None:
    given = image(shape)
    plain = PIL.Image.fromarray(given.pixels[0]).resize((48, 48), PIL.Image.Resampling.BILINEAR)
    expected = np.rint(np.clip(np.asarray(plain), 0, 1) * 65535).astype("<u2")
    found = Preprocessing(48).image(given)
    assert (found.dtype, found.shape) == (np.uint16, (1, 1, 48, 48))
    np.testing.assert_array_equal(found[0, 0], expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_padding_keeps_the_aspect_ratio_centred_on_black(shape: tuple[int, int]) -> None:
    white = Image(np.ones((1, *shape), np.float32))
    found = Preprocessing(48, "pad").image(white)[0, 0]
    rows, columns = np.flatnonzero(found.any(1)), np.flatnonzero(found.any(0))
    height, width = len(rows), len(columns)
    assert max(height, width) == 48
    assert abs(height / width - shape[0] / shape[1]) <= 0.5 / min(height, width) * max(shape) / min(shape)
    assert (found[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] == 65535).all()
    for inside in (rows, columns):
        assert abs(inside[0] - (47 - inside[-1])) <= 1


def peak(heat: np.ndarray) -> np.ndarray:
    """Return the centroid of what is hotter than half the maximum."""
    weights = np.where(heat > heat.max() / 2, heat, 0).astype(np.float64)
    return np.array([(weights * grid).sum() for grid in np.indices(heat.shape)]) / weights.sum()


@pytest.mark.parametrize("aspect", ASPECTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_planted_point_lands_where_it_was(shape: tuple[int, int], aspect: str) -> None:
    """Within half a pixel of the input, or of the network where that is coarser."""
    preprocessing = Preprocessing(48, aspect)
    longest = [max(shape)] * 2 if aspect == "pad" else shape
    allowed = np.maximum(0.5, 0.5 * np.array(longest) / 48)
    for place in [(n // 3, m // 2) for n, m in [shape]] + [(2 * shape[0] // 3, shape[1] // 4)]:
        pixels = np.zeros((1, *shape), np.float32)
        pixels[0, place[0], place[1]] = 1
        given = Image(pixels)
        seen = preprocessing.image(given)[0, 0].astype(np.float32)
        back = preprocessing.restore(seen, given.geometry)
        assert back.shape == shape and back.dtype == np.float32
        assert (np.abs(peak(back) - place) <= allowed).all()


@pytest.mark.parametrize("aspect", ASPECTS)
@pytest.mark.parametrize("shape", [(96, 60), (60, 96), (24, 15), (48, 48)])
def test_a_ramp_comes_back_exactly(shape: tuple[int, int], aspect: str) -> None:
    """By hand: pixel i of n lies at (i + 0.5) / n, so that a ramp over the network's pixels is one over the input's."""
    preprocessing = Preprocessing(48, aspect)
    seen = np.indices((48, 48), dtype=np.float32)
    given = image(shape)
    for axis in (0, 1):
        back = preprocessing.restore(seen[axis], given.geometry)
        side = shape[axis] * 48 / max(shape) if aspect == "pad" else 48  # whole for these shapes
        expected = (48 - side) // 2 + (np.arange(shape[axis]) + 0.5) * side / shape[axis] - 0.5
        expected = expected[:, None] if axis == 0 else expected[None]
        inside = (slice(2, -2),) * 2  # at the border there is nothing to interpolate with
        atol = 1e-4 if shape[axis] >= side else 0.05  # a triangle of 2 x 3.2 pixels is not quite balanced
        np.testing.assert_allclose(back[inside], np.broadcast_to(expected, shape)[inside], atol=atol)


@pytest.mark.parametrize("aspect", ASPECTS)
def test_what_has_the_size_of_the_network_comes_back_unchanged(aspect: str) -> None:
    given, preprocessing = image((48, 48)), Preprocessing(48, aspect)
    back = preprocessing.restore(preprocessing.image(given)[0, 0].astype(np.float32) / 65535, given.geometry)
    np.testing.assert_allclose(back, given.pixels[0], atol=1e-5)


@pytest.mark.parametrize("axis", planes.ORDER)
@pytest.mark.parametrize("aspect", ASPECTS)
def test_a_planted_voxel_lands_where_it_was(axis: str, aspect: str) -> None:
    shape, place = (30, 40, 22), (9, 27, 6)
    voxels = np.zeros(shape)
    voxels[place] = 1
    preprocessing = Preprocessing(32, aspect, axis=axis, window="unit")
    given = volume(voxels)
    seen = preprocessing.volume(given)
    slices = shape[planes.ORDER[axis][0]]
    assert (seen.dtype, seen.shape) == (np.uint16, (slices, 1, 32, 32))
    back = preprocessing.restore(seen[:, 0].astype(np.float32), given.geometry)
    assert back.shape == shape
    assert (np.abs(peak(back) - place) <= 0.5 * 40 / 32).all()
    across = planes.ORDER[axis][0]
    assert np.unravel_index(back.argmax(), shape)[across] == place[across]


def test_maps_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"maps have shape \(24, 24\), not \(48, 48\)"):
        Preprocessing(48).restore(np.zeros((24, 24), np.float32), image((9, 9)).geometry)
    given = volume(np.zeros((3, 4, 5)))
    with pytest.raises(ValueError, match=r"maps have shape \(4, 8, 8\), not \(5, 8, 8\)"):
        Preprocessing(8).restore(np.zeros((4, 8, 8), np.float32), given.geometry)


def test_what_is_no_grey_image_and_no_size_are_refused() -> None:
    with pytest.raises(ValueError, match="has 3 channels"):
        Preprocessing(8).image(Image(np.zeros((3, 4, 4), np.float32)))
    with pytest.raises(ValueError, match="size 0 is not a positive"):
        Preprocessing(0)


def test_another_spacing_is_refused() -> None:
    given = replace(volume(np.random.default_rng(0).random((4, 4, 4))), spacing=(1.0, 1.0, 2.5))
    assert Preprocessing(8, window="unit").volume(given).shape == (4, 1, 8, 8)
    with pytest.raises(ValueError, match=r"another spacing than 1 x 1 x 1 mm: a\.nii \(1 x 1 x 2\.5 mm"):
        Preprocessing(8, window="unit", spacing=(1, 1, 1)).volume(given)


@pytest.mark.parametrize("aspect", ASPECTS)
@pytest.mark.parametrize("shape", [(100, 60), (60, 100)])
def test_a_mask_goes_where_its_image_goes(shape: tuple[int, int], aspect: str) -> None:
    marked = np.zeros(shape, bool)
    marked[20:40, 10:50] = True
    preprocessing = Preprocessing(50, aspect)
    seen = preprocessing.image(Image(marked[None].astype(np.float32)))[0, 0] / 65535
    mask = preprocessing.mask(marked)
    assert mask.shape == (50, 50) and mask.dtype == bool
    assert (mask == (seen > 0.5)).mean() > 0.99
    tiny = np.zeros(shape, bool)
    tiny[33, 57] = True
    assert np.argwhere(preprocessing.mask(tiny)).shape == (1, 2)
    assert not preprocessing.mask(np.zeros(shape, bool)).any()


def test_a_mask_keeps_its_shape_and_never_vanishes() -> None:
    mask = np.zeros((40, 60), bool)
    mask[10:20, 30:45] = True
    np.testing.assert_array_equal(resized_mask(mask, (60, 40)), mask)
    small = resized_mask(mask, (12, 8))
    np.testing.assert_array_equal(np.argwhere(small), [(r, c) for r in (2, 3) for c in (6, 7, 8)])
    mask[:] = False
    assert not resized_mask(mask, (12, 8)).any()
    mask[33, 7] = True
    assert np.argwhere(resized_mask(mask, (12, 8))).tolist() == [[6, 1]]
