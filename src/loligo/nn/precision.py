"""Which dtype convolutions and products are computed in."""

from __future__ import annotations

import contextlib

import torch

from loligo.config import Precision


def pick_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """Return bfloat16 where it is asked for or, on auto, where the processor computes in it; else float32."""
    if precision == "auto":
        native = torch.cuda.is_bf16_supported() if device.type == "cuda" else has_bf16()
        return torch.bfloat16 if native and device.type in ("cpu", "cuda") else torch.float32
    return torch.bfloat16 if precision == "bf16" else torch.float32


def has_bf16() -> bool:
    """Say whether this processor multiplies bfloat16 natively."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def autocast(device: torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager[object]:
    """Return the context in which a method runs in ``dtype``."""
    return torch.autocast(device.type, dtype, enabled=dtype is not torch.float32)
