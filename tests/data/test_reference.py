"""What training remembers: images seen before, copies, negatives, other ranges, other things, other lengths."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from conftest import anatomy, dataset, write_images
from loligo.data import neighbours, reference
from loligo.data.arrays import from_images
from loligo.data.dataset import Dataset
from loligo.data.preprocessing import Preprocessing
from loligo.data.reference import Reference
from loligo.types import VolumeHeader

IMAGES = anatomy(130, 48)
NEW = anatomy(40, 48, seed=9)


@pytest.fixture(scope="module")
def known() -> Reference:
    return Reference.of(dataset(IMAGES[:110]), dataset(IMAGES[110:]))


def rate(known: Reference, images: np.ndarray, name: str) -> float:
    return float(np.mean([name in names for names in known.warnings(dataset(images))]))


def test_ordinary_images_have_no_warning_but_by_chance(known: Reference) -> None:
    found = known.warnings(dataset(NEW))
    assert sum(bool(names) for names in found) <= 2


def test_a_negative_is_named(known: Reference) -> None:
    assert rate(known, 1 - NEW, "inverted") == 1
    assert rate(known, NEW * 0.5, "inverted") == rate(known, np.rot90(NEW, 1, (2, 3)), "inverted") == 0


@pytest.mark.parametrize("kind", ["turned", "noise", "shifted"])
def test_another_thing_is_unlike(known: Reference, kind: str) -> None:
    other = {
        "turned": np.rot90(NEW, 1, (2, 3)).copy(),
        "noise": np.random.default_rng(0).random(NEW.shape, dtype=np.float32),
        "shifted": np.roll(NEW, 20, 3),
    }[kind]
    assert rate(known, other, "unlike_training") == 1


def test_another_range_is_named_in_either_direction(known: Reference) -> None:
    deep = Reference.of(dataset(IMAGES[:110] / 16), dataset(IMAGES[110:] / 16))
    for of, images in ((known, NEW / 16), (known, NEW / 4 + 0.6), (deep, NEW), (deep, NEW / 4)):
        assert rate(of, images, "other_range") == 1
    assert rate(deep, NEW / 16, "other_range") == rate(known, NEW * 0.95, "other_range") == 0


def test_flat_images_are_compared_with_nothing(known: Reference) -> None:
    flat = np.stack([np.zeros((1, 48, 48), np.float32), np.ones((1, 48, 48), np.float32)])
    for names in known.warnings(dataset(flat)):
        assert not {"unlike_training", "inverted", "seen_in_training"} & set(names)


def test_images_of_the_training_are_seen_by_content_and_by_pixels(tmp_path: Path) -> None:
    paths = write_images(tmp_path, IMAGES[:30])
    normals, held_out = (from_images(part, Preprocessing(48)) for part in (paths[:20], paths[20:]))
    known = Reference.of(normals, held_out)
    (tmp_path / "copy.png").write_bytes(paths[3].read_bytes())
    Image.open(paths[22]).save(tmp_path / "again.jpg", quality=95)
    Image.open(paths[4]).save(tmp_path / "again.tif")
    new = [tmp_path / name for name in ("copy.png", "again.jpg", "again.tif")] + write_images(tmp_path / "new", NEW[:2])
    data = from_images(new, Preprocessing(48))
    assert known.seen(data) == ("train", "calibration", "train", "", "")
    assert [("seen_in_training" in names) for names in known.warnings(data)] == [True, True, True, False, False]
    black = replace(known, train=np.zeros((1, 1024), np.float16))  # its content alone is left
    assert black.seen(data)[:3] == ("train", "calibration", "")


def test_copies_within_a_scoring_are_named(known: Reference, tmp_path: Path) -> None:
    paths = write_images(tmp_path, NEW[:3])
    (tmp_path / "copy.png").write_bytes(paths[0].read_bytes())
    Image.open(paths[1]).save(tmp_path / "other.bmp")
    found = known.warnings(from_images([*paths, tmp_path / "copy.png", tmp_path / "other.bmp"], Preprocessing(48)))
    assert [("copy" in names) for names in found] == [True, True, False, True, True]


def volumes(shapes: list[tuple[int, int, int]]) -> Dataset:
    """Wrap brains' slices, all of one picture, as volumes of so many voxels of 1 x 2 x 3 mm."""
    counts = tuple(shape[2] for shape in shapes)
    data = dataset(np.concatenate([IMAGES[i : i + 1].repeat(n, 0) for i, n in enumerate(counts)]))
    place = (np.eye(4), (1.0, 2.0, 3.0), (1, 1, 1), ("R", "A", "S"), {})
    return replace(
        data,
        rows=data.rows.iloc[: len(shapes)],
        counts=counts,
        geometries=tuple(VolumeHeader(Path("a.nii"), shape, *place) for shape in shapes),  # type: ignore[arg-type]
    )


