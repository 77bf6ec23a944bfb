"""A small data set for tests of the benchmark: all splits, two images a patient."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from conftest import anatomy, blob, write_images
from loligo.data import manifest

COUNTS = (
    *(("train", 0, 60), ("calibration", 0, 20), ("validation", 0, 8), ("test", 0, 20)),
    *(("validation", 1, 8), ("test", 1, 20)),
)


def write(root: Path, seed: int = 0) -> Path:
    """Write images and m.csv; return its path."""
    rows = []
    for split, label, count in COUNTS:
        images = anatomy(count, 32, seed=seed + len(split) + label)
        masks = [""] * count
        if label:
            marked = (blob(images) != images).astype(np.float32)
            masks = [str(path) for path in write_images(root / "masks" / split, marked)]
            images = 0.8 * images + 0.2 * blob(images)
        for i, path in enumerate(write_images(root / split / str(label), images)):
            about = {"patient": f"{split}{label}{i // 2}", "kind": "blob", "mask": masks[i]}
            rows.append({"path": str(path), "split": split, "label": label, **about})
    manifest.write(manifest.check(pd.DataFrame(rows)), root / "m.csv")
    return root / "m.csv"
