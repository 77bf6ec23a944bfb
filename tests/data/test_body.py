"""What of a radiograph is the body: against drawings of it, on black, in a border, with markers, inverted."""

from __future__ import annotations

import numpy as np
import pytest
from test_lungs import chest

from loligo.data import body
from loligo.data.preprocessing import resized
from loligo.io import regions

SIDE = 128


def drawn(background: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """A body with texture, an ellipse, before a background of one grey: (H, W) and where it is."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    inside = ((rows - 70) / 75) ** 2 + ((columns - 64) / 45) ** 2 < 1
    noise = np.random.default_rng(0).normal(0, 0.03, (SIDE, SIDE))
    image = np.where(inside, 0.55 + 0.15 * np.sin(rows / 9) + noise, background)
    return image.clip(0, 1).astype(np.float32), inside


def overlap(found: np.ndarray | None, true: np.ndarray) -> float:
    assert found is not None
    return float((found & true).sum() / (found | true).sum())


@pytest.mark.parametrize("background", [0.0, 0.04, 0.9, 1.0])
def test_a_body_is_found_before_black_and_before_any_even_border(background: float) -> None:
    image, inside = drawn(background)
    assert overlap(body.segment(image), inside) > 0.93


def test_a_marker_is_not_the_body_and_lungs_are() -> None:
    image, inside = drawn()
    image[5:20, 5:15] = 1
    image[50:90, 40:55] = 0.02  # a lung, dark but enclosed
    found = body.segment(image)
    assert overlap(found, inside) > 0.9
    assert found is not None and not found[8:16, 7:12].any() and found[60:80, 42:52].all()


def test_a_body_that_fills_the_image_is_all_of_it() -> None:
    image, _ = chest((SIDE, SIDE), 0)
    found = body.segment((0.3 + 0.5 * image).astype(np.float32))
    assert found is not None and found.mean() > 0.9


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((SIDE, SIDE), np.float32),
        np.full((SIDE, SIDE), 0.5, np.float32),
        np.tile(np.pad(np.full((24, 24), 0.8, np.float32), 4), (4, 4)),  # many parts
    ],
)
def test_where_there_is_no_single_body_none_is_found(image: np.ndarray) -> None:
    assert body.segment(image) is None


def test_heat_outside_of_the_body_is_remarked() -> None:
    image, _ = drawn()
    large = resized(image[None], (300, 500))[0]
    for at, words in (((10, 20), "the hottest place lies outside of the body"), ((150, 250), "")):
        heat = np.zeros((300, 500), np.float32)
        heat[at[0] - 9 : at[0] + 10, at[1] - 9 : at[1] + 10] = 2
        assert body.remark(large, regions.find(heat)) == words
        assert body.remark(large, regions.find(heat - 3)) == ""
    assert "100% of the image is that hot" in body.remark(large, regions.find(np.full((300, 500), 2, np.float32)))


def test_lungs_are_told_apart_where_two_are_found() -> None:
    image, found = chest((SIDE, SIDE), 0)
    rows, columns = np.nonzero(found)
    middle = len(rows) // 2
    inside = ((rows[middle] + 0.5) / SIDE, (columns[middle] + 0.5) / SIDE)
    assert body.place(image, inside).lungs is True
    assert body.place(image, (0.97, 0.5)).lungs is False
    assert body.place(drawn()[0], (0.5, 0.5)).lungs is None
