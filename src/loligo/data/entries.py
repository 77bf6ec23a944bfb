"""Name, write and read the entries of the cache: one file an image or volume, its levels behind a header.

b"loligo" and two spaces, the CRC-32 of all that follows, the length of the header (4 bytes each)
header: JSON with count, geometry, warnings and tissue
levels: (count, 1, S, S) uint16, little-endian
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import struct
import sys
import tempfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from loligo import io
from loligo.data.checks import Names
from loligo.data.decode import Decoded, decode
from loligo.data.preprocessing import Levels, Preprocessing
from loligo.types import Geometry, VolumeHeader

FORMAT_VERSION = 5
"""Part of each entry's name: raise it whenever the same files would give other pixels."""
UNFINISHED = ".building-"
"""How the names of entries begin that are being written."""

log = logging.getLogger(__name__)
_MAGIC, _PREFIX, _LENGTH = b"loligo  ", struct.Struct("<8sII"), struct.Struct("<I")
_MOST = 1 << 16  # bytes of a header, at most
_CHUNK = 1 << 20


class Wanted(NamedTuple):
    """A file that is asked for."""

    source: str
    content: str
    """Its `content_hash`."""
    path: Path
    """Where its entry lies, or would."""


class Entry(NamedTuple):
    """An image or volume that was decoded, and where its levels lie on disk unless there was no room for them."""

    file: Wanted
    images: int
    """1, or the slices of a volume."""
    offset: int
    """Bytes before the levels."""
    geometry: Geometry | VolumeHeader
    warnings: Names
    """What is odd about it by itself."""
    tissue: tuple[bool, ...]
    """Which of its slices hold tissue."""


def wanted(source: str, preprocessing: Preprocessing, folder: Path) -> Wanted:
    """Name a file's entry by all that decides its content.

    Raises ``UnreadableImage`` where it cannot be opened, and for DICOM of another modality than those allowed.
    """
    preprocessing.headers.refuse_other(Path(source))
    p, content = preprocessing, content_hash(Path(source))
    said = f"{FORMAT_VERSION} {p.size} {p.aspect} {p.axis} {p.window} {p.spacing} {p.voi} {content}"
    return Wanted(source, content, folder / hashlib.sha256(said.encode()).hexdigest()[:40])


def content_hash(path: Path) -> str:
    """Hash a file's content, or that of all files of its DICOM series; raises ``UnreadableImage`` for one not read."""
    found = [_hash(one) for one in io.files(path)]
    return found[0] if len(found) == 1 else hashlib.sha256("\n".join(found).encode()).hexdigest()


def _hash(path: Path) -> str:
    with io.opened(path) as stream:
        try:
            whole = hashlib.sha256()
            while chunk := stream.read(_CHUNK):
                whole.update(chunk)
            return whole.hexdigest()
        except OSError as error:
            raise io.UnreadableImage(path, f"cannot be read ({error.strerror or error})") from error


def look(file: Wanted, preprocessing: Preprocessing) -> Entry | None:
    """Return a whole entry, and note that it was used; None where there is none, or not what was written."""
    try:
        with file.path.open("rb", buffering=0) as stream:
            first = stream.read(_PREFIX.size)
            magic, checksum, length = _PREFIX.unpack(first)
            if magic != _MAGIC or length > _MOST:
                return None
            header = stream.read(length)
            found, held = zlib.crc32(header, zlib.crc32(first[-_LENGTH.size :])), 0
            while chunk := stream.read(_CHUNK):
                found, held = zlib.crc32(chunk, found), held + len(chunk)
        values = json.loads(header)
        if found != checksum or held != values["count"] * preprocessing.size**2 * 2:
            return None
        with suppress(OSError):  # a folder that can only be read
            os.utime(file.path)
        geometry = _geometry(values["geometry"], Path(file.source))
        warnings, tissue = tuple(values["warnings"]), tuple(map(bool, values["tissue"]))
        return Entry(file, values["count"], _PREFIX.size + length, geometry, warnings, tissue)
    except (OSError, ValueError, KeyError, TypeError, struct.error):
        return None


