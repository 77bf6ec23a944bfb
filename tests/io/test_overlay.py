"""Heat over an image: the image where it is cold, the colour where it is hot, outlines where the heat is."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from loligo.io import overlay as overlays
from loligo.io import regions
from loligo.io.overlay import OUTLINE, annotated, levels, overlay

GREY = np.full((240, 300), 100, np.uint8)


def mound(*places: tuple[float, float, float], shape: tuple[int, int] = (240, 300), width: float = 16) -> np.ndarray:
    """A map of smooth heat with its peaks at (row, column) and of such a height."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    heat = np.zeros(shape)
    for row, column, height in places:
        heat += height * np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * width**2))
    return heat.astype(np.float32)


def cyan(picture: np.ndarray) -> np.ndarray:
    return np.asarray((np.abs(picture.astype(int) - OUTLINE) < 40).all(axis=2))


def test_the_image_shows_where_it_is_cold_and_the_colour_where_it_is_hot() -> None:
    cold, typical, warm, hot, hotter = overlay(
        np.full((1, 5), 100, np.uint8), np.array([[-2, 0, 0.3, 1, 9]], np.float32)
    )[0]
    assert cold.tolist() == typical.tolist() == [100, 100, 100]  # as hot as normal images are: nothing is shown
    assert warm.tolist() != typical.tolist()
    assert hot[0] > 150 and hot[2] < hot[0] - 50 and hot.tolist() == hotter.tolist()


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_heat_is_seen_on_black_on_grey_and_on_white_and_the_image_through_it(grey: int) -> None:
    shown = overlay(np.array([[grey, grey]], np.uint8), np.array([[0.4, 1.0]], np.float32))[0].astype(int)
    assert (np.abs(shown - grey).max(axis=1) > (25, 50)).all()
    edge = overlay(np.array([[0, 255]], np.uint8), np.ones((1, 2), np.float32))[0].astype(int)
    assert (edge[1] - edge[0]).min() > 80


def test_levels_are_rounded_and_bounded() -> None:
    assert levels(np.array([-1, 0, 0.5, 1, 2], np.float32)).tolist() == [0, 0, 128, 255, 255]


def test_every_outline_lies_where_the_heat_is_and_every_number_in_its_own_region() -> None:
    heat = mound((60, 70, 3), (160, 220, 2), (40, 240, 1.6))
    hot = regions.find(heat)
    assert len(hot.regions) == 3
    picture = annotated(GREY, heat, hot)
    assert picture.shape == (240, 300, 3)
    for region in hot.regions:
        inside = np.asarray(Image.fromarray(region.mask).resize((300, 240), Image.Resampling.NEAREST))
        assert heat[inside].min() > 0.9 > heat[~inside].mean()
        row, column = int(region.at[0] * 240), int(region.at[1] * 300)
        assert inside[row, column] and heat[row, column] == pytest.approx(heat[inside].max(), rel=0.05)
        assert cyan(picture)[row - 6 : row + 7, column - 6 : column + 7].mean() > 0.4  # its disc
        for line in region.outline:
            at = (line * (240, 300)).astype(int).clip(0, (239, 299))
            np.testing.assert_allclose(heat[at[:, 0], at[:, 1]], 1, atol=0.15)


def test_the_inside_is_hatched_and_a_hole_is_not() -> None:
    rows, columns = np.mgrid[:240, :300]
    away = np.hypot(rows - 120, columns - 150)
    heat = gaussian_filter(np.where((away > 40) & (away < 75), 3.0, 0.0), 3).astype(np.float32)
    hot = regions.find(heat)
    (ring,) = hot.regions
    assert len(ring.outline) == 2
    shown = cyan(annotated(GREY, heat, hot))
    assert shown[(away > 48) & (away < 67)].mean() > 0.02
    assert not shown[away < 30].any()


def test_where_too_much_is_hot_nothing_is_outlined_and_the_hottest_place_is_marked() -> None:
    heat = mound((120, 150, 5), width=90)
    hot = regions.find(heat)
    assert hot.widespread and hot.regions == () and hot.fraction == pytest.approx((heat > 1).mean(), abs=0.02)
    rows, columns = np.nonzero(cyan(annotated(GREY, heat, hot)))
    assert (abs(rows - 120) < 20).all() and (abs(columns - 150) < 20).all() and len(rows)


def test_nothing_is_marked_where_nothing_is_hotter_than_normal_and_a_cross_below_the_limit() -> None:
    cold, warm = mound((120, 150, 1)) - 1.01, mound((120, 150, 0.6))
    assert annotated(GREY, cold, regions.find(cold)).tolist() == np.dstack([GREY] * 3).tolist()
    assert cyan(annotated(GREY, warm, regions.find(warm))).any()


def test_at_most_five_regions_are_outlined() -> None:
    heat = mound(*((row, column, 2) for row in (60, 180) for column in (40, 110, 180, 260)), width=8)
    hot = regions.find(heat)
    assert len(hot.regions) == 8
    shown = cyan(annotated(GREY, heat, hot))
    badges = [shown[int(240 * r.at[0]), max(0, int(300 * r.at[1]) - 4)] for r in hot.regions]
    assert badges == [True] * overlays.REGIONS + [False] * 3


def test_the_colour_bar_stands_where_less_heat_is_and_only_where_there_is_room() -> None:
    for row, edge, other in ((40, slice(-12, None), slice(0, 12)), (200, slice(0, 12), slice(-12, None))):
        heat = mound((row, 150, 0.8))
        bare, barred = (annotated(GREY, heat, regions.find(heat), note) for note in (None, ""))
        assert (bare[edge] != barred[edge]).any() and (bare[other] == barred[other]).all()
        noted = annotated(GREY, heat, regions.find(heat), "the hottest place lies outside of the body")
        assert (noted != barred).any() and noted.shape == (240, 300, 3)
    small = GREY[:64, :64]
    heat = mound((30, 30, 0.8), shape=(64, 64))
    assert (annotated(small, heat, regions.find(heat), "") == annotated(small, heat, regions.find(heat))).all()


@pytest.mark.parametrize("shape", [(1, 1), (2, 900), (900, 2), (28, 28)])
def test_any_shape_has_a_picture(shape: tuple[int, int]) -> None:
    heat = np.linspace(-1, 4, shape[0] * shape[1], dtype=np.float32).reshape(shape)
    assert annotated(np.zeros(shape, np.uint8), heat, regions.find(heat), "note").shape == (*shape, 3)


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_what_is_in_full_colour_is_told_from_what_is_nearly(grey: int) -> None:
    nearly, full, beyond = overlay(np.full((1, 3), grey, np.uint8), np.array([[0.99, 1.0, 4.0]])).astype(int)[0]
    assert np.abs(full - nearly).max() > 25
    np.testing.assert_array_equal(full, beyond)
