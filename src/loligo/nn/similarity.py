"""Similarity of images in structure and in gradients, at one scale and at several, as loss and as map.

SSIM, under a Gaussian window: Wang et al., IEEE TIP 2004. MS-SSIM: Wang, Simoncelli & Bovik, Asilomar 2003. Gradient
magnitude similarity (GMS): Xue et al., IEEE TIP 2014. `loligo.nn.places` compares by square windows of an anomaly's
size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW, SIGMA = 11, 1.5  # of Wang et al., in pixels
C1, C2 = 0.01**2, 0.03**2  # of Wang et al., for pixels in [0, 1]
C3 = 170 / 255**2  # of Xue et al., for pixels in [0, 1]
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # exponents of MS-SSIM, finest scale first


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Return the SSIM at each pixel of images (N, C, H, W) in [0, 1], of the same shape; the borders are reflected."""
    pad = [WINDOW // 2] * 4
    luminance, structure = _compare(F.pad(x.float(), pad, mode="reflect"), F.pad(y.float(), pad, mode="reflect"))
    return luminance * structure


def ms_ssim(x: Tensor, y: Tensor) -> Tensor:
    """Return the MS-SSIM (N,) of images (N, C, H, W) in [0, 1], over as many of the five scales as windows fit in.

    With fewer scales their exponents are stretched to the sum that they have in the paper, one.
    """
    x, y = x.float(), y.float()
    count = scales(min(x.shape[2:]))
    weights = torch.tensor(SCALES[:count], device=x.device)
    found = []
    for i in range(count):
        luminance, structure = _compare(x, y)
        last = luminance * structure if i == count - 1 else structure
        found.append(last.mean((2, 3)).clamp(min=1e-6))  # negative values have no power
        x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
    return (torch.stack(found, -1).log() * (weights / weights.sum())).sum(-1).exp().mean(1)


def scales(side: int) -> int:
    """Return how many of the five scales an image has whose window fits in; ValueError where none does."""
    count = sum(side >> i >= WINDOW for i in range(len(SCALES)))
    if not count:
        raise ValueError(f"an image of {side} pixels a side is smaller than the window of {WINDOW} that compares it")
    return count


def gms(x: Tensor, y: Tensor) -> Tensor:
    """Return the GMS at each pixel of images (N, C, H, W) in [0, 1], of the same shape; the borders are reflected."""
    a, b = _gradient(x.float()), _gradient(y.float())
    return (2 * a * b + C3) / (a.square() + b.square() + C3)


def ms_gms(x: Tensor, y: Tensor, count: int = 4) -> Tensor:
    """Return the mean GMS of images (N, C, H, W) in [0, 1] at ``count`` scales, each half of the one before.

    As in RIAD (Zavrtanik et al. 2021): scales are enlarged bilinearly and weigh the same. A side has 2**count pixels or
    more.
    """
    found, (height, width) = gms(x, y), x.shape[2:]
    for _ in range(count - 1):
        x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
        found = found + F.interpolate(gms(x, y), (height, width), mode="bilinear", align_corners=False)
    return found / count


def _gradient(x: Tensor) -> Tensor:
    """Return the magnitude of the gradient by Prewitt's filters, the mean of three differences of two pixels."""
    x = F.pad(x, [1] * 4, mode="reflect")
    rows, columns = x[..., :-2] + x[..., 1:-1] + x[..., 2:], x[..., :-2, :] + x[..., 1:-1, :] + x[..., 2:, :]
    down, right = rows[..., 2:, :] - rows[..., :-2, :], columns[..., 2:] - columns[..., :-2]
    return ((down.square() + right.square()) / 9 + 1e-12).sqrt()  # the root of zero has no gradient


def _compare(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return luminance, and contrast times structure, where the window lies inside: (N, C, H - 10, W - 10) each."""
    mean_x, mean_y, xx, yy, xy = _smooth(torch.stack([x, y, x * x, y * y, x * y])).unbind()
    variances, covariance = xx - mean_x**2 + yy - mean_y**2, xy - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
    return luminance, (2 * covariance + C2) / (variances + C2)


def _smooth(x: Tensor) -> Tensor:
    """Smooth (..., H, W) by the window, in float32: differences of squares are lost in bfloat16.

    By products with banded matrices: convolutions of a single channel, and their gradients, take 50 times as long.
    """
    with torch.autocast(x.device.type, enabled=False):
        return _band(x.shape[-2], x.device) @ x @ _band(x.shape[-1], x.device).mT


def _band(side: int, device: torch.device) -> Tensor:
    """Return the matrix (side - 10, side) that smooths along one axis where the window lies inside."""
    start = torch.arange(side - WINDOW + 1, device=device, dtype=torch.float32)[:, None]
    along = torch.arange(side, device=device, dtype=torch.float32) - start - WINDOW // 2
    kernel = (-along.square() / (2 * SIGMA**2)).exp() * (along.abs() <= WINDOW // 2)
    return kernel / kernel.sum(1, keepdim=True)
