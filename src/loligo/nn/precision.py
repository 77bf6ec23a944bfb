"""Which dtype convolutions and products are computed in, and what else makes them fast on a CPU."""

from __future__ import annotations

import contextlib
import ctypes

import torch

from loligo.config import Precision

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc


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


def hasten() -> None:
    """Make this process fast on a CPU: flush denormals to zero and, with glibc, keep freed memory for later tensors.

    By default glibc gives tensors of more than some MB back to the system and asks for them anew, a page fault every
    4 KiB. Those up to 128 MiB now stay in the heap, of which up to 1 GiB is kept when free.
    """
    torch.set_flush_denormal(True)
    with contextlib.suppress(OSError, AttributeError, TypeError):  # other systems and C libraries: nothing to set
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, 1 << 27)
        mallopt(M_TRIM_THRESHOLD, 1 << 30)
