"""Cut images into a grid of non-overlapping patches, and stitch them again."""

from __future__ import annotations

from torch import Tensor


def cut(x: Tensor, grid: int) -> Tensor:
    """Cut (N, C, H, W) into (N * grid**2, C, H / grid, W / grid), patches in raster order within an image."""
    n, c, h, w = x.shape
    if h % grid or w % grid:
        raise ValueError(f"an image of {h}x{w} cannot be cut into {grid}x{grid} equal patches")
    x = x.permute(0, 2, 3, 1).reshape(n, grid, h // grid, grid, w // grid, c)
    return x.transpose(2, 3).reshape(n * grid**2, h // grid, w // grid, c).permute(0, 3, 1, 2)


def stitch(x: Tensor, grid: int) -> Tensor:
    """Stitch (N * grid**2, C, h, w) into (N, C, grid * h, grid * w): the inverse of `cut`."""
    n, c, h, w = x.shape
    x = x.permute(0, 2, 3, 1).reshape(n // grid**2, grid, grid, h, w, c)
    return x.transpose(2, 3).reshape(n // grid**2, grid * h, grid * w, c).permute(0, 3, 1, 2)
