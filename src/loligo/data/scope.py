"""Decide by content whether an image is one that a run can say anything of: where it is not, it is not scored.

An image is out of scope where most of its structure is none that normal training images have: what remains of its
signature (`neighbours.signatures`) besides their mean and their `PATTERNS` main patterns. Unlike the distance from the
nearest training image, that spares gross disease, which is a chest all the same. Measured: docs/lab/2026-11-site.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

PATTERNS = 8
"""Principal components of the training images; at most one to three of them."""
LEAST = 0.8
"""Length of the remainder, of a signature's own length 1, up to which an image is in scope: 64 % of its variance."""
SLACK = 1.25
"""What the longest remainder of a normal image is multiplied with, where normal images are so different from each
other that it exceeds `LEAST`."""


@dataclass(frozen=True)
class Scope:
    """What normal images are made of."""

    mean: Floats
    """(D,) of their signatures."""
    patterns: Floats
    """(D, k) orthonormal columns."""
    limit: float
    """Length of the remainder beyond which an image is out of scope."""

    @classmethod
    def of(cls, train: Floats, others: Floats) -> Self:
        """Learn from signatures of training images (M, D), M at least 1; those of ``others`` (K, D) set the limit too.

        Source: residuals of principal components as a test of novelty (Jackson & Mudholkar, Technometrics 1979).
        """
        mean = train.mean(axis=0)
        centred = train - mean
        count = min(PATTERNS, len(train) // 3)
        vectors = np.linalg.eigh(centred.T @ centred).eigenvectors
        scope = cls(mean, vectors[:, len(mean) - count :], LEAST)
        longest = float(scope.remainder(np.concatenate([train, others])).max())
        return cls(scope.mean, scope.patterns, max(LEAST, SLACK * longest))

    def remainder(self, signatures: Floats) -> Floats:
        """Return the length (N,) of what of signatures (N, D) is neither mean nor pattern."""
        centred = signatures - self.mean
        found: Floats = np.linalg.norm(centred - centred @ self.patterns @ self.patterns.T, axis=1)
        return found

    def excludes(self, signatures: Floats) -> npt.NDArray[np.bool_]:
        """Tell which images (N,) are out of scope, by signatures (N, D)."""
        return np.asarray(self.remainder(signatures) > self.limit)
