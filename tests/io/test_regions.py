"""Regions against maps made by hand: where they lie in words, how large, how hot, in which order."""

from __future__ import annotations

import numpy as np
import pytest

from loligo.io import regions
from loligo.io.regions import Region

SIDE = 64


def heated(*boxes: tuple[int, int, int, int], heat: float = 2.0, side: int = SIDE) -> np.ndarray:
    """A cold map with hot boxes of (first row, last row + 1, first column, last column + 1)."""
    found = np.zeros((side, side), np.float32)
    for top, bottom, left, right in boxes:
        found[top:bottom, left:right] = heat
    return found


def find(heat: np.ndarray) -> tuple[Region, ...]:
    return regions.find(heat).regions


def only(heat: np.ndarray) -> Region:
    (found,) = find(heat)
    return found


def test_a_square_at_the_top_left_is_told_in_words_with_its_exact_share() -> None:
    region = only(heated((4, 20, 6, 22)))
    assert region.place == "upper zone, image left"
    assert region.fraction == 16 * 16 / SIDE**2
    assert region.mask[4:20, 6:22].all() and region.mask.sum() == 16 * 16
    assert not region.at_border


@pytest.mark.parametrize(
    ("box", "place"),
    [
        ((4, 12, 40, 50), "upper zone, image right"),
        ((26, 38, 8, 16), "middle zone, image left"),
        ((50, 60, 40, 60), "lower zone, image right"),
        ((4, 12, 20, 44), "upper zone, both sides"),
        ((10, 34, 8, 16), "upper and middle zone, image left"),
        ((30, 60, 8, 16), "middle and lower zone, image left"),
        ((2, 62, 40, 50), "all zones, image right"),
        ((2, 62, 22, 42), "all zones, both sides"),
    ],
)
def test_places(box: tuple[int, int, int, int], place: str) -> None:
    assert only(heated(box)).place == place


def test_an_edge_that_is_just_crossed_is_not_named() -> None:
    assert only(heated((4, 14, 13, 33))).sides == ("left",)  # 1 of 20 columns lies right of the middle
    assert only(heated((4, 14, 13, 35))).sides == ("left", "right")  # 3 of 22


def test_zones_and_sides_of_a_map_that_is_not_square() -> None:
    heat = np.zeros((30, 90), np.float32)
    heat[22:28, 60:70] = 5
    assert only(heat).place == "lower zone, image right"


def test_the_peak_is_the_heat_at_the_hottest_place() -> None:
    heat = heated((20, 40, 20, 40), heat=3.0)
    heat[28:32, 30:34] = 4
    region = only(heat)
    assert region.peak == pytest.approx(4.0, rel=0.02)
    assert 28 / SIDE < region.at[0] < 32 / SIDE and 30 / SIDE < region.at[1] < 34 / SIDE
    assert regions.find(heat).at == region.at and regions.find(heat).peak == region.peak
    assert regions.peak(heat) == region.peak


def test_the_peak_of_a_volume_is_no_lone_voxel() -> None:
    heat = np.zeros((64, 64, 64), np.float32)
    heat[10, 10, 10] = 9
    assert regions.peak(heat) < 9
    heat[30:40, 30:40, 30:40] = 5
    assert regions.peak(heat) == pytest.approx(5, rel=1e-3)


def test_what_is_typical_is_no_region() -> None:
    assert find(np.full((SIDE, SIDE), 0.99, np.float32)) == ()


def test_a_lone_hot_pixel_is_no_region() -> None:
    assert find(heated((30, 31, 30, 31), heat=1.2, side=128)) == ()  # smoothed away
    assert find(heated((30, 31, 30, 31), heat=9.0, side=128)) == ()  # too small: 9 of 16384 pixels


def test_the_smallest_region_is_a_thousandth_of_the_image() -> None:
    side, area = 100, (2, 5)  # 10 pixels of 10000
    assert only(heated((20, 20 + area[0], 20, 20 + area[1]), heat=2.0, side=side)).fraction == 0.001
    assert find(heated((20, 21, 20, 29), heat=2.0, side=side)) == ()  # 9 pixels


def test_regions_are_ordered_by_their_heat() -> None:
    wide, hot = heated((4, 24, 4, 24), heat=1.5), heated((48, 54, 40, 46), heat=4.0)
    assert [region.place[:5] for region in find(wide + hot)] == ["upper", "lower"]  # 200 against 108
    hotter = heated((48, 54, 40, 46), heat=9.0)
    assert [region.place[:5] for region in find(wide + hotter)] == ["lower", "upper"]


def test_regions_that_touch_at_a_corner_are_one() -> None:
    assert len(find(heated((4, 14, 4, 14), (14, 24, 14, 24)))) == 1
    assert len(find(heated((4, 14, 4, 14), (18, 28, 18, 28)))) == 2


@pytest.mark.parametrize("box", [(0, 8, 20, 30), (56, 64, 20, 30), (20, 30, 0, 8), (20, 30, 56, 64)])
def test_the_border_is_noticed_at_every_side(box: tuple[int, int, int, int]) -> None:
    assert only(heated(box)).at_border


def test_near_the_border_is_not_at_it() -> None:
    assert not only(heated((2, 62, 2, 20))).at_border


def test_the_size_of_the_map_does_not_matter() -> None:
    heat = heated((4, 20, 6, 22))
    small, large = only(heat), only(np.kron(heat, np.ones((4, 4), np.float32)))
    assert small.place == large.place
    assert large.fraction == pytest.approx(small.fraction, rel=0.02)


def test_where_more_than_a_third_is_hot_no_place_stands_out() -> None:
    assert regions.find(heated((0, 64, 0, 22))).widespread
    assert find(heated((0, 64, 0, 22))) == () and not regions.find(heated((0, 64, 0, 21))).widespread


def test_large_maps_are_searched_at_a_bounded_size() -> None:
    heat = np.zeros((1500, 3000), np.float32)
    heat[300:600, 600:900] = 2
    region = only(heat)
    assert region.mask.shape == (128, 256)
    assert region.size == pytest.approx((0.2, 0.1), abs=0.01) and region.fraction == pytest.approx(0.02, rel=0.05)


def test_a_map_must_be_finite_and_flat() -> None:
    heat = heated((4, 20, 6, 22))
    with pytest.raises(ValueError, match=r"a map of shape \(1, 64, 64\) is not a finite \(H, W\) array"):
        regions.find(heat[None])
    heat[0, 0] = np.nan
    with pytest.raises(ValueError, match=r"is not a finite"):
        regions.find(heat)
