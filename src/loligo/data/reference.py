"""What a training remembers of its images, so that scoring can say which ones it should not be asked about.

Measured on the chest radiographs of ZhangLab: see docs/lab/2026-11-input-checks.md.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from loligo.data import neighbours
from loligo.data.checks import Names, ordered
from loligo.data.dataset import Dataset
from loligo.data.neighbours import MOST, SIDE, Measured
from loligo.data.scope import Scope
from loligo.files import replacing
from loligo.types import VolumeHeader

Split = Literal["", "train", "calibration"]

USUAL = 0.99
"""Part of the training images that lie as near to their nearest other as an image that is like them."""
FEW = 1.25
"""What the largest of these distances is multiplied with where there are too few images to tell that part."""
NEGATIVE = 0.7
"""Times the distance of an image that its negative lies from the training images, at most, where it is inverted."""
LIKELY = 1.5
"""Times the usual distance that such a negative lies from them, at most."""
OPPOSED = -0.3
"""Correlation with the mean of the training images below which one of them is a negative: of ZhangLab's chests none
lies below 0.36, of MNIST's digits none below 0.17."""
ROUNDED = 0.001
"""Distance of a signature from itself, at most, as it is kept."""
RANGES = (0.0025, 0.9975)
"""Quantiles of the training images' dark and bright values between which those of other images are to lie."""
MARGIN = 0.25
"""Part of a usual image's contrast by which they may lie outside."""
LENGTH = 0.1
"""Part of itself by which a volume may be shorter or longer than all that were trained on."""


@dataclass(frozen=True)
class Reference:
    """The images of a training and its calibration, by what they are recognised by. Of many, some are remembered."""

    train: npt.NDArray[np.float16]
    """(M, D) `neighbours.signatures`."""
    calibration: npt.NDArray[np.float16]
    """(K, D)."""
    train_contents: npt.NDArray[np.uint8]
    """(m, 32) the SHA-256 of each file; none for arrays."""
    calibration_contents: npt.NDArray[np.uint8]
    """(k, 32)."""
    usual: npt.NDArray[np.float32]
    """(1,) the distance from the nearest training image beyond which an image is unlike them."""
    tails: npt.NDArray[np.float32]
    """(2, 2) lowest and highest of the dark values, and of the bright values."""
    extents: npt.NDArray[np.float32]
    """(2, 3) least and largest length of the volumes in mm along X, Y, Z; (0, 3) for images."""

    @classmethod
    def of(cls, normals: Dataset, held_out: Dataset, abnormal: Dataset | None = None) -> Reference:
        """Remember the images that were trained and calibrated on, of ``abnormal`` ones the files alone."""
        train, calibration = (neighbours.measured(data, MOST) for data in (normals, held_out))
        own, other = (neighbours.nearest(part.signatures, train.signatures).distance for part in (train, calibration))
        few = len(own) < _rank(len(own))
        lengths = _extents(normals)
        return cls(
            train=train.signatures.astype(np.float16),
            calibration=calibration.signatures.astype(np.float16),
            train_contents=_packed(normals.contents + (abnormal.contents if abnormal else ())),
            calibration_contents=_packed(held_out.contents),
            usual=np.array([max(_usual(own) * (FEW if few else 1), _usual(other))], np.float32),
            tails=_bounds(np.concatenate([train.tails, calibration.tails])),
            extents=np.array([lengths.min(0), lengths.max(0)]) if len(lengths) else lengths,
        )

    def with_calibration(self, held_out: Dataset) -> Reference:
        """Remember other calibration images in place of those; what is usual stays what the training images say."""
        found = neighbours.measured(held_out, MOST).signatures.astype(np.float16)
        return replace(self, calibration=found, calibration_contents=_packed(held_out.contents))

    def warnings(self, data: Dataset) -> tuple[Names, ...]:
        """Return the warnings of each row, R, that need the training images or the other rows.

        Those that a row has by itself are ``data.warnings``; `checks.ordered` joins them.
        """
        images = neighbours.measured(data)
        near = neighbours.nearest(images.signatures, self.train.astype(np.float32), self._same)
        shown = images.signatures.any(axis=1)
        unlike = shown & (near.distance > self.usual)
        dark, bright = images.tails.T
        (darkest, paler), (dimmer, brightest) = self.tails
        odd = {
            "out_of_scope": shown & self._scope.excludes(images.signatures),
            "other_range": (dark < darkest) | (dark > paler) | (bright < dimmer) | (bright > brightest),
            "inverted": unlike & (near.negative < np.minimum(NEGATIVE * near.distance, LIKELY * self.usual)),
            "unlike_training": unlike,
            "seen_in_training": np.array(self._seen(data, images)) != "",
            "copy": _copies(data.contents or [""] * len(dark)) | _copies(images.digests),
            "extent": self._odd_extents(data),
        }
        return tuple(ordered(name for name, rows in odd.items() if rows[row]) for row in range(len(data.rows)))

    def seen(self, data: Dataset) -> tuple[Split, ...]:
        """Return in which split of the training each row, R, stood: its file or its pixels; empty where in none."""
        return self._seen(data, neighbours.measured(data))

    def _seen(self, data: Dataset, images: Measured) -> tuple[Split, ...]:
        found: list[Split] = [""] * len(data.rows)
        splits: tuple[Split, ...] = ("calibration", "train")
        for split in splits:
            contents = {row.tobytes().hex() for row in getattr(self, f"{split}_contents")}
            bank = getattr(self, split).astype(np.float32)
            same = neighbours.nearest(images.signatures, bank, self._same).same
            for row, content in enumerate(data.contents or [""] * len(found)):
                found[row] = split if same[row] or content in contents else found[row]
        return tuple(found)

    def negatives(self) -> tuple[Names, ...]:
        """Return the warning ``inverted`` of the training images, M, that look like the negative of most others.

        An image that is trained on is like itself, and like other negatives among them: what counts here is the mean
        of all.
        """
        signatures = self.train.astype(np.float32)
        mean = signatures.mean(axis=0)
        return tuple(("inverted",) if row @ mean < OPPOSED * np.linalg.norm(mean) else () for row in signatures)

    @cached_property
    def _scope(self) -> Scope:
        return Scope.of(self.train.astype(np.float32), self.calibration.astype(np.float32))

    @property
    def _same(self) -> float:
        """Distance of copies: less where the training images lie near each other, as phantoms do."""
        return float(np.clip(self.usual[0] / 4, ROUNDED, neighbours.SAME))

    def _odd_extents(self, data: Dataset) -> npt.NDArray[np.bool_]:
        lengths = _extents(data)
        if not len(lengths) or not len(self.extents):
            return np.zeros(len(data.rows), bool)
        low, high = self.extents
        return np.asarray(((lengths < low * (1 - LENGTH)) | (lengths > high * (1 + LENGTH))).any(axis=1))

    def save(self, path: Path) -> None:
        """Write a safetensors file."""
        with replacing(path) as new:
            save_file({field.name: getattr(self, field.name) for field in fields(self)}, new)

    @classmethod
    def load(cls, path: Path) -> Reference:
        """Read what `save` wrote; ValueError, which names the file, where it is missing or something else."""
        if not path.is_file():
            raise ValueError(f"{path} is missing; train the run again")
        try:
            values = load_file(path)
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path} is damaged ({error}); train the run again") from error
        for name, (kind, columns) in _SHAPES.items():
            found = values.get(name)
            if found is None or found.dtype != kind or found.shape[1:] != columns or not np.isfinite(found).all():
                raise ValueError(f"{path} does not hold {name} as a training writes it; train the run again")
        lengths = [len(values[name]) for name in ("usual", "tails", "extents")]
        if not len(values["train"]) or lengths not in ([1, 2, 0], [1, 2, 2]):
            raise ValueError(f"{path} remembers no training image; train the run again")
        return cls(**{name: values[name] for name in _SHAPES})


