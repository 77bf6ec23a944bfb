"""Changes of acquisition: ordinary ones at random, and the five severities of a benchmark."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from conftest import anatomy
from loligo.data.acquisition import KINDS, ORDINARY, SEVERITIES, STEPS, change, corrupt

IMAGES = anatomy(4, 64)[:, 0]
GEOMETRY = ("rotation", "zoom", "shift")
KEPT = ("noise", "blur")
"""Their steps are those of committed results, and harsh."""


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def at(monkeypatch: pytest.MonkeyPatch, image: np.ndarray, seed: int = 0, **amounts: float) -> np.ndarray:
    """Change an image by just these amounts."""
    for kind, amount in amounts.items():
        monkeypatch.setitem(ORDINARY, kind, (amount, amount))
    return change(image, rng(seed), tuple(amounts), (len(amounts), len(amounts)))[0]


def square(size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Return a bright square off the centre, and its mask."""
    mask = np.zeros((size, size), np.bool_)
    mask[size // 4 : size // 2, size // 2 : 3 * size // 4] = True
    return mask.astype(np.float32), mask


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", [0, 1])
def test_an_ordinary_change_is_seen_and_leaves_the_anatomy(
    monkeypatch: pytest.MonkeyPatch, kind: str, end: int
) -> None:
    for seed, image in enumerate(anatomy(3, 224)[:, 0]):
        before = image.copy()
        changed = at(monkeypatch, image, seed, **{kind: ORDINARY[kind][end]})
        assert changed.shape == image.shape and changed.dtype == np.float32
        assert changed.min() >= 0 and changed.max() <= 1
        assert np.abs(changed - image).max() > 0.004  # a grey level of 255
        inside = np.s_[16:-16, 16:-16]  # within any border
        least = 0.7 if kind in GEOMETRY else 0.98
        assert np.corrcoef(changed[inside].ravel(), image[inside].ravel())[0, 1] > least
        np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("kinds", [*((kind,) for kind in GEOMETRY), GEOMETRY])
def test_a_mask_moves_with_its_image(monkeypatch: pytest.MonkeyPatch, kinds: tuple[str, ...]) -> None:
    image, mask = square()
    for kind in kinds:
        monkeypatch.setitem(ORDINARY, kind, (ORDINARY[kind][1],) * 2)
    for seed in range(20):
        changed, moved = change(image, rng(seed), kinds, (len(kinds), len(kinds)), mask)
        assert moved is not None and moved.dtype == np.bool_ and (moved != mask).any()
        assert changed[moved].min() > 0.24 and changed[~moved].max() < 0.76  # a quarter, where a corner is nearest
        assert 0.75 < moved.sum() / mask.sum() < 1.3


def test_geometry_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.zeros((101, 101), np.float32)
    image[50, 80] = 1  # 30 to the right of the centre
    turned = at(monkeypatch, image, rotation=90)
    assert {tuple(place) for place in np.argwhere(turned > 0.9)} <= {(20, 50), (80, 50)}
    block = np.zeros((101, 101), np.float32)
    block[40:61, 40:61] = 1  # 21 wide
    widths = {(at(monkeypatch, block, seed, zoom=2.0)[50] > 0.5).sum() for seed in range(8)}
    assert len(widths) == 2 and min(widths) in (10, 11) and max(widths) in (41, 42, 43)
    for seed in range(4):
        centre = ndimage.center_of_mass(at(monkeypatch, block, seed, shift=0.1))
        assert np.hypot(centre[0] - 50, centre[1] - 50) == pytest.approx(10.1, abs=0.1)
        row, column = ndimage.center_of_mass(at(monkeypatch, image, seed, rotation=90, shift=0.1))
        assert min(np.hypot(row - 20, column - 50), np.hypot(row - 80, column - 50)) == pytest.approx(10.1, abs=0.1)


def test_what_comes_into_view_is_the_edge(monkeypatch: pytest.MonkeyPatch) -> None:
    flat = np.full((32, 48), 0.25, np.float32)
    for seed in range(5):
        np.testing.assert_allclose(at(monkeypatch, flat, seed, rotation=6, zoom=1.1, shift=0.05), 0.25, atol=1e-6)
    for kind in ("zoom", "shift"):
        np.testing.assert_allclose(corrupt(np.stack([flat] * 4), kind, 5, range(4)), 0.25, atol=1e-6)
    assert corrupt(flat[None], "rotation", 5, [0]).min() == 0  # as in the committed results
    full = np.ones((32, 48), np.bool_)
    moved = [change(flat, rng(seed), ("shift",), (1, 1), full)[1] for seed in range(20)]
    assert any(mask is not None and not mask.all() for mask in moved)  # nobody looked there


def test_a_border_hides_the_mask_and_is_dark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ORDINARY, "collimation", (0.1, 0.1))
    white, sides, greys = np.ones((60, 80), np.float32), set(), set()
    for seed in range(60):
        changed, mask = change(white, rng(seed), ("collimation",), (1, 1), np.ones((60, 80), np.bool_))
        assert mask is not None
        np.testing.assert_array_equal(changed == 1, mask)
        widths = [int((~line).sum()) for line in (mask[:30, 40], mask[30:, 40], mask[30, :40], mask[30, 40:])]
        assert all(width == 0 or 3 <= width <= 6 for width in widths[:2])
        assert all(width == 0 or 4 <= width <= 8 for width in widths[2:])
        sides.add(sum(width > 0 for width in widths))
        greys.add(float(changed.min()))
    assert sides == {1, 2, 3, 4} and 0 in greys and 0.1 < max(greys) < 0.3


