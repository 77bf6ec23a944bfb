"""Blend a box into an image by its gradients (Pérez et al., Poisson Image Editing, SIGGRAPH 2003).

The box is a rectangle, so that the Poisson equation within it falls apart into sine waves and is solved exactly by
fast sine transforms: no sparse system, no iteration.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import fft

Floats = npt.NDArray[np.float32]
Gradients: TypeAlias = tuple[Floats, Floats]
"""Differences of neighbours: down (C, H - 1, W) and to the right (C, H, W - 1)."""


def gradients(x: Floats) -> Gradients:
    """Return the differences of neighbouring pixels of (C, H, W)."""
    return np.diff(x, axis=1), np.diff(x, axis=2)


def stronger(a: Gradients, b: Gradients) -> Gradients:
    """Return, difference by difference, the one of larger amount."""
    down, right = (np.where(np.abs(p) > np.abs(q), p, q) for p, q in zip(a, b, strict=True))
    return down, right


def blend(box: Floats, guide: Gradients) -> Floats:
    """Return the (C, H, W) whose outermost pixels are those of ``box`` and whose gradients are nearest to ``guide``.

    Raises ValueError where the box has no pixel within its outermost ones.
    """
    if min(box.shape[1:]) < 3:
        raise ValueError(f"a box of {box.shape[1]} x {box.shape[2]} pixels has nothing within; 3 x 3 is the least")
    down, right = (wanted - own for wanted, own in zip(guide, gradients(box), strict=True))
    divergence = np.diff(down, axis=1)[:, :, 1:-1] + np.diff(right, axis=2)[:, 1:-1]  # (C, H - 2, W - 2)
    rows, columns = (2 * np.cos(np.pi * np.arange(1, n + 1) / (n + 1)) - 2 for n in divergence.shape[1:])
    waves = fft.dstn(divergence.astype(np.float64), type=1, axes=(1, 2)) / (rows[:, None] + columns)
    blended = box.copy()
    blended[:, 1:-1, 1:-1] += fft.idstn(waves, type=1, axes=(1, 2)).astype(np.float32)
    return blended
