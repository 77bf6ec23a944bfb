"""Keep the folder of the cache within its bound: the least recently used entries go first."""

from __future__ import annotations

import logging
import os
import re
import shutil
import threading
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from loligo.config import size_in_bytes
from loligo.data.entries import UNFINISHED

DEFAULT = "20GiB"
"""Bytes that the entries may take, unless ``$LOLIGO_CACHE_SIZE`` says otherwise."""

log = logging.getLogger(__name__)
_ENTRY, _OLD = re.compile("[0-9a-f]{40}"), re.compile(r"[0-9a-f]{32}|\.building-.{8}")
_ABANDONED = 3 * 24 * 3600.0  # seconds after which an unfinished entry is the remains of a kill


class Stored(NamedTuple):
    """Something of the cache on disk."""

    used: float
    """When it was last used."""
    path: Path
    size: int
    """In bytes."""


class Room:
    """Counts what the entries in a folder take; called with the size of a new one, it says whether that may be written.

    Others go to make room for it, but none whose name is in ``keep``.
    """

    def __init__(self, folder: Path, keep: set[str]) -> None:
        self.folder, self.limit = folder, limit()
        found = stored(folder)
        self.used = sum(one.size for one in found)
        late = time.time() - _ABANDONED
        remains = [one for one in found if one.path.name.startswith(UNFINISHED)]
        self.used -= sum(remove(one) for one in remains if one.used < late)
        self._others = deque(one for one in found if one.path.name not in keep and one not in remains)
        self._lock, self._warned = threading.Lock(), False

    def __call__(self, size: int) -> bool:
        """Make room for so many bytes, and say whether there is."""
        with self._lock:
            while self.used + size > self.limit and self._others:
                self.used -= remove(self._others.popleft())
            if fits := self.used + size <= self.limit:
                self.used += size
            elif not self._warned:
                self._warned = True
                log.warning(
                    "the images take more than the %s bytes that the image cache in %s may; those without room are"
                    " decoded at each use: set LOLIGO_CACHE_SIZE to more, such as 100GiB",
                    f"{self.limit:,}",
                    self.folder,
                )
            return fits


def limit() -> int:
    """Return how many bytes the entries may take; ValueError where the environment says no size."""
    try:
        return size_in_bytes(os.environ.get("LOLIGO_CACHE_SIZE") or DEFAULT)
    except ValueError as error:
        raise ValueError(f"LOLIGO_CACHE_SIZE: {error}") from error


def stored(folder: Path) -> list[Stored]:
    """List the entries in a folder, the least recently used first; before them those of older formats, beside it."""
    found = []
    for path in _listed(folder):
        with suppress(OSError):  # another process may just have removed it
            about = path.lstat()
            if _ENTRY.fullmatch(path.name) or path.name.startswith(UNFINISHED):
                found.append(Stored(about.st_mtime, path, about.st_size))
    for path in _listed(folder.parent):
        if _OLD.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
            parts = list(path.rglob("*"))
            if {part.name for part in parts if part.is_file()} <= {"pixels.u16", "index.json"}:
                used = path.stat().st_mtime if path.name.startswith(UNFINISHED) else 0.0
                found.append(Stored(used, path, sum(part.stat().st_size for part in parts if part.is_file())))
    return sorted(found)


def remove(one: Stored) -> int:
    """Remove something of the cache; return the bytes that this frees."""
    if one.path.is_dir():
        shutil.rmtree(one.path, ignore_errors=True)
    else:
        with suppress(OSError):
            one.path.unlink()
    return 0 if one.path.exists() else one.size


def _listed(folder: Path) -> list[Path]:
    """List a folder, or nothing where it cannot be."""
    try:
        return list(folder.iterdir())
    except OSError:
        return []