def test_the_same_seed_gives_the_same_bytes_whatever_the_order_of_kinds() -> None:
    image = IMAGES[0]
    first, again = change(image, rng(7))[0], change(image, rng(7), KINDS[::-1])[0]
    assert first.tobytes() == again.tobytes() != change(image, rng(8))[0].tobytes()
    masked, mask = change(image, rng(7), mask=np.ones_like(image, np.bool_))
    assert masked.tobytes() == first.tobytes() and mask is not None  # a mask takes no numbers
    assert change(image, rng(7))[1] is None


def test_as_many_kinds_as_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    np.testing.assert_array_equal(change(IMAGES[0], rng(), count=(0, 0))[0], IMAGES[0])
    np.testing.assert_array_equal(change(IMAGES[0], rng(), kinds=())[0], IMAGES[0])
    both = {"contrast": 0.5, "gamma": 2.0, "blur": 1e-9}  # the last does nothing
    for kind, amount in both.items():
        monkeypatch.setitem(ORDINARY, kind, (amount, amount))
    image, mean = IMAGES[0], IMAGES[0].mean()
    faded = np.clip(mean + 0.5 * (image - mean), 0, 1)  # contrast comes first
    some = [change(image, rng(seed), both, (1, 9))[0] for seed in range(200)]
    expected = [image, faded, image**2, image**0.5, faded**2, faded**0.5]
    found = {next(i for i, y in enumerate(expected) if np.allclose(x, y, atol=1e-6)) for x in some}
    assert found == {0, 1, 2, 3, 4, 5}


def test_all_kinds_at_once_on_an_image_that_is_no_square() -> None:
    image = anatomy(1, 96)[0, 0, :, 10:70]
    for seed in range(10):
        changed, mask = change(image, rng(seed), count=(12, 12), mask=image > 0.3)
        assert changed.shape == image.shape and changed.dtype == np.float32 and mask is not None and mask.any()
        assert 0 <= changed.min() < changed.max() <= 1


def test_noise_grows_with_the_value_and_correlates_a_little(monkeypatch: pytest.MonkeyPatch) -> None:
    dark, bright = (np.full((256, 256), value, np.float32) for value in (0.25, 0.75))
    correlations = []
    for seed in range(12):
        low, high = (at(monkeypatch, image, seed, noise=0.02) - image for image in (dark, bright))
        assert low.std() == pytest.approx(0.015, rel=0.03) and high.std() == pytest.approx(0.025, rel=0.03)
        correlations.append(np.corrcoef(low[:, 1:].ravel(), low[:, :-1].ravel())[0, 1])
    assert -0.01 < min(correlations) < 0.2 < max(correlations) < 0.55


def test_blur_has_the_sigma_that_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    point = np.zeros((200, 200), np.float32)
    point[100, 100] = 1
    spread = at(monkeypatch, point, blur=0.01).astype(np.float64)
    assert spread.sum() == pytest.approx(1, abs=1e-5)
    assert (spread.sum(0) * np.square(np.arange(200) - 100)).sum() == pytest.approx(2**2, rel=0.02)


def test_sharpening_and_resampling_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    image = 0.25 + 0.5 * IMAGES[0]
    smooth = ndimage.gaussian_filter(image, 0.64, mode="nearest")
    np.testing.assert_allclose(at(monkeypatch, image, sharpen=0.5), 1.5 * image - 0.5 * smooth, atol=1e-6)
    stripes = np.tile(np.float32([0, 1]), (64, 32))
    np.testing.assert_allclose(at(monkeypatch, stripes, resample=2.0)[:, 8:-8], 0.5, atol=0.01)
    assert np.abs(at(monkeypatch, smooth, resample=2.0) - smooth).max() < np.abs(image - smooth).max()


