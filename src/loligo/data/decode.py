"""Read one file as a network sees it, or say why it cannot be used."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from loligo import io
from loligo.data import checks
from loligo.data.preprocessing import Levels, Preprocessing
from loligo.types import Geometry, Image, Volume, VolumeHeader

AT_ONCE = 2**30
"""Bytes that the files which threads decode at the same time may take together; one alone may take more."""

_ESCAPED = re.compile(r"\\(udc[0-9a-f]{2}|r)")


class Decoded(NamedTuple):
    """An image or volume as a network sees it."""

    levels: Levels
    """(1, 1, S, S), or (slices, 1, S, S) of a volume."""
    geometry: Geometry | VolumeHeader
    """Where its pixels lie."""
    warnings: checks.Names
    """What is odd about it by itself."""
    tissue: tuple[bool, ...]
    """Which of its slices hold tissue; (True,) for an image."""


class _Memory:
    """Memory that threads share: whoever wants more than is left waits."""

    def __init__(self, limit: int) -> None:
        self._limit = self._left = limit
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def taken(self, size: int) -> Iterator[None]:
        """Hold so many bytes, or all where they are more."""
        size = min(size, self._limit)
        with self._changed:
            self._changed.wait_for(lambda: self._left >= size)
            self._left -= size
        try:
            yield
        finally:
            with self._changed:
                self._left += size
                self._changed.notify_all()


_MEMORY = _Memory(AT_ONCE)


def decode(path: Path, preprocessing: Preprocessing) -> Decoded:
    """Read an image or a volume.

    Raises ``ValueError``, among them ``UnreadableImage``, for a file that cannot be used. Memory that does not suffice
    is a fault of the file, too.
    """
    try:
        reader = io.reader(path)
        preprocessing.headers.refuse_other(path)
        with _MEMORY.taken(reader.weigh(path)):
            return prepared(reader.read(path, preprocessing.voi), preprocessing)
    except MemoryError as error:
        raise io.UnreadableImage(path, "there is not enough memory to decode it; make it smaller") from error


def prepared(found: Image | Volume, preprocessing: Preprocessing) -> Decoded:
    """Return an image or a volume as a network sees it; raises as `Preprocessing.image` and `Preprocessing.volume`."""
    levels = preprocessing.volume(found) if isinstance(found, Volume) else preprocessing.image(found)
    warnings = checks.found(found, levels, preprocessing.size)
    return Decoded(levels, found.geometry, warnings, checks.tissue(levels))


def reason(error: Exception, path: str) -> str:
    """Say why a file was rejected without its own name, which may tell of a patient."""
    if _ESCAPED.search(path) and not Path(path).exists():  # as `manifest.writable` writes it
        return "its name is not UTF-8 or has a carriage return, shown here as a code after a \\; rename the file"
    return str(error).removeprefix(f"{path}: ")


def shared_spacing(paths: Iterable[str]) -> tuple[float, ...]:
    """Return the spacing in mm that all volumes among the files share; ValueError names those of another.

    It is empty where the first file that can be read is an image. Loading says what is wrong with the others.
    """
    found = []
    for path in paths:
        with contextlib.suppress(ValueError):
            if io.kind(Path(path)) == "image":
                break
            found.append(io.read_header(Path(path)))
    if not found:
        return ()
    from loligo.io import nifti  # here: it imports slowly, and images need it not

    return nifti.check_spacing(found)
