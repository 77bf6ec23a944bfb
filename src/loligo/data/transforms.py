"""Change batches at random, from a generator that is passed in and nothing else.

These are the augmentations that trained results were made with, on tensors, where the batch is. `data.acquisition` has
the wider changes of single arrays: there a zoom interpolates, and contrast and gamma are two kinds, each with a range
of its own.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional


def jitter(
    x: Tensor,
    generator: torch.Generator,
    shift: float = 0.05,
    scale: tuple[float, float] = (0.95, 1.05),
) -> Tensor:
    """Shift and zoom each image of x (N, C, H, W) float32 by its own random amount; outside is 0.

    ``shift`` is the largest shift, along rows and along columns, as a part of the side, in whole pixels; ``scale``
    bounds the zoom factor, one for both axes. Each pixel is the nearest one's value, as in the reference code of SQUID:
    interpolation blurs, so that a discriminator would learn that normal images are smoother than they are when scored.
    The generator may live on another device.
    """
    amounts = torch.rand(3, len(x), generator=generator, device=generator.device).to(x.device, x.dtype)
    zoom = scale[0] + (scale[1] - scale[0]) * amounts[0]
    sides = amounts.new_tensor([[x.shape[3]], [x.shape[2]]])
    across, down = 2 / sides * ((2 * amounts[1:] - 1) * shift * sides).round()  # grid coordinates span 2 a side
    nothing = torch.zeros_like(zoom)
    back = torch.stack((1 / zoom, nothing, across, nothing, 1 / zoom, down), 1).view(-1, 2, 3)  # output to input
    grid = functional.affine_grid(back, list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, mode="nearest", padding_mode="zeros", align_corners=False)


def intensity(
    x: Tensor, generator: torch.Generator, contrast: tuple[float, float] = (0.75, 1.25), gamma: float = 1.5
) -> Tensor:
    """Change contrast and gamma of each image of x (N, C, H, W) float32 in [0, 1] by its own random amount.

    ``contrast`` bounds the factor of the distance from the image's mean; what leaves [0, 1] is cut off. The exponent
    is sampled between 1 / ``gamma`` and ``gamma``, evenly by its logarithm. Both ranges are those of nnU-Net (Isensee
    et al., Nature Methods 2021), whose exponents begin at 0.7. The generator may live on another device.
    """
    amounts = torch.rand(2, len(x), 1, 1, 1, generator=generator, device=generator.device).to(x.device, x.dtype)
    factor = contrast[0] + (contrast[1] - contrast[0]) * amounts[0]
    exponent = torch.exp(math.log(gamma) * (2 * amounts[1] - 1))
    return stretch(x, factor).clamp(0, 1) ** exponent


def stretch(x: Tensor, factor: Tensor | float) -> Tensor:
    """Multiply the distance of x (N, C, H, W) from each image's mean by a factor, one for all or (N, 1, 1, 1)."""
    mean = x.mean((1, 2, 3), keepdim=True)
    return (x - mean) * factor + mean
