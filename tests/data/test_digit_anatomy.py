import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from loligo.data import digit_anatomy, manifest
from loligo.data.digit_anatomy import ABNORMAL, CELL, FIFTHS, FLIPPABLE, GRID, KINDS, DigitPool

SEEDS = range(40)
COUNTS = {"train": 6, "calibration": 3, "test": 4, "per_kind": 2, "validation": 1}


@pytest.fixture(scope="module")
def digits() -> DigitPool:
    return digit_anatomy.pool()


def cells(image: np.ndarray) -> np.ndarray:
    """(96, 96) to (9, 32, 32), by plain slicing."""
    places = [(CELL * (i // GRID), CELL * (i % GRID)) for i in range(GRID**2)]
    return np.stack([image[row : row + CELL, column : column + CELL] for row, column in places])


def changed(mask: np.ndarray) -> list[int]:
    """Places of the masked cells; each must be masked as a whole or not at all."""
    parts = cells(mask).reshape(9, -1)
    assert (parts.all(axis=1) == parts.any(axis=1)).all()
    return [int(i) for i in np.flatnonzero(parts.any(axis=1))]


def twins(digits: DigitPool, kind: str, seed: int) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Cells of an image and of its normal twin, and the places that the mask names."""
    pixels, mask = digit_anatomy.generate(digits, kind, np.random.default_rng(seed))
    normal, _ = digit_anatomy.generate(digits, "normal", np.random.default_rng(seed))
    return cells(pixels), cells(normal), changed(mask)


def test_pixels_and_masks_have_the_declared_form(digits: DigitPool) -> None:
    for kind in KINDS:
        pixels, mask = digit_anatomy.generate(digits, kind, np.random.default_rng(0))
        assert (pixels.shape, pixels.dtype, mask.shape, mask.dtype) == ((96, 96), np.float32, (96, 96), bool)
        assert pixels.min() == 0 and 0.9 < pixels.max() <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_mask_names_the_cells_that_differ_from_the_normal_twin(digits: DigitPool, kind: str) -> None:
    expected = {"normal": 0, "disorder": 2}.get(kind, 1)
    for seed in SEEDS:
        image, normal, places = twins(digits, kind, seed)
        assert len(places) == expected
        assert [i for i in range(9) if (image[i] != normal[i]).any()] == places


def test_each_kind_is_what_its_name_says(digits: DigitPool) -> None:
    for seed in SEEDS:
        image, normal, (first, second) = twins(digits, "disorder", seed)
        assert (image[first] == normal[second]).all() and (image[second] == normal[first]).all()
        image, normal, (place,) = twins(digits, "missing", seed)
        assert not image[place].any() and normal[place].any()
        image, normal, (place,) = twins(digits, "flipped", seed)
        assert (image[place] == normal[place, :, ::-1]).all() and place + 1 in FLIPPABLE


def test_every_cell_and_flippable_digit_is_reached(digits: DigitPool) -> None:
    for kind, reach in [("novel", range(9)), ("missing", range(9)), ("flipped", [d - 1 for d in FLIPPABLE])]:
        found = {twins(digits, kind, seed)[2][0] for seed in range(150)}
        assert found == set(reach)


def test_flipping_is_plain_to_see(digits: DigitPool) -> None:
    # As different from the twin as two writers' digits are from each other, not a pixel here and there.
    difference = [
        np.abs(a[p] - b[p]).mean() / b[p].mean() for a, b, (p,) in (twins(digits, "flipped", s) for s in SEEDS)
    ]
    assert min(difference) > 0.25


def test_each_digit_stays_in_its_own_cell() -> None:
    lone = DigitPool(tuple(np.full((3, 28, 28), 10 * d, np.uint8) for d in range(10)))
    pixels, _ = digit_anatomy.generate(lone, "normal", np.random.default_rng(0))
    centres = cells(np.rint(pixels * 255))[:, CELL // 2, CELL // 2]
    assert centres.tolist() == [10 * d for d in range(1, 10)]


def test_scale_spans_the_papers_range_centred_and_clipped() -> None:
    solid = DigitPool(tuple(np.full((3, 28, 28), 255, np.uint8) for _ in range(10)))
    widths = []
    for seed in range(60):
        for cell in cells(digit_anatomy.generate(solid, "normal", np.random.default_rng(seed))[0]):
            filled = np.flatnonzero(cell[CELL // 2])
            widths.append(len(filled))
            assert abs(filled[0] + filled[-1] - (CELL - 1)) <= 1
    assert min(widths) in (19, 20) and max(widths) == CELL  # 0.6 x 32 = 19.2
    assert np.mean(np.array(widths) == CELL) == pytest.approx(0.3 / 0.7, abs=0.08)  # scales past 1 are clipped


def test_shares_are_disjoint_and_complete(digits: DigitPool) -> None:
    shares = {split: digits.part(split) for split in FIFTHS if split != "validation"}
    assert FIFTHS["validation"] == FIFTHS["calibration"]
    for d in range(10):
        seen = [glyph.tobytes() for share in shares.values() for glyph in share.digits[d]]
        assert len(seen) == len(set(seen)) == len(digits.digits[d])
    assert 0.59 < sum(map(len, shares["train"].digits)) / sum(map(len, digits.digits)) < 0.61


def test_each_split_draws_only_from_its_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marked = DigitPool(
        tuple(np.repeat(np.arange(1, 6, dtype=np.uint8) * 50, 28 * 28).reshape(5, 28, 28) for _ in range(10))
    )
    monkeypatch.setattr(digit_anatomy, "pool", lambda folder: marked)
    frame = digit_anatomy.write(tmp_path / "set", **COUNTS)
    allowed = {"train": {50, 100, 150}, "calibration": {200}, "test": {250}, "validation": {200}}
    for row in frame[frame["kind"] == "normal"].itertuples():
        assert set(cells(np.asarray(Image.open(row.path)))[:, CELL // 2, CELL // 2].tolist()) <= allowed[row.split]


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_same_seed_gives_the_same_bytes_whatever_the_counts(tmp_path: Path) -> None:
    digit_anatomy.write(tmp_path / "a", **COUNTS, seed=3)
    digit_anatomy.write(tmp_path / "b", **COUNTS, seed=3)
    digit_anatomy.write(tmp_path / "c", **COUNTS, seed=4)
    digit_anatomy.write(tmp_path / "more", **{name: count + 2 for name, count in COUNTS.items()}, seed=3)
    a, c, more = (contents(tmp_path / name) for name in ("a", "c", "more"))
    assert a == contents(tmp_path / "b")
    pictures = [name for name in a if name.endswith(".png")]
    assert all(a[name] == more[name] for name in pictures)
    assert not any(a[name] == c[name] for name in pictures if name.startswith("images"))


def test_the_manifest_names_every_image_and_mask(tmp_path: Path) -> None:
    frame = digit_anatomy.write(tmp_path / "set", **COUNTS)
    raw = pd.read_csv(tmp_path / "set" / "manifest.csv", keep_default_na=False)
    assert list(raw) == ["path", "split", "label", "patient", "mask", "source", "kind", "seed"]
    assert not raw["path"].str.startswith(os.sep).any()
    pd.testing.assert_frame_equal(manifest.read(tmp_path / "set" / "manifest.csv"), frame)
    counts = frame.groupby(["split", "kind"]).size().to_dict()
    assert counts == {("train", "normal"): 6, ("calibration", "normal"): 3, ("test", "normal"): 4} | {
        ("test", kind): 2 for kind in ABNORMAL
    } | {("validation", kind): 1 for kind in KINDS}
    for row in frame.itertuples():
        assert Image.open(row.path).mode == "L" and Image.open(row.path).size == (96, 96)
        assert (row.mask != "") == (row.label == 1) == (row.kind != "normal")
        if row.mask:
            assert set(np.unique(np.asarray(Image.open(row.mask)))) == {0, 255}


def test_only_an_earlier_digit_anatomy_is_replaced(tmp_path: Path) -> None:
    digit_anatomy.write(tmp_path / "set", **COUNTS)
    assert len(digit_anatomy.write(tmp_path / "set", **COUNTS | {"train": 1})) == 21
    (tmp_path / "set" / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match=r"holds images, .*thesis\.tex.*name a new folder"):
        digit_anatomy.write(tmp_path / "set", **COUNTS)
    assert (tmp_path / "set" / "thesis.tex").exists()


def test_a_stranger_with_the_same_layout_is_not_replaced(tmp_path: Path) -> None:
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    (tmp_path / "manifest.csv").write_text("path,split,source\nimages/a.png,train,hospital\n")
    with pytest.raises(FileExistsError, match="not an earlier DigitAnatomy"):
        digit_anatomy.write(tmp_path, **COUNTS)


def test_a_failure_on_the_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(digit_anatomy._CHANGES, "flipped", fail)
    with pytest.raises(KeyboardInterrupt):
        digit_anatomy.write(tmp_path / "set", **COUNTS)
    assert list(tmp_path.iterdir()) == []


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def write_mnist(folder: Path, images: np.ndarray, labels: np.ndarray, packed: bool = True) -> None:
    suffix, pack = (".gz", gzip.compress) if packed else ("", bytes)
    (folder / f"some-images-idx3-ubyte{suffix}").write_bytes(pack(idx(images)))
    (folder / f"some-labels-idx1-ubyte{suffix}").write_bytes(pack(idx(labels)))


IMAGES = np.random.default_rng(0).integers(0, 256, (60, 28, 28), dtype=np.uint8)
LABELS = np.arange(60) % 10


@pytest.mark.parametrize("packed", [True, False])
def test_mnist_files_are_read(tmp_path: Path, packed: bool) -> None:
    write_mnist(tmp_path, IMAGES, LABELS, packed)
    digits = digit_anatomy.pool(tmp_path).digits
    assert all((digits[d] == IMAGES[d == LABELS]).all() for d in range(10))


def test_a_file_both_packed_and_unpacked_counts_once(tmp_path: Path) -> None:
    write_mnist(tmp_path, IMAGES, LABELS, packed=True)
    write_mnist(tmp_path, IMAGES, LABELS, packed=False)
    assert sum(map(len, digit_anatomy.pool(tmp_path).digits)) == 60


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES, LABELS[:59], r"has shape \(59,\), but some-images-idx3-ubyte.gz holds 60 images"),
        (IMAGES[:, :20], LABELS, r"shape \(60, 20, 28\); \(n, 28, 28\) is needed"),
        (IMAGES, LABELS + 1, "holds the label 10; digits are labelled 0 to 9"),
        (IMAGES[:48], LABELS[:48], "digit 8 has 4 instances; at least 5"),
    ],
)
def test_unfit_mnist_is_named(tmp_path: Path, images: np.ndarray, labels: np.ndarray, message: str) -> None:
    write_mnist(tmp_path, images, labels)
    with pytest.raises(ValueError, match=message):
        digit_anatomy.pool(tmp_path)


@pytest.mark.parametrize(
    ("name", "raw", "message"),
    [
        ("x", b"", "begins with ; an idx file"),
        ("x", b"\x89PNG....", "begins with 89 50 4e 47; an idx file of bytes begins with 00 00 08"),
        ("x", idx(IMAGES)[:9], "has 9 bytes; its header asks for"),
        ("x", idx(IMAGES)[:-1], "has 47055 bytes; its header asks for 47056"),
        ("x", idx(IMAGES) + b"\0", "has 47057 bytes; its header asks for 47056"),
        ("x.gz", idx(IMAGES), "cannot be unpacked"),
        ("x.gz", gzip.compress(idx(IMAGES))[:-20], "cannot be unpacked"),
    ],
)
def test_a_malformed_idx_file_is_named(tmp_path: Path, name: str, raw: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(ValueError, match=rf"{name} {message}"):
        digit_anatomy.read_idx(tmp_path / name)


def test_unfit_requests_are_named(tmp_path: Path, digits: DigitPool) -> None:
    with pytest.raises(ValueError, match="holds no file named"):
        digit_anatomy.pool(tmp_path)
    with pytest.raises(ValueError, match="kind is 'swapped'; allowed: normal, novel, disorder, missing, flipped"):
        digit_anatomy.generate(digits, "swapped", np.random.default_rng(0))
    with pytest.raises(ValueError, match="split is 'val'"):
        digits.part("val")
    with pytest.raises(ValueError, match="per_kind is -1; 0 or more"):
        digit_anatomy.write(tmp_path / "set", per_kind=-1)


def test_real_mnist_gives_images_too() -> None:
    folder = Path(os.environ.get("LOLIGO_DATA", Path(__file__).parents[3] / "shared" / "data")) / "mnist"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent; set LOLIGO_DATA")
    digits = digit_anatomy.pool(folder)
    assert sum(map(len, digits.digits)) == 10_000
    assert digit_anatomy.generate(digits, "novel", np.random.default_rng(0))[0].max() > 0.9
