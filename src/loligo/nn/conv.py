"""Convolution units: conv, batch norm, residual, ReLU in one module, and the same packed for fast scoring."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Protocol, TypeVar, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from loligo.nn.precision import can_pack

M = TypeVar("M", bound=nn.Module)


@runtime_checkable
class Packs(Protocol):
    """A module that makes itself fast for scoring."""

    def pack(self, dtype: torch.dtype) -> None:
        """Change in place to what computes the same in ``dtype``, without gradients."""


class ConvNorm(nn.Module):
    """Convolve, batch-normalise, add a residual where one is given, apply ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Map (N, C, H, W) to (N, D, H / stride, W / stride)."""
        y = self.norm(self.conv(x))
        return F.relu(y if residual is None else y + residual, inplace=True)


class Unit(nn.Module):
    """Apply conv-BN-ReLU, then add (conv-BN-ReLU, conv-BN) to it and apply ReLU; all 3x3. SQUID's basic block."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.first = ConvNorm(inputs, outputs, stride=stride)
        self.second = ConvNorm(outputs, outputs)
        self.third = ConvNorm(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, D, H / stride, W / stride)."""
        x = self.first(x)
        out: Tensor = self.third(self.second(x), residual=x)
        return out


class UpConvNorm(nn.Module):
    """Convolve, transposed, 3x3, batch-normalise, apply ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(inputs, outputs, 3, 2, 1, output_padding=1)
        self.norm: nn.Module = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, D, 2 H, 2 W)."""
        return F.relu(self.norm(self.conv(x)), inplace=True)

    def pack(self, dtype: torch.dtype) -> None:
        """Fold the batch norm into the convolution; its dtype is changed by `packed`."""
        self.conv, self.norm = fuse_conv_bn_eval(self.conv, self.norm, transpose=True), nn.Identity()  # type: ignore[arg-type]


def upsample(x: Tensor) -> Tensor:
    """Double height and width by bilinear interpolation in the dtype of ``x``; autocast would go to float32."""
    with torch.autocast(x.device.type, enabled=False):
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class PackedConv(nn.Module):
    """A convolution in ``dtype`` with the batch norm behind it folded in.

    Where oneDNN can, its weights are packed beforehand; elsewhere it stays a plain convolution.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d, dtype: torch.dtype) -> None:
        super().__init__()
        fused = fuse_conv_bn_eval(conv, norm)
        self.dtype = dtype
        self.shape = ([*map(int, conv.padding)], [*conv.stride], [*conv.dilation], conv.groups)
        weight = fused.weight.detach().to(dtype)
        self.packed = weight.device.type == "cpu" and can_pack(dtype)
        if self.packed:
            weight = torch.ops.mkldnn._reorder_convolution_weight(weight, *self.shape, None)
        self.weight = weight
        self.register_buffer("bias", fused.bias.detach().to(dtype))  # type: ignore[union-attr]

    def convolve(self, x: Tensor, act: str = "none", limits: Sequence[float] = ()) -> Tensor:
        """Map (N, C, H, W) in the packed dtype to (N, D, h, w), then apply none, relu or hardtanh within limits."""
        if self.packed:
            ops = torch.ops.mkldnn
            y: Tensor = ops._convolution_pointwise(x, self.weight, self.bias, *self.shape, act, list(limits), "")
            return y
        padding, stride, dilation, groups = self.shape
        y = F.conv2d(x, self.weight, self.bias, stride, padding, dilation, groups)
        if act == "hardtanh":
            return F.hardtanh(y, limits[0], limits[1])
        return F.relu(y) if act == "relu" else y


class PackedConvNorm(PackedConv):
    """The same function as a `ConvNorm` in eval mode; packed, by one fused oneDNN kernel."""

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Map (N, C, H, W) to (N, D, H / stride, W / stride) in the packed dtype."""
        x = x.to(self.dtype)
        if residual is None:
            return self.convolve(x, "relu")
        if not self.packed:
            return F.relu(self.convolve(x) + residual.to(self.dtype))
        rest = (self.weight, self.bias, *self.shape)
        out: Tensor = torch.ops.mkldnn._convolution_pointwise.binary(x, residual, *rest, "add", None, "relu", [], "")
        return out


def packed(module: M, dtype: torch.dtype, device: str | torch.device = "cpu") -> M:
    """Return a copy of ``module`` on ``device`` that computes the same and faster, in ``dtype``, without gradients.

    Batch norms are folded into their convolutions; on a CPU with oneDNN these are fused with residual and ReLU. A
    module that says it is ``exact`` stays in float32; one that knows how to ``pack`` itself does so first. Buffers are
    shared and not copied: a memory of normal features may be large.
    """
    shared = {id(buffer): buffer for buffer in module.buffers()}
    module = copy.deepcopy(module, shared).to(device).to(memory_format=torch.channels_last).eval().requires_grad_(False)
    for part in list(module.modules()):
        if isinstance(part, Packs):
            part.pack(dtype)
    exact = {part for m in module.modules() if getattr(m, "exact", False) for part in m.modules()}
    for parent in [m for m in module.modules() if m not in exact]:
        for name, child in parent.named_children():
            if isinstance(child, ConvNorm):
                setattr(parent, name, PackedConvNorm(child.conv, child.norm, dtype))
            elif type(child) in (nn.Linear, nn.Conv2d, nn.ConvTranspose2d):
                child.to(dtype)
    return module
