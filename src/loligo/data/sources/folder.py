"""Index a folder of images by its sub-folders: ``split/class/file``, ``class/file`` or plain files.

Names are read case-insensitively. A class named as in ``NORMAL`` has label 0 and, where there is at least one
such class, every other class has label 1; without one no label is known. Abnormal images of a train or
calibration folder, from which nothing may learn, are put aside into ``validation``. Files below a
``ground_truth`` folder (MVTec's layout) are masks: ``ground_truth/crack/000_mask.png`` is that of
``test/crack/000.png``.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from loligo.data import manifest
from loligo.data.manifest import Listing
from loligo.io import stem

NORMAL = ("normal", "good", "no finding", "healthy", "negative")
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "calibration": "calibration",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
MASKS = "ground_truth"


@dataclass(frozen=True)
class _Found:
    path: Path
    split: str  # empty where no folder says
    group: str  # the class folder, empty where there is none
    key: str  # where a mask of it lies below ``ground_truth``, without suffix


def index(
    root: Path,
    *,
    loose: Literal["train", "test"] = "train",
    calibration: float = manifest.CALIBRATION_FRACTION,
    seed: int = 0,
) -> pd.DataFrame:
    """List the images below a folder, those to learn from as normal; log what files were passed over.

    Raises as `listed`.

    Args:
        root: the folder
        loose: split of images that lie in no split folder
        calibration: fraction of the training images that is held out, unless there is a calibration folder
        seed: of what is held out
    """
    return manifest.as_normals(listed(root, loose).accepted(), calibration, seed)


def listed(root: Path, loose: Literal["train", "test"]) -> Listing:
    """List the images below ``root`` in order of path as they lie; those of no split folder are ``loose``.

    Links to folders are followed, but not in circles. A file that is met again through a link is listed once;
    ValueError where that would give it two splits or classes, and for a mask without its one image. Every other file,
    but hidden ones and those of the system, is rejected. Raises ``FileNotFoundError`` where there is no file and
    ``AllRejected`` where there is no image.
    """
    files, rejected = manifest.sift(sorted(_files(manifest.absolute(root))))
    masks = [path for path in files if MASKS in _folders(path, root)]
    images = _once([_place(path, root) for path in files if MASKS not in _folders(path, root)])
    if not images:
        raise FileNotFoundError(f"no image below {root}")
    has_normal = any(_is_normal(image.group) for image in images)
    label = [int(not _is_normal(image.group)) if has_normal and image.group else None for image in images]
    split = [_allowed(image.split or loose, abnormal) for image, abnormal in zip(images, label, strict=True)]
    paths = [manifest.writable(image.path) for image in images]
    about = {"split": split, "label": label, "mask": _match(images, masks, root), "source": "folder"}
    return Listing(manifest.check(pd.DataFrame({"path": paths} | about)), rejected)


def _files(folder: Path, above: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """Yield the files below ``folder``, whose real parents are ``above``; hidden ones are none of ours."""
    if (real := folder.resolve()) in above:
        return
    try:
        paths = list(folder.iterdir())
    except PermissionError:
        yield folder  # to be rejected
        return
    for path in paths:
        if path.is_dir() and not manifest.is_hidden(path):
            yield from _files(path, above | {real})
        elif not manifest.is_hidden(path):
            yield path


def _once(images: list[_Found]) -> list[_Found]:
    """Leave out images that a link shows again."""
    first: dict[str, _Found] = {}
    for image in images:
        before = first.setdefault(os.path.realpath(image.path), image)
        if (before.split, _is_normal(before.group)) != (image.split, _is_normal(image.group)):
            raise ValueError(f"{before.path} and {image.path} are one file in two splits or classes; keep one of them")
    return list(first.values())


def _folders(path: Path, root: Path) -> list[str]:
    """Name the folders between ``root`` and the file, in lower case."""
    return [part.lower() for part in path.relative_to(manifest.absolute(root)).parts[:-1]]


def _place(path: Path, root: Path) -> _Found:
    """Read split and class from where a file lies."""
    names = _folders(path, root)
    split = SPLIT_NAMES.get(names[0], "") if names else ""
    below = names[1:] if split else names
    return _Found(path, split, below[0] if below else "", "/".join([*below, stem(path)]))


def _is_normal(group: str) -> bool:
    """Tell a class folder of normals by its name."""
    return group.replace("_", " ").replace("-", " ").strip() in NORMAL


def _allowed(split: str, label: int | None) -> str:
    """Put abnormal images aside from the splits that learn from normals alone."""
    return "validation" if label == 1 and split in ("train", "calibration") else split


def _match(images: list[_Found], masks: list[Path], root: Path) -> list[str]:
    """Return the mask of each image, or empty; raise for a mask that has not one image."""
    by_key = {}
    for mask in masks:
        names = _folders(mask, root)
        below = names[names.index(MASKS) + 1 :]
        by_key["/".join([*below, stem(mask).removesuffix("_mask")])] = mask
    keys = [image.key for image in images]
    times = Counter(keys)
    for key, mask in by_key.items():
        if (count := times[key]) != 1:
            raise ValueError(f"mask {mask} belongs to {count} images, and must to one: {key}.* in a split folder")
    return [manifest.writable(by_key[key]) if key in by_key else "" for key in keys]
