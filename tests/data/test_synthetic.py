"""Synthetic anomalies: what a mask says was changed is what changed, and each kind is what its name says."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage, stats
from test_lungs import chest

from loligo.data import lungs, synthetic

SEEDS = range(8)


def picture(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Draw a smooth picture in [0, 1] without a flat place."""
    noise = np.random.default_rng(seed).standard_normal(shape)
    smooth = ndimage.gaussian_filter(noise, [0] * (len(shape) - 2) + [4, 4])
    return np.clip(0.5 + 0.2 * smooth / smooth.std(), 0, 1).astype(np.float32)


def planted(
    kind: str, seed: int, shape: tuple[int, ...] = (1, 96, 80)
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return image, donor, changed image and mask."""
    image, donor = picture(shape, seed), picture(shape, seed + 100)
    changed, mask = synthetic.insert(image, kind, np.random.default_rng(seed), donor)
    return image, donor, changed, mask


@pytest.mark.parametrize("kind", synthetic.KINDS)
@pytest.mark.parametrize("shape", [(96, 96), (1, 64, 90), (3, 70, 48), (8, 8)])
def test_only_the_mask_differs_and_nearly_all_of_it_does(kind: str, shape: tuple[int, ...]) -> None:
    shares = []
    for seed in SEEDS:
        image, _, changed, mask = planted(kind, seed, shape)
        assert (changed.shape, changed.dtype) == (shape, np.float32)
        assert (mask.shape, mask.dtype) == (shape[-2:], np.bool_)
        assert np.isfinite(changed).all() and 0 <= changed.min() <= changed.max() <= 1
        np.testing.assert_array_equal(changed[..., ~mask], image[..., ~mask])
        step = np.abs(changed - image).reshape(-1, *mask.shape).max(0)
        assert mask.any() or shape == (8, 8)
        shares += [(step[mask] >= synthetic.VISIBLE).mean()] if mask.any() else []
    assert min(shares) > 0.7 and np.mean(shares) > 0.9  # small gaps are closed


@pytest.mark.parametrize("kind", synthetic.KINDS)
def test_the_same_seed_gives_the_same_bytes_and_leaves_the_image_alone(kind: str) -> None:
    image, donor, changed, mask = planted(kind, 3)
    before = image.copy()
    again, same = synthetic.insert(image, kind, np.random.default_rng(3), donor)
    assert again.tobytes() == changed.tobytes() and same.tobytes() == mask.tobytes()
    np.testing.assert_array_equal(image, before)
    other, _ = synthetic.insert(image, kind, np.random.default_rng(4), donor)
    assert (other != changed).any()


def test_cutpaste_moves_a_rectangle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "TONE", 0)
    rows, columns = np.mgrid[:64, :80].astype(np.float32)
    image = np.stack([rows / 64, columns / 80])  # each pixel holds its own place
    for seed in SEEDS:
        changed, mask = synthetic.insert(image, "cutpaste", np.random.default_rng(seed))
        where = np.argwhere(mask)
        high, wide = np.ptp(where, axis=0) + 1
        assert high * wide == mask.sum()  # no hole, no corner lacking
        assert 0.02 * 0.8 < mask.mean() < 0.15 * 1.1 and 0.25 < high / wide < 4
        step = (changed - image)[:, mask] * [[64], [80]]
        np.testing.assert_allclose(step, np.round(step[:, :1]).repeat(mask.sum(), 1), atol=1e-3)


def test_a_scar_is_thin_and_leans() -> None:
    leans, thin = [], []
    for seed in range(40):
        _, _, _, mask = planted("cutpaste_scar", seed, (256, 256))
        rows, columns = np.nonzero(mask)
        assert 2 * 10 * 0.5 < mask.sum() < 16 * 25 * 1.2
        values, vectors = np.linalg.eigh(np.cov(np.stack([rows, columns])))
        if values[1] > 3 * values[0]:
            thin.append(seed)
            leans.append(np.degrees(np.arctan2(abs(vectors[1, 1]), abs(vectors[0, 1]))))
    assert len(thin) > 10
    assert max(leans) < 50 and np.ptp(leans) > 20


def test_fpi_mixes_with_the_same_place_of_the_donor() -> None:
    shares = []
    for seed in SEEDS:
        image, donor, changed, mask = planted("fpi", seed)
        share = ((changed - image) / (donor - image))[:, mask]
        changes = np.abs(changed - image)[:, mask] > 0.01
        assert np.ptp(share[changes]) < 1e-3
        shares.append(float(share[changes].mean()))
    assert 0.05 <= min(shares) < max(shares) <= 0.95 and np.ptp(shares) > 0.3


@pytest.mark.parametrize("kind", ["nsa", "pii"])
def test_what_is_blended_by_gradients_has_no_edge(kind: str) -> None:
    for seed in SEEDS:
        image, _, changed, mask = planted(kind, seed, (96, 96))
        step = np.abs(changed - image)
        depth = ndimage.distance_transform_edt(mask)
        rim, core = step[(depth > 0) & (depth <= 1)], step[depth > 0.7 * depth.max()]
        if depth.max() > 5:
            assert rim.mean() < 0.6 * core.mean(), f"seed {seed}"


def test_sides_of_nsas_patches_are_the_least_and_a_gamma(monkeypatch: pytest.MonkeyPatch) -> None:
    sides, blended = [], synthetic._blended
    monkeypatch.setattr(synthetic, "_blended", lambda x, box, guide, mixed: (
        sides.extend(box[i].stop - box[i].start for i in (1, 2)), blended(x, box, guide, mixed))[1])  # fmt: skip
    image = picture((1, 200, 200), 0)
    for seed in range(300):
        synthetic._nsa(image, image, np.random.default_rng(seed))
    found = np.array(sides) / 200
    assert 0.06 <= found.min() < 0.09 and 0.7 < found.max() <= 0.8
    assert stats.kstest(found[found < 0.8], stats.gamma(2, loc=0.06, scale=0.1).cdf).pvalue > 0.01


def test_perlin_noise_is_smooth_and_centred() -> None:
    found = [synthetic.perlin_noise((64, 96), np.random.default_rng(seed)) for seed in range(60)]
    assert {(noise.shape, noise.dtype) for noise in found} == {((64, 96), np.dtype(np.float32))}
    values = np.stack(found)
    assert abs(values.mean()) < 0.05 and 0.2 < values.std() < 0.5 and np.abs(values).max() < 1.5
    shares = (values > synthetic.PERLIN_LEVEL).mean((1, 2))
    assert 0.01 < np.median(shares) < 0.2
    fine = synthetic.perlin_noise((1024, 1024), np.random.default_rng(5))  # 2**5 cells at most: 32 pixels each
    assert np.abs(np.diff(fine, axis=0)).max() < 0.15


def test_anatpaste_stays_in_the_lungs() -> None:
    for seed in SEEDS:
        image, _ = chest((128, 128), seed)
        changed, mask = synthetic.insert(image, "anatpaste", np.random.default_rng(seed))
        assert mask.any() and not (mask & ~lungs.segment(image)).any()
        assert (changed != image).any()
    image = (0.5 + 0.4 * np.sin(np.mgrid[:64, :64][0] / 3)).astype(np.float32)  # no lungs: anywhere
    assert not lungs.segment(image).any()
    assert synthetic.insert(image, "anatpaste", np.random.default_rng(0))[1].any()


@pytest.mark.parametrize("kind", synthetic.KINDS)
@pytest.mark.parametrize("contrast", [1.0, 0.1])
def test_what_is_inserted_is_seen_at_the_contrast_of_the_image(kind: str, contrast: float) -> None:
    shown = 0
    for seed in range(12):
        image, donor = (0.2 + contrast * (chest((128, 128), seed + i)[0] - 0.2) for i in (0, 50))
        changed, mask = synthetic.insert(image.astype(np.float32), kind, np.random.default_rng(seed), donor)
        low, high = np.percentile(image, (1, 99))
        if mask.any():
            shown += 1
            assert np.abs(changed - image)[mask].mean() >= 0.9 * synthetic.PLAIN * (high - low)  # small gaps are closed
        else:
            assert (changed == image.astype(np.float32)).all()
    assert shown >= 6  # of two chests alike, of little contrast, not every place differs


def test_what_cannot_be_seen_is_drawn_again() -> None:
    image = np.zeros((128, 128), np.float32)
    image[:, 96:] = picture((128, 32), 0)  # three quarters black
    hidden = 0
    for seed in range(30):
        changed, mask = synthetic.insert(image, "cutpaste", np.random.default_rng(seed))
        rows, columns = np.nonzero(mask)
        hidden += mask.sum() < 0.5 * (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
        assert (changed != image).any()
    assert hidden < 5
    black = np.zeros((32, 32), np.float32)
    changed, mask = synthetic.insert(black, "cutpaste", np.random.default_rng(0))
    assert not mask.any() and not changed.any()


def test_what_does_not_fit_is_refused() -> None:
    image, rng = picture((1, 32, 32), 0), np.random.default_rng(0)
    with pytest.raises(ValueError, match="kind is 'tumour'; allowed: cutpaste, cutpaste_scar, perlin, nsa, fpi"):
        synthetic.insert(image, "tumour", rng)
    with pytest.raises(ValueError, match="pii interpolates with a second image: give a donor"):
        synthetic.insert(image, "pii", rng)
    with pytest.raises(ValueError, match=r"donor has shape \(1, 32, 30\), the image \(1, 32, 32\); resize it"):
        synthetic.insert(image, "fpi", rng, image[..., 1:-1])
    with pytest.raises(ValueError, match=r"shape \(7, 32\); \(C, H, W\) or \(H, W\) of 8 pixels a side"):
        synthetic.insert(image[0, :7], "nsa", rng)
