"""Memories of normal features: a queue of recent ones, a learnt matrix, and how a query reads them.

Memory matrix: Gong et al., MemAE, ICCV 2019 (1904.02639). Memory queue and Gumbel shrinkage: Xiang et al., SQUID,
CVPR 2023 (2111.13495). A memory holds ``positions`` independent sets of slots, one a patch position; with one set
for all, the memory is shared.
"""

from __future__ import annotations

import math

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


class Memory(nn.Module):
    """Hold (positions, m, D) slots and read them by dot product."""

    slots: Tensor

    def __init__(self, slots: int, dim: int, positions: int, shrinkage: Shrinkage, k: int, strict: bool) -> None:
        super().__init__()
        self.shrinkage, self.k, self.strict = shrinkage, k, strict
        bound = 1 / math.sqrt(dim)
        self._hold(torch.empty(positions, slots, dim).uniform_(-bound, bound))

    def _hold(self, slots: Tensor) -> None:
        raise NotImplementedError

    def forward(self, query: Tensor) -> Tensor:
        """Read (N, L, D) queries, position by position: (N, L, D). L is ``positions``, or any where that is one."""
        n, length, dim = query.shape
        if self.slots.shape[0] == 1:
            query = query.reshape(n * length, 1, dim)
        with torch.autocast(query.device.type, enabled=False):  # bfloat16 ties slots, so that not k of them are kept
            similarity = query.transpose(0, 1).float() @ self.slots.float().mT  # (L, N, D) @ (L, D, m)
        weights = shrink(similarity, self.shrinkage, self.k, strict=self.strict)
        few = self.shrinkage == "gumbel" and not (self.training and torch.is_grad_enabled())
        if few and not torch.compiler.is_compiling():  # ONNX has but loops for it
            read = self._read_kept(weights).to(query.dtype)
        else:
            read = weights.to(query.dtype) @ self.slots.to(query.dtype)  # (L, N, m) @ (L, m, D)
        return read.transpose(0, 1).reshape(n, length, dim).contiguous()

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
