"""Fixtures that every layer shares: synthetic images and data sets, small enough for any machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from loligo.config import PreprocessingConfig, TrainConfig
from loligo.data.dataset import Dataset, no_rejections
from loligo.data.preprocessing import Preprocessing
from loligo.detector import Detector
from loligo.methods.contract import Method
from loligo.nn.precision import Resolved
from loligo.runs.settings import Settings
from loligo.types import Geometry


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let one process run the tests of a module or class, or of one method in the contract test: they share a model."""
    for item in items:
        given = getattr(item, "callspec", None)
        name = given.params.get("name", "") if given and item.path.name == "test_contract.py" else ""
        item.add_marker(pytest.mark.xdist_group(item.nodeid.rsplit("::", 1)[0] + name))


@pytest.fixture(autouse=True, scope="session")
def _few_threads() -> None:
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOLIGO_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("LOLIGO_PATIENT_KEY", str(tmp_path_factory.getbasetemp() / "key" / "patients.key"))


def anatomy(count: int, size: int = 32, seed: int = 0) -> np.ndarray:
    """Draw (count, 1, size, size) float32 in [0, 1]: two lungs and a spine, never twice the same."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size] / size
    images = []
    for _ in range(count):
        shift, width, tone = random.normal(0, 0.02, 2), random.uniform(0.11, 0.14), random.uniform(0.5, 0.7)
        lungs = sum(
            np.exp(-(((columns - x - shift[0]) / width) ** 2) - ((rows - 0.5 - shift[1]) / 0.3) ** 2)
            for x in (0.28, 0.72)
        )
        spine = 0.3 * np.exp(-(((columns - 0.5 - shift[0]) / 0.05) ** 2))
        images.append(tone * lungs + spine + random.normal(0, 0.01, (size, size)))
    return np.clip(np.stack(images)[:, None], 0, 1).astype(np.float32)


def blob(images: np.ndarray) -> np.ndarray:
    """Return a copy with a bright square planted where normal images are dark."""
    changed, size = images.copy(), images.shape[-1]
    changed[:, :, : size // 4, size // 2 - size // 8 : size // 2 + size // 8] = 1
    return changed


def swapped(images: np.ndarray) -> np.ndarray:
    """Return a copy in which two squares have changed places, one in a lung: mean and histogram stay the same."""
    changed, size = images.copy(), images.shape[-1]
    side, left = size // 4, size // 2 - size // 8
    lung = (
        ...,
        slice(size // 2 - side // 2, size // 2 + side // 2),
        slice(size // 4 - side // 2, size // 4 + side // 2),
    )
    dark = (..., slice(0, side), slice(left, left + side))
    changed[lung], changed[dark] = images[dark], images[lung]
    return changed


def dataset(images: np.ndarray) -> Dataset:
    """Wrap (N, 1, H, W) float32 as the data set that training and scoring take."""
    rows = pd.DataFrame({"path": [f"{i}.png" for i in range(len(images))], "label": 0})
    side = images.shape[-1]
    pixels, geometries = np.round(images * 65535).astype(np.uint16), [Geometry((side, side))] * len(images)
    return Dataset(rows, pixels, no_rejections(), Preprocessing(side), geometries)


def ready(method: Method, precision: Resolved = "float32", **preprocessing: Any) -> Detector:
    """Return a detector that scores by a method, uncalibrated."""
    settings = Settings(
        method="", method_config=method.config, train=TrainConfig(), preprocessing=PreprocessingConfig(**preprocessing)
    )
    return Detector(method, settings, settings.preprocess(), precision=precision, device="cpu")


def write_images(folder: Path, images: np.ndarray, prefix: str = "") -> list[Path]:
    """Write (N, 1, H, W) float32 as 8-bit PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{prefix}{i:03d}.png" for i in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray((image[0] * 255).round().astype(np.uint8)).save(path)
    return paths
