"""The nearest of a bank of features, searched a block at a time by matrix products."""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 1 << 24
"""Products that are held at once: bounds the memory of a search."""


def nearest(queries: Tensor, bank: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distance (n,) float32 of each query (n, D) from the nearest of a bank (m, D), and its index (n,).

    The search is by |b|^2 / 2 - q b about the bank's mean, in the dtype of the autocast that this stands in; the
    distance to the one that is found is computed in float32.
    """
    device = queries.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else torch.float32
    with torch.autocast(device, enabled=False):
        centre = bank.float().mean(0)
        q, b = queries.float() - centre, bank.float() - centre
        half, keys = (b.square().sum(1) / 2)[None], b.mT.to(dtype)
        found = [
            torch.add(half, part.to(dtype) @ keys, alpha=-1).argmin(1)
            for part in torch.split(q, max(1, BLOCK // len(bank)))
        ]
        which = torch.cat(found)
        return torch.linalg.vector_norm(q - b[which], dim=1), which
