"""Images as a method sees them, with the rows and the geometry that they belong to."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from loligo.data import checks
from loligo.data.checks import Names
from loligo.data.preprocessing import WHITE, Preprocessing
from loligo.io import planes
from loligo.types import Geometry, VolumeHeader

if TYPE_CHECKING:
    import torch


T = TypeVar("T")


class Pixels(Protocol):
    """Grey levels of N images: an array (N, 1, S, S) uint16, or what reads them from disk when they are asked for."""

    def __len__(self) -> int:
        """Count the images."""

    def __getitem__(self, indices: Any, /) -> Any:
        """Return the levels of images: (n, 1, S, S) uint16 for an array (n,) or a slice; 0..65535 stand for [0, 1]."""


@dataclass(frozen=True)
class Dataset:
    """Images ready to learn from or to score, with the manifest rows that they belong to.

    A volume's images are its slices, one after another; a row is then a volume.
    """

    rows: pd.DataFrame
    """Manifest rows of the accepted files, index 0..R-1."""
    pixels: Pixels
    """Of the N images."""
    rejected: pd.DataFrame
    """Columns path, reason: the files that could not be used."""
    preprocessing: Preprocessing
    """What the pixels were made by; its ``restore`` leads maps back to the grids of the files."""
    geometries: Sequence[Geometry | VolumeHeader]
    """Of each row's file, R."""
    counts: tuple[int, ...] | None = None
    """Slices of each row; None where the rows are images."""
    warnings: tuple[Names, ...] = ()
    """What is odd about each row by itself, R names of `checks.WARNINGS`; empty where nobody looked."""
    slices_with_tissue: tuple[tuple[bool, ...], ...] = ()
    """Which slices of each row, R, hold tissue; empty where nobody looked."""
    contents: tuple[str, ...] = ()
    """SHA-256 of each row's file, R, empty text for an array; empty where nobody looked."""

    def __len__(self) -> int:
        """Count the images."""
        return len(self.pixels)

    @functools.cached_property
    def row_of(self) -> npt.NDArray[np.int64]:
        """Return which row each image is of, (N,)."""
        return np.repeat(np.arange(len(self.rows)), self.counts or 1)

    @functools.cached_property
    def tissue(self) -> npt.NDArray[np.bool_]:
        """Tell which images (N,) hold tissue, those of which nobody knows among them."""
        known = itertools.chain.from_iterable(self.slices_with_tissue)
        return np.fromiter(known, bool) if self.slices_with_tissue else np.ones(len(self), bool)

    def images(self, indices: Any) -> npt.NDArray[np.float32]:
        """Copy the images at ``indices`` (n,), a list, array or tensor, as (n, 1, S, S) float32 in [0, 1].

        Where slices' positions are asked for they are a second channel, from -0.5 to 0.5 all over.
        """
        chosen = np.asarray(indices)
        x: npt.NDArray[np.float32] = self.pixels[chosen].astype(np.float32) / np.float32(WHITE)
        if not self.preprocessing.position:
            return x
        position = self._positions[chosen].reshape(-1, 1, 1, 1)
        return np.concatenate([x, np.broadcast_to(position, x.shape)], axis=1)

    def batch(self, indices: Any) -> torch.Tensor:
        """Return the same `images` as a tensor."""
        import torch  # here: whoever indexes a folder or scores by an exported model needs it not

        return torch.from_numpy(self.images(indices))

    def subset(self, rows: Any) -> Dataset:
        """Return the data set of some rows (n,), ascending; its pixels lie in memory."""
        chosen = np.asarray(rows)

        def of(every: Sequence[T]) -> tuple[T, ...]:
            return tuple(every[row] for row in chosen) if every else ()

        return replace(
            self,
            rows=self.rows.iloc[chosen].reset_index(drop=True),
            pixels=self.pixels[np.flatnonzero(np.isin(self.row_of, chosen))],
            geometries=of(self.geometries),
            counts=of(self.counts) if self.counts else None,
            warnings=of(self.warnings),
            slices_with_tissue=of(self.slices_with_tissue),
            contents=of(self.contents),
        )

    def distinct(self) -> Dataset:
        """Return the data set with one row of each content; itself where all differ, or nobody looked."""
        first = pd.Series(self.contents).drop_duplicates().index if all(self.contents) else range(len(self.contents))
        return self if len(first) == len(self.contents) else self.subset(first)

    @property
    def not_scored(self) -> tuple[str, ...]:
        """Say why each row, R, is not to be scored by its warnings; empty where it is."""
        both = zip(self.warnings or ((),) * len(self.rows), self.geometries, strict=True)
        headers = self.preprocessing.headers
        return tuple(checks.why_not_scored(names, headers.reasons(one.source)) for names, one in both)

    @functools.cached_property
    def _positions(self) -> npt.NDArray[np.float32]:
        return np.concatenate([planes.positions(count) for count in self.counts or (1,) * len(self.rows)])


class AllRejected(ValueError):
    """Not one image could be used; ``rejected`` has the columns path and reason."""

    def __init__(self, rejected: pd.DataFrame) -> None:
        first = f"{rejected['path'][0]}: {rejected['reason'][0]}"
        super().__init__(f"all {len(rejected)} images were rejected, the first: {first}")
        self.rejected = rejected


def no_rejections() -> pd.DataFrame:
    """Return the table of rejected files where there is none."""
    return pd.DataFrame({"path": pd.Series(dtype=str), "reason": pd.Series(dtype=str)})


def refuse_mixed(paths: Sequence[str], volume: Sequence[bool]) -> None:
    """Raise ``ValueError`` where some of the files hold an image and others a ``volume``."""
    if len(set(volume)) > 1:
        image, other = paths[volume.index(False)], paths[volume.index(True)]
        raise ValueError(f"images ({image}, ...) and volumes ({other}, ...) are mixed; train and score them apart")
