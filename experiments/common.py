"""What the lab scripts share: where results lie, what machine this is, how fast something runs."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def machine() -> str:
    """Name the processor, its cores and the version of torch."""
    import torch

    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    amx = "with AMX" if "amx_bf16" in flags else "without AMX"
    return f"{platform.machine()}, {os.cpu_count()} cores, {amx}, torch {torch.__version__}"


def best_rate(work: Callable[[], object], amount: float, seconds: float = 2.0) -> float:
    """Return the best of several timings as amount a second."""
    work()
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 3:
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return amount / min(times)
