"""Decode and resize images once into a file on disk, and map it into memory, so that epochs cost no decoding.

A cache entry is a folder named by the content of its images and masks, their order, the size and the format's
version. It is built under a temporary name and moved, so that a kill leaves no half of one and two processes
may share it: whoever comes second uses what is there. Whole entries are never deleted; you may delete any.
"""

from __future__ import annotations

import functools
import hashlib
import json
import mmap
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import PIL.Image
import torch
from tqdm import tqdm

from loligo import io
from loligo.data import volumes
from loligo.data.volumes import Cut
from loligo.files import sweep
from loligo.io import planes

FORMAT_VERSION = 3
"""Part of each entry's name: raise it whenever the same files would give other pixels."""
_WHITE = 65535  # 16-bit grey that stands for 1.0
_ESCAPED = re.compile(r"\\(udc[0-9a-f]{2}|r)")
_AT_ONCE = 64  # images decoded before they are written: bounds the memory used
_ABANDONED = 3 * 24 * 3600.0  # seconds after which an unfinished entry is the remains of a kill
_PIXELS, _INDEX = "pixels.u16", "index.json"

_Row = tuple[str, str]  # image path, mask path or empty
_Result = npt.NDArray[np.uint16] | str  # (n, 1, S, S): an image or a volume's slices; or the reason for rejecting it
_Entry = tuple[npt.NDArray[np.uint16], dict[int, str], list[int]]  # pixels, reasons by row, images a row


@dataclass(frozen=True)
class Dataset:
    """Images ready to learn from or to score, with the manifest rows that they belong to.

    A volume's images are its slices, one after another; a row is then a volume.
    """

    rows: pd.DataFrame
    """Manifest rows of the accepted files, index 0..R-1."""
    pixels: npt.NDArray[np.uint16]
    """(N, 1, S, S) uint16 mapped read-only from disk; 0..65535 stand for [0, 1]."""
    rejected: pd.DataFrame
    """Columns path, reason: the files that could not be used."""
    counts: tuple[int, ...] | None = None
    """Slices of each row; None where the rows are images."""
    position: bool = False
    """A batch has a second channel, each slice's place in its volume."""

    def __len__(self) -> int:
        """Count the images."""
        return len(self.pixels)

    @functools.cached_property
    def row_of(self) -> npt.NDArray[np.int64]:
        """Return which row each image is of, (N,)."""
        return np.repeat(np.arange(len(self.rows)), self.counts or 1)

    def batch(self, indices: Any) -> torch.Tensor:
        """Copy the images at ``indices`` (n,), a list, array or tensor, as (n, 1, S, S) float32 in [0, 1].

        Where slices' positions are asked for they are a second channel, from -0.5 to 0.5 all over.
        """
        chosen = self.pixels[np.asarray(indices)]
        if isinstance(self.pixels.base, mmap.mmap):  # what was read of the file would count as memory of this process
            self.pixels.base.madvise(mmap.MADV_DONTNEED)
        x = torch.from_numpy(chosen.astype(np.float32) / np.float32(_WHITE))
        if not self.position:
            return x
        place = torch.from_numpy(self._positions[np.asarray(indices)])
        return torch.cat([x, place.view(-1, 1, 1, 1).expand_as(x)], 1)

    @functools.cached_property
    def _positions(self) -> npt.NDArray[np.float32]:
        return np.concatenate([planes.positions(count) for count in self.counts or (1,) * len(self.rows)])


class AllRejected(ValueError):
    """Not one image could be used; ``rejected`` has the columns path and reason."""

    def __init__(self, rejected: pd.DataFrame) -> None:
        first = f"{rejected['path'][0]}: {rejected['reason'][0]}"
        super().__init__(f"all {len(rejected)} images were rejected, the first: {first}")
        self.rejected = rejected


