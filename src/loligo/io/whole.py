"""Tell image files of which pixels are missing, although a decoder reads them without a word.

Decoders fill up with black or mid grey what a file does not hold: a PNG whose rows end early, a JPEG whose end marker
stands where pixels should, a file in which an interrupted copy left blocks of zeros.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import PIL.Image

MAX_SCANS = 50
"""Scans of a progressive JPEG that are decoded: each takes as long as a whole image; encoders write 10 or so."""
BLOCK = 4096
"""Bytes in which systems copy files, so that what an interrupted copy leaves out begins and ends at multiples."""
ZEROS = 64
"""Zero bytes in a row that no Huffman code of a picture gives, but where they stand for flat blocks."""

_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a PNG by its colour type
_STEP = 1 << 20
_NEXT = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")  # a marker that ends a scan: neither a stuffed byte nor a restart
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_NOISE = bytes(np.random.default_rng(0).integers(0, 255, 512, np.uint8))  # without 0xff, which begins a marker
_HUFFMAN = (0xC0, 0xC1, 0xC2)  # frames whose scans end where their pixels do
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}


def missing(data: bytes, image: PIL.Image.Image) -> str:
    """Say what is missing of the pixels of a file's content, whose image was decoded; empty where nothing is."""
    if image.format == "PNG":
        return _rows(data)
    return (_scans(data, image) if image.format == "JPEG" else "") or _blocks(data)


def scans(data: bytes) -> int:
    """Count the scans of a JPEG."""
    return sum(1 for _ in _parts(data, _Frame()))


def _rows(data: bytes) -> str:
    """Compare the rows that a PNG holds with those that it claims."""
    width, height, depth, colour, *_, interlaced = struct.unpack(">IIBBBBB", data[16:29])
    sizes = [(width, height)]
    if interlaced:
        sizes = [((width - x + dx - 1) // dx, (height - y + dy - 1) // dy) for x, y, dx, dy in _PASSES]
    claimed = sum(h * (1 + (w * depth * _CHANNELS[colour] + 7) // 8) for w, h in sizes if w)
    held, stream = 0, zlib.decompressobj()
    try:
        for chunk in _chunks(data):
            while held <= claimed and (out := stream.decompress(chunk, _STEP)):
                held, chunk = held + len(out), stream.unconsumed_tail
    except zlib.error:
        return f"is damaged: its pixels fail their checksum after {held:,} of {claimed:,} bytes"
    return f"is cut short: it holds {held:,} of {claimed:,} bytes of pixels" if held < claimed else ""


def _chunks(data: bytes) -> Iterator[bytes]:
    """Yield the pixel data of a PNG."""
    place = 8
    while place + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[place : place + 8])
        if kind == b"IDAT":
            yield data[place + 8 : place + 8 + length]
        place += length + 12


@dataclass
class _Frame:
    """What the segments of a JPEG said so far."""

    kind: int = 0
    components: tuple[int, ...] = ()
    first: dict[int, int] = field(default_factory=dict)  # what the shortest code, of zeros alone, stands for, by table
    left: dict[tuple[int, int], int] = field(default_factory=dict)  # bits to come of coefficients, by component


@dataclass(frozen=True)
class _Scan:
    """One pass over the picture."""

    start: int  # of its codes
    end: int
    flat: bool  # zeros stand for flat blocks, or are the bits of coefficients themselves


def _scans(data: bytes, image: PIL.Image.Image) -> str:
    """Look for what a JPEG lacks: scans, or the end of the last one."""
    frame = _Frame()
    try:
        found = list(_parts(data, frame))
    except (IndexError, struct.error):
        return ""  # odd, and yet it was decoded
    if frame.kind not in _HUFFMAN or not found:
        return ""
    for scan in found:
        if not scan.flat and (zeros := re.compile(rb"\0{%d,}" % ZEROS).search(data, scan.start, scan.end)):
            return f"is damaged: {len(zeros[0]):,} zero bytes stand where pixels should"
    if _lacks_scans(frame) or _lacks_end(data, found[-1], image):
        return "is cut short: its data end before its pixels do"
    return ""


def _lacks_scans(frame: _Frame) -> bool:
    """Tell whether the brightness lacks a coefficient or bits of it, or any component its mean."""
    wanted = [(component, 0) for component in frame.components] + [(frame.components[0], k) for k in range(64)]
    return any(frame.left.get(key) != 0 for key in wanted)


def _lacks_end(data: bytes, last: _Scan, image: PIL.Image.Image) -> bool:
    """Tell whether the last scan ends too early: then, and only then, more codes behind it change the picture."""
    own, passed = data[last.start : last.end], _RESTART.findall(data, last.start, last.end)
    more = _RESTART.split(own[:512])[0].rstrip(b"\xff") + _NOISE  # of some pictures the noise has hardly a code
    restart = b"\xff" + bytes([0xD0 + len(passed) % 8])
    with PIL.Image.open(io.BytesIO(data[: last.end] + more + restart + more + data[last.end :])) as longer:
        return not np.array_equal(np.asarray(image), np.asarray(longer))


def _parts(data: bytes, frame: _Frame) -> Iterator[_Scan]:
    """Yield the scans of a JPEG, noting in ``frame`` what stands before each."""
    place = 2
    while place < len(data):
        while data[place + 1] == 0xFF:
            place += 1
        marker = data[place + 1]
        if marker == 0xD9:
            return
        (length,) = struct.unpack(">H", data[place + 2 : place + 4])
        segment, place = data[place + 4 : place + 2 + length], place + 2 + length
        if marker == 0xC4:
            _note_tables(segment, frame)
        elif marker in _FRAMES:
            frame.kind, frame.components = marker, tuple(segment[6::3][: segment[5]])
        elif marker == 0xDA:
            end = found.start() if (found := _NEXT.search(data, place)) else len(data)
            yield _Scan(place, end, _note_scan(segment, frame))
            place = end


def _note_tables(segment: bytes, frame: _Frame) -> None:
    """Note what the first code of each Huffman table stands for."""
    while segment:
        frame.first[segment[0]], count = segment[17], sum(segment[1:17])
        segment = segment[17 + count :]


def _note_scan(segment: bytes, frame: _Frame) -> bool:
    """Note what a scan brings; return whether zeros can stand for flat blocks, or be coefficients, in it."""
    count = segment[0]
    first, last, bits = segment[1 + 2 * count : 4 + 2 * count]
    for component in segment[1 : 1 + 2 * count : 2]:
        frame.left |= {(component, k): bits & 15 for k in range(first, last + 1)}
    if first or bits >> 4:
        return not first  # bits of the means, as they are
    tables = segment[2 : 2 + 2 * count : 2]
    codes = [frame.first.get(t >> 4) for t in tables] + [frame.first.get(16 + (t & 15)) for t in tables if last]
    return not any(codes)


def _blocks(data: bytes) -> str:
    """Look for zeros that begin and end as the blocks of a copy do."""
    for zeros in re.finditer(rb"\0{%d,}" % BLOCK, data):
        if zeros.start() % BLOCK == 0 and (zeros.end() % BLOCK == 0 or zeros.end() == len(data)):
            return f"is damaged: {len(zeros[0]):,} zero bytes from byte {zeros.start():,} on, as of an interrupted copy"
    return ""