def test_the_field_is_smooth_and_as_strong_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    flat = np.full((64, 48), 0.5, np.float32)
    for seed in range(10):
        field = np.log(at(monkeypatch, flat, seed, field=0.2) / 0.5)
        assert np.abs(field).max() == pytest.approx(0.2, rel=1e-3)
        assert max(np.abs(np.diff(field, axis=axis)).max() for axis in (0, 1)) < 0.03


def test_jpeg_is_that_of_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.BytesIO()
    Image.fromarray(np.uint8(np.rint(255 * IMAGES[0]))).save(stream, "JPEG", quality=60)
    expected = np.asarray(Image.open(stream), np.float32) / 255
    np.testing.assert_array_equal(at(monkeypatch, IMAGES[0], jpeg=60.5), expected)


def test_what_is_not_allowed_is_refused() -> None:
    with pytest.raises(ValueError, match="kinds of change are fog, invert; allowed: rotation, zoom, shift"):
        change(IMAGES[0], rng(), ("fog", "blur", "invert"))
    with pytest.raises(ValueError, match=r"image is \(4, 64, 64\), mask None; both are \(H, W\)"):
        change(IMAGES, rng())
    with pytest.raises(ValueError, match=r"mask \(3, 3\)"):
        change(IMAGES[0], rng(), mask=np.ones((3, 3), np.bool_))
    with pytest.raises(ValueError, match=r"count is \(3, 1\)"):
        change(IMAGES[0], rng(), count=(3, 1))
    with pytest.raises(
        ValueError, match=r"corruption is 'fog', 1; allowed: noise, blur.*, collimation and severities 1"
    ):
        corrupt(IMAGES, "fog", 1, range(4))
    with pytest.raises(ValueError, match="corruption is 'blur', 6"):
        corrupt(IMAGES, "blur", 6, range(4))


def test_the_first_severities_are_ordinary_and_the_last_are_not() -> None:
    assert set(STEPS) == set(KINDS) == set(ORDINARY)
    for kind, steps in STEPS.items():
        low, high = ORDINARY[kind]
        inside = [low <= step <= high for step in steps]
        assert inside == [True, kind not in KEPT, False, False, False], kind


@pytest.mark.parametrize("kind", sorted(STEPS))
def test_corruptions_are_the_same_by_seed_and_grow(kind: str) -> None:
    corrupted = [corrupt(IMAGES, kind, severity, range(4)) for severity in SEVERITIES]
    for image, *severities in zip(IMAGES, *corrupted, strict=True):
        errors = [float(np.square(x - image).mean()) for x in severities]
        assert errors == sorted(errors) and errors[0] > 0
    for x in corrupted:
        assert x.shape == IMAGES.shape and x.dtype == np.float32 and x.min() >= 0 and x.max() <= 1
    alone = np.concatenate([corrupt(IMAGES[i : i + 1], kind, 3, [i]) for i in range(4)])
    np.testing.assert_array_equal(alone, corrupted[2])  # whatever the batch
    np.testing.assert_array_equal(corrupt(IMAGES, kind, 3, range(4)), corrupted[2])
    if kind not in ("blur", "contrast", "sharpen", "resample", "jpeg"):
        assert any((corrupt(IMAGES, kind, 3, range(4), seed=s) != corrupted[2]).any() for s in (1, 2, 3))


def test_the_kinds_of_the_committed_results_are_what_they_were() -> None:
    for i, image in enumerate(IMAGES):

        def random(place: int, i: int = i) -> np.random.Generator:
            return np.random.default_rng([5, place, i])

        expected = {
            "noise": image + random(0).normal(0, 0.06, image.shape).astype(np.float32),
            "blur": ndimage.gaussian_filter(image, 0.012 * 64, mode="nearest"),
            "contrast": image.mean() + 0.55 * (image - image.mean()),
            "rotation": ndimage.rotate(image, 7 * random(3).choice((-1, 1)), reshape=False, order=1),
        }
        for kind, like in expected.items():
            found = corrupt(image[None], kind, 3, [i], seed=5)[0]
            np.testing.assert_allclose(found, np.clip(like, 0, 1), atol=1e-6)


def test_corruptions_by_hand() -> None:
    half = np.full((1, 32, 32), 0.5, np.float32)
    assert corrupt(half, "noise", 2, [0]).std() == pytest.approx(0.04, rel=0.1)
    step = np.concatenate([np.zeros((1, 32, 16)), np.ones((1, 32, 16))], 2).astype(np.float32)
    np.testing.assert_allclose(np.unique(corrupt(step, "contrast", 4, [0])), [0.3, 0.7], atol=1e-6)
    assert corrupt(step, "blur", 5, [0])[0, 16, 15] > 0.2
