"""Nearest training images, against plain distances, and what is said of an image as a whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from conftest import anatomy, dataset, write_images
from loligo.data import cache, neighbours
from loligo.data.dataset import Dataset
from loligo.data.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(64)


def load(rows: pd.DataFrame) -> Dataset:
    return cache.load(rows, PREPROCESSING)


def rows(paths: list[Path]) -> pd.DataFrame:
    return pd.DataFrame({"path": [str(path) for path in paths], "split": "train"})


def search(image: np.ndarray, of: pd.DataFrame) -> neighbours.Neighbours | None:
    training = neighbours.Training.load(of, load)
    return training and training.compare(image)


def names(found: neighbours.Neighbours | None) -> list[str]:
    assert found is not None
    return [path.name for path in found.paths]


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return anatomy(20, 64)


def test_the_nearest_is_the_one_that_was_changed_least(images: np.ndarray) -> None:
    changed = np.clip(0.7 * images[7, 0] + 0.1, 0, 1)  # other brightness and contrast
    changed[20:26, 20:26] = 1
    assert names(neighbours.Training.of(dataset(images)).compare(changed))[0] == "7.png"


def test_neighbours_are_those_of_the_plain_distance(images: np.ndarray) -> None:
    image = anatomy(1, 64, seed=5)[0, 0]
    own = neighbours.signatures(image[None])[0]
    plain = [np.sqrt(np.sum((neighbours.signatures(other)[0] - own) ** 2)) for other in images]
    found = neighbours.Training.of(dataset(images)).compare(image)
    assert names(found) == [f"{i}.png" for i in np.argsort(plain)[:3]]
    assert not found.same and found.count == 20


def test_dissimilarity_is_the_fraction_of_images_that_lie_nearer_to_their_own_nearest(images: np.ndarray) -> None:
    signatures = neighbours.signatures(images[:, 0])
    own = (np.linalg.norm(signatures[:, None] - signatures, axis=2) + 9 * np.eye(20)).min(axis=1)
    seen = set()
    for image in anatomy(12, 64, seed=5)[:, 0]:
        nearest = np.linalg.norm(signatures - neighbours.signatures(image[None]), axis=1).min()
        found = neighbours.Training.of(dataset(images)).compare(image).dissimilarity
        assert found == pytest.approx((own < nearest).mean())
        seen.add(found)
    assert len(seen) > 3
    assert neighbours.Training.of(dataset(images)).compare(1 - images[0, 0]).dissimilarity == 1


def test_darker_is_the_share_of_images_below_its_mean(images: np.ndarray) -> None:
    by_mean = images[np.argsort(images.mean(axis=(1, 2, 3)))]
    assert neighbours.Training.of(dataset(by_mean)).compare(by_mean[5, 0] + 1e-4).darker == pytest.approx(6 / 20)


def test_signatures_have_mean_0_and_length_1_and_flat_images_have_none() -> None:
    found = neighbours.signatures(np.concatenate([anatomy(3, 48)[:, 0], np.full((1, 48, 48), 0.5, np.float32)]))
    assert found.shape == (4, 32 * 32)
    assert np.abs(found.mean(axis=1)).max() < 1e-6
    assert np.linalg.norm(found, axis=1) == pytest.approx([1, 1, 1, 0])


def test_a_white_image_is_not_the_same_as_a_black_one(images: np.ndarray) -> None:
    seen = dataset(np.concatenate([np.zeros((1, 1, 64, 64), np.float32), images]))
    assert not neighbours.Training.of(seen).compare(np.ones((64, 64), np.float32)).same
    assert neighbours.Training.of(seen).compare(images[3, 0]).same


def test_an_image_is_never_its_own_neighbour(images: np.ndarray, tmp_path: Path) -> None:
    paths = write_images(tmp_path, images)
    again = tmp_path / "again.jpg"  # the same image with the losses of a JPEG
    Image.open(paths[4]).save(again, quality=90)
    for copy in (paths[4], again):
        image = np.asarray(Image.open(copy), np.float32) / 255
        found = search(image, rows(paths))
        assert found is not None and found.same
        assert paths[4] not in found.paths and len(found.paths) == 3


def test_files_that_are_gone_or_broken_are_passed_over(images: np.ndarray, tmp_path: Path) -> None:
    paths = write_images(tmp_path, images[:6])
    paths[0].unlink()
    paths[1].write_text("no image")
    found = search(images[8, 0], rows(paths))
    assert found is not None and found.count == 4


@pytest.mark.parametrize("left", [0, 1])
def test_without_two_images_there_is_nothing_to_compare_with(images: np.ndarray, tmp_path: Path, left: int) -> None:
    paths = write_images(tmp_path, images[:4])
    for path in paths[left:]:
        path.unlink()
    assert search(images[8, 0], rows(paths)) is None
    for path in paths[left:]:
        path.write_text("no image")
    assert search(images[8, 0], rows(paths)) is None


def test_of_many_images_a_part_is_searched(images: np.ndarray, tmp_path: Path) -> None:
    found = neighbours.Training.load(rows(write_images(tmp_path, images)), load, most=7)
    assert found is not None and len(found.paths) == 7
