"""Open files safely and say what they hold by their first bytes, whatever they are named."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import BinaryIO

from loligo.files import reason

HEAD = 4096
"""Bytes at the beginning of a file that tell what it holds."""
CONVERT = "convert it to PNG or TIFF of 8 or 16 bit, or a volume to NIfTI"
UNPACK = "unpack it"
LEAVE_OUT = "leave it out"

_FOREIGN: tuple[tuple[int, bytes, str, str], ...] = (  # where, what stands there, whose it is, what to do
    (0, b"%PDF", "PDF", LEAVE_OUT),
    (0, b"GIF8", "GIF", CONVERT),
    (8, b"WEBP", "WebP", CONVERT),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000", CONVERT),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000", CONVERT),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL", CONVERT),
    (0, b"\xff\x0a", "JPEG XL", CONVERT),
    (4, b"ftyp", "HEIF, AVIF or a film", CONVERT),
    (0, b"NRRD", "NRRD", CONVERT),
    (0, b"ObjectType", "MetaImage", CONVERT),
    (0, b"\x93NUMPY", "a NumPy array", CONVERT),
    (0, b"\x89HDF", "HDF5", CONVERT),
    (0, b"PAR1", "Parquet", LEAVE_OUT),
    (0, b"PK\x03\x04", "zip, or an office document", UNPACK),
    (0, b"PK\x05\x06", "zip", UNPACK),
    (0, b"\x1f\x8b", "gzip of something else", UNPACK),
    (0, b"BZh", "bzip2", UNPACK),
    (0, b"\xfd7zXZ", "xz", UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "zstd", UNPACK),
    (0, b"7z\xbc\xaf", "7z", UNPACK),
    (0, b"Rar!", "rar", UNPACK),
    (257, b"ustar", "tar", UNPACK),
    (0, b"\xd0\xcf\x11\xe0", "an old office document or Windows thumbnails", LEAVE_OUT),
    (0, b"SQLite", "SQLite", LEAVE_OUT),
    (0, b"\x7fELF", "a program", LEAVE_OUT),
    (0, b"MZ", "a program", LEAVE_OUT),
)
_IRREGULAR = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe (FIFO)"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class UnreadableImage(ValueError):
    """An image file that cannot be used; the message names the file and why."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")


def opened(path: Path) -> BinaryIO:
    """Open a file to read; ``UnreadableImage`` where it is missing, empty, forbidden, or no regular file.

    What is no regular file (a pipe, a device, a link to one) is refused before it is opened, since that may never end.
    """
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            found = next((name for is_one, name in _IRREGULAR if is_one(about.st_mode)), "something else")
            raise UnreadableImage(path, f"is {found}, not a regular file")
        if not about.st_size:
            raise UnreadableImage(path, "it is empty, 0 bytes")
        return path.open("rb")
    except UnreadableImage:
        raise
    except (OSError, ValueError) as error:  # ValueError: a NUL in its name
        raise UnreadableImage(path, f"cannot be read ({reason(error)})") from error


def head(path: Path) -> bytes:
    """Read the first bytes of a file; raises as `opened`."""
    with opened(path) as stream:
        try:
            return stream.read(HEAD)
        except OSError as error:
            raise UnreadableImage(path, f"cannot be read ({reason(error)})") from error


def foreign(first: bytes) -> tuple[str, str]:
    """Name content that no reader takes by its first bytes, empty if unknown, and say what to do."""
    for where, what, name, repair in _FOREIGN:
        if first[where : where + len(what)] == what:
            return name, repair
    start = first.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "HTML", LEAVE_OUT
    if start.startswith((b"<?xml", b"<svg")):
        return "XML", LEAVE_OUT
    return ("text or CSV", LEAVE_OUT) if _is_text(first) else ("", CONVERT)


def _is_text(first: bytes) -> bool:
    """Tell text in UTF-8, of which the last character may be cut off."""
    try:
        text = first[: len(first) - 3].decode("utf-8") if len(first) == HEAD else first.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(first) - 8:
            return False
        text = first[: error.start].decode("utf-8")
    return bool(text) and all(letter.isprintable() or letter.isspace() for letter in text)
