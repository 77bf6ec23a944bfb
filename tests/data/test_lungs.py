"""Lungs by thresholds: drawn chests whose lungs are known, and real ones where they are at hand."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from loligo import io
from loligo.data import lungs

DATA = Path(os.environ.get("LOLIGO_DATA") or Path(__file__).parents[2] / ".." / "shared" / "data")


def chest(size: tuple[int, int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw a body with two lungs in air: (H, W) float32, and where the lungs are."""
    rng = np.random.default_rng(seed)
    y, x = (grid / n for grid, n in zip(np.mgrid[: size[0], : size[1]], size, strict=True))
    shift, tone = rng.uniform(-0.03, 0.03, 2), rng.uniform(0.5, 0.9)
    body = np.abs(x - 0.5) < 0.42
    found = np.zeros(size, bool)
    for middle in (0.3, 0.7):
        found |= ((x - middle - shift[0]) / 0.12) ** 2 + ((y - 0.45 - shift[1]) / 0.3) ** 2 < 1
    slope = 1 - 0.3 * np.abs(x - 0.5)
    image = np.where(body, np.where(found, 0.55, 1) * tone, 0.05) * slope + rng.normal(0, 0.02, size)
    return np.clip(image, 0, 1).astype(np.float32), found


@pytest.mark.parametrize("size", [(64, 64), (256, 256), (120, 200), (48, 48)])
def test_lungs_are_found_in_drawn_chests(size: tuple[int, int]) -> None:
    for seed in range(6):
        image, true = chest(size, seed)
        found = lungs.segment(image)
        assert (found.shape, found.dtype) == (size, np.bool_)
        assert (found & true).sum() / (found | true).sum() > 0.7, f"seed {seed}"


def test_nothing_is_found_where_there_are_no_lungs() -> None:
    gas = np.ones((96, 96), np.float32)
    gas[75:90, 30:45] = 0.2
    for image in (np.zeros((96, 96), np.float32), gas, gas.T.copy()):
        assert not lungs.segment(image).any()


def test_brightness_and_contrast_change_nothing() -> None:
    image, _ = chest((128, 128), 3)
    assert (lungs.segment(image) == lungs.segment(image * 0.5 + 0.2)).mean() > 0.99


@pytest.mark.skipif(not (DATA / "zhanglab").is_dir(), reason="no ZhangLab set; point LOLIGO_DATA at its parent")
def test_lungs_are_found_in_real_chests() -> None:
    both = []
    for path in sorted((DATA / "zhanglab" / "train" / "NORMAL").glob("*.jp*g"))[::40]:
        found = lungs.segment(io.read(path).pixels[0])
        half = found.shape[1] // 2
        both.append(min(found[:, :half].sum(), found[:, half:].sum()) > 0.02 * found.size)
        assert 0.02 < found.mean() < 0.35
    assert np.mean(both) > 0.9
