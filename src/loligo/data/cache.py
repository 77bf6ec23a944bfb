"""Decode images once into files on disk, one entry a file, so that epochs and later runs cost no decoding.

An entry is named by the content of its image and mask, the preprocessing and the format's version. It is written aside
and moved, so that a kill leaves no half of one and processes may share it. Entries hold the pixels of patients: they
and their folder can be read by their owner alone, and the least recently used go where all take more than
``$LOLIGO_CACHE_SIZE`` bytes, 20GiB unless set. Any may be deleted at any time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from loligo import io
from loligo import progress as bars
from loligo.data.dataset import AllRejected, Dataset, refuse_mixed
from loligo.data.decode import decode, reason
from loligo.data.entries import Entries, Entry, Row, key, look, write
from loligo.data.preprocessing import Preprocessing
from loligo.data.room import Room, remove, stored
from loligo.types import VolumeHeader

_AT_ONCE = 64  # files that are looked at, or decoded, at once: bounds the memory used
_VOLUMES_AT_ONCE = 2

_Result = Entry | str  # or the reason for rejecting the file


class _Wanted(NamedTuple):
    row: Row
    path: Path  # of its entry
    found: _Result | None  # None where it must be decoded


def load(
    rows: pd.DataFrame,
    preprocessing: Preprocessing,
    *,
    strict: bool = False,
    folder: Path | None = None,
    progress: bool = True,
) -> Dataset:
    """Load manifest ``rows`` as a network sees them, through the cache in ``folder``, which is `home` unless given.

    A file that is unreadable, or whose mask is unreadable or of another size, goes to ``rejected``; with ``strict`` the
    first one raises ``ValueError``, as having no image left always does, and images beside volumes. ``progress`` draws
    bars where standard error is a terminal. Raises ``OSError`` naming the folder where the cache cannot be written.
    """
    if rows.empty:
        raise ValueError("there are no images to load; does the manifest have rows of this split?")
    rows, folder = rows.reset_index(drop=True), _entries(folder)
    masks = rows["mask"].astype("string").fillna("") if "mask" in rows else [""] * len(rows)
    pairs = [Row(str(path), str(mask)) for path, mask in zip(rows["path"], masks, strict=True)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        wanted = _look(pool, pairs, preprocessing, folder, progress)
        results = _complete(pool, wanted, preprocessing, folder, progress)
    return _dataset(rows, results, preprocessing, strict)


def home() -> Path:
    """Return the folder of the cache: ``$LOLIGO_CACHE``, or ``~/.cache/loligo``."""
    return Path(os.environ.get("LOLIGO_CACHE") or Path.home() / ".cache" / "loligo")


def size(folder: Path | None = None) -> tuple[int, int]:
    """Return how many entries there are and how many bytes they take, those of older formats among them."""
    found = stored(_entries(folder))
    return len(found), sum(one.size for one in found)


def clear(folder: Path | None = None) -> int:
    """Remove all entries, those of older formats too; return the bytes that this frees."""
    return sum(remove(one) for one in stored(_entries(folder)))


def _entries(folder: Path | None) -> Path:
    """Return where the entries lie: a folder of their own, since that of the cache may be anyone's."""
    return (folder or home()) / "images"


def _look(
    pool: ThreadPoolExecutor, pairs: Sequence[Row], preprocessing: Preprocessing, folder: Path, progress: bool
) -> list[_Wanted]:
    """Hash all files and look for their entries."""

    def one(row: Row) -> _Wanted:
        try:
            path = folder / key(row, preprocessing)
        except ValueError as error:
            return _Wanted(row, folder, reason(error, *row))
        return _Wanted(row, path, look(path, row, preprocessing))

    found: list[_Wanted] = []
    with bars.bar(total=len(pairs), desc="reading", unit="image", show=progress) as bar:
        for start in range(0, len(pairs), _AT_ONCE):  # all at once would take some kB an image
            found += pool.map(one, pairs[start : start + _AT_ONCE])
            bar.update(len(found) - start)
    return found


def _complete(
    pool: ThreadPoolExecutor, wanted: list[_Wanted], preprocessing: Preprocessing, folder: Path, progress: bool
) -> list[_Result]:
    """Return all entries; those that are missing are decoded, and written as far as there is room."""
    missing = [one for one in wanted if one.found is None]
    at_once = _VOLUMES_AT_ONCE if _are_volumes(wanted, pool.map(_is_volume, missing)) else _AT_ONCE
    if not missing:
        return [one.found for one in wanted if one.found]
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(OSError):  # a file system that knows no permissions
            folder.chmod(0o700)
        room = Room(folder, {one.path.name for one in wanted})
        made = _made(pool, missing, preprocessing, room, at_once, progress)
        return [one.found or next(made) for one in wanted]
    except OSError as error:
        raise OSError(
            error.errno,
            f"cannot write the image cache in {folder.parent}: {error.strerror or error};"
            " free space there, or set LOLIGO_CACHE to a folder that can be written",
        ) from error


def _are_volumes(wanted: list[_Wanted], missing: Iterator[bool | None]) -> bool:
    """Tell whether the files are volumes, given whether the missing ones are; raise where some are and others not."""
    sure = []
    for one in wanted:
        found = one.found if one.found else next(missing)
        volume = isinstance(found.geometry, VolumeHeader) if isinstance(found, Entry) else found
        if isinstance(volume, bool):  # neither a reason nor unknown
            sure.append((one.row.path, volume))
    refuse_mixed([path for path, _ in sure], [volume for _, volume in sure])
    return any(volume for _, volume in sure)


def _is_volume(one: _Wanted) -> bool | None:
    """Tell what a file holds; None where no reader takes it."""
    try:
        return io.kind(Path(one.row.path)) == "volume"
    except ValueError:
        return None


def _made(
    pool: ThreadPoolExecutor,
    missing: list[_Wanted],
    preprocessing: Preprocessing,
    room: Room,
    at_once: int,
    progress: bool,
) -> Iterator[_Result]:
    """Decode in parallel, in order, a bounded number at a time."""

    def one(wanted: _Wanted) -> _Result:
        row = wanted.row
        try:
            levels, geometry = decode(Path(row.path), row.mask, preprocessing)
        except ValueError as error:
            return reason(error, *row)
        return write(wanted.path, row, levels, geometry, room)

    with bars.bar(total=len(missing), desc="decoding", unit="image", show=progress) as bar:
        for start in range(0, len(missing), at_once):
            for result in pool.map(one, missing[start : start + at_once]):
                bar.update()
                yield result


def _dataset(rows: pd.DataFrame, results: list[_Result], preprocessing: Preprocessing, strict: bool) -> Dataset:
    """Pair the entries with their rows, and set the rejected ones apart."""
    reasons = {i: result for i, result in enumerate(results) if isinstance(result, str)}
    bad = rows.loc[list(reasons), ["path"]].assign(reason=list(reasons.values())).reset_index(drop=True)
    if reasons and strict:
        raise ValueError(f"{bad['path'][0]}: {bad['reason'][0]}")
    if len(bad) == len(rows):
        raise AllRejected(bad)
    entries = [entry for entry in results if isinstance(entry, Entry)]
    counts = tuple(entry.images for entry in entries)
    sliced = isinstance(entries[0].geometry, VolumeHeader)
    return Dataset(
        rows=rows.drop(index=list(reasons)).reset_index(drop=True),
        pixels=Entries(entries, preprocessing),
        rejected=bad,
        preprocessing=preprocessing,
        geometries=tuple(entry.geometry for entry in entries),
        counts=counts if sliced else None,
    )
