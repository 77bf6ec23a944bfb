"""Heat over an image: the image where it is cold, the colour where it is hot."""

from __future__ import annotations

import numpy as np

from loligo.calibration import HEADROOM
from loligo.io.overlay import TYPICAL, levels, overlay


def test_the_image_shows_where_it_is_cold_and_the_colour_where_it_is_hot() -> None:
    cold, typical, warm, hot = overlay(np.full((1, 4), 100, np.uint8), np.array([[0, 1 / 3, 0.5, 1]], np.float32))[0]
    assert cold.tolist() == typical.tolist() == [100, 100, 100]  # as hot as normal images are: nothing is shown
    assert warm.tolist() != typical.tolist()
    assert hot[0] > 200 and hot[2] < hot[0] - 50


def test_levels_are_rounded_and_bounded() -> None:
    assert levels(np.array([-1, 0, 0.5, 1, 2], np.float32)).tolist() == [0, 0, 128, 255, 255]


def test_what_stays_uncoloured_is_what_a_typical_normal_image_reaches() -> None:
    assert TYPICAL == 1 / HEADROOM  # a map is drawn in parts of `Calibration.map_scale`