_SHAPES: dict[str, tuple[type, tuple[int, ...]]] = {
    "train": (np.float16, (SIDE**2,)),
    "calibration": (np.float16, (SIDE**2,)),
    "train_contents": (np.uint8, (32,)),
    "calibration_contents": (np.uint8, (32,)),
    "usual": (np.float32, ()),
    "tails": (np.float32, (2,)),
    "extents": (np.float32, (3,)),
}


def _rank(count: int) -> int:
    """Return which of so many distances, in order, a new image's stays below with the probability `USUAL`."""
    return math.ceil(USUAL * (count + 1))


def _usual(distances: npt.NDArray[np.float32]) -> float:
    """Return the distance of that rank, or the largest."""
    return float(np.sort(distances)[min(_rank(len(distances)), len(distances)) - 1])


def _bounds(tails: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return between what the dark and bright values of images (R, 2) may lie: (2, 2)."""
    dark, bright = np.median(tails, axis=0)
    slack = MARGIN * (bright - dark) * np.array([[-1, 1], [-1, 1]])
    return np.asarray(np.quantile(tails, RANGES, axis=0).T + slack, np.float32)


def _extents(data: Dataset) -> npt.NDArray[np.float32]:
    """Return the lengths (R, 3) of volumes in mm; (0, 3) for images."""
    found = [np.multiply(one.shape, one.spacing) for one in data.geometries if isinstance(one, VolumeHeader)]
    return np.array(found, np.float32).reshape(-1, 3)


def _packed(contents: Sequence[str]) -> npt.NDArray[np.uint8]:
    """Return hexadecimal digests as (n, 32) bytes."""
    return np.frombuffer(bytes.fromhex("".join(contents)), np.uint8).reshape(-1, 32)


def _copies(keys: Sequence[object]) -> npt.NDArray[np.bool_]:
    """Tell which keys stand in another place, too; empty ones are none."""
    counts = Counter(keys)
    return np.array([bool(key) and counts[key] > 1 for key in keys], bool)
