"""Decode images once into files on disk, one entry a file, so that epochs and later runs cost no decoding.

An entry is named by the content of its file, the preprocessing and the format's version. It is written aside and
moved, so that a kill leaves no half of one and processes may share it. Entries hold the pixels of patients: they and
their folder can be read by their owner alone, and the least recently used go where all take more than
``$LOLIGO_CACHE_SIZE`` bytes, 20GiB unless set. Any may be deleted at any time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pandas as pd

from loligo import io
from loligo import progress as bars
from loligo.data import masks
from loligo.data.dataset import AllRejected, Dataset, refuse_mixed
from loligo.data.decode import decode, reason
from loligo.data.entries import Entries, Entry, Wanted, look, wanted, write
from loligo.data.preprocessing import Preprocessing
from loligo.data.room import Room, remove, stored
from loligo.types import VolumeHeader

_AT_ONCE = 64  # files that are looked at, or decoded, at once

_Result = Entry | str  # or the reason for rejecting the file
_Found = _Result | Wanted  # or what must be decoded


def load(
    rows: pd.DataFrame,
    preprocessing: Preprocessing,
    *,
    strict: bool = False,
    folder: Path | None = None,
    progress: bool = True,
) -> Dataset:
    """Load manifest ``rows`` as a network sees them, through the cache in ``folder``, which is `home` unless given.

    A file that is unreadable goes to ``rejected``, and a mask that is unreadable or of another size: its image stays,
    without mask. With ``strict`` the first one raises ``ValueError``, as having no image left always does, and images
    beside volumes. ``progress`` draws bars where standard error is a terminal. Raises ``OSError`` naming the folder
    where the cache cannot be written.
    """
    if rows.empty:
        raise ValueError("there are no images to load; does the manifest have rows of this split?")
    rows, folder = rows.reset_index(drop=True), _entries(folder)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = _look(pool, [str(path) for path in rows["path"]], preprocessing, folder, progress)
        results = _complete(pool, found, preprocessing, folder, progress)
        data = _dataset(rows, results, preprocessing, strict)
        return _without_faulty_masks(pool, data, strict) if "mask" in rows else data


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
    pool: ThreadPoolExecutor, sources: Sequence[str], preprocessing: Preprocessing, folder: Path, progress: bool
) -> list[_Found]:
    """Hash all files and look for their entries."""

    def one(source: str) -> _Found:
        try:
            file = wanted(source, preprocessing, folder)
        except ValueError as error:
            return reason(error, source)
        return look(file, preprocessing) or file

    found: list[_Found] = []
    with bars.bar(total=len(sources), desc="reading", unit="image", show=progress) as bar:
        for start in range(0, len(sources), _AT_ONCE):  # all at once would take some kB an image
            found += pool.map(one, sources[start : start + _AT_ONCE])
            bar.update(len(found) - start)
    return found


def _complete(
    pool: ThreadPoolExecutor, found: list[_Found], preprocessing: Preprocessing, folder: Path, progress: bool
) -> list[_Result]:
    """Return all entries; those that are missing are decoded, and written as far as there is room."""
    missing = [one for one in found if isinstance(one, Wanted)]
    _refuse_mixed(found, pool.map(_is_volume, missing))
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(OSError):  # a file system that knows no permissions
            folder.chmod(0o700)
        files = [one.file if isinstance(one, Entry) else one for one in found if not isinstance(one, str)]
        room = Room(folder, {file.path.name for file in files})
        made = _made(pool, missing, preprocessing, room, progress)
        return [next(made) if isinstance(one, Wanted) else one for one in found]
    except OSError as error:
        raise OSError(
            error.errno,
            f"cannot write the image cache in {folder.parent}: {error.strerror or error};"
            " free space there, or set LOLIGO_CACHE to a folder that can be written",
        ) from error


def _refuse_mixed(found: list[_Found], missing: Iterator[bool | None]) -> None:
    """Raise where some files are volumes and others not, given whether the missing ones are."""
    sure = []
    for one in found:
        if isinstance(one, Entry):
            sure.append((one.file.source, isinstance(one.geometry, VolumeHeader)))
        elif isinstance(one, Wanted) and (volume := next(missing)) is not None:
            sure.append((one.source, volume))
    refuse_mixed([path for path, _ in sure], [volume for _, volume in sure])


def _is_volume(file: Wanted) -> bool | None:
    """Tell what a file holds; None where no reader takes it."""
    try:
        return io.kind(Path(file.source)) == "volume"
    except ValueError:
        return None


def _made(
    pool: ThreadPoolExecutor, missing: list[Wanted], preprocessing: Preprocessing, room: Room, progress: bool
) -> Iterator[_Result]:
    """Decode in parallel, in order, a bounded number at a time."""

    def one(file: Wanted) -> _Result:
        try:
            return write(file, decode(Path(file.source), preprocessing), room)
        except ValueError as error:
            return reason(error, file.source)

    with bars.bar(total=len(missing), desc="decoding", unit="image", show=progress) as bar:
        for start in range(0, len(missing), _AT_ONCE):
            for result in pool.map(one, missing[start : start + _AT_ONCE]):
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
        warnings=tuple(entry.warnings for entry in entries),
        slices_with_tissue=tuple(entry.tissue for entry in entries),
        contents=tuple(entry.file.content for entry in entries),
    )


def _without_faulty_masks(pool: ThreadPoolExecutor, data: Dataset, strict: bool) -> Dataset:
    """Drop the masks that cannot be used, and list them as rejected."""
    masked = data.rows["mask"].astype("string").fillna("")
    masked = masked[masked != ""]
    faults = pool.map(masks.fault, masked, (data.geometries[row] for row in masked.index))
    said = pd.Series(list(faults), masked.index, dtype=str)
    if (said := said[said != ""]).empty:
        return data
    bad = pd.DataFrame({"path": masked[said.index].astype(str), "reason": said})
    if strict:
        raise ValueError(f"{bad['path'].iloc[0]}: {bad['reason'].iloc[0]}")
    return replace(
        data,
        rows=data.rows.assign(mask=data.rows["mask"].mask(data.rows.index.isin(said.index), "")),
        rejected=pd.concat([data.rejected, bad], ignore_index=True),
    )
