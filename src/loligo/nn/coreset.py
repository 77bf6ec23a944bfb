"""A uniform sample of a stream in bounded memory, and a small set of features that lies close to all of them."""

from __future__ import annotations

import torch
from torch import Tensor

from loligo import progress as bars

AT_ONCE = 64
"""Features that are chosen in one round."""
PROJECTED = 64
"""Dimensions that distances are compared in."""


def room(limit: int, dim: int) -> int:
    """Return how many features (D,) `greedy` can choose half of in ``limit`` bytes.

    Each takes itself, what is projected of it, its distances from those of a round, and as much as itself for its share
    of what is chosen and for a few numbers; a round takes the distances between those it looks at.
    """
    return max(0, limit - 16 * (4 * AT_ONCE) ** 2) // (4 * (dim + PROJECTED + AT_ONCE + max(dim, 8)))


class Reservoir:
    """Keep each feature of a stream with the same chance, ``room`` of them at most (Vitter 1985, algorithm R)."""

    def __init__(self, room: int, dim: int, generator: torch.Generator) -> None:
        self.kept, self.seen, self.generator = torch.empty(room, dim), 0, generator

    def add(self, features: Tensor) -> None:
        """Take the next features, (n, D) float32."""
        room = len(self.kept)
        first = min(len(features), max(0, room - self.seen))
        self.kept[self.seen : self.seen + first] = features[:first]
        self.seen += first
        rest = features[first:]
        if len(rest):
            order = torch.arange(self.seen + 1, self.seen + len(rest) + 1, dtype=torch.float64)
            place = (torch.rand(len(rest), generator=self.generator, dtype=torch.float64) * order).long()
            enters = place < room
            self.kept.numpy()[place[enters].numpy()] = rest[enters].numpy()  # of two for one place the last stays
            self.seen += len(rest)

    def taken(self) -> Tensor:
        """Return what was kept, (n, D)."""
        return self.kept[: self.seen]


def greedy(features: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return the indices (count,) of features (n, D) from which none is far: greedy k-centre, some at a time.

    Exact greedy selection takes the feature farthest from all that were chosen, one a pass over the data. A round here
    looks at the farthest few hundred, takes greedily among them as many as stay farther apart than the nearest of
    them, and passes over the data once for all. Distances are those of a random projection (Johnson & Lindenstrauss).
    """
    n, dim = features.shape
    if count >= n:
        return torch.arange(n)
    if dim > PROJECTED:
        features = features @ (torch.randn(dim, PROJECTED, generator=generator) / PROJECTED**0.5)
    squares = features.square().sum(1)
    start = torch.randint(n, (1,), generator=generator)
    chosen, left = [start], _squared(features, squares, start)
    with bars.bar(total=count, initial=1, desc="choosing the coreset", unit="feature") as bar:
        while (done := sum(map(len, chosen))) < count:
            new = _round(features, left, min(AT_ONCE, count - done))
            left = torch.minimum(left, _squared(features, squares, new))
            chosen.append(new)
            bar.update(len(new))
    return torch.cat(chosen)


def _squared(features: Tensor, squares: Tensor, which: Tensor) -> Tensor:
    """Return the squared distance (n,) of each feature from the nearest of some."""
    least = torch.addmm(squares[which], features, features[which].mT, alpha=-2).amin(1)
    return (least + squares).clamp_min_(0)


def _round(features: Tensor, left: Tensor, most: int) -> Tensor:
    """Return at least one and at most ``most`` of the farthest features, no two near each other."""
    far, candidates = left.topk(min(4 * most, len(left)))
    apart = torch.cdist(features[candidates], features[candidates]).square()
    taken: list[int] = []
    floor, far = far[-1], far.clone()
    for _ in range(most):
        best = int(far.argmax())
        if taken and far[best] < floor:  # beyond these few others may be farther
            break
        taken.append(best)
        far = torch.minimum(far, apart[best])
        far[best] = -1
    return candidates[taken]
