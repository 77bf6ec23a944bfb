"""PaDiM's features of the ZhangLab radiographs, computed once: what `cross_conformal` and `padim_size` measure on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from loligo import methods
from loligo.data import cache
from loligo.data.dataset import Dataset
from loligo.data.preprocessing import Preprocessing
from loligo.methods.padim import Padim
from loligo.runs.settings import Settings

EXTRACTOR = "radiograph"


def padim(preset: str = EXTRACTOR, **options: object) -> Padim:
    """Return PaDiM with the weights of its backbone, not fitted."""
    torch.manual_seed(0)
    model = Settings.of("padim", preset, options).new_model()
    assert isinstance(model, methods.get("padim"))
    model.start()
    return model.eval()


def images(rows: pd.DataFrame, size: int = 224) -> Dataset:
    """Load the images as a method of that size sees them."""
    return cache.load(rows, Preprocessing(size))


@torch.inference_mode()
def described(data: Dataset, model: Padim, path: Path) -> np.ndarray:
    """Return the features (P, N, d) float16 of all images; they stay in a file, which is read where it exists."""
    if not path.exists():
        shape = (model.levels[-1].side ** 2, len(data), len(model.chosen))
        found = np.lib.format.open_memmap(path.with_suffix(".part"), "w+", np.float16, shape)
        backbone = model.backbone.ready(torch.device("cpu"))
        for start in range(0, len(data), 16):
            indices = np.arange(start, min(start + 16, len(data)))
            *_, (_, every) = model._centred(data.batch(indices), backbone)  # of a model not fitted the means are 0
            found[:, indices] = every.half().numpy()
        found.flush()
        path.with_suffix(".part").rename(path)
    return np.load(path, mmap_mode="r")
