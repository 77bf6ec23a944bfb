"""Regions against maps made by hand: where they lie in words, how large, how hot, in which order."""

from __future__ import annotations

import numpy as np
import pytest
from loligo.reports.sheet.regions import Region

from loligo.reports.sheet import regions

SIDE = 64


def planted(*boxes: tuple[int, int, int, int], heat: float = 2.0, side: int = SIDE) -> np.ndarray:
    """A cold map with hot boxes of (first row, last row + 1, first column, last column + 1)."""
    found = np.zeros((side, side), np.float32)
    for top, bottom, left, right in boxes:
        found[top:bottom, left:right] = heat
    return found


def only(heat: np.ndarray, typical: float = 1.0) -> Region:
    found = regions.find(heat, typical)
    assert len(found) == 1
    return found[0]


def test_a_square_at_the_top_left_is_told_in_words_with_its_exact_share() -> None:
    region = only(planted((4, 20, 6, 22)))
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
        ((2, 62, 2, 62), "all zones, both sides"),
    ],
)
def test_places(box: tuple[int, int, int, int], place: str) -> None:
    assert only(planted(box)).place == place


def test_an_edge_that_is_just_crossed_is_not_named() -> None:
    assert only(planted((4, 14, 13, 33))).sides == ("left",)  # 1 of 20 columns lies right of the middle
    assert only(planted((4, 14, 13, 35))).sides == ("left", "right")  # 3 of 22


def test_zones_and_sides_of_a_map_that_is_not_square() -> None:
    heat = np.zeros((30, 90), np.float32)
    heat[22:28, 60:70] = 5
    assert only(heat).place == "lower zone, image right"


def test_the_peak_is_in_multiples_of_the_typical_one() -> None:
    assert only(planted((20, 40, 20, 40), heat=12.0), typical=4.0).peak == pytest.approx(3.0, rel=1e-3)


def test_what_is_typical_is_no_region() -> None:
    assert regions.find(np.full((SIDE, SIDE), 0.99, np.float32), 1.0) == []


def test_a_lone_hot_pixel_is_no_region() -> None:
    assert regions.find(planted((30, 31, 30, 31), heat=1.2, side=128), 1.0) == []  # smoothed away
    assert regions.find(planted((30, 31, 30, 31), heat=9.0, side=128), 1.0) == []  # too small: 9 of 16384 pixels


def test_the_smallest_region_is_a_thousandth_of_the_image() -> None:
    side, area = 100, (2, 5)  # 10 pixels of 10000
    assert only(planted((20, 20 + area[0], 20, 20 + area[1]), heat=2.0, side=side)).fraction == 0.001
    assert regions.find(planted((20, 21, 20, 29), heat=2.0, side=side), 1.0) == []  # 9 pixels


def test_regions_are_ordered_by_their_heat() -> None:
    wide, hot = planted((4, 24, 4, 24), heat=1.5), planted((48, 54, 40, 46), heat=4.0)
    assert [region.place[:5] for region in regions.find(wide + hot, 1.0)] == ["upper", "lower"]  # 200 against 108
    hotter = planted((48, 54, 40, 46), heat=9.0)
    assert [region.place[:5] for region in regions.find(wide + hotter, 1.0)] == ["lower", "upper"]


def test_regions_that_touch_at_a_corner_are_one() -> None:
    assert len(regions.find(planted((4, 14, 4, 14), (14, 24, 14, 24)), 1.0)) == 1
    assert len(regions.find(planted((4, 14, 4, 14), (18, 28, 18, 28)), 1.0)) == 2


@pytest.mark.parametrize("box", [(0, 8, 20, 30), (56, 64, 20, 30), (20, 30, 0, 8), (20, 30, 56, 64)])
def test_the_border_is_noticed_at_every_side(box: tuple[int, int, int, int]) -> None:
    assert only(planted(box)).at_border


def test_near_the_border_is_not_at_it() -> None:
    assert not only(planted((2, 62, 2, 62))).at_border


def test_the_size_of_the_map_does_not_matter() -> None:
    heat = planted((4, 20, 6, 22))
    small, large = only(heat), only(np.kron(heat, np.ones((4, 4), np.float32)))
    assert small.place == large.place
    assert large.fraction == pytest.approx(small.fraction, rel=0.02)


@pytest.mark.parametrize("typical", [0.0, -1.0, float("nan")])
def test_a_typical_peak_must_be_positive(typical: float) -> None:
    with pytest.raises(ValueError, match=rf"the typical peak is {typical}; it must be a positive number"):
        regions.find(planted((4, 20, 6, 22)), typical)


def test_a_map_must_be_finite_and_flat() -> None:
    heat = planted((4, 20, 6, 22))
    with pytest.raises(ValueError, match=r"a map of shape \(1, 64, 64\) is not a finite \(H, W\) array"):
        regions.find(heat[None], 1.0)
    heat[0, 0] = np.nan
    with pytest.raises(ValueError, match=r"is not a finite"):
        regions.find(heat, 1.0)
