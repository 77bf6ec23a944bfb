"""Generate DigitAnatomy (SQUID, CVPR 2023): images whose anatomy is known, so that every anomaly has a true mask.

Normal is a 3x3 grid of handwritten digits, 1 to 9, each in its own cell as organs are in a chest. An
abnormal image breaks that order in one of four ways, ``ABNORMAL``; its mask covers every cell that was changed.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image, ImageDraw

from loligo.data import generated, manifest
from loligo.files import replacing

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

CELL, GRID, GLYPH = 32, 3, 28  # pixels a side of a cell, cells a side of an image, pixels a side of a glyph
SCALES = (0.6, 1.3)
SOURCE = "digit_anatomy"
FLIPPABLE = (2, 3, 4, 5, 6, 7, 9)  # a mirrored 8, and most mirrored 1s, still read as an 8 and a 1
FIFTHS = {"train": (0, 1, 2), "calibration": (3,), "test": (4,), "validation": (3,)}
SIGNS: dict[str, list[list[tuple[float, float]]]] = {  # strokes as (x, y) points in the unit square, y down
    "A": [[(0, 1), (0.5, 0), (1, 1)], [(0.2, 0.65), (0.8, 0.65)]],
    "H": [[(0, 0), (0, 1)], [(1, 0), (1, 1)], [(0, 0.5), (1, 0.5)]],
    "K": [[(0.1, 0), (0.1, 1)], [(0.9, 0), (0.1, 0.55)], [(0.35, 0.4), (0.95, 1)]],
    "M": [[(0, 1), (0, 0), (0.5, 0.6), (1, 0), (1, 1)]],
    "X": [[(0, 0), (1, 1)], [(1, 0), (0, 1)]],
    "plus": [[(0.5, 0), (0.5, 1)], [(0, 0.5), (1, 0.5)]],
    "triangle": [[(0.5, 0), (1, 1), (0, 1), (0.5, 0), (1, 1)]],
}


@dataclass(frozen=True)
class DigitPool:
    """The handwritten instances that images are generated from."""

    digits: tuple[Bytes, ...]
    """Ten arrays (instances, 28, 28) uint8, white on black; ``digits[d]`` holds the instances of digit d."""

    def part(self, split: str) -> DigitPool:
        """Take the instances of one split: three fifths to train, one to calibrate and validate, one to test.

        These parts are disjoint and do not depend on any seed, so a model trained on one set has never seen a
        digit of another set's test split. Neighbours are assigned to different parts: a writer may be in all.
        """
        if split not in FIFTHS:
            raise ValueError(f"split is {split!r}; digits are assigned to {', '.join(FIFTHS)}")
        return DigitPool(tuple(d[np.isin(np.arange(len(d)) % 5, FIFTHS[split])] for d in self.digits))


def pool(folder: Path | None = None) -> DigitPool:
    """Load the digits that scikit-learn carries (8x8, upsampled), or every MNIST idx file in ``folder``.

    A ValueError says which digit has fewer than the five instances that three disjoint parts need.
    """
    glyphs, labels = _bundled() if folder is None else _read_folder(folder)
    for digit in range(10):
        if (count := int(np.sum(labels == digit))) < 5:
            raise ValueError(
                f"{folder}: digit {digit} has {count} instances; at least 5 are needed, to train, calibrate and "
                "test on different ones. Add idx files with more digits"
            )
    return DigitPool(tuple(glyphs[labels == digit] for digit in range(10)))


def _bundled() -> tuple[Bytes, npt.NDArray[np.int64]]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    # Two black pixels on each side give the margins of MNIST; the ramp narrows the blur to a pen stroke.
    small = np.pad(np.uint8(digits.images * (255 / 16)), ((0, 0), (2, 2), (2, 2)))
    large = np.stack([_resized(image, GLYPH) for image in small]).astype(np.float32)
    glyphs: Bytes = np.clip((large - 60) * 1.9, 0, 255).astype(np.uint8)
    return glyphs, digits.target


def _read_folder(folder: Path) -> tuple[Bytes, npt.NDArray[np.int64]]:
    # Keyed without .gz: a file that is there both packed and unpacked must not put a digit in two parts.
    found = {p.name.removesuffix(".gz"): p for p in sorted(folder.glob("*-images-idx3-ubyte*"))}
    if not found:
        raise ValueError(f"{folder} holds no file named *-images-idx3-ubyte or *-images-idx3-ubyte.gz")
    pairs = [_read_pair(path) for path in found.values()]
    return np.concatenate([p[0] for p in pairs]), np.concatenate([p[1] for p in pairs])


def _read_pair(path: Path) -> tuple[Bytes, npt.NDArray[np.int64]]:
    images = read_idx(path)
    labels_path = path.with_name(path.name.replace("-images-idx3-", "-labels-idx1-"))
    labels = read_idx(labels_path)
    if images.shape[1:] != (GLYPH, GLYPH):
        raise ValueError(f"{path} holds an array of shape {images.shape}; (n, {GLYPH}, {GLYPH}) is needed")
    if labels.shape != images.shape[:1]:
        raise ValueError(f"{labels_path} has shape {labels.shape}, but {path.name} holds {len(images)} images")
    if labels.max(initial=0) > 9:
        raise ValueError(f"{labels_path} holds the label {labels.max()}; digits are labelled 0 to 9")
    return images, labels.astype(np.int64)


def read_idx(path: Path) -> Bytes:
    """Read an idx file of unsigned bytes, gzip-packed if so named; a ValueError says what is wrong with it."""
    raw = path.read_bytes()
    if path.suffix == ".gz":
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path} cannot be unpacked: {error}; fetch the file again") from error
    if len(raw) < 4 or raw[:3] != b"\0\0\x08":
        raise ValueError(f"{path} begins with {raw[:4].hex(' ')}; an idx file of bytes begins with 00 00 08")
    start = 4 + 4 * raw[3]
    shape = struct.unpack(f">{raw[3]}I", raw[4:start]) if len(raw) >= start else ()
    if len(raw) != (expected := start + math.prod(shape)):
        raise ValueError(f"{path} has {len(raw)} bytes; its header asks for {expected}. Fetch the file again")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def generate(pool: DigitPool, kind: str, rng: np.random.Generator) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Generate one image of a kind in ``KINDS``: pixels (96, 96) float32 in [0, 1], mask (96, 96) bool.

    The nine digits are sampled before the change is made: the same ``rng`` state and kind "normal" give its
    normal twin, equal to it outside the mask.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; allowed: {', '.join(KINDS)}")
    cells = np.stack([_drawn(pool.digits[digit], rng) for digit in range(1, GRID**2 + 1)])
    changed = np.zeros(GRID**2, bool)
    if kind != "normal":
        changed[_CHANGES[kind](cells, pool, rng)] = True
    pixels = cells.reshape(GRID, GRID, CELL, CELL).swapaxes(1, 2).reshape(GRID * CELL, GRID * CELL)
    mask = changed.reshape(GRID, GRID).repeat(CELL, axis=0).repeat(CELL, axis=1)
    image: npt.NDArray[np.float32] = pixels.astype(np.float32) / np.float32(255)
    return image, mask


def _drawn(glyphs: Bytes, rng: np.random.Generator) -> Bytes:
    """Draw one of ``glyphs`` at random, at a random scale, centred in a (32, 32) cell and clipped to it."""
    side = round(CELL * rng.uniform(*SCALES))
    glyph = Image.fromarray(glyphs[rng.integers(len(glyphs))]).resize((side, side), Image.Resampling.BICUBIC)
    cell = Image.new("L", (CELL, CELL))
    cell.paste(glyph, ((CELL - side) // 2, (CELL - side) // 2))
    return np.asarray(cell)


def _resized(glyph: Bytes, side: int) -> Bytes:
    return np.asarray(Image.fromarray(glyph).resize((side, side), Image.Resampling.BICUBIC))


def _novel(cells: Bytes, pool: DigitPool, rng: np.random.Generator) -> list[int]:
    """Put a digit 0, or as often a drawn sign, in place of a digit."""
    place = int(rng.integers(len(cells)))
    cells[place] = _drawn(pool.digits[0] if rng.random() < 0.5 else _sign(rng)[None], rng)
    return [place]


def _sign(rng: np.random.Generator) -> Bytes:
    """Draw one of ``SIGNS`` with an unsteady hand: (28, 28) uint8 with the margins and the pen of a digit."""
    fine = 4  # drawn at four times the size, for smooth edges
    canvas = Image.new("L", (GLYPH * fine, GLYPH * fine))
    pen = ImageDraw.Draw(canvas)
    for stroke in SIGNS[str(rng.choice(sorted(SIGNS)))]:
        points = (np.array(stroke) * 17 + 5.5 + rng.normal(0, 0.7, (len(stroke), 2))) * fine
        pen.line([(x, y) for x, y in points.tolist()], fill=255, width=round(2.8 * fine), joint="curve")
    return _resized(np.asarray(canvas), GLYPH)


def _disorder(cells: Bytes, pool: DigitPool, rng: np.random.Generator) -> list[int]:
    """Swap two cells."""
    first, second = (int(place) for place in rng.choice(len(cells), 2, replace=False))
    cells[[first, second]] = cells[[second, first]]
    return [first, second]


def _missing(cells: Bytes, pool: DigitPool, rng: np.random.Generator) -> list[int]:
    """Empty a cell."""
    place = int(rng.integers(len(cells)))
    cells[place] = 0
    return [place]


def _flipped(cells: Bytes, pool: DigitPool, rng: np.random.Generator) -> list[int]:
    """Mirror one of the ``FLIPPABLE`` digits left to right."""
    place = int(rng.choice(FLIPPABLE)) - 1
    cells[place] = cells[place, :, ::-1].copy()
    return [place]


_CHANGES: dict[str, Callable[[Bytes, DigitPool, np.random.Generator], list[int]]] = {
    "novel": _novel,
    "disorder": _disorder,
    "missing": _missing,
    "flipped": _flipped,
}
ABNORMAL = tuple(_CHANGES)
KINDS = ("normal", *ABNORMAL)


def write(
    folder: Path,
    *,
    train: int = 1600,
    calibration: int = 200,
    test: int = 300,
    per_kind: int = 100,
    validation: int = 40,
    seed: int = 0,
    mnist: Path | None = None,
) -> pd.DataFrame:
    """Write a data set as 8-bit PNGs and ``manifest.csv``; return the manifest with absolute paths.

    Digits are scikit-learn's, or those of the MNIST files in the folder ``mnist`` (see ``pool``). ``train``,
    ``calibration`` and ``test`` count normal images; the test split holds ``per_kind`` images of each abnormal
    kind as well, and the validation split ``validation`` of each kind and as many normal ones. Each split takes
    digits from its own part of them, but for validation, which shares that of calibration. The same seed
    gives the same bytes, and image i of a split and kind does not depend on how many others there are. The
    folder appears whole or not at all.

    Raises ValueError for a negative count or seed, and FileExistsError where ``folder`` holds anything but an
    earlier DigitAnatomy, because writing replaces the folder.
    """
    wanted = {"train": train, "calibration": calibration, "test": test, "validation": validation}
    generated.check_counts(**wanted, per_kind=per_kind, seed=seed)
    folder = folder.resolve()
    generated.check_replaceable(folder, SOURCE, "DigitAnatomy")
    digits, source = pool(mnist), SOURCE if mnist is None else f"{SOURCE}_mnist"
    plan = [(split, "normal", wanted[split]) for split in FIFTHS]
    plan += [(s, kind, n) for s, n in (("test", per_kind), ("validation", validation)) for kind in ABNORMAL]
    with replacing(folder) as new:
        rows = [row for part in plan for row in _write_kind(new, digits, source, *part, seed)]
        manifest.write(pd.DataFrame(rows), new / "manifest.csv")
    return manifest.read(folder / "manifest.csv")


def _write_kind(
    new: Path, digits: DigitPool, source: str, split: str, kind: str, count: int, seed: int
) -> list[dict[str, object]]:
    """Generate and write ``count`` images and their masks below ``new``; return their rows of the manifest."""
    part = digits.part(split)
    images, masks = new / "images" / split, new / "masks" / split
    images.mkdir(parents=True, exist_ok=True)
    masks.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, object]] = []
    for i in range(count):
        rng = np.random.default_rng([seed, list(FIFTHS).index(split), KINDS.index(kind), i])
        pixels, mask = generate(part, kind, rng)
        name = f"{kind}_{i:05d}.png"
        row = {
            "path": str(images / name),
            "split": split,
            "label": int(mask.any()),
            "patient": "",
            "mask": "",
            "source": source,
        }
        Image.fromarray(np.uint8(np.rint(pixels * 255))).save(images / name)
        if mask.any():
            row["mask"] = str(masks / name)
            Image.fromarray(np.uint8(mask) * 255).save(masks / name)
        rows.append(row | {"kind": kind, "seed": seed})
    return rows
