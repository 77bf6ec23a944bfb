"""Read what a compressed frame says of itself, so that no decoder takes memory for more than its DICOM header says."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from pydicom.uid import UID, JPEG2000TransferSyntaxes, RLELossless

HTJ2K = tuple(UID(f"1.2.840.10008.1.2.4.{n}") for n in (201, 202, 203))
"""JPEG 2000 of high throughput: lossless, by resolution, and any."""
_FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # markers of JPEG and JPEG-LS that give the size
_BARE = {0x01, *range(0xD0, 0xD9)}  # markers without a length
_SCAN, _JFIF = 0xDA, 0xE0


class Size(NamedTuple):
    """What a frame holds."""

    rows: int
    columns: int
    components: int
    precision: int
    """Bits a sample."""


def size(frame: bytes, syntax: UID) -> Size | None:
    """Read the size of a compressed frame; None for RLE, which has none, and where it has no such marker."""
    if syntax == RLELossless:
        return None
    try:
        return _jpeg_2000(frame) if syntax in (*JPEG2000TransferSyntaxes, *HTJ2K) else _jpeg(frame)
    except (struct.error, IndexError):
        return None


def has_whole_header(frame: bytes) -> bool:
    """Tell whether nothing but segments lies before the scan of a JPEG frame, and its JFIF, if any, is of version 1.

    Of what else lies there, decoders warn; GDCM then ends the process.
    """
    found = list(_segments(frame))
    odd = any(content[:5] == b"JFIF\0" and content[5:6] != b"\1" for marker, content in found if marker == _JFIF)
    return bool(found) and found[-1][0] == _SCAN and not odd


def _jpeg(frame: bytes) -> Size | None:
    for marker, content in _segments(frame):
        if marker in _FRAMES:
            precision, rows, columns, components = struct.unpack(">BHHB", content[:6])
            return Size(rows, columns, components, precision)
    return None


def _segments(frame: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield marker and content of the segments of a JPEG frame, up to that of the scan or what is none."""
    place = 2
    while place + 4 <= len(frame) and frame[place] == 0xFF:
        marker = frame[place + 1]
        if marker == 0xFF or marker in _BARE:
            place += 1 if marker == 0xFF else 2
            continue
        length = int.from_bytes(frame[place + 2 : place + 4], "big")
        yield marker, frame[place + 4 : place + 2 + length]
        if marker == _SCAN:
            return
        place += 2 + length


def _jpeg_2000(frame: bytes) -> Size | None:
    start = frame.find(b"\xff\x4f\xff\x51", 0, 4096)  # behind boxes, where an encoder left them
    if start < 0:
        return None
    right, lower, left, upper = struct.unpack(">IIII", frame[start + 8 : start + 24])
    (components,) = struct.unpack(">H", frame[start + 40 : start + 42])
    return Size(lower - upper, right - left, components, (frame[start + 42] & 0x7F) + 1)


def unpack_rle(frame: bytes, count: int, itemsize: int) -> bytes | None:
    """Decode RLE Lossless: ``count`` samples of ``itemsize`` bytes, little-endian; None where it holds fewer.

    No more than that is decoded, whatever it holds. Source: PS3.5, annex G.
    """
    segments, *offsets = struct.unpack("<16I", frame[:64].ljust(64, b"\0"))
    if segments != itemsize:
        return None
    found, ends = bytearray(count * itemsize), [*offsets[1:itemsize], len(frame)]
    for place, (start, end) in enumerate(zip(offsets, ends, strict=False)):
        plane = _unpacked(frame[start:end], count)
        if len(plane) < count:
            return None
        found[itemsize - 1 - place :: itemsize] = plane[:count]  # the most significant byte comes first
    return bytes(found)


def _unpacked(packed: bytes, count: int) -> bytearray:
    """Decode PackBits up to ``count`` bytes or a few more."""
    found, place, end = bytearray(), 0, len(packed)
    while len(found) < count and place < end:
        length = packed[place]
        if length < 128:
            found += packed[place + 1 : place + 2 + length]
            place += 2 + length
        else:
            if length > 128:
                found += packed[place + 1 : place + 2] * (257 - length)
            place += 2 if length > 128 else 1
    return found
