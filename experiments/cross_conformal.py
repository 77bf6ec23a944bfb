"""How p-values of 60 normal images hold: a part held out, or every image scored by a model that did not see it.

    python -m experiments.cross_conformal --data chest_xray/ --cache runs/features --draws 100

Each draw takes 60 normal patients of ZhangLab's train folder, 200 others as fresh normals, and all pneumonia of
validation and test. Methods: `gaussian`, and `padim --preset radiograph` on every fourth place of both axes, whose
features are computed once. Fits are exact, by kernel matrices of the few training images. Rows go to
results/cross_conformal.csv: proportion flagged at a nominal rate, its mean over draws and the interval of that mean.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from experiments import features
from experiments.common import RESULTS
from loligo.data.dataset import Dataset
from loligo.data.sources import zhanglab
from loligo.evaluation import results
from loligo.methods.gaussian import Gaussian, GaussianConfig
from loligo.training.cost import commit

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
NORMALS, FRESH = 60, 200
RATES = (0.02, 0.05, 0.10, 1 / 7)  # the last is the least that six images held out allow
HELD_OUT = {"a tenth": 6, "a third": 20, "half": 30}
FOLDS = (10, 20)


class Draw:
    """60 normal images, 200 fresh ones, and all models that are fitted on parts of the 60."""

    def __init__(self, normals: Indices, abnormal: Indices, seed: int) -> None:
        order = np.random.default_rng(seed).permutation(normals)
        self.given, self.fresh = order[:NORMALS], order[NORMALS : NORMALS + FRESH]
        self.scored = np.concatenate([self.given, self.fresh, abnormal])  # by every model
        parts = {("all", 0): np.arange(0)} | {(name, 0): np.arange(n) for name, n in HELD_OUT.items()}
        for folds in FOLDS:
            parts |= {(f"{folds} folds", k): part for k, part in enumerate(np.array_split(np.arange(NORMALS), folds))}
        self.left_out = parts
        self.scores: dict[tuple[str, int], Floats] = {}

    def fits(self) -> Iterator[tuple[tuple[str, int], Indices]]:
        """Yield the name of each model and what it is fitted on."""
        for name, out in self.left_out.items():
            yield name, np.delete(self.given, out)

    def p_values(self) -> Iterator[tuple[str, Floats]]:
        """Yield each way and the p-values (200 + A,) of fresh and abnormal images."""
        new = slice(NORMALS, None)
        full = self.scores["all", 0]
        for name, n in HELD_OUT.items():
            own = self.scores[name, 0]
            yield f"held out {name}", conformal(own[:n], own[new])
        for folds in FOLDS:
            models = [self.scores[f"{folds} folds", k] for k in range(folds)]
            parts = [self.left_out[f"{folds} folds", k] for k in range(folds)]
            out = np.concatenate([model[part] for model, part in zip(models, parts, strict=True)])
            count = [(model[part][:, None] >= model[new]).sum(0) for model, part in zip(models, parts, strict=True)]
            yield f"{folds} folds, full model", conformal(out, full[new])
            yield f"{folds} folds, one fold's model", conformal(out, models[0][new])
            yield f"{folds} folds, each fold's model", (1 + np.sum(count, 0)) / (NORMALS + 1)
            yield f"{folds} folds, mean of the folds' models", conformal(out, np.mean(models, 0)[new])


def conformal(normals: Floats, scores: Floats) -> Floats:
    """Return (1 + number of normals at or above the score) / (1 + number of normals)."""
    return (1 + (normals[:, None] >= scores).sum(0)) / (len(normals) + 1)


def mahalanobis(gram: Tensor, fitted: Tensor, scored: Tensor, regularisation: float) -> Tensor:
    """Return squared distances (B, m) of ``scored`` (B, m) from Gaussians of ``fitted`` (B, n), by inner products."""
    n = fitted.shape[1]
    own, cross = gram[fitted[:, :, None], fitted[:, None]], gram[fitted[:, :, None], scored[:, None]]
    rows, total = own.mean(2), own.mean((1, 2))
    length = gram.diagonal()[scored] - 2 * cross.mean(1) + total[:, None]
    cross = cross - cross.mean(1, keepdim=True) - rows[:, :, None] + total[:, None, None]
    own = own - rows[:, :, None] - rows[:, None] + total[:, None, None]
    own.diagonal(dim1=1, dim2=2).add_(regularisation * (n - 1))
    whitened = torch.linalg.solve_triangular(torch.linalg.cholesky(own), cross, upper=False)
    return (length - whitened.square().sum(1)).clamp_min(0) / regularisation


def score_by_padim(draws: list[Draw], data: Dataset, cache: Path) -> None:
    """Score by the mean of PaDiM's distances of every fourth place."""
    model = features.padim()
    side = model.levels[-1].side
    places = np.arange(side**2).reshape(side, side)[::4, ::4].ravel()
    described = features.described(data, model, cache / "radiograph.npy")
    work = list(groups(draws))
    for draw in draws:
        draw.scores = {name: np.zeros(len(draw.scored)) for name, _ in draw.fits()}
    for done, place in enumerate(places):
        x = torch.from_numpy(described[place].astype(np.float32))
        x = x - x.mean(0)
        gram = (x @ x.mT).double()
        for part, fitted, scored in work:
            found = mahalanobis(gram, fitted, scored, model.config.regularisation).sqrt().numpy() / len(places)
            for (draw, name), values in zip(part, found, strict=True):
                draw.scores[name] += values
        print(f"place {done + 1} of {len(places)}", flush=True)


