"""Compare the pixels of DICOM files with those of independent decoders, and write a table of what is equal or refused.

python -m experiments.dicom_table FOLDER... -o experiments/results/dicom.csv

Each file is read alone, from a folder of its own. The stored values come from dcmtk, which decompresses a copy whose
plain pixels are then read here, or from GDCM where dcmtk has no decoder (JPEG 2000); the grey of radiographs is made of
them by pydicom's functions for LUTs and windows. HTJ2K has no second decoder here.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pydicom
from pydicom.pixels import apply_modality_lut, apply_voi, apply_windowing

from loligo import io
from loligo.types import Image

TOOLS = {
    **dict.fromkeys(("1.2.840.10008.1.2", "1.2.840.10008.1.2.1"), ""),
    **dict.fromkeys(("1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"), "dcmconv"),
    "1.2.840.10008.1.2.5": "dcmdrle",
    **dict.fromkeys((f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70)), "dcmdjpeg"),
    **dict.fromkeys((f"1.2.840.10008.1.2.4.{n}" for n in (80, 81)), "dcmdjpls"),
    **dict.fromkeys((f"1.2.840.10008.1.2.4.{n}" for n in (90, 91)), "gdcm"),
}
"""Second decoders by transfer syntax; "" where the file itself holds plain pixels."""
CLASS = "SOP Class UID"
LEVEL = 2e-5
"""Largest difference of greys in [0, 1] that rounding explains: a level of 16 bit."""


class Row(NamedTuple):
    file: str
    syntax: str
    result: str


def stored(path: Path, folder: Path) -> np.ndarray | None:
    """Return the stored values of all frames by a second decoder, (frames, rows, columns); None where there is none."""
    header = pydicom.dcmread(path, force=True, stop_before_pixels=True)
    tool = TOOLS.get(header.file_meta.get("TransferSyntaxUID", "1.2.840.10008.1.2.1"))
    if tool is None:
        return None
    if tool == "gdcm":
        return _by_gdcm(path, header)
    plain = folder / "plain.dcm"
    if tool:
        done = subprocess.run([tool, *(["+te"] if tool == "dcmconv" else []), path, plain], capture_output=True)
        if done.returncode or not plain.exists():
            return None
    return values(pydicom.dcmread(plain if tool else path, force=True))


def values(ds: pydicom.Dataset) -> np.ndarray:
    """Read plain little-endian pixels by the header alone, (frames, rows, columns)."""
    kind = np.dtype(f"<u{ds.BitsAllocated // 8}")
    shape = (int(ds.get("NumberOfFrames") or 1), ds.Rows, ds.Columns)
    found = np.frombuffer(ds.PixelData, kind, int(np.prod(shape))).astype(np.int64).reshape(shape)
    found &= (1 << ds.BitsStored) - 1
    return (
        np.where(found >> (ds.BitsStored - 1), found - (1 << ds.BitsStored), found) if ds.PixelRepresentation else found
    )


def _by_gdcm(path: Path, header: pydicom.Dataset) -> np.ndarray | None:
    import gdcm

    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    if not reader.Read():
        return None
    image = reader.GetImage()
    raw = image.GetBuffer().encode("utf-8", "surrogateescape")
    header.PixelData = raw
    return values(header)


def grey(path: Path, found: np.ndarray) -> np.ndarray:
    """Return the grey in [0, 1] of a radiograph's stored values (rows, columns), by pydicom's functions."""
    ds = pydicom.dcmread(path, force=True, stop_before_pixels=True)
    rescaled = apply_modality_lut(found.astype(np.int32 if "ModalityLUTSequence" in ds else np.float64), ds)
    low, high = (float(apply_modality_lut(np.array([[end]]), ds)[0, 0]) for end in ends(ds))
    if "VOILUTSequence" in ds:
        shown = apply_voi(rescaled.astype(np.int64), ds) / (2.0 ** ds.VOILUTSequence[0].LUTDescriptor[2] - 1)
    else:
        if ds.get("WindowCenter") is not None:
            rescaled = apply_windowing(rescaled, ds)
        shown = (rescaled - min(low, high)) / abs(high - low)
    shown = 1 - shown if ds.PhotometricInterpretation == "MONOCHROME1" else shown
    if (padding := ds.get("PixelPaddingValue")) is not None:
        limits = sorted((padding, ds.get("PixelPaddingRangeLimit", padding)))
        shown = np.where((found >= limits[0]) & (found <= limits[1]), 0, shown)
    return np.clip(shown, 0, 1)


def ends(ds: pydicom.Dataset) -> tuple[int, int]:
    """Return the least and the highest value that can be stored."""
    half = 1 << (ds.BitsStored - 1)
    return (-half, half - 1) if ds.PixelRepresentation else (0, 2 * half - 1)


def compare(path: Path) -> Row:
    """Read one file, and say whether a second decoder agrees."""
    ds = pydicom.dcmread(path, force=True, stop_before_pixels=True)
    syntax = ds.file_meta.get("TransferSyntaxUID", "") if hasattr(ds, "file_meta") else ""
    name = getattr(syntax, "name", "") or "none said"
    with tempfile.TemporaryDirectory() as folder:
        alone = Path(shutil.copy(path, Path(folder) / "alone"))
        try:
            own = io.load(alone)
        except io.UnreadableImage as error:
            why = str(error).removeprefix(f"{alone}: ")
            return Row(path.name, name, f"refused: {why}{_as_radiograph(alone, ds) if CLASS in why else ''}")
        other = stored(alone, Path(folder))
        if other is None:
            return Row(path.name, name, "read; there is no second decoder here")
        return Row(path.name, name, _verdict(alone, ds, own, other))


def _as_radiograph(path: Path, ds: pydicom.Dataset) -> str:
    """Say what comes of the pixels of another kind of file where its header is changed to that of a CR."""
    if ds.get("Modality") == "SEG" or ds.get("NumberOfFrames") not in (None, 1):
        return ""
    whole = pydicom.dcmread(path, force=True)
    whole.SOPClassUID, whole.Modality = "1.2.840.10008.5.1.4.1.1.1", "CR"
    try:
        whole.save_as(path, enforce_file_format=False)
        own, other = io.load(path), stored(path, path.parent)
    except Exception as error:  # what pydicom cannot write, or loligo does not read
        colour = "MONOCHROME1 and" in str(error) or "BitsAllocated" in str(error)
        return (
            ""
            if colour or not isinstance(error, io.UnreadableImage)
            else f" (as a CR: {str(error).removeprefix(f'{path}: ')})"
        )
    return f" (as a CR: {'no second decoder' if other is None else _verdict(path, whole, own, other)})"


def _verdict(path: Path, ds: pydicom.Dataset, own: io.Image | io.Volume, other: np.ndarray) -> str:
    if isinstance(own, Image):
        off = float(np.abs(own.pixels[0] - grey(path, other[0])).max())
        return "equal" if off < LEVEL else f"different by {off:.3g} of 1"
    if len(other) > 1:  # the frames' order in space is tested elsewhere
        groups = ds.PerFrameFunctionalGroupsSequence[0], ds.SharedFunctionalGroupsSequence[0]
        ds = next(
            (g.PixelValueTransformationSequence[0] for g in groups if "PixelValueTransformationSequence" in g), {}
        )
    padding = ds.get("PixelPaddingValue") if len(other) == 1 else None
    expected = other * float(ds.get("RescaleSlope", 1)) + float(ds.get("RescaleIntercept", 0))
    if padding is not None and (other != padding).any():
        expected = np.where(other == padding, expected[other != padding].min(), expected)
    off = float(np.abs(np.sort(own.voxels, axis=None) - np.sort(expected, axis=None).astype(np.float32)).max())
    return "equal" if off == 0 else f"different by {off:.3g}"


def files(folders: list[Path]) -> Iterator[Path]:
    """Yield all DICOM files below some folders."""
    for folder in folders:
        yield from (path for path in sorted(folder.rglob("*")) if path.is_file() and io.describe(path) == "DICOM")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    given = parser.parse_args()
    rows = [compare(path) for path in files(given.folders)]
    with given.out.open("w", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows([Row._fields, *rows])
    for word in ("equal", "read", "different", "refused"):
        print(f"{word:10} {sum(row.result.startswith(word) for row in rows):4}")


if __name__ == "__main__":
    main()
