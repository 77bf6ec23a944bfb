"""Windows of volumes: z-scores by hand, robust to lesions and noise, and invertible."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loligo.data import normalise
from loligo.data.normalise import Window
from loligo.data.preprocessing import Preprocessing
from loligo.io import UnreadableImage
from loligo.types import Volume


def volume(voxels: np.ndarray) -> Volume:
    shape: tuple[int, int, int] = voxels.shape  # type: ignore[assignment]
    place = (shape, np.eye(4), (1.0, 1.0, 1.0), shape, ("R", "A", "S"), {})
    return Volume(Path("a.nii"), *place, voxels=voxels.astype(np.float32))


def head(noise: float = 0, scale: float = 1) -> np.ndarray:
    """Draw a ball of two tissues, 600 +- 20 and 900 +- 20, on a background of 0 or noise."""
    random = np.random.default_rng(0)
    distance = np.linalg.norm(np.mgrid[:24, :24, :24] - 11.5, axis=0)
    tissue = np.where(distance < 7, 900, 600) + random.normal(0, 20, distance.shape)
    return scale * np.where(distance < 10, tissue, noise * np.abs(random.normal(0, 1, distance.shape)))


def test_a_window_is_linear_clipped_and_invertible() -> None:
    values = np.array([-2000, -160, 40, 240, 3000], np.int16)
    mapped = normalise.SOFT_TISSUE.apply(values)
    assert mapped.dtype == np.float32 and mapped.tolist() == [0, 0, 0.5, 1, 1]
    assert normalise.SOFT_TISSUE.invert(mapped).tolist() == [-160, -160, 40, 240, 240]
    assert values.tolist() == [-2000, -160, 40, 240, 3000]


@pytest.mark.parametrize(("low", "high"), [(1, 1), (2, 1), (0, np.inf), (np.nan, 1)])
def test_a_window_must_be_one(low: float, high: float) -> None:
    with pytest.raises(ValueError, match=f"window from {low} to {high}: both must be finite"):
        Window(low, high)


def test_z_scores_of_the_brain_are_mapped_linearly() -> None:
    voxels, a = head(), 3.0
    inside = voxels[voxels > 0]
    low, high = np.percentile(inside, normalise.TAILS)
    inside = inside[(inside >= low) & (inside <= high)]
    z = np.clip((voxels - inside.mean()) / inside.std(), -a, a)
    found = normalise.brain(volume(voxels), a)
    np.testing.assert_allclose(2 * a * found.apply(voxels) - a, z, atol=1e-4)
    unclipped = np.abs(z) < a
    np.testing.assert_allclose(found.invert(found.apply(voxels))[unclipped], voxels[unclipped], rtol=1e-5)


@pytest.mark.parametrize("scale", [0.01, 1, 30])
def test_the_unit_of_the_scanner_does_not_matter(scale: float) -> None:
    plain, scaled = head(), head(scale=scale)
    expected = normalise.brain(volume(plain)).apply(plain)
    np.testing.assert_allclose(normalise.brain(volume(scaled)).apply(scaled), expected, atol=1e-4)


def test_noise_of_the_background_is_not_foreground() -> None:
    np.testing.assert_array_equal(normalise.foreground(head(noise=15)), head() > 0)
    plain, noisy = normalise.brain(volume(head())), normalise.brain(volume(head(noise=15)))
    assert (noisy.low, noisy.high) == pytest.approx((plain.low, plain.high))


def test_a_small_lesion_however_bright_does_not_move_the_window() -> None:
    ill = head()
    ill[11:14, 11:14, 11:14] = 5000  # 27 of 4,000 voxels
    plain, found = normalise.brain(volume(head())), normalise.brain(volume(ill))
    assert (found.low, found.high) == pytest.approx((plain.low, plain.high), rel=0.01)


@pytest.mark.parametrize("value", [0, 7])
def test_a_volume_without_a_brain_is_refused(value: float) -> None:
    with pytest.raises(UnreadableImage, match=rf"a\.nii: all of its foreground has the value {value}; there is no"):
        normalise.brain(volume(np.full((4, 4, 4), value)))
    flat = np.zeros((4, 4, 4))
    flat[1] = 7
    with pytest.raises(UnreadableImage, match="all of its foreground has the value 7"):
        normalise.brain(volume(flat))
    with pytest.raises(ValueError, match="limit 0 of the z-scores must be above 0"):
        normalise.brain(volume(head()), 0)


def test_a_ct_is_in_hu_or_was_mapped_before() -> None:
    random = np.random.default_rng(0)
    hu = random.choice([-1024, -100, 40, 900], (6, 6, 6))
    assert normalise.ct(volume(hu)) == normalise.SOFT_TISSUE
    narrow = np.clip(hu, -160, 240)  # air was cut away by whoever exported it
    assert normalise.ct(volume(narrow)) == normalise.SOFT_TISSUE
    mapped = (hu - hu.min()) / (hu.max() - hu.min())
    window = normalise.unit(volume(mapped))
    np.testing.assert_allclose(window.apply(mapped), mapped, atol=1e-6)  # nothing is cut off, nothing squeezed
    mapped[0, 0, :2] = -0.001, 1.1  # resampling overshoots
    assert normalise.unit(volume(mapped)) == window and window.apply(mapped)[0, 0, :2].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("window", "low", "high", "repair"),
    [
        *((normalise.ct, *pair, "unit") for pair in ((0, 4095), (-1, 1), (0, 0), (-0.001, 1.001))),
        *((normalise.unit, *pair, "ct") for pair in ((0, 4095), (-1, 1), (0, 0), (-160, 240), (0.5, 1.6))),
    ],
)
def test_other_units_are_refused(window: Any, low: float, high: float, repair: str) -> None:
    with pytest.raises(UnreadableImage, match=rf"a\.nii: its values run from {low:g} to {high:g};.*window={repair}"):
        window(volume(np.linspace(low, high, 64).reshape(4, 4, 4)))


def test_a_ct_is_no_brain() -> None:
    hu = np.where(head() > 0, 40.0, -1000.0)
    with pytest.raises(UnreadableImage, match=r"at -1000 or below, as air does in HU; set preprocessing\.window=ct"):
        normalise.brain(volume(hu))
    ringing = head()
    ringing[0, 0, 0] = -900  # a dark voxel alone does not make a CT
    normalise.brain(volume(ringing))


@pytest.mark.parametrize("background", [0.0, 9.0])
def test_brains_of_mean_0_within_a_background_look_as_in_scanner_units(background: float) -> None:
    raw = head()
    inside = raw[raw > 0]
    scored = np.where(raw > 0, (raw - inside.mean()) / inside.std(), background).astype(np.float32)
    slices = [Preprocessing(24).volume(volume(v)).astype(int) for v in (raw, scored)]
    assert np.abs(slices[0] - slices[1]).max() <= 3


def test_a_background_that_is_dark_stays_as_it_is() -> None:
    raw = head()
    ringing = np.where(raw == 0, 0, raw) - np.where(np.roll(raw, 1, 0) * (raw == 0) > 0, 8, 0)
    noisy = np.where(raw > 0, raw, np.abs(np.random.default_rng(0).normal(0, 9, raw.shape)))
    for voxels in (raw, raw - 1024, ringing, noisy, noisy.round(), np.full((4, 4, 4), 7)):
        np.testing.assert_array_equal(normalise.dark_background(voxels.astype(np.float32)), voxels.astype(np.float32))
