"""Turn the stored values of a projection image into grey, 0 black and 1 white, as PS3.3 C.11 and PS3.4 N.2 say.

All steps depend on the value of a pixel alone, so that they are made once for every value that can be stored.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from loligo.io.dicom_header import Header, Values, tag
from loligo.io.dicom_pixels import Layout

FULL_RANGE = 0
"""In place of the number of a VOI LUT or window: all values that can be stored."""
NO_WINDOW = "no_window"
"""Name of the warning that a file has no VOI LUT or window, so that its full range is taken."""

LARGEST = 1e9
"""Largest slope, its inverse, and intercept."""

_Array = npt.NDArray[np.float64]
_INVERSE = {"IDENTITY": False, "INVERSE": True}


class Grey(NamedTuple):
    """The grey of each value that can be stored."""

    levels: npt.NDArray[np.float32]
    """(2 ** bits stored,) float32 in [0, 1], from the least value on."""
    remarks: tuple[str, ...]
    """Names of warnings; see `loligo.data.checks`."""


class _Range(NamedTuple):
    """Numbers with the ends of what they may be."""

    values: _Array
    low: float
    high: float

    def scaled(self) -> _Array:
        """Return the numbers with these ends at 0 and 1."""
        return (self.values - self.low) / (self.high - self.low)


def grey(header: Header, layout: Layout, voi: int = 1) -> Grey:
    """Return the grey of each value that can be stored.

    ``voi`` numbers the file's VOI LUTs and then its windows from 1; `FULL_RANGE` takes the range that its header
    allows, as is done, with a remark, where it has none. Raises ``UnreadableImage`` for a number that it does not have,
    and for values that contradict each other or the standard.
    """
    stored = np.arange(layout.least, layout.least + (1 << layout.stored))
    modality = _modality(header, stored)
    luts, (centres, widths) = header.items("VOILUTSequence"), _windows(header)
    count = len(luts) + len(centres)
    if voi > max(count, 1):
        raise header.refuse(f"has {count} VOI LUTs and windows, no number {voi}; 0 (the full range) to {count} exist")
    if voi == FULL_RANGE or not count:
        shown = modality.scaled()
    elif voi <= len(luts):
        shown = _looked_up(luts[voi - 1], modality.values, modality.low < 0).scaled()
    else:
        at = voi - 1 - len(luts)
        shown = _windowed(header, modality.values, centres[at], widths[at])
    shown = 1 - shown if _is_inverse(header) else shown
    shown[padded(header, layout, stored)] = 0
    return Grey(np.clip(shown, 0, 1).astype(np.float32), () if count or voi == FULL_RANGE else (NO_WINDOW,))


def _modality(header: Header, stored: npt.NDArray[np.int64]) -> _Range:
    """Apply the Modality LUT, or slope and intercept."""
    if luts := header.items("ModalityLUTSequence"):
        return _looked_up(luts[0], stored.astype(np.float64), stored[0] < 0)
    slope, intercept = rescale(header)
    values = stored.astype(np.float64) * slope + intercept
    return _Range(values, float(values.min()), float(values.max()))


def rescale(values: Values) -> tuple[float, float]:
    """Return slope and intercept, 1 and 0 where there are none; raise for a slope that leaves no image."""
    slope = next(iter(values.numbers("RescaleSlope")), 1.0)
    intercept = next(iter(values.numbers("RescaleIntercept")), 0.0)
    if not 1 / LARGEST <= abs(slope) <= LARGEST or abs(intercept) > LARGEST:
        shown = f"{tag('RescaleSlope')} is {slope:g}, its {tag('RescaleIntercept')} {intercept:g}"
        raise values.refuse(f"its {shown}; {1 / LARGEST:g} to {LARGEST:g}, and at most {LARGEST:g}, are allowed")
    return slope, intercept


def _windows(header: Header) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return centres and widths."""
    centres, widths = header.numbers("WindowCenter"), header.numbers("WindowWidth")
    if len(centres) != len(widths):
        raise header.refuse(f"has {len(centres)} of {tag('WindowCenter')} and {len(widths)} of {tag('WindowWidth')}")
    return centres, widths


