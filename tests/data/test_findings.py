"""Simulated findings: what a mask says was changed is what changed, and each kind has the sign that it is named for."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy import ndimage
from test_lungs import chest
from test_synthetic import picture

from loligo.data import findings, lungs, synthetic
from loligo.data.findings import KINDS, RADIOGRAPHIC, STRUCTURAL, Anatomy

SEEDS = range(6)
OPAQUE = ("consolidation", "ground_glass", "interstitial", "effusion", "nodule", "atelectasis")


def phantom(size: tuple[int, int] = (128, 128), seed: int = 0) -> tuple[np.ndarray, Anatomy]:
    """Draw a chest with vessels in its lungs; return it and where its lungs and its body are."""
    image, found = chest(size, seed)
    vessels = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(size), 1.5)
    image = np.clip(image + 0.03 * found * vessels / vessels.std(), 0, 1).astype(np.float32)
    return image, Anatomy(found, np.broadcast_to(np.abs(np.linspace(0, 1, size[1]) - 0.5) < 0.42, size))


def changes(kind: str, size: tuple[int, int] = (128, 128)) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, Anatomy]]:
    """Return image, changed image, mask and anatomy of the phantom for each of some seeds."""
    found = []
    for seed in SEEDS:
        image, anatomy = phantom(size, seed)
        found.append((image, *findings.insert(image, kind, np.random.default_rng(seed), anatomy), anatomy))
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(64, 64), (224, 224), (300, 200)])
def test_a_finding_is_visible_and_changes_nothing_outside_its_mask(kind: str, size: tuple[int, int]) -> None:
    for image, changed, mask, _ in changes(kind, size):
        assert (changed.shape, changed.dtype) == (size, np.float32)
        assert (mask.shape, mask.dtype) == (size, np.bool_)
        assert np.isfinite(changed).all() and 0 <= changed.min() <= changed.max() <= 1
        np.testing.assert_array_equal(changed[~mask], image[~mask])
        step, (low, high) = np.abs(changed - image), np.percentile(image, (1, 99))
        assert mask.any() and (step[mask] >= synthetic.VISIBLE).mean() > 0.5
        assert step[mask].mean() > 0.7 * findings.PLAIN * (high - low)  # gaps in the mask are closed


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_bytes_and_leaves_the_image_alone(kind: str) -> None:
    image, anatomy = phantom()
    before, donor = image.copy(), picture(image.shape, 1)
    first, again, other = (
        findings.insert(image, kind, np.random.default_rng(seed), anatomy, donor) for seed in (3, 3, 4)
    )
    assert all(a.tobytes() == b.tobytes() for a, b in zip(first, again, strict=True))
    assert (first[0] != other[0]).any()
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("kind", KINDS)
def test_images_without_lungs_or_of_one_grey_are_no_error(kind: str) -> None:
    rng = np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for image in (np.zeros((64, 64), np.float32), np.full((70, 64), 0.4, np.float32), np.ones((8, 8), np.float32)):
            changed, mask = findings.insert(image, kind, rng)
            np.testing.assert_array_equal(changed[~mask], image[~mask])
            assert 0 <= changed.min() <= changed.max() <= 1
        for shape in ((96, 96), (64, 100), (9, 8)):
            findings.insert(picture(shape, 2), kind, rng)
        image = picture((96, 96), 3)
        assert findings.anatomy(image).lungs is None
        assert sum(findings.insert(image, kind, rng)[1].any() for _ in range(5)) >= 4


@pytest.mark.parametrize("kind", [kind for kind in RADIOGRAPHIC if kind not in ("device", "cardiomegaly")])
def test_radiographic_findings_lie_in_the_lungs_or_beside_them(kind: str) -> None:
    for image, _, mask, anatomy in changes(kind):
        near = ndimage.binary_dilation(anatomy.lungs, iterations=round(0.08 * len(image)))
        assert (near[mask]).mean() > {"effusion": 0.9, "atelectasis": 0.7}.get(kind, 0.97)


@pytest.mark.parametrize("kind", OPAQUE)
def test_opaque_findings_brighten_the_lungs(kind: str) -> None:
    for image, changed, mask, anatomy in changes(kind):
        inside = mask & anatomy.lungs
        step = (changed - image)[inside]
        assert step.mean() > 0.01 and (step > 0).mean() > (0.5 if kind == "atelectasis" else 0.6)


def test_an_effusion_lies_at_the_base_and_higher_at_the_chest_wall() -> None:
    lower, rises = [], []
    for image, _, mask, anatomy in changes("effusion"):
        rows, columns = np.nonzero(mask)
        lower.append(rows.mean() > np.nonzero(anatomy.lungs)[0].mean())
        left = columns < image.shape[1] / 2
        for side, lateral in ((left, -1), (~left, 1)):
            if side.sum() < 50:
                continue
            low, high = np.percentile(columns[side], (20, 80))
            tops = [rows[side & part].min() for part in (columns <= low, columns >= high) if (side & part).any()]
            rises.append((tops[0] - tops[-1]) * lateral)
    assert np.mean(lower) >= 0.8 and np.mean(np.array(rises) > 0) > 0.5 and np.mean(rises) > 0


def test_a_pneumothorax_is_dark_without_vessels_and_lies_at_the_rim() -> None:
    for image, changed, mask, anatomy in changes("pneumothorax"):
        dark = mask & (changed < image - 0.02) & anatomy.lungs
        assert (changed - image)[mask].mean() < -0.01
        sides = dark[:, :64].sum(), dark[:, 64:].sum()
        assert min(sides) == 0 < max(sides)  # one lung
        inner = ndimage.binary_erosion(dark, iterations=3)
        if inner.sum() > 50:
            detail = [(x - ndimage.gaussian_filter(x, 2))[inner].std() for x in (changed, image)]
            assert detail[0] < 0.8 * detail[1]
        columns = np.nonzero(dark)[1].mean() - 63.5
        whole = np.nonzero(anatomy.lungs[:, :64] if columns < 0 else anatomy.lungs[:, 64:])[1].mean()
        assert abs(columns) > abs(whole - 63.5 if columns < 0 else whole + 0.5) - 3  # not the medial half


def test_a_nodule_is_round_and_its_size_is_in_range() -> None:
    for image, _, mask, _ in changes("nodule", (224, 224)):
        labels, count = ndimage.label(mask)
        assert 1 <= count <= 6
        for part in ndimage.find_objects(labels):
            wide = part[1].stop - part[1].start
            assert 2 <= wide <= 0.45 * image.shape[1]  # several may touch


def test_a_cardiomegaly_widens_the_heart() -> None:
    for image, changed, _, _ in changes("cardiomegaly"):
        rows = slice(70, 90)  # at the level of the heart, the lungs are 0.55 as bright as it
        level = 0.75 * np.median(image[rows, 60:68])
        width = [(ndimage.gaussian_filter(x, 1)[rows, 20:108] > level).sum() for x in (image, changed)]
        assert width[1] > 1.05 * width[0]


def test_a_device_is_bright_and_thin() -> None:
    for image, changed, mask, _ in changes("device", (224, 224)):
        assert (changed >= image)[mask].all() and mask.mean() < 0.06
        edge = np.abs(np.diff(changed - image, axis=1)).max()
        assert edge > 0.3 * np.abs(changed - image).max()  # sharp


def test_structural_changes_lie_in_the_foreground() -> None:
    image = np.zeros((128, 128), np.float32)
    image[40:90, 50:100] = picture((50, 50), 5) * 0.6 + 0.3
    anatomy = findings.anatomy(image)
    assert anatomy.lungs is None and anatomy.foreground[50:80, 60:90].all() and anatomy.foreground.mean() < 0.25
    for kind in ("opacity", "lucency", "mirrored", "deformed", "missing", "texture"):
        for seed in SEEDS:
            mask = findings.insert(image, kind, np.random.default_rng(seed), anatomy)[1]
            assert not mask.any() or (mask & anatomy.foreground).any()
            if kind in ("opacity", "lucency"):
                assert mask[ndimage.binary_dilation(anatomy.foreground, iterations=6)].sum() == mask.sum()


def test_opacity_brightens_and_lucency_darkens() -> None:
    for kind, sign in (("opacity", 1), ("lucency", -1)):
        for image, changed, mask, _ in changes(kind):
            assert (sign * (changed - image)[mask] >= 0).all()


def test_missing_is_smooth_and_takes_the_grey_of_its_surroundings() -> None:
    for image, changed, mask, _ in changes("missing"):
        inner = ndimage.binary_erosion(mask, iterations=4)
        ring = ndimage.binary_dilation(mask, iterations=4) & ~mask
        if inner.sum() > 20:
            assert ndimage.laplace(changed)[inner].std() < 0.5 * ndimage.laplace(image)[inner].std()
            assert image[ring].min() - 0.02 <= changed[inner].mean() <= image[ring].max() + 0.02


def test_misplaced_takes_from_the_donor_half_the_time() -> None:
    image, anatomy = phantom()
    donor = np.full_like(image, 0.77)
    taken = []
    for seed in range(20):
        changed, mask = findings.insert(image, "misplaced", np.random.default_rng(seed), anatomy, donor)
        taken.append(np.isclose(changed[mask], 0.77, atol=1e-6).mean() > 0.05)
    assert 3 < sum(taken) < 20


def test_a_mirrored_part_holds_the_grey_that_it_had() -> None:
    for image, changed, mask, _ in changes("mirrored"):
        low, high = image[ndimage.binary_dilation(mask, iterations=30)].min(), image.max()
        assert low - 1e-6 <= changed[mask].min() and changed[mask].max() <= high + 1e-6


def test_anatomy_finds_lungs_and_body_of_a_chest() -> None:
    image, true = phantom((224, 200), 2)
    found = findings.anatomy(image)
    assert found.lungs is not None and found.lungs.shape == found.foreground.shape == (224, 200)
    assert (found.lungs & true.lungs).sum() / (found.lungs | true.lungs).sum() > 0.7
    assert found.foreground[lungs.segment(image)].mean() > 0.95
    assert not found.foreground[:, :8].any()


def test_what_cannot_be_used_is_told() -> None:
    image, rng = picture((64, 64), 0), np.random.default_rng(0)
    with pytest.raises(ValueError, match="kind is 'tumour'; allowed: consolidation, "):
        findings.insert(image, "tumour", rng)
    with pytest.raises(ValueError, match=r"image has shape \(1, 64, 64\); \(H, W\) of 8 pixels a side is the least"):
        findings.insert(image[None], "nodule", rng)
    with pytest.raises(ValueError, match=r"donor has shape \(64, 63\), the image \(64, 64\); resize it"):
        findings.insert(image, "misplaced", rng, donor=image[:, :63])
    assert not set(RADIOGRAPHIC) & set(STRUCTURAL) and not set(KINDS) & set(synthetic.KINDS)
