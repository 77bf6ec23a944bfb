"""Structural similarity against SciPy's filters and the papers' formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, prewitt

from loligo.nn.similarity import SCALES, gms, ms_gms, ms_ssim, scales, ssim

random = np.random.default_rng(0)
X = np.clip(gaussian_filter(random.random((2, 2, 48, 56)), (0, 0, 2, 2)) * 3 - 1, 0, 1)
Y = np.clip(X + random.normal(0, 0.1, X.shape), 0, 1)


def parts(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    def smooth(image: np.ndarray) -> np.ndarray:
        return gaussian_filter(image, (0, 0, 1.5, 1.5), mode="mirror", truncate=5 / 1.5)

    mx, my = smooth(x), smooth(y)
    vx, vy, cov = smooth(x * x) - mx**2, smooth(y * y) - my**2, smooth(x * y) - mx * my
    return (2 * mx * my + 1e-4) / (mx**2 + my**2 + 1e-4), (2 * cov + 9e-4) / (vx + vy + 9e-4)


def test_ssim_agrees_with_scipys_filter() -> None:
    luminance, structure = parts(X, Y)
    found = ssim(torch.from_numpy(X), torch.from_numpy(Y)).numpy()
    np.testing.assert_allclose(found, luminance * structure, atol=1e-4)


def test_ms_ssim_is_the_weighted_product_over_the_scales() -> None:
    x, y, expected = X, Y, np.ones((2, 2))
    total = sum(SCALES[:3])
    for i, weight in enumerate(SCALES[:3]):
        luminance, structure = (part[:, :, 5:-5, 5:-5] for part in parts(x, y))
        value = luminance * structure if i == 2 else structure
        expected *= value.mean((2, 3)) ** (weight / total)
        x, y = (im.reshape(2, 2, im.shape[2] // 2, 2, im.shape[3] // 2, 2).mean((3, 5)) for im in (x, y))
    found = ms_ssim(torch.from_numpy(X), torch.from_numpy(Y)).numpy()
    np.testing.assert_allclose(found, expected.mean(1), rtol=1e-3)
    np.testing.assert_allclose(ms_ssim(torch.from_numpy(X), torch.from_numpy(X)).numpy(), 1, rtol=1e-6)


def test_scales_are_those_whose_window_fits() -> None:
    assert [scales(side) for side in (224, 176, 175, 128, 64, 22, 11)] == [5, 5, 4, 4, 3, 2, 1]
    with pytest.raises(ValueError, match="10 pixels a side is smaller than the window of 11"):
        scales(10)


def gradients(x: np.ndarray) -> np.ndarray:
    found = [
        np.hypot(prewitt(im, 0, mode="mirror"), prewitt(im, 1, mode="mirror")) for im in x.reshape(-1, *x.shape[2:])
    ]
    return np.stack(found).reshape(x.shape) / 3


def similar(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    a, b = gradients(x), gradients(y)
    return (2 * a * b + 170 / 255**2) / (a**2 + b**2 + 170 / 255**2)


def test_gms_agrees_with_scipys_prewitt_filter() -> None:
    x, y = torch.from_numpy(X), torch.from_numpy(Y)
    np.testing.assert_allclose(gms(x, y).numpy(), similar(X, Y), atol=1e-4)
    np.testing.assert_allclose(gms(x, x).numpy(), 1, rtol=1e-6)


def test_ms_gms_is_the_mean_over_halved_images_enlarged() -> None:
    def enlarged(maps: np.ndarray, axis: int, side: int) -> np.ndarray:
        own = maps.shape[axis]
        at = (np.arange(side) + 0.5) * own / side - 0.5
        return np.apply_along_axis(lambda line: np.interp(at, np.arange(own), line), axis, maps)

    x, y, expected = X, Y, np.zeros(X.shape)
    for _ in range(3):
        expected += enlarged(enlarged(similar(x, y), 2, 48), 3, 56) / 3
        x, y = (im.reshape(2, 2, im.shape[2] // 2, 2, im.shape[3] // 2, 2).mean((3, 5)) for im in (x, y))
    found = ms_gms(torch.from_numpy(X), torch.from_numpy(Y), 3)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)


def test_gms_of_flat_images_has_a_finite_gradient() -> None:
    x = torch.zeros(1, 1, 16, 16, requires_grad=True)
    ms_gms(x, torch.full((1, 1, 16, 16), 0.5)).sum().backward()
    assert not x.grad.any()
