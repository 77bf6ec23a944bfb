"""What a method shows of itself: the reconstructions of its generators, the effect of in-painting, its memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from loligo.reports.common.figures import Floats
from loligo.reports.run.embedding import Embedding

ORIGINAL, HELD_OUT = "original", "held-out normals"
GROUPS = (HELD_OUT, "normal", "abnormal", "unlabelled")


@dataclass(frozen=True)
class Example:
    """One image with the reconstruction of each generator and the features of its patches."""

    title: str
    """Which image it is, in a few short lines."""
    images: dict[str, Floats]
    """(C, H, W) in [0, 1]: `ORIGINAL`, then by generator."""
    errors: dict[str, tuple[float, float]]
    """Mean squared error and KL divergence by generator."""
    features: Floats | None = None
    """(L, D): encoder features of L patches in raster order, a square grid of them."""
    inpainted: Floats | None = None
    """(L, D): the same after in-painting."""

    def __post_init__(self) -> None:
        if ORIGINAL not in self.images:
            raise ValueError(f"images are {', '.join(self.images)}; {ORIGINAL!r} must be among them")
        if self.features is None or self.inpainted is None:
            return
        a, b = self.features.shape, self.inpainted.shape
        if a != b or len(a) != 2 or math.isqrt(a[0]) ** 2 != a[0]:
            raise ValueError(f"features {a} and in-painted ones {b} must be (L, D) alike, L patches in a square grid")


@dataclass(frozen=True)
class Insight:
    """What the model gave in one pass over some images."""

    errors: pd.DataFrame
    """Columns group (one of `GROUPS`), generator, mse, kl: a row an image and generator."""
    cosines: pd.DataFrame
    """Columns group, cosine: of an image's features before and after in-painting, mean over its patches."""
    examples: tuple[Example, ...] = ()
    """By falling anomaly score: the most abnormal image first, the least abnormal one last."""
    embedding: Embedding | None = None
    """Features beside memory, where the method has both."""

    def summary(self) -> pd.DataFrame:
        """Return group, generator, images, mse, kl: a row a group and generator, means over the group's images."""
        groups = self.errors.groupby(["group", "generator"], sort=False)
        table = groups.agg(images=("mse", "size"), mse=("mse", "mean"), kl=("kl", "mean")).reset_index()
        return table.sort_values("group", key=lambda names: names.map(GROUPS.index), kind="stable", ignore_index=True)

    def similarity(self) -> dict[str, float]:
        """Return the mean cosine of each group that there is."""
        means = self.cosines.groupby("group")["cosine"].mean()
        return {name: float(means[name]) for name in GROUPS if name in means}


def cosine(a: Floats, b: Floats) -> Floats:
    """Return the cosine similarity of vectors (..., D) as (...), 0 where one of them is zero."""
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    found: Floats = (a * b).sum(-1) / np.where(lengths > 0, lengths, 1)
    return found
