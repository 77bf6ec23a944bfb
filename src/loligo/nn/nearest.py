"""The nearest of a bank of features, searched a block at a time by matrix products."""

from __future__ import annotations

import torch
from torch import Tensor

ROOM = 1 << 27
"""Bytes of a block; larger ones are no faster."""


def nearest(queries: Tensor, bank: Tensor, room: int = ROOM) -> tuple[Tensor, Tensor]:
    """Return the distance (n,) float32 of each query (n, D) from the nearest of a bank (m, D), and its index (n,).

    The search is by |b|^2 / 2 - q b about the bank's mean, in the dtype of the autocast that this stands in; the
    distance to the one that is found is computed in float32. As many queries are searched at once as take ``room``
    bytes, one at least (all of them in an exported graph); two copies of the bank and the result come on top.
    """
    device = queries.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else torch.float32
    with torch.autocast(device, enabled=False):
        centre = bank.float().mean(0)
        b = bank.float() - centre
        half, keys = (b.square().sum(1) / 2)[None], b.mT.to(dtype)
        each = 4 * (2 * bank.shape[0] + 4 * bank.shape[1])  # products, and these from half; four vectors
        found = []
        at_once = max(1, min(room, ROOM) // each)
        for part in [queries] if torch.compiler.is_compiling() else torch.split(queries, at_once):
            q = part.float() - centre
            which = torch.add(half, q.to(dtype) @ keys, alpha=-1).argmin(1)
            found.append((torch.linalg.vector_norm(q - b[which], dim=1), which))
        distances, indices = (torch.cat(parts) for parts in zip(*found, strict=True))
        return distances, indices
