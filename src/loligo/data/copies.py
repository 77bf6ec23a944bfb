"""Find files of the same content, which must not stand on both sides of a split."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Hashable
from pathlib import Path

import pandas as pd

from loligo import io
from loligo.data.entries import content_hash

_PART = 4096
"""Bytes at the beginning, in the middle and at the end that are compared before a file is read whole."""


def find(paths: pd.Series[str]) -> pd.Series[str]:
    """Name the content of each file (N,) that has copies among the others; empty for all others.

    Only files of the same size that are alike in samples are read whole. What cannot be read has no copies.
    """
    found: dict[str, Hashable] = dict.fromkeys(map(str, paths))
    for key in (_size, _samples, _content):
        found = _shared({path: key(path) for path in found})
    return paths.map(lambda path: str(found.get(str(path), "")))


def different(rows: pd.DataFrame, content: pd.Series[str]) -> int:
    """Count the images of some rows of a manifest, those of one content once; ``content`` as in `notes`."""
    own = content.loc[rows.index]
    return int(own.where(own != "", rows["path"]).nunique())


def notes(rows: pd.DataFrame, content: pd.Series[str]) -> list[str]:
    """Say how many images of a manifest are copies, and of which of them the scores cannot be trusted.

    ``content`` (N,) is what `find` returned for their paths.
    """
    known = rows.assign(content=content)[content != ""]
    if known.empty:
        return []
    first, second = known.loc[known["content"] == known["content"].iloc[0], "path"].head(2)
    spare = len(known) - known["content"].nunique()
    lines = [f"{spare} images are byte for byte copies of others, such as {second} of {first}"]
    learnt = known.loc[known["split"] == "train", "content"]
    for split, found in known[known["split"] != "train"].groupby("split"):
        if count := int(found["content"].isin(learnt).sum()):
            lines.append(f"{count} images of {split} are copies of training images and score too low: leave them out")
    if both := int((known.groupby("content")["label"].nunique() > 1).sum()):
        lines.append(f"{both} images have copies with the other label; give each one label")
    return lines if len(lines) > 1 else [f"{lines[0]}; copies stand in one split"]


def _shared(keys: dict[str, Hashable]) -> dict[str, Hashable]:
    """Return the paths whose key another one has, too; None is nobody's."""
    count = Counter(keys.values())
    return {path: key for path, key in keys.items() if key is not None and count[key] > 1}


def _size(path: str) -> Hashable:
    try:
        return Path(path).stat().st_size or None
    except (OSError, ValueError):
        return None


def _samples(path: str) -> Hashable:
    try:
        with io.opened(Path(path)) as stream:
            size, found = stream.seek(0, 2), b""
            for place in (0, size // 2, max(0, size - _PART)):
                stream.seek(place)
                found += stream.read(_PART)
            return hashlib.sha256(found).digest()
    except (OSError, io.UnreadableImage):
        return None


def _content(path: str) -> Hashable:
    try:
        return content_hash(Path(path))
    except io.UnreadableImage:
        return None
