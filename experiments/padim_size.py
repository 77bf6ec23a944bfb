"""What ways to store PaDiM's covariances change: size, agreement with exact distances, AUC.

    python -m experiments.padim_size --data chest_xray/ --cache runs/features

Preset `radiograph` on ZhangLab, all 784 places, features computed once and kept as float16. Agreement is Spearman's
correlation of image scores with the exact ones on the 142 held-out normals, which no label enters. Rows go to
results/padim_size.csv. `levels` is what the method does: as exact as `whole` but for rounding.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr
from torch import Tensor

from experiments import features
from experiments.common import RESULTS
from loligo.data.sources import zhanglab
from loligo.evaluation import metrics
from loligo.files import write_csv
from loligo.training.cost import commit

SIDE, D, REGULARISATION = 28, 472, 0.01
LEVELS = 49 * 320 * 320 + 196 * 112 * 432 + 784 * 40 * 472
Whitening = Callable[[Tensor], Tensor]
"""Of a regularised covariance (D, D): rows (k, D) whose products with a feature have the distance as their norm."""


def cholesky(covariance: Tensor) -> Tensor:
    """Return the exact whitening, lower triangular."""
    return torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), torch.eye(len(covariance)), upper=False)


def rounded(dtype: torch.dtype) -> Whitening:
    """Keep the exact one in fewer bits."""
    return lambda covariance: cholesky(covariance).to(dtype).float()


def low_rank(rank: int) -> Whitening:
    """Keep the largest components, and one variance for the others."""

    def whiten(covariance: Tensor) -> Tensor:
        values, vectors = torch.linalg.eigh(covariance)
        values[:-rank] = values[:-rank].mean()
        return values.rsqrt()[:, None] * vectors.mT

    return whiten


def smallest(rank: int) -> Whitening:
    """Keep the components of least variance alone."""

    def whiten(covariance: Tensor) -> Tensor:
        values, vectors = torch.linalg.eigh(covariance)
        return values[:rank].rsqrt()[:, None] * vectors[:, :rank].mT

    return whiten


def projected(basis: Tensor) -> Whitening:
    """Keep k random orthogonal directions (D, k), the same at every place."""
    return lambda covariance: cholesky(basis.mT @ covariance @ basis) @ basis.mT


def semi_orthogonal(k: int) -> Tensor:
    """Return a random basis (D, k)."""
    return torch.linalg.qr(torch.randn(D, k, generator=torch.Generator().manual_seed(0)))[0]


WAYS: dict[str, tuple[Whitening, int, float]] = {
    "whole, float32": (cholesky, 1, 784 * D * D * 4),
    "levels, float32": (cholesky, 1, LEVELS * 4),
    "levels, float16": (rounded(torch.float16), 1, LEVELS * 2),
    "levels, bfloat16": (rounded(torch.bfloat16), 1, LEVELS * 2),
    "shared by 2x2 places": (cholesky, 2, 196 * D * D * 4),
    "shared by 4x4 places": (cholesky, 4, 49 * D * D * 4),
    "64 components and a diagonal": (low_rank(64), 1, 784 * D * 64 * 4),
    "128 components and a diagonal": (low_rank(128), 1, 784 * D * 128 * 4),
    "64 components of least variance": (smallest(64), 1, 784 * D * 64 * 4),
    "100 orthogonal directions": (projected(semi_orthogonal(100)), 1, 784 * 100 * 100 * 4),
    "200 orthogonal directions": (projected(semi_orthogonal(200)), 1, 784 * 200 * 200 * 4),
}
"""Whitening, side of the block of places that share a covariance, and bytes of all."""


def main() -> None:
    """Fit, score by every way, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True, help="folder where features are kept, 1.5 GB")
    given = parser.parse_args()
    data = features.images(zhanglab.index(given.data))
    described = features.described(data, features.padim(), given.cache / "radiograph.npy")
    rows, grid = data.rows, np.arange(SIDE**2).reshape(SIDE, SIDE)
    train, new = (np.flatnonzero(part) for part in (rows["split"] == "train", rows["split"] != "train"))
    scores = {name: torch.zeros(len(new)) for name in WAYS}
    for block in (grid[i : i + 4, j : j + 4] for i in range(0, SIDE, 4) for j in range(0, SIDE, 4)):
        x = torch.from_numpy(described[block.ravel()].astype(np.float32))
        fitted, others = x[:, train], x[:, new]
        mean = fitted.mean(1, keepdim=True)
        covariance = torch.stack([torch.cov(place.mT) for place in fitted]).view(4, 4, D, D)
        for name, (whiten, side, _) in WAYS.items():
            shared = covariance.view(4 // side, side, 4 // side, side, D, D).mean((1, 3), keepdim=True)
            own = shared.expand(-1, side, -1, side, D, D).reshape(16, D, D)
            done: dict[int, Tensor] = {}  # whitening of a covariance that places share is computed once
            for place in range(16):
                key = place // 4 // side * 4 + place % 4 // side
                if key not in done:
                    done[key] = whiten(own[place] + REGULARISATION * torch.eye(D))
                scores[name] += ((others[place] - mean[place]) @ done[key].mT).norm(dim=1) / SIDE**2
        print(f"block at place {block[0, 0]} of {SIDE**2}", flush=True)
    found = [row(name, scores, rows.iloc[new]) for name in WAYS]
    table = pd.DataFrame(found).round(4).assign(commit=commit())
    print(table.to_string())
    write_csv(table, RESULTS / "padim_size.csv")


def row(name: str, scores: dict[str, Tensor], rows: pd.DataFrame) -> dict[str, object]:
    """Return a row of the table."""
    values, exact, split = scores[name].numpy(), scores["whole, float32"].numpy(), rows["split"].to_numpy()
    normals = split == "calibration"
    aucs = {
        part: metrics.roc_auc(rows["label"].to_numpy(np.int64)[split == part], values[split == part])
        for part in ("validation", "test")
    }
    return {
        "stored": name,
        "megabytes": WAYS[name][2] / 1e6,
        "agreement": spearmanr(values[normals], exact[normals])[0],
    } | {f"auc_{part}": auc for part, auc in aucs.items()}


if __name__ == "__main__":
    main()