def test_volumes_of_another_extent_are_named() -> None:
    known = Reference.of(volumes([(40, 50, 20), (44, 50, 22)]), volumes([(42, 50, 20)]))
    shapes = [(42, 50, 21), (40, 50, 24), (40, 50, 25), (40, 50, 18), (40, 50, 17), (40, 50, 1), (60, 50, 20)]
    found = [("extent" in names) for names in known.warnings(volumes(shapes))]  # type: ignore[arg-type]
    assert found == [False, False, True, False, True, True, True]


def test_a_volume_is_compared_by_the_mean_of_its_slices() -> None:
    data = volumes([(40, 50, 3), (40, 50, 2)])
    x = data.batch(range(5))[:, 0].numpy()
    found = neighbours.measured(data)
    expected = neighbours.signatures(np.stack([x[:3].mean(0), x[3:].mean(0)]))
    np.testing.assert_allclose(found.signatures, expected, atol=1e-6)
    np.testing.assert_allclose(found.tails[0], np.percentile(x[:3], (1, 99)), atol=0.02)


def test_the_limit_is_the_99th_percentile_with_the_finite_sample_correction() -> None:
    distances = np.random.default_rng(0).permutation(np.arange(1, 200)).astype(np.float32)
    assert reference._usual(distances) == 198  # of 199 distances a new one lies below the 198th in 198 of 200 cases
    assert reference._usual(distances[:20]) == distances[:20].max()


@pytest.mark.parametrize("share", [1, 5, 12])
def test_negatives_among_training_images_are_found_though_they_are_like_each_other(share: int) -> None:
    mixed = np.concatenate([1 - IMAGES[:share], IMAGES[share:30]])
    assert Reference.of(dataset(mixed), dataset(NEW[:2])).negatives() == (("inverted",),) * share + ((),) * (30 - share)


def test_of_many_images_some_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "MOST", 10)
    known = Reference.of(dataset(IMAGES), dataset(NEW))
    assert known.train.shape == known.calibration.shape == (10, 1024)


def test_it_is_saved_and_loaded(known: Reference, tmp_path: Path) -> None:
    path = tmp_path / "reference.safetensors"
    known.save(path)
    again = Reference.load(path)
    assert again.warnings(dataset(NEW)) == known.warnings(dataset(NEW))
    assert again.seen(dataset(IMAGES[105:115])) == ("train",) * 5 + ("calibration",) * 5
    raw = path.read_bytes()
    path.write_bytes(raw[:-9])
    with pytest.raises(ValueError, match=r"reference.safetensors is damaged .*; train the run again"):
        Reference.load(path)
    path.unlink()
    with pytest.raises(ValueError, match=r"reference.safetensors is missing; train the run again"):
        Reference.load(path)


@pytest.mark.parametrize(
    "change",
    [
        {"train": np.zeros((0, 1024), np.float16)},
        {"train": np.zeros((2, 9), np.float16)},
        {"train": np.full((2, 1024), np.nan, np.float16)},
        {"usual": np.zeros((2,), np.float32)},
        {"tails": np.zeros((1, 2), np.float32)},
        {"train_contents": np.zeros((1, 32), np.float32)},
        {"extents": np.zeros((1, 3), np.float32)},
    ],
)
def test_what_was_changed_by_hand_is_refused(known: Reference, tmp_path: Path, change: dict[str, np.ndarray]) -> None:
    save_file({field.name: getattr(known, field.name) for field in fields(known)} | change, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"a.safetensors .*train the run again"):
        Reference.load(tmp_path / "a.safetensors")
