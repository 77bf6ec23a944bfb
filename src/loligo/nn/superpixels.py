"""Superpixels: SLIC, k-means of pixels by intensity and place (Achanta et al., TPAMI 34(11), 2012), as a graph.

As in its versions for graphics processors, a pixel chooses among the 3x3 centres that lie around it in the beginning,
rather than each centre among the pixels around it. The last step of the paper, which gives stray pixels to a neighbour,
is left out.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def slic(x: Tensor, side: int, contrast: float, iterations: int = 10) -> Tensor:
    """Return the superpixel of each pixel of square images (N, C, S, S) in [0, 1]: (N, S * S) int64.

    There are (S / side)**2, numbered in raster order of the grid of squares that they grow from. A difference of
    ``contrast`` in intensity weighs like ``side`` pixels of distance.
    """
    n, _, size, _ = x.shape
    place = torch.arange(size, device=x.device, dtype=torch.float32) / side
    places = torch.stack(torch.meshgrid(place, place, indexing="ij")).expand(n, -1, -1, -1)
    features = torch.cat([x.float() / contrast, places], 1).flatten(2)  # (N, C + 2, S * S)
    around = _around(size, side).to(x.device)  # (S * S, 9)
    regions = around[:, 4].expand(n, -1)
    centres = features.new_zeros(n, features.shape[1], (size // side) ** 2)
    for _ in range(iterations):
        centres = _means(features, regions, centres)
        distances = (features[..., None] - centres[:, :, around]).square().sum(1)  # (N, S * S, 9)
        regions = around.expand(n, -1, -1).gather(2, distances.argmin(2, keepdim=True)).squeeze(2)
    return regions


def pool_regions(maps: Tensor, regions: Tensor, count: int) -> Tensor:
    """Give each pixel of maps (N, C, H, W) the mean over its superpixel; ``regions`` (N, H * W) are below ``count``."""
    flat = maps.flatten(2)
    means = _means(flat, regions, flat.new_zeros(*flat.shape[:2], count))
    return means.gather(2, regions[:, None].expand_as(flat)).view_as(maps)


def _means(features: Tensor, regions: Tensor, centres: Tensor) -> Tensor:
    """Return the mean features (N, D, K) of regions; those that have no pixels keep their centres."""
    index = regions[:, None].expand_as(features)
    total = torch.zeros_like(centres).scatter_add(2, index, features)
    pixels = torch.zeros_like(centres).scatter_add(2, index, torch.ones_like(features))
    return torch.where(pixels > 0, total / pixels.clamp(min=1), centres)


def _around(size: int, side: int) -> Tensor:
    """Return (S * S, 9) int64: the squares around each pixel's own, which is in the middle; at the border its own."""
    grid = size // side
    squares = F.pad(torch.arange(grid**2, dtype=torch.float32).view(1, 1, grid, grid), [1] * 4, mode="replicate")
    found = squares[0, 0].long().unfold(0, 3, 1).unfold(1, 3, 1).flatten(2)  # (grid, grid, 9)
    return found.repeat_interleave(side, 0).repeat_interleave(side, 1).flatten(0, 1)
