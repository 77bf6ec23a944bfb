"""Show by t-SNE where the slots of a memory lie among the features of images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from loligo.reports.common.figures import COLOURS, Floats, panels, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MEMORY = "#111111"
PANELS = 4
POINTS = 400


@dataclass(frozen=True)
class Embedding:
    """Encoder features of images, and the slots of the memory."""

    features: Floats
    """(N, L, D): features of N images at L places."""
    memory: Floats
    """(L, m, D): the m slots of the memory of each place."""
    labels: npt.NDArray[Any]
    """(N,): 0 normal, 1 abnormal, anything else unknown."""

    def __post_init__(self) -> None:
        f, m, n = self.features.shape, self.memory.shape, len(self.labels)
        if not (len(f) == len(m) == 3 and f[0] == n and f[1] == m[0] and f[2] == m[2] and f[2] > 1):
            raise ValueError(
                f"features {f}, memory {m} and {n} labels do not fit;"
                " they must be (N, L, D), (L, m, D) and N, with D > 1"
            )

    def kinds(self) -> dict[str, npt.NDArray[np.bool_]]:
        """Return which images are of each kind that there is, (N,) bool."""
        labels = pd.to_numeric(pd.Series(self.labels, dtype=object), errors="coerce").astype(float).to_numpy()
        kinds = {"normal": labels == 0, "abnormal": labels == 1, "unlabelled": ~np.isin(labels, (0, 1))}
        return {kind: chosen for kind, chosen in kinds.items() if chosen.any()}


@styled
def draw(embedded: Embedding) -> Figure:
    """Draw features and memory slots by t-SNE, a panel a place, of at most PANELS places evenly chosen."""
    count = embedded.features.shape[1]
    places = np.unique(np.linspace(0, count - 1, min(PANELS, count)).round().astype(int))
    figure, axes_of = panels(len(places), min(2, len(places)), 3.6, 3.4)
    for place, axes in zip(places, axes_of, strict=True):
        kinds = {kind: embedded.features[chosen, place] for kind, chosen in embedded.kinds().items()}
        for kind, xy in tsne(kinds | {"memory slots": embedded.memory[place]}).items():
            style: Any = {"c": COLOURS.get(kind, MEMORY), "marker": "o" if kind in COLOURS else "+"}
            axes.scatter(xy[:, 0], xy[:, 1], s=12, alpha=0.7, linewidths=0.8, label=kind, rasterized=True, **style)
        axes.set(title=f"place {place + 1} of {count}", xticks=[], yticks=[])
    figure.legend(*axes_of[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def tsne(kinds: Mapping[str, Floats]) -> dict[str, Floats]:
    """Lay out vectors (n, D) of each kind, POINTS of it at most, in one plane: (n, 2) each; seeded."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # comes with scikit-learn

    random = np.random.default_rng(0)
    chosen = [x[np.sort(random.permutation(len(x))[:POINTS])] for x in kinds.values()]
    points = np.concatenate(chosen).astype(np.float64)
    with threadpool_limits(1):  # the same sums in the same order; and threads that wait cost minutes on a busy machine
        reduced = PCA(min(50, *points.shape), random_state=0).fit_transform(points)
        flat = TSNE(perplexity=min(30, (len(points) - 1) / 3), random_state=0).fit_transform(reduced)
    return dict(zip(kinds, np.split(flat, np.cumsum([len(x) for x in chosen])[:-1]), strict=True))
