"""Decode the stored values of DICOM frames, each transfer syntax by one decoder that is checked against another.

`pylibjpeg-libjpeg` is never used: it decoded lossless JPEG wrongly. A decoder sees a frame only where the frame's own
size is that of the header.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import uid
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder

from loligo.io import dicom_codestream as codestream
from loligo.io.content import UnreadableImage
from loligo.io.dicom_header import Header, tag
from loligo.io.raster import MAX_PIXELS

MAX_FRAMES = 10_000
"""Frames that a file may have."""
EXTRA = "pip install 'loligo[dicom]'"

_NATIVE = ("pydicom", "pydicom")
_GDCM, _OPENJPEG, _CHARLS = ("gdcm", "python-gdcm"), ("openjpeg", "pylibjpeg-openjpeg"), ("jpeg_ls", "pyjpegls")
_SYNTAXES: dict[str, tuple[tuple[str, str], str]] = {  # the module and the package that decode it, and its plugin
    uid.ImplicitVRLittleEndian: (_NATIVE, ""),
    uid.ExplicitVRLittleEndian: (_NATIVE, ""),
    uid.DeflatedExplicitVRLittleEndian: (_NATIVE, ""),
    uid.ExplicitVRBigEndian: (_NATIVE, ""),
    uid.RLELossless: (_NATIVE, "rle"),
    uid.JPEGBaseline8Bit: (("PIL", "pillow"), "pillow"),
    uid.JPEGExtended12Bit: (_GDCM, "gdcm"),
    uid.JPEGLossless: (_GDCM, "gdcm"),
    uid.JPEGLosslessSV1: (_GDCM, "gdcm"),
    uid.JPEGLSLossless: (_CHARLS, "pyjpegls"),
    uid.JPEGLSNearLossless: (_CHARLS, "pyjpegls"),
    uid.JPEG2000Lossless: (_OPENJPEG, "pylibjpeg"),
    uid.JPEG2000: (_OPENJPEG, "pylibjpeg"),
    **dict.fromkeys(codestream.HTJ2K, (_OPENJPEG, "pylibjpeg")),
}


@dataclass(frozen=True)
class Layout:
    """How the stored values of a file lie."""

    rows: int
    columns: int
    frames: int
    allocated: int
    """Bits that a value takes, 8 or 16."""
    stored: int
    """Bits of it that count."""
    signed: bool

    @property
    def least(self) -> int:
        """The least value that can be stored."""
        return -(1 << self.stored - 1) if self.signed else 0

    @property
    def bytes(self) -> int:
        """Bytes of all frames, decoded."""
        return self.rows * self.columns * self.frames * self.allocated // 8

    def read(self, value: int) -> int:
        """Return a value of 16 bit as a value that is stored, whichever sign it was read with."""
        return value - (1 << 16) if self.signed and value >= 1 << 15 else value & 0xFFFF if not self.signed else value


def layout(header: Header, most: int = MAX_PIXELS) -> Layout:
    """Return how the values of a file lie; raise ``UnreadableImage`` for what cannot be one channel of grey.

    ``most`` bounds rows x columns x frames, before anything is decoded.
    """
    refuse_colour(header)
    rows, columns = header.whole("Rows"), header.whole("Columns")
    frames, allocated = header.whole("NumberOfFrames", 1), header.whole("BitsAllocated")
    if min(rows, columns, frames) < 1 or frames > MAX_FRAMES or rows * columns * frames > most:
        shown = f"{rows} x {columns} pixels in {frames} frames"
        raise header.refuse(f"has {shown}; 1 of each to {most:,} pixels in {MAX_FRAMES:,} frames are allowed")
    if allocated not in (8, 16):
        raise header.refuse(f"its {tag('BitsAllocated')} is {allocated}; 8 and 16 are allowed")
    stored, sign = header.whole("BitsStored"), header.whole("PixelRepresentation")
    high = header.whole("HighBit", stored - 1)
    if not 1 <= stored <= allocated:
        raise header.refuse(f"its {tag('BitsStored')} is {stored}; 1 to {allocated} are allowed")
    if high != stored - 1:
        raise header.refuse(f"its {tag('HighBit')} is {high}; {stored - 1} is allowed with {stored} bits stored")
    if sign not in (0, 1):
        raise header.refuse(f"its {tag('PixelRepresentation')} is {sign}; 0 and 1 are allowed")
    return Layout(rows, columns, frames, allocated, stored, bool(sign))


def refuse_colour(header: Header) -> None:
    """Raise for pixels that are not one channel of grey."""
    meaning = header.text("PhotometricInterpretation")
    if header.whole("SamplesPerPixel", 1) != 1 or meaning not in ("MONOCHROME1", "MONOCHROME2"):
        raise header.refuse(
            f"its {tag('PhotometricInterpretation')} is {header.code('PhotometricInterpretation')};"
            " MONOCHROME1 and MONOCHROME2, grey of one sample, are allowed"
        )


def frame(header: Header, layout: Layout, index: int = 0) -> npt.NDArray[np.int32]:
    """Decode the stored values of one frame, (rows, columns) int32; bits beyond those stored do not count.

    Raises ``UnreadableImage`` for pixels that are missing, broken or cut short, a compressed frame that has another
    size than the header says, and a transfer syntax whose decoder is not installed.
    """
    plugin = _plugin(header)
    data = next(iter(header.each("PixelData")), None)
    if not isinstance(data, bytes) or not data:
        raise header.refuse(f"has no {tag('PixelData')}, or none that is whole")
    if header.syntax.is_encapsulated:
        found = _compressed(header, layout, index, data, plugin)
    else:
        found = _plain(header, layout, index, data)
    unused = 32 - layout.stored
    values = (found.astype(np.uint32) << np.uint32(unused)).view(np.int32 if layout.signed else np.uint32)
    return np.asarray(values >> unused if layout.signed else values >> np.uint32(unused), np.int32)


def _plugin(header: Header) -> str:
    """Return what decodes a transfer syntax, or raise and say what to install."""
    if header.syntax not in _SYNTAXES:
        name = header.syntax.name if header.syntax.name != header.syntax else "unknown"
        raise header.refuse(f"its {tag('TransferSyntaxUID')} is {name}, which is not read; save it uncompressed")
    (module, package), plugin = _SYNTAXES[header.syntax]
    if find_spec(module) is None or (plugin == "pylibjpeg" and find_spec("pylibjpeg") is None):
        raise header.refuse(f"is compressed as {header.syntax.name}, which {package} decodes: {EXTRA}")
    return plugin


def _plain(header: Header, layout: Layout, index: int, data: bytes) -> npt.NDArray[Any]:
    """Return the values of a frame that is not compressed; 8 bits may lie in words of 16, of either order."""
    if len(data) < layout.bytes:
        raise header.refuse(f"is cut short: it holds {len(data):,} of {layout.bytes:,} bytes of pixels")
    if len(data) >= 2 * layout.bytes + 2 or len(data) >= layout.bytes * (layout.frames + 1) / layout.frames + 2:
        raise header.refuse(f"holds {len(data):,} bytes of pixels where its header says {layout.bytes:,}")
    big = header.syntax == uid.ExplicitVRBigEndian
    count = layout.rows * layout.columns
    if layout.allocated == 8:
        values = np.frombuffer(data[: len(data) & ~1], np.uint8)
        if big and header.dataset["PixelData"].VR == "OW":
            values = values.reshape(-1, 2)[:, ::-1].reshape(-1)
        if len(values) < layout.bytes:
            values = np.frombuffer(data, np.uint8)
    else:
        values = np.frombuffer(data[: len(data) & ~1], ">u2" if big else "<u2")
    return values[index * count : (index + 1) * count].reshape(layout.rows, layout.columns)


def _compressed(header: Header, layout: Layout, index: int, data: bytes, plugin: str) -> npt.NDArray[Any]:
    """Decode a compressed frame."""
    try:
        one = _frame(header, layout, index, data)
        _check_size(header, layout, one)
        if plugin == "rle":
            return _rle(header, layout, one)
        if plugin == "gdcm":
            return _gdcm(header, layout, one)
        found, _ = get_decoder(header.syntax).as_array(header.dataset, index=index, raw=True, decoding_plugin=plugin)
    except (UnreadableImage, MemoryError):
        raise
    except Exception as error:  # what decoders happen to raise
        said = f"its pixels, {header.syntax.name}, cannot be decoded ({type(error).__name__})"
        raise header.refuse(f"{said}; they are cut short or damaged") from None
    if found.shape != (layout.rows, layout.columns):
        raise header.refuse(f"its pixels decode to shape {found.shape}, not {(layout.rows, layout.columns)}")
    return np.asarray(found)


def _frame(header: Header, layout: Layout, index: int, data: bytes) -> bytes:
    """Return the bytes of a compressed frame."""
    tables = [*header.each("ExtendedOffsetTable"), *header.each("ExtendedOffsetTableLengths")]
    offsets = (tables[0], tables[1]) if len(tables) == 2 else None
    return get_frame(data, index, number_of_frames=layout.frames, extended_offsets=offsets)


def _check_size(header: Header, layout: Layout, one: bytes) -> None:
    """Raise where a compressed frame says that it is of another size than the header does."""
    if header.syntax == uid.RLELossless:
        return
    size = codestream.size(one, header.syntax)
    if size is None:
        raise header.refuse(f"its pixels are not {header.syntax.name}; they are cut short or damaged")
    if size[:3] != (layout.rows, layout.columns, 1) or not 1 <= size.precision <= layout.allocated:
        found = f"{size.rows} x {size.columns} pixels of {size.components} x {size.precision} bit"
        wanted = f"{layout.rows} x {layout.columns} of at most 1 x {layout.allocated}"
        raise header.refuse(f"its compressed pixels say {found}, its header {wanted}")


def _rle(header: Header, layout: Layout, one: bytes) -> npt.NDArray[Any]:
    itemsize = layout.allocated // 8
    found = codestream.unpack_rle(one, layout.rows * layout.columns, itemsize)
    if found is None:
        raise header.refuse("its pixels, RLE Lossless, are cut short or damaged")
    return np.frombuffer(found, f"<u{itemsize}").reshape(layout.rows, layout.columns)


def _gdcm(header: Header, layout: Layout, one: bytes) -> npt.NDArray[Any]:
    """Decode by GDCM itself: pydicom's way to it does not take 12 bits of JPEG Extended."""
    import gdcm

    if not codestream.has_whole_header(one):
        raise header.refuse(f"its pixels, {header.syntax.name}, have a damaged header, so that they are not decoded")
    fragment, fragments = gdcm.Fragment(), gdcm.SequenceOfFragments.New()
    fragment.SetByteStringValue(one)
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((layout.columns, layout.rows, 1))
    image.SetDataElement(element)
    kind = gdcm.PhotometricInterpretation.GetPIType(header.text("PhotometricInterpretation"))
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(kind))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(header.syntax))))
    image.SetPixelFormat(gdcm.PixelFormat(1, layout.allocated, layout.stored, layout.stored - 1, int(layout.signed)))
    decoded = image.GetBuffer().encode("utf-8", "surrogateescape")
    if len(decoded) != layout.bytes // layout.frames:
        raise header.refuse(f"its pixels, {header.syntax.name}, cannot be decoded; they are cut short or damaged")
    return np.frombuffer(decoded, f"<u{layout.allocated // 8}").reshape(layout.rows, layout.columns)
