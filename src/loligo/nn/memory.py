"""Memories of normal features: a queue of recent ones, a learnt matrix, prototypes, and how a query reads them.

Memory matrix and entropy: Gong et al., MemAE, ICCV 2019 (1904.02639). Prototypes, compactness and separateness: Park et
al., MNAD, CVPR 2020 (2003.13228). Memory queue and Gumbel shrinkage: Xiang et al., SQUID, CVPR 2023 (2111.13495). A
memory holds ``positions`` independent sets of slots, one a patch position; with one set for all, the memory is shared.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from loligo.config import Shrinkage


def shrink(logits: Tensor, how: Shrinkage, k: int = 5, threshold: float = 0.0025, strict: bool = False) -> Tensor:
    """Turn similarities (..., m) into addressing weights (..., m) that sum to one, mostly zero.

    gumbel: keep the ``k`` largest of the softmax, of equal ones any, renormalise, and pass the gradient as if it were
    the softmax. Where ``strict``, only weights above the k-th largest are kept, so k - 1 of them or, where some are
    equal, fewer (as the reference code does).
    hard: zero the softmax below ``threshold`` and renormalise (MemAE). soft: subtract ``threshold`` first.
    none: the plain softmax.
    """
    weights = logits.float().softmax(-1)
    if how == "none":
        return weights
    if how == "gumbel":
        top, which = weights.detach().topk(min(k, weights.shape[-1]), -1)
        if strict:
            top = top * (top > top[..., -1:])
        kept = torch.zeros_like(weights).scatter(-1, which, top)
        return F.normalize(kept, p=1.0, dim=-1) - weights.detach() + weights
    kept = F.relu(weights - threshold)
    if how == "hard":  # differentiable form of weights * (weights > threshold)
        kept = kept * weights / ((weights - threshold).abs() + 1e-12)
    return F.normalize(kept, p=1.0, dim=-1)


def check_k(shrinkage: Shrinkage, k: int, strict: bool) -> None:
    """Raise ValueError where Gumbel shrinkage would keep no slot."""
    if shrinkage == "gumbel" and k < 1 + strict:
        why = "strict_top_k keeps k - 1 slots, so at least 2 are needed" if strict else "at least 1 slot must be kept"
        raise ValueError(f"k is {k}; {why}")


def entropy(weights: Tensor) -> Tensor:
    """Return the mean entropy in nats of addressing weights (..., m); its gradient is finite where weights are 0."""
    return -(weights * (weights + 1e-12).log()).sum(-1).mean()


def unit_distance(cosine: Tensor) -> Tensor:
    """Return the Euclidean distance, in [0, 2], of vectors of unit length by their cosine similarity."""
    return (2 - 2 * cosine).clamp_min(1e-6).sqrt()  # of equal ones the root has no gradient


def compactness_and_separateness(cosine: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    """Return MNAD's losses of queries by their cosine similarities (..., m) to the slots, means over queries.

    Compactness is the distance from the nearest slot; separateness is how far the second nearest is from lying
    ``margin`` farther off.
    """
    nearest, second = unit_distance(cosine.topk(2, -1).values).unbind(-1)
    return nearest.mean(), F.relu(nearest - second + margin).mean()


class Reading(NamedTuple):
    """What a memory returns for queries (N, L, D)."""

    values: Tensor
    """(N, L, D) in the dtype of the queries: slots, weighed."""
    weights: Tensor
    """(L, N, m) float32, of a shared memory (1, N * L, m): how much of each slot that is."""
    similarity: Tensor
    """The same shape: of query and slots, dot product or cosine."""


class Memory(nn.Module):
    """Hold (positions, m, D) slots and read them by dot product, or by cosine similarity where ``cosine``."""

    slots: Tensor

    def __init__(
        self,
        slots: int,
        dim: int,
        positions: int,
        shrinkage: Shrinkage,
        k: int = 5,
        strict: bool = False,
        threshold: float = 0.0025,
        cosine: bool = False,
    ) -> None:
        super().__init__()
        self.shrinkage, self.k, self.strict, self.threshold, self.cosine = shrinkage, k, strict, threshold, cosine
        bound = 1 / math.sqrt(dim)
        self._hold(torch.empty(positions, slots, dim).uniform_(-bound, bound))

    def _hold(self, slots: Tensor) -> None:
        raise NotImplementedError

    def forward(self, query: Tensor) -> Tensor:
        """Read (N, L, D) queries, position by position: (N, L, D). L is ``positions``, or any where that is one."""
        return self.look(query).values

    def look(self, query: Tensor) -> Reading:
        """Read (N, L, D) queries as `forward`, and return weights and similarities, too."""
        n, length, dim = query.shape
        if self.slots.shape[0] == 1:
            query = query.reshape(n * length, 1, dim)
        similarity = self._compare(query)
        weights = shrink(similarity, self.shrinkage, self.k, self.threshold, self.strict)
        few = self.shrinkage == "gumbel" and not (self.training and torch.is_grad_enabled())
        if few and not torch.compiler.is_compiling():  # ONNX has but loops for it
            read = self._read_kept(weights).to(query.dtype)
        else:
            read = weights.to(query.dtype) @ self.slots.to(query.dtype)  # (L, N, m) @ (L, m, D)
        return Reading(read.transpose(0, 1).reshape(n, length, dim).contiguous(), weights, similarity)

    def _compare(self, query: Tensor) -> Tensor:
        """Return the similarities (L, N, m) float32 of queries (N, L, D) and the slots of their positions."""
        with torch.autocast(query.device.type, enabled=False):  # bfloat16 ties slots, so that not k of them are kept
            query, slots = query.transpose(0, 1).float(), self.slots.float()
            if self.cosine:
                query, slots = F.normalize(query, dim=-1), F.normalize(slots, dim=-1)
            return query @ slots.mT  # (L, N, D) @ (L, D, m)

    def _read_kept(self, weights: Tensor) -> Tensor:
        """Return ``weights @ slots``, (L, N, m) @ (L, m, D), from the few slots alone whose weight may not be zero."""
        positions, m, dim = self.slots.shape
        kept, which = weights.topk(max(1, min(self.k, m) - self.strict), -1)
        which = which + m * torch.arange(positions, device=which.device)[:, None, None]
        which, slots, kept = (part.flatten(0, 1) for part in (which, self.slots.float(), kept))
        return F.embedding_bag(which, slots, per_sample_weights=kept, mode="sum").view(positions, -1, dim)


class MemoryMatrix(Memory):
    """Slots learnt by gradient."""

    def _hold(self, slots: Tensor) -> None:
        self.slots = nn.Parameter(slots)


class MemoryQueue(Memory):
    """Slots copied from recent features, first in, first out; not learnt, saved with its pointer."""

    pointer: Tensor

    def _hold(self, slots: Tensor) -> None:
        self.register_buffer("slots", slots)
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def write(self, features: Tensor) -> None:
        """Overwrite the oldest slots with (N, L, D) features; of more than m, the last m remain."""
        positions, m, dim = self.slots.shape
        values = features.detach().reshape(-1, positions, dim).to(self.slots.dtype)
        start = int(self.pointer) + max(0, len(values) - m)
        values = values[-m:]
        places = (start + torch.arange(len(values), device=values.device)) % m
        self.slots[:, places] = values.transpose(0, 1)
        self.pointer.fill_((start + len(values)) % m)


class MemoryPrototypes(Memory):
    """Slots of unit length that move towards the queries nearest to them; not learnt by gradient, shared by all places.

    Read by the softmax of cosine similarities (MNAD, section 3.1.2).
    """

    def __init__(self, slots: int, dim: int) -> None:
        super().__init__(slots, dim, 1, "none", cosine=True)

    def _hold(self, slots: Tensor) -> None:
        self.register_buffer("slots", F.normalize(slots, dim=-1))

    @torch.no_grad()
    def write(self, queries: Tensor) -> None:
        """Add to each slot the queries (..., D) that it is the nearest of, and bring it to unit length again.

        A query counts by the exponential of its similarity, relative to the most similar query of the same slot: the
        softmax over all queries cancels out.
        """
        queries = F.normalize(queries.detach().float().flatten(0, -2), dim=-1)
        similarity = self._compare(queries[:, None])[0]  # (N, m)
        nearest = F.one_hot(similarity.argmax(1), similarity.shape[1]) > 0
        own = similarity.masked_fill(~nearest, -torch.inf)
        weights = (own - own.amax(0).clamp_min(-1)).exp()  # no slot without queries has a greatest similarity
        with torch.autocast(queries.device.type, enabled=False):
            self.slots.copy_(F.normalize(self.slots + weights.mT @ queries, dim=-1))
