"""What a trained method costs: parameters, bytes, operations an image, images a second."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from loligo.data.dataset import Dataset
from loligo.detector import Detector
from loligo.methods.contract import Method
from loligo.runs.run import Run

TIMED, BATCH = 64, 16
"""Images that the scoring speed is measured on, at most, and those at once."""


def measure(run: Run, data: Dataset) -> dict[str, Any]:
    """Return the cost of scoring images of ``data`` with a trained run, on the threads that torch may use here."""
    detector, model = Detector.load(run, run.train.device), run.model()
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "model_bytes": run.files.model.stat().st_size,
        "flops_per_image": flops(model.freeze(), data.batch([0])),
        "score_images_per_s": round(speed(detector, data), 2),
    }


def flops(model: Method, x: torch.Tensor) -> int:
    """Count the operations of scoring one image (1, C, H, W): two for each multiply-add of convolutions and products.

    Element-wise operations, sorting and factorising are not counted; 0 means that nothing else is done.
    """
    with _Counter() as counter, torch.no_grad():  # type: ignore[no-untyped-call]
        model(x)
    return int(counter.total)


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Add up operations; torch's own FlopCounterMode also tracks modules, which forbids gradients while scoring."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do the operation and count it."""
        found = func(*args, **(kwargs or {}))
        if count := flop_registry.get(func.overloadpacket):
            self.total += int(count(*args, **(kwargs or {}), out_val=found))
        return found


def speed(detector: Detector, data: Dataset) -> float:
    """Return the median of images a second over batches, the first one left out where there are more."""
    rates = []
    for start in range(0, min(len(data), TIMED), BATCH):
        x = data.batch(np.arange(start, min(start + BATCH, len(data))))
        begun = time.perf_counter()
        detector(x)
        rates.append(len(x) / (time.perf_counter() - begun))
    return float(np.median(rates[1:] or rates))