def write(file: Wanted, decoded: Decoded, room: Callable[[int], bool]) -> Entry:
    """Write an entry where there is ``room`` for so many bytes, and return it."""
    levels, geometry, warnings, tissue = decoded
    values = {"count": len(levels), "geometry": _values(geometry), "warnings": warnings, "tissue": [*map(int, tissue)]}
    header = json.dumps(values).encode()
    offset = _PREFIX.size + len(header)
    if room(offset + levels.nbytes):
        little = levels if sys.byteorder == "little" else levels.byteswap()
        length = _LENGTH.pack(len(header))
        checksum = zlib.crc32(little.data, zlib.crc32(header, zlib.crc32(length)))
        handle, temporary = tempfile.mkstemp(prefix=UNFINISHED, dir=file.path.parent)  # only its owner can read it
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(_PREFIX.pack(_MAGIC, checksum, len(header)) + header)
                stream.write(little.data)
            Path(temporary).replace(file.path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    return Entry(file, len(levels), offset, geometry, warnings, tissue)


class Entries:
    """The levels of many images, read from their entries when they are asked for: memory holds none of them.

    An entry that vanished is decoded anew at each use, and not written again. Processes may share an object.
    """

    def __init__(self, entries: Sequence[Entry], preprocessing: Preprocessing) -> None:
        self.entries, self.preprocessing = tuple(entries), preprocessing
        self._ends = np.cumsum([entry.images for entry in entries])
        self._warned = False

    def __len__(self) -> int:
        """Count the images."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, indices: Any) -> Levels:
        """Return levels (n, 1, S, S) of images at ``indices`` (n,) or of a slice; those of one (1, S, S).

        Raises ``OSError`` for a file that must be decoded anew and is not any more what it was.
        """
        side = self.preprocessing.size
        chosen = np.arange(len(self))[indices]
        found = np.empty((chosen.size, 1, side, side), "<u2")
        anew: dict[int, Levels] = {}  # a volume has many slices in a batch
        for place, image in enumerate(chosen.ravel()):
            row = int(np.searchsorted(self._ends, image, side="right"))
            entry = self.entries[row]
            slice_ = int(image - self._ends[row]) + entry.images
            if not _read(entry, slice_, found[place]):
                if row not in anew:
                    anew[row] = self._anew(entry)
                found[place] = anew[row][slice_]
        return found.astype(np.uint16, copy=False).reshape(*chosen.shape, 1, side, side)

    def _anew(self, entry: Entry) -> Levels:
        """Decode a file once more."""
        file = entry.file
        if not self._warned:
            log.warning("%s is not in the image cache and is decoded at each use, as may be others", file.source)
            self._warned = True
        try:
            if content_hash(Path(file.source)) != file.content:
                raise ValueError("its content changed")
            return decode(Path(file.source), self.preprocessing).levels
        except ValueError as error:
            said = str(error).removeprefix(f"{file.source}: ")
            raise OSError(f"{file.source}: cannot be used any more ({said}); run again") from error


def _read(entry: Entry, image: int, target: Levels) -> bool:
    """Read the levels of one image (1, S, S) of an entry; False where they are not there."""
    try:
        with entry.file.path.open("rb", buffering=0) as stream:
            stream.seek(entry.offset + image * target.nbytes)
            return stream.readinto(target.data.cast("B")) == target.nbytes
    except OSError:
        return False


def _values(geometry: Geometry | VolumeHeader) -> dict[str, Any]:
    """Write a geometry as JSON can hold it, but for the file's name."""
    values = {name: value for name, value in vars(geometry).items() if name != "source"}
    if isinstance(geometry, VolumeHeader):
        values["affine"] = geometry.affine.tolist()
        values["file_place"] = {k: [v.dtype.str, v.tolist()] for k, v in geometry.file_place.items()}
    return values


def _geometry(values: dict[str, Any], source: Path) -> Geometry | VolumeHeader:
    """Make a geometry of what `_values` wrote."""
    read: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    if "affine" not in values:
        return Geometry(source=source, **read)
    read["affine"] = np.array(values["affine"], np.float64)
    read["file_place"] = {k: np.array(v, np.dtype(kind)) for k, (kind, v) in values["file_place"].items()}
    return VolumeHeader(source=source, **read)
