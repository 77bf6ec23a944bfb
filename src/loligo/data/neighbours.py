"""Find the training images that an image looks most like, and how much it is like them, whatever the method.

Images are compared as a reader would from across the room: small, blurred, and without their brightness and contrast.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy.ndimage import gaussian_filter
from torch.nn.functional import adaptive_avg_pool2d

from loligo.data.dataset import Dataset

Floats = npt.NDArray[np.float32]
Loader = Callable[[pd.DataFrame], Dataset]
"""Loads manifest rows as a method sees them."""

SIDE = 32
"""Height and width in pixels at which images are compared."""
BLUR = 1.0
"""Standard deviation of the blur in those pixels: a shift of one pixel is no difference."""
NEAREST = 3
"""Training images that are named."""
MOST = 5000
"""Training images that are searched, evenly chosen: each is read again where the cache does not hold them."""
SAME = 0.005
"""Distance within which two images are one: a copy saved anew lies well below it, another image of a patient above."""
FLAT = 1e-3
"""Length below which an image has no contrast to be compared by."""
_AT_ONCE = 256


@dataclass(frozen=True)
class Neighbours:
    """Where an image stands among the training images that are at hand."""

    paths: tuple[Path, ...]
    """The nearest of them, nearest first; never the image itself."""
    count: int
    """Training images that were searched."""
    same: bool
    """Whether one of them is this very image."""
    dissimilarity: float
    """Fraction of them that lie nearer to their own nearest one than this image does, in [0, 1]."""
    darker: float
    """Fraction of them that are darker in the mean than this image, in [0, 1]."""


@dataclass(frozen=True)
class Training:
    """What of training images is compared: made once, however many images are."""

    paths: tuple[Path, ...]
    features: Floats
    """(N, SIDE * SIDE), their `signatures`."""
    means: Floats
    """(N,) mean brightness."""
    own: Floats
    """(N,) distance of each to its nearest other that is no copy of it."""

    @classmethod
    def of(cls, images: Dataset) -> Training:
        """Return what of two ``images`` or more is compared."""
        features, means = _features(images)
        return cls(tuple(Path(str(path)) for path in images.rows["path"]), features, means, _own_nearest(features))

    @classmethod
    def load(cls, rows: pd.DataFrame, load: Loader, most: int = MOST) -> Training | None:
        """Return what of the files in manifest ``rows`` is compared, ``most`` of them.

        Files that are gone or cannot be read are passed over; None where fewer than two are left. Raises OSError where
        the cache cannot be written.
        """
        rows = rows.loc[[Path(path).is_file() for path in rows["path"]], ["path", "split"]]
        if len(rows) > most:
            rows = rows.iloc[np.linspace(0, len(rows) - 1, most).round().astype(int)]
        if len(rows) < 2:
            return None
        try:
            images = load(rows)
        except ValueError:  # all of them are unreadable
            return None
        return cls.of(images) if len(images) > 1 else None

    def compare(self, image: Floats) -> Neighbours:
        """Return where ``image`` (S, S) in [0, 1] stands among them."""
        distances = np.linalg.norm(self.features - signatures(image[None])[0], axis=1)
        others = np.flatnonzero(distances > SAME)
        nearest = others[np.argsort(distances[others], kind="stable")]
        return Neighbours(
            paths=tuple(self.paths[i] for i in nearest[:NEAREST]),
            count=len(self.paths),
            same=bool(self.features[distances <= SAME].any()),  # flat images are all alike
            dissimilarity=float((self.own < distances[nearest[0]]).mean()) if len(nearest) else 0.0,
            darker=float((self.means < image.mean()).mean()),
        )


def signatures(images: Floats) -> Floats:
    """Return what of images (N, H, W) is compared: (N, SIDE * SIDE) of mean 0 and length 1, or 0 where one is flat."""
    small = adaptive_avg_pool2d(torch.from_numpy(images), SIDE).numpy()
    flat = gaussian_filter(small, (0, BLUR, BLUR), mode="nearest").reshape(len(images), -1)
    flat -= flat.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(flat, axis=1, keepdims=True)
    found: Floats = np.divide(flat, lengths, out=np.zeros_like(flat), where=lengths > FLAT)
    return found


def _features(images: Dataset) -> tuple[Floats, Floats]:
    """Return the signatures (N, SIDE * SIDE) and the mean brightness (N,) of a data set."""
    features, means = [], []
    for start in range(0, len(images), _AT_ONCE):
        batch = images.batch(np.arange(start, min(start + _AT_ONCE, len(images))))[:, 0].numpy()
        features.append(signatures(batch))
        means.append(batch.mean(axis=(1, 2)))
    return np.concatenate(features), np.concatenate(means)


def _own_nearest(features: Floats) -> Floats:
    """Return the distance of each of N >= 2 signatures to its nearest other that is not a copy of it, (N,)."""
    found = []
    for start in range(0, len(features), _AT_ONCE):
        part = features[start : start + _AT_ONCE]
        squared = (part**2).sum(axis=1)[:, None] + (features**2).sum(axis=1) - 2 * part @ features.T
        squared[squared < SAME**2] = np.inf  # itself, and copies
        found.append(np.sqrt(squared.min(axis=1)))
    distances = np.concatenate(found)
    return np.where(np.isfinite(distances), distances, 0)