def groups(draws: list[Draw], at_once: int = 16) -> Iterator[tuple[list[tuple[Draw, tuple[str, int]]], Tensor, Tensor]]:
    """Yield models of equally many training images: whose they are, what they are fitted on, and what they score."""
    every = sorted(
        ((draw, name, fitted) for draw in draws for name, fitted in draw.fits()), key=lambda one: len(one[2])
    )
    for n in sorted({len(fitted) for *_, fitted in every}):
        same = [one for one in every if len(one[2]) == n]
        for start in range(0, len(same), at_once):
            part = same[start : start + at_once]
            yield (
                [(draw, name) for draw, name, _ in part],
                torch.from_numpy(np.stack([fitted for *_, fitted in part])),
                torch.from_numpy(np.stack([draw.scored for draw, *_ in part])),
            )


def score_by_gaussian(draws: list[Draw], data: Dataset) -> None:
    """Score by `gaussian` with its defaults; fitted by singular values, which gives what its sums give."""
    model = Gaussian(GaussianConfig())
    small = torch.cat([model._shrink(data.batch(part)) for part in np.array_split(np.arange(len(data)), 50)]).double()
    for done, draw in enumerate(draws):
        for name, fitted in draw.fits():
            x = small[torch.from_numpy(fitted)]
            _, length, basis = torch.linalg.svd(x - x.mean(0), full_matrices=False)
            k = min(model.config.components, len(x) - 1)
            left = length[k:].square().sum() / len(x) / (small.shape[1] - k)
            left = left.clamp_min(1e-6)
            new = small[torch.from_numpy(draw.scored)] - x.mean(0)
            inside = new @ basis[:k].mT
            rest = new.square().sum(1) - inside.square().sum(1)
            variance = (length[:k].square() / len(x)).clamp_min(float(left))
            draw.scores[name] = ((inside.square() / variance).sum(1) + rest / left).numpy() / small.shape[1]
        print(f"draw {done + 1} of {len(draws)}", flush=True)


def table(draws: list[Draw], groups: dict[str, npt.NDArray[np.bool_]]) -> pd.DataFrame:
    """Return the proportion flagged of fresh normals and of each group of the abnormal, by way and nominal rate."""
    found = []
    for number, draw in enumerate(draws):
        for way, p in draw.p_values():
            for rate in RATES:
                flagged = p <= rate + 1e-12
                row = {"fresh normals": flagged[:FRESH].mean()}
                row |= {name: flagged[FRESH:][chosen].mean() for name, chosen in groups.items()}
                found.append({"way": way, "nominal": rate, "draw": number, **row})
    every = pd.DataFrame(found)
    mean = every.drop(columns="draw").groupby(["way", "nominal"], sort=False).mean()
    error = every.groupby(["way", "nominal"], sort=False)["fresh normals"].sem() * 1.96
    mean.insert(1, "low", mean["fresh normals"] - error)
    mean.insert(2, "high", mean["fresh normals"] + error)
    return mean.reset_index()


def main() -> None:
    """Draw, fit, score, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True, help="folder where features are kept, 1.5 GB")
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--methods", nargs="+", default=["gaussian", "padim"])
    given = parser.parse_args()
    data = features.images(zhanglab.index(given.data))
    rows = data.rows
    in_train_folder = (rows["label"] == 0) & (rows["split"] != "test")
    normals = rows[in_train_folder].drop_duplicates("patient").index.to_numpy()
    abnormal = rows[rows["label"] == 1].index.to_numpy()
    groups = {name: (rows["split"][abnormal] == name).to_numpy() for name in ("validation", "test")}
    for method in given.methods:
        draws = [Draw(normals, abnormal, seed) for seed in range(given.draws)]
        if method == "padim":
            score_by_padim(draws, data, given.cache)
        else:
            score_by_gaussian(draws, data)
        found = table(draws, groups).round(4).assign(method=method, draws=given.draws, commit=commit())
        print(found.to_string(), flush=True)
        results.replace(RESULTS / "cross_conformal.csv", found, {"method": method})


if __name__ == "__main__":
    main()
