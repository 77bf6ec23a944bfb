"""Change batches at random, from a generator that is passed in and nothing else."""

from __future__ import annotations

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
