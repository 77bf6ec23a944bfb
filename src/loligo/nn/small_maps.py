"""Convolutions of maps of few pixels as one matrix product: on a CPU they train twice as fast in bfloat16."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIDE = 4
"""Height and width of the result up to which a product is faster; oneDNN's tiles are rows of 16 pixels."""


class ByProduct(nn.Module):
    """What makes a convolution of small maps a matrix product while it learns; otherwise it is as it was."""

    weight: Tensor
    bias: Tensor | None
    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, D, h, w)."""
        h, w = ((n + 2 * p - k) // s + 1 for n, p, k, s in self._sides(x))
        if x.device.type != "cpu" or not torch.is_grad_enabled() or max(h, w) > SIDE:
            return super().forward(x)  # type: ignore[no-any-return]
        (down, right), (top, left) = self.stride, self.padding
        x = F.pad(x.permute(0, 2, 3, 1), (0, 0, left, left, top, top))  # (N, H, W, C)
        shifted = [
            x[:, i : i + down * h : down, j : j + right * w : right]
            for i in range(self.kernel_size[0])
            for j in range(self.kernel_size[1])
        ]
        matrix = self.weight.permute(0, 2, 3, 1).flatten(1)  # (D, kernel * C)
        return F.linear(torch.cat(shifted, 3), matrix, self.bias).permute(0, 3, 1, 2)

    def _sides(self, x: Tensor) -> zip[tuple[int, int, int, int]]:
        return zip(x.shape[2:], self.padding, self.kernel_size, self.stride, strict=True)


def by_product(network: nn.Module) -> None:
    """Let convolutions of a network with many channels learn by products where their maps are small."""
    for conv in list(network.modules()):
        if type(conv) is nn.Conv2d and conv.groups == 1 and conv.dilation == (1, 1) and conv.in_channels >= 128:
            conv.__class__ = type(f"ByProduct{type(conv).__name__}", (ByProduct, type(conv)), {})
