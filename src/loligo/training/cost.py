"""What a training cost: time, memory, and the machine and code that it ran on."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import torch


def cost(history: pd.DataFrame) -> dict[str, Any]:
    """Return what a training took, by the history that `loop.fit` returned; a resumed one counts all its epochs."""
    return {
        "train_seconds": round(history.attrs["seconds"], 2),
        "train_cpu_seconds": round(history.attrs["cpu_seconds"], 2),
        "images_per_s": round(float(history["images_per_s"].median()), 2) if len(history) else None,
        "peak_memory_bytes": peak_memory(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
        "commit": commit(),
    }


def peak_memory() -> int:
    """Return the most memory in bytes that this process has held."""
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * (1 if sys.platform == "darwin" else 1024)


@functools.cache
def commit() -> str:
    """Return the short commit of the code that runs, with a + where it was changed since; empty outside a checkout.

    It is looked up once a process: what is loaded stays as it is. A package that is installed below another project's
    checkout is not of that project.
    """
    here = Path(__file__)
    try:
        known = subprocess.run(["git", "ls-files", "--error-unmatch", here.name], cwd=here.parent, capture_output=True)
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
            cwd=here.parent,
            capture_output=True,
            text=True,
        )
    except FileNotFoundError:
        return ""
    return "" if known.returncode else found.stdout.strip()
