"""Which device and which dtype convolutions and products are computed on and in, and what else makes a CPU fast."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import logging
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from loligo.config import Precision

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
Resolved = Literal["bf16", "float32"]
log = logging.getLogger(__name__)


def pick_device(name: str, index: int = 0) -> torch.device:
    """Return the device of a name such as auto, cpu, cuda or mps, the ``index``-th where there are several.

    ValueError, which names what there is, for another.
    """
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    kinds = ["cpu", *([accelerator.type] if accelerator else [])]
    if name == "auto":
        name = kinds[-1]
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in kinds:
        raise ValueError(f"device is {name!r}; this machine has {', '.join(kinds)} (or auto, the last of them)")
    if device.type == "cpu" or device.index is not None:
        return device
    return torch.device(device.type, index % torch.accelerator.device_count())


def resolve(precision: Precision, device: torch.device) -> Resolved:
    """Return what a precision means on a device: on auto bf16 where it is computed natively, else float32."""
    if precision != "auto":
        return precision
    native = torch.cuda.is_bf16_supported() if device.type == "cuda" else device.type == "cpu" and has_bf16()
    return "bf16" if native else "float32"


def dtype_of(precision: Resolved, device: torch.device) -> torch.dtype:
    """Return the dtype of a resolved precision; a line of the log says where a CPU has to emulate it."""
    if precision == "bf16" and device.type == "cpu" and not has_bf16():
        _warn_of_emulation()
    return torch.bfloat16 if precision == "bf16" else torch.float32


@functools.cache
def _warn_of_emulation() -> None:
    log.warning("this processor does not compute in bfloat16: precision bf16 is emulated, which is slow")


@functools.cache
def has_bf16() -> bool:
    """Say whether this processor multiplies bfloat16 natively, and oneDNN lets it."""
    flags = torch.backends.cpu.get_cpu_capability()
    claims = (
        getattr(torch.cpu, "_is_avx512_bf16_supported", bool)() or getattr(torch.cpu, "_is_amx_tile_supported", bool)()
    )
    return bool(claims) and "AVX512" in flags and can_pack(torch.bfloat16)


@functools.cache
def can_pack(dtype: torch.dtype) -> bool:
    """Say whether oneDNN packs a convolution's weights in ``dtype`` and computes by them here, by doing it once."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    ops, shape = torch.ops.mkldnn, ([1, 1], [1, 1], [1, 1], 1)
    try:
        weight = ops._reorder_convolution_weight(torch.ones(8, 8, 3, 3, dtype=dtype), *shape, None)
        x, bias = torch.ones(1, 8, 4, 4, dtype=dtype), torch.zeros(8, dtype=dtype)
        y = ops._convolution_pointwise(x, weight, bias, *shape, "relu", [], "")
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    return float(y[0, 0, 1, 1]) == 72.0


def autocast(device: torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager[object]:
    """Return the context in which a method runs in ``dtype``."""
    return torch.autocast(device.type, dtype, enabled=dtype is not torch.float32)


def accelerate() -> None:
    """Make this process fast on a CPU: flush denormals to zero and, with glibc, keep freed memory for later tensors.

    Both hold for the whole process, so that no other function of the package does it; the command line does. Denormals
    make the training of SQUID thrice as slow. By default glibc gives tensors of more than some MB back to the system
    and asks for them anew, a page fault every 4 KiB: a third of the time of Duet's training. Those up to 512 MiB then
    stay in the heap, of which up to 2 GiB is kept when free.
    """
    torch.set_flush_denormal(True)
    with contextlib.suppress(OSError, AttributeError, TypeError):  # other systems and C libraries: nothing to set
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, 1 << 29)
        mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


def not_finite(tensors: Mapping[str, Tensor]) -> str:
    """Return the name of the first tensor that holds a number which is not finite; empty where there is none."""
    return next((name for name, x in tensors.items() if x.is_floating_point() and not x.isfinite().all()), "")
