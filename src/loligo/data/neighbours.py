"""Find the training images that an image looks most like, and how much it is like them, whatever the method.

Images are compared as a reader would from across the room: small, blurred, and without their brightness and contrast.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.ndimage import gaussian_filter

from loligo.data.checks import TAILS
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
_SAMPLED = 1 << 14  # pixels of an image, or volume, whose percentiles are taken


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
        found = measured(images)
        own = nearest(found.signatures, found.signatures).distance
        return cls(tuple(Path(str(path)) for path in images.rows["path"]), found.signatures, found.means, own)

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
        near = others[np.argsort(distances[others], kind="stable")]
        return Neighbours(
            paths=tuple(self.paths[i] for i in near[:NEAREST]),
            count=len(self.paths),
            same=bool(self.features[distances <= SAME].any()),  # flat images are all alike
            dissimilarity=float((self.own < distances[near[0]]).mean()) if len(near) else 0.0,
            darker=float((self.means < image.mean()).mean()),
        )


def signatures(images: Floats) -> Floats:
    """Return what of images (N, H, W) is compared: (N, SIDE * SIDE) of mean 0 and length 1, or 0 where one is flat."""
    rows, columns = (_averaging(side) for side in images.shape[1:])
    small = rows @ images @ columns.T
    flat = gaussian_filter(small, (0, BLUR, BLUR), mode="nearest").reshape(len(images), -1)
    flat -= flat.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(flat, axis=1, keepdims=True)
    found: Floats = np.divide(flat, lengths, out=np.zeros_like(flat), where=lengths > FLAT)
    return found


@functools.cache
def _averaging(side: int) -> Floats:
    """Return the weights (SIDE, side) by which pixels along a side are averaged in as many windows, which may overlap.

    Window i is that of adaptive pooling: from the pixel in which its part of the side begins to that in which it ends.
    """
    i, pixels = np.arange(SIDE)[:, None], np.arange(side)
    inside = (pixels >= i * side // SIDE) & (pixels < -(-(i + 1) * side // SIDE))
    return np.asarray(inside / inside.sum(axis=1, keepdims=True), np.float32)


class Measured(NamedTuple):
    """What images are compared by, a row each; that of a volume is the mean of its slices."""

    signatures: Floats
    """(R, SIDE * SIDE); see `signatures`."""
    means: Floats
    """(R,) in [0, 1]."""
    tails: Floats
    """(R, 2) the percentiles `checks.TAILS`, in [0, 1]."""
    digests: tuple[bytes, ...]
    """Of the pixels as the network sees them."""


def measured(data: Dataset, most: int | None = None) -> Measured:
    """Measure the rows of a data set, whose pixels are read once; of more than ``most``, so many, evenly chosen."""
    count = len(data.rows)
    rows = np.arange(count) if most is None or count <= most else np.linspace(0, count - 1, most).round().astype(int)
    parts = list(_parts(data, rows))
    small, means, tails = (np.concatenate([part[i] for part in parts]) for i in range(3))
    return Measured(small, means, tails, tuple(digest for part in parts for digest in part.digests))


def _parts(data: Dataset, rows: npt.NDArray[np.int64]) -> Iterator[Measured]:
    """Measure some images, or one volume, at a time."""
    for start in range(0, len(rows), at_once := 1 if data.counts else _AT_ONCE):
        chosen = np.flatnonzero(np.isin(data.row_of, rows[start : start + at_once]))
        x = np.ascontiguousarray(data.images(chosen)[:, 0])
        images, pictures = (x[None], x.mean(axis=0)[None]) if data.counts else (x, x)
        sampled = images.reshape(len(images), -1)[:, :: max(1, images[0].size // _SAMPLED)]
        tails = np.percentile(sampled, TAILS, axis=1).T.astype(np.float32)
        digests = tuple(hashlib.blake2b(image, digest_size=16).digest() for image in images)
        yield Measured(signatures(pictures), pictures.mean(axis=(1, 2)), tails, digests)


class Nearest(NamedTuple):
    """How far images lie from the nearest others, (N,) each."""

    distance: Floats
    """To the nearest that is not a copy; 0 where all are."""
    negative: Floats
    """From the negative of the image to the nearest."""
    same: npt.NDArray[np.bool_]
    """Whether one is a copy of it; flat images are alike, and yet none is a copy."""


def nearest(features: Floats, bank: Floats, same: float = SAME) -> Nearest:
    """Compare signatures (N, D) with those of a bank (M, D) of one or more; nearer than ``same`` lie copies."""
    found = []
    for start in range(0, len(features), _AT_ONCE):
        part = features[start : start + _AT_ONCE]
        product, lengths = part @ bank.T, (part**2).sum(axis=1)
        squared = lengths[:, None] + (bank**2).sum(axis=1) - 2 * product
        negative = (squared + 4 * product).min(axis=1)
        copies = squared < same**2
        squared[copies] = np.inf
        found.append((squared.min(axis=1), negative, copies.any(axis=1) & (lengths > 0)))
    distance, negative, copied = (np.concatenate(part) for part in zip(*found, strict=True))
    distance[~np.isfinite(distance)] = 0
    return Nearest(np.sqrt(distance), np.sqrt(np.maximum(negative, 0)), copied)