def _windowed(header: Header, values: _Array, centre: float, width: float) -> _Array:
    """Apply a window by the formulae of PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    function = header.text("VOILUTFunction") or "LINEAR"
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        shown = header.code("VOILUTFunction")
        raise header.refuse(f"its {tag('VOILUTFunction')} is {shown}; LINEAR, LINEAR_EXACT and SIGMOID are allowed")
    if width < 1 if function == "LINEAR" else width <= 0:
        least = "1 or more" if function == "LINEAR" else "more than 0"
        raise header.refuse(f"its {tag('WindowWidth')} is {width:g}; {least} is allowed with {function}")
    if function == "SIGMOID":
        with np.errstate(over="ignore"):
            return np.asarray(1 / (1 + np.exp(-4 * (values - centre) / width)))
    if function == "LINEAR":
        centre, width = centre - 0.5, width - 1
    if width == 0:
        return np.asarray(values > centre, np.float64)
    return np.clip((values - centre) / width + 0.5, 0, 1)


def _looked_up(lut: Values, values: _Array, signed: bool) -> _Range:
    """Apply a LUT; values before its first entry have that, those after its last the last."""
    said = lut.numbers("LUTDescriptor", 3)
    if not said or any(number % 1 for number in said):
        raise lut.refuse(f"has a LUT whose {tag('LUTDescriptor')} does not hold 3 whole numbers")
    count, first, bits = (int(number) for number in said)
    count, first = count % (1 << 16) or 1 << 16, first % (1 << 16)
    first = first - (1 << 16) if signed and first >= 1 << 15 else first
    if not 8 <= bits <= 16:
        raise lut.refuse(f"has a LUT of {bits} bits; 8 to 16 are allowed")
    entries = _entries(lut, count, bits)
    places = np.clip(np.floor(values) - first, 0, count - 1).astype(np.int64)
    return _Range(entries[places].astype(np.float64), 0, (1 << bits) - 1)


def _entries(lut: Values, count: int, bits: int) -> npt.NDArray[np.uint16]:
    """Return the entries of a LUT, (count,); those of 8 bits may lie two in a word."""
    given = lut.each("LUTData")
    if len(given) == 1 and isinstance(given[0], bytes):
        little = lut.dataset.original_encoding[1] is not False
        raw = given[0]
    else:
        little, raw = True, np.array([int(value) & 0xFFFF for value in given], "<u2").tobytes()
    if len(raw) == 2 * count:
        found = np.frombuffer(raw, "<u2" if little else ">u2")
    elif bits == 8 and len(raw) == count + count % 2:
        found = np.frombuffer(raw, np.uint8)[:count]
    else:
        raise lut.refuse(f"has a LUT of {len(raw):,} bytes, which are not {count:,} entries of {bits} bits")
    if (most := int(found.max())) >= 1 << bits:
        raise lut.refuse(f"has a LUT whose highest entry, {most}, is more than its {bits} bits hold")
    return found.astype(np.uint16)


def _is_inverse(header: Header) -> bool:
    """Tell whether the least value is white; what the file says of that must agree."""
    negative = header.text("PhotometricInterpretation") == "MONOCHROME1"
    shape = header.text("PresentationLUTShape")
    if shape and _INVERSE.get(shape) is not negative:
        raise header.refuse(
            f"its {tag('PresentationLUTShape')} is {header.code('PresentationLUTShape')} with"
            f" {header.text('PhotometricInterpretation')}, which contradict each other: IDENTITY is allowed with"
            " MONOCHROME2, INVERSE with MONOCHROME1; it is not clear what is white"
        )
    return negative


def padded(header: Header, layout: Layout, stored: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.bool_]:
    """Tell which of some stored values are Pixel Padding Value, or between it and its Range Limit."""
    value = header.numbers("PixelPaddingValue")
    if not value:
        return np.zeros(stored.shape, bool)
    ends = [layout.read(int(end)) for end in (value[0], *header.numbers("PixelPaddingRangeLimit"))]
    return np.asarray((stored >= min(ends)) & (stored <= max(ends)))
