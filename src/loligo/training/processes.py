"""Train in several processes at once, each on its part of every batch: the numbers are those of the whole batch.

A process learns of the others from the environment, as ``torchrun`` sets it (RANK, WORLD_SIZE, MASTER_ADDR), also over
several machines; `spawn` starts those of one machine. Gradients and statistics of batch norms are summed over
processes, and whatever else a method must agree on goes through `loligo.methods.contract.Reduce`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.multiprocessing.spawn import ProcessRaisedException
from torch.multiprocessing.spawn import start_processes as start
from torch.overrides import TorchFunctionMode

from loligo.methods.contract import ALONE, Reduce

PATIENCE = timedelta(days=1)
"""How long a process waits for the others; the first calibrates alone at the end."""


class Ranks(Reduce):
    """Agreement by torch.distributed."""

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def sum(self, x: Tensor) -> Tensor:
        """Return the sum of a tensor over processes."""
        whole = x.detach().clone()
        dist.all_reduce(whole)
        return whole

    def gather(self, x: Tensor) -> Tensor:
        """Return the tensors (N, ...) of all processes, one after another; their lengths may differ."""
        counts = [torch.zeros((), dtype=torch.long, device=x.device) for _ in range(self.size)]
        dist.all_gather(counts, torch.tensor(len(x), device=x.device))
        padded = x.new_zeros(int(max(counts)), *x.shape[1:])
        padded[: len(x)] = x
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(parts, padded)
        return torch.cat([part[: int(count)] for part, count in zip(parts, counts, strict=True)])


def inside() -> bool:
    """Say whether the environment makes this process one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def local_rank() -> int:
    """Return the number of this process among those of its machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


@contextmanager
def joined(device: torch.device) -> Iterator[Reduce]:
    """Meet the other processes, where the environment says that there are any, and let them go at the end."""
    if not inside():
        yield ALONE
        return
    met = not dist.is_initialized()
    if met:
        if device.type != "cpu":
            torch.accelerator.set_device_index(device)
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield Ranks()
        if met:
            dist.barrier()
    finally:
        if met:
            dist.destroy_process_group()


def spawn(function: Callable[..., Any], count: int, *given: Any) -> None:
    """Call ``function(*given)`` in so many processes of this machine; an error in one ends all and is raised here.

    What one of them refuses with a ValueError is raised as that.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    try:
        start(  # type: ignore[no-untyped-call]
            _one, (count, port, function, given), nprocs=count, start_method="spawn"
        )
    except ProcessRaisedException as error:
        kind, _, said = str(error).strip().splitlines()[-1].partition(": ")
        if kind in ("ValueError", "ImportError", "FloatingPointError"):
            raise ValueError(said) from error
        raise


def _one(rank: int, count: int, port: int, function: Callable[..., Any], given: tuple[Any, ...]) -> None:
    here = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({key: str(value) for key, value in here.items()})
    torch.set_num_threads(max(1, torch.get_num_threads() // count))
    function(*given)


def synced_norms(reduce: Reduce) -> Any:
    """Return the context in which batch norms take their statistics over all processes."""
    return _SyncedNorms() if reduce.size > 1 else nullcontext()


class _SyncedNorms(TorchFunctionMode):
    """Take batch norm's statistics over processes, on any device: torch's SyncBatchNorm knows GPUs alone."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Replace `torch.nn.functional.batch_norm` in training."""
        if func is F.batch_norm and _argument("training", 5, args, kwargs):
            return _batch_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _argument(name: str, place: int, args: Any, kwargs: Any) -> Any:
    return args[place] if len(args) > place else (kwargs or {}).get(name)


def _batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise (N, C, ...) by mean and variance over the images of all processes."""
    dims, shape = [0, *range(2, x.ndim)], (1, -1, *[1] * (x.ndim - 2))
    values = x.float()
    count = torch.tensor(float(x.numel() // x.shape[1]), device=x.device)
    dist.all_reduce(count)
    mean = _sum(values.sum(dims)) / count
    centred = values - mean.view(shape)
    variance = _sum(centred.square().sum(dims)) / count
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            running_var.lerp_((variance * count / (count - 1)).to(running_var.dtype), momentum)
    out = centred * torch.rsqrt(variance + eps).view(shape)
    if weight is not None and bias is not None:
        out = out * weight.view(shape) + bias.view(shape)
    result: Tensor = out.to(x.dtype)
    return result


class _Sum(torch.autograd.Function):
    """The sum of a tensor over processes, each of which has the gradient of the sum of all losses."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Return the sum."""
        whole = x.clone()
        dist.all_reduce(whole)
        return whole

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """Return the sum of the gradients."""
        whole = gradients[0].contiguous().clone()
        dist.all_reduce(whole)
        return whole


def _sum(x: Tensor) -> Tensor:
    found: Tensor = _Sum.apply(x)
    return found
