"""How convolutions are computed while a network learns on a CPU: contexts, where oneDNN is slow."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

SIDE = 4
"""Height and width of the result up to which a product is faster; oneDNN's tiles are rows of 16 pixels."""
WIDE = 128
"""Channels from which on it is."""
Pair = tuple[int, int]


class Convolve(TorchFunctionMode):
    """Within it `torch.nn.functional.conv2d` is computed by ``function``, which takes its arguments by position."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Replace convolutions and leave all else."""
        return (self.function if func is F.conv2d else func)(*args, **(kwargs or {}))


def exact_depthwise(device: torch.device) -> AbstractContextManager[object]:
    """Return the context in which depthwise convolutions learn in float32, whatever the autocast around it.

    Backwards, oneDNN is up to 40 times as slow in bfloat16.
    """
    learns = device.type == "cpu" and torch.is_grad_enabled() and torch.is_autocast_enabled("cpu")
    return Convolve(_exact_depthwise) if learns else nullcontext()


def by_product(device: torch.device) -> AbstractContextManager[object]:
    """Return the context in which convolutions of many channels to few pixels learn as one matrix product.

    In bfloat16 they do so twice as fast.
    """
    return Convolve(_by_product) if device.type == "cpu" and torch.is_grad_enabled() else nullcontext()


def _exact_depthwise(x: Tensor, weight: Tensor, *rest: Any) -> Tensor:
    if weight.shape[1] > 1 or x.shape[1] == 1:
        return F.conv2d(x, weight, *rest)
    with torch.autocast("cpu", enabled=False):
        return F.conv2d(x.float(), weight, *rest).to(x.dtype)


def _by_product(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> Tensor:
    kernel = weight.shape[2:]
    h, w = ((n + 2 * p - k) // s + 1 for n, p, k, s in zip(x.shape[2:], padding, kernel, stride, strict=True))
    if max(h, w) > SIDE or x.shape[1] < WIDE or groups > 1 or tuple(dilation) != (1, 1):
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups)
    x = F.pad(x.permute(0, 2, 3, 1), (0, 0, padding[1], padding[1], padding[0], padding[0]))  # (N, H, W, C)
    shifted = [
        x[:, i : i + stride[0] * h : stride[0], j : j + stride[1] * w : stride[1]]
        for i in range(kernel[0])
        for j in range(kernel[1])
    ]
    return F.linear(torch.cat(shifted, 3), weight.permute(0, 2, 3, 1).flatten(1), bias).permute(0, 3, 1, 2)
