"""Heat over an image: the image where it is cold, the colour where it is hot."""

from __future__ import annotations

import numpy as np

from loligo.io.overlay import levels, overlay


def test_the_image_shows_where_it_is_cold_and_the_colour_where_it_is_hot() -> None:
    cold, hot = overlay(np.full((1, 2), 100, np.uint8), np.array([[0, 1]], np.float32))[0]
    assert cold.tolist() == [100, 100, 100]
    assert hot[0] > 200 and hot[2] < hot[0] - 50


def test_levels_are_rounded_and_bounded() -> None:
    assert levels(np.array([-1, 0, 0.5, 1, 2], np.float32)).tolist() == [0, 0, 128, 255, 255]