def load(
    rows: pd.DataFrame,
    size: int,
    *,
    strict: bool = False,
    folder: Path | None = None,
    progress: bool = True,
    cut: Cut = Cut(),  # noqa: B008  # frozen
) -> Dataset:
    """Load manifest ``rows`` at ``size`` x ``size`` pixels through the cache in ``folder``; volumes ``cut`` in slices.

    Images are squashed: their aspect ratio is not kept. Reduction is bilinear with antialiasing, in float32,
    then rounded to 16 bit. ``folder`` is ``$LOLIGO_CACHE`` or ``~/.cache/loligo`` unless given. ``progress``
    draws a bar where standard error is a terminal.

    A file that is unreadable, or whose mask is unreadable or of another size, goes to ``rejected``; with
    ``strict`` the first one raises ``ValueError``, as having no image left always does. Raises ``OSError``
    naming the folder where the cache cannot be written.
    """
    if size < 1:
        raise ValueError(f"size {size} is not a positive number of pixels")
    if rows.empty:
        raise ValueError("there are no images to load; does the manifest have rows of this split?")
    folder = folder or home()
    masks = rows["mask"].astype("string").fillna("") if "mask" in rows else [""] * len(rows)
    pairs = [(str(path), str(mask)) for path, mask in zip(rows["path"], masks, strict=True)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        entry = folder / _key(pool, pairs, size, cut, progress)
        found = _open(entry, size) or _build(pool, pairs, size, cut, entry, progress)
    return _dataset(rows.reset_index(drop=True), found, strict, cut.position)


def read_mask(path: Path) -> npt.NDArray[np.bool_]:
    """Read a mask as (H, W) bool: true wherever the pixel is not 0.

    Raises ``ValueError`` for what ``io.read`` refuses and for JPEG, whose compression moves the edges.
    """
    if path.suffix.lower() in (".jpg", ".jpeg"):
        raise ValueError(f"{path}: a mask cannot be JPEG, which blurs its edges; save it as PNG")
    mask: npt.NDArray[np.bool_] = io.read(path).pixels[0] > 0
    return mask


def resized_mask(mask: npt.NDArray[np.bool_], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return a mask (H, W) at ``size`` (w, h), its nearest pixels; one so small that it would vanish keeps a pixel."""
    small: npt.NDArray[np.bool_] = np.array(PIL.Image.fromarray(mask).resize(size, PIL.Image.Resampling.NEAREST))
    if not small.any() and mask.any():
        row, column = (int(places.mean()) for places in np.nonzero(mask))
        small[row * size[1] // mask.shape[0], column * size[0] // mask.shape[1]] = True
    return small


def home() -> Path:
    """Return the folder of all entries: ``$LOLIGO_CACHE``, or ``~/.cache/loligo``."""
    return Path(os.environ.get("LOLIGO_CACHE") or Path.home() / ".cache" / "loligo")


def _dataset(rows: pd.DataFrame, entry: _Entry, strict: bool, position: bool) -> Dataset:
    """Pair the pixels with their rows, and set the rejected ones apart."""
    pixels, reasons, counts = entry
    bad = rows.loc[list(reasons), ["path"]].assign(reason=list(reasons.values())).reset_index(drop=True)
    if reasons and strict:
        raise ValueError(f"{bad['path'][0]}: {bad['reason'][0]}")
    if reasons and len(bad) == len(rows):
        raise AllRejected(bad)
    accepted = rows.drop(index=list(reasons)).reset_index(drop=True)
    sliced = any(io.is_volume(Path(path)) for path in accepted["path"])
    return Dataset(accepted, pixels, bad, tuple(counts) if sliced else None, position)


def _key(pool: ThreadPoolExecutor, pairs: list[_Row], size: int, cut: Cut, progress: bool) -> str:
    """Name a cache entry by all that decides its content."""
    whole = hashlib.sha256(f"{FORMAT_VERSION} {size} {len(pairs)}".encode())
    if any(io.is_volume(Path(path)) for path, _ in pairs):
        whole.update(f" {cut.axis} {cut.window}{cut.spacing or ''}".encode())
    with tqdm(total=len(pairs), desc="read", unit="image", disable=None if progress else True) as bar:
        for start in range(0, len(pairs), _AT_ONCE):  # all at once would take some kB an image
            part = pairs[start : start + _AT_ONCE]
            for image, mask in zip(*(pool.map(digest, paths) for paths in _columns(part)), strict=True):
                whole.update(f"\n{image} {mask}".encode())
            bar.update(len(part))
    return whole.hexdigest()[:32]


def _columns(pairs: list[_Row]) -> tuple[list[str], list[str]]:
    """Take pairs apart into image paths and mask paths."""
    return [image for image, _ in pairs], [mask for _, mask in pairs]


def digest(path: str) -> str:
    """Hash a file's content and suffix, or say why it cannot be opened: should it appear, that is noticed."""
    if not path:
        return "none"
    try:
        with Path(path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest() + Path(path).suffix.lower()
    except OSError as error:
        return f"errno {error.errno}"


def _open(entry: Path, size: int) -> _Entry | None:
    """Map a whole cache entry; None where there is none, or not all of it, or not what was written."""
    try:
        index = json.loads((entry / _INDEX).read_text(encoding="utf-8"))
        shape = (index["count"], 1, size, size)
        pixels = np.memmap(entry / _PIXELS, dtype="<u2", mode="r", shape=shape) if shape[0] else np.empty(shape, "<u2")
        if (entry / _PIXELS).stat().st_size != pixels.nbytes or zlib.crc32(pixels.data) != index["crc32"]:
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    reasons = {int(row): reason for row, reason in index["reasons"].items()}
    return pixels, reasons, index.get("counts", [1] * shape[0])


def _build(pool: ThreadPoolExecutor, pairs: list[_Row], size: int, cut: Cut, entry: Path, progress: bool) -> _Entry:
    """Write a cache entry, move it into place unless another process was first, and map it."""
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        sweep(entry.parent, ".building-*", _ABANDONED)
        with tempfile.TemporaryDirectory(
            prefix=".building-", dir=entry.parent, ignore_cleanup_errors=True
        ) as temporary:
            new = Path(temporary, entry.name)
            new.mkdir()
            _write(pool, pairs, size, cut, new, progress)
            _publish(new, entry, size)
    except OSError as error:
        raise OSError(
            error.errno,
            f"cannot write the image cache in {entry.parent}: {error.strerror or error};"
            " free space there, or set LOLIGO_CACHE to a folder that can be written",
        ) from error
    found = _open(entry, size)
    if found is None:
        raise OSError(f"cache {entry} changed while it was built; remove it and run again")
    return found


def _publish(new: Path, entry: Path, size: int) -> None:
    """Move a finished entry into place; a broken one there is removed, a whole one kept."""
    if entry.exists() and _open(entry, size) is None:
        shutil.rmtree(entry, ignore_errors=True)
    try:
        new.rename(entry)
    except OSError:
        if not entry.exists():
            raise


def _write(pool: ThreadPoolExecutor, pairs: list[_Row], size: int, cut: Cut, new: Path, progress: bool) -> None:
    """Stream the decoded images into one file, in order, and write the index after them."""
    reasons: dict[int, str] = {}
    counts: list[int] = []
    crc = 0
    with (new / _PIXELS).open("wb") as stream:
        for row, result in enumerate(_decoded(pool, pairs, size, cut, progress)):
            if isinstance(result, str):
                reasons[row] = result
                continue
            data = result.tobytes()
            stream.write(data)
            crc = zlib.crc32(data, crc)
            counts.append(len(result))
    index = {"count": sum(counts), "counts": counts, "crc32": crc, "reasons": reasons}
    (new / _INDEX).write_text(json.dumps(index), encoding="utf-8")


def _decoded(pool: ThreadPoolExecutor, pairs: list[_Row], size: int, cut: Cut, progress: bool) -> Iterator[_Result]:
    """Decode in parallel, in order, a bounded number at a time."""
    with tqdm(total=len(pairs), desc="decode", unit="image", disable=None if progress else True) as bar:
        at_once = 2 if any(io.is_volume(Path(path)) for path, _ in pairs) else _AT_ONCE
        for start in range(0, len(pairs), at_once):
            for result in pool.map(lambda pair: _decode(pair, size, cut), pairs[start : start + at_once]):
                bar.update()
                yield result


def _decode(pair: _Row, size: int, cut: Cut) -> _Result:
    """Read one image at (1, 1, S, S), or a volume's slices, or say why it is rejected."""
    path, mask = pair
    try:
        if io.is_volume(Path(path)):
            return _levels(volumes.decode(Path(path), mask, size, cut))
        grey = io.read(Path(path)).pixels[0]
        if mask and (shape := read_mask(Path(mask)).shape) != grey.shape:
            return f"its mask {Path(mask).name} has (height, width) {shape}, the image {grey.shape}"
    except ValueError as error:
        if _ESCAPED.search(path) and not Path(path).exists():  # as `manifest.writable` writes it
            return "its name is not UTF-8 or has a carriage return, shown here as a code after a \\; rename the file"
        said = str(error).removeprefix(f"{path}: ")
        return said.replace(mask, Path(mask).name) if mask else said  # folders may tell of a patient
    return _levels(volumes.resized(grey[None], (size, size))[:, None])


def _levels(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Round float32 in [0, 1] to 16 bit."""
    return np.asarray(np.rint(np.clip(values, 0, 1) * _WHITE).astype("<u2"))
