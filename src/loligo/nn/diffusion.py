"""Diffusion: noise schedules and the steps along them (Ho et al. 2020; Song et al. 2021), and MONAI's networks.

A schedule says how much of an image's variance is kept after each of T steps; the rest is noise. Its formulas hold for
any two steps, not for neighbours alone, so that a chain may go in as few steps as it is given. MONAI's own schedulers
keep their tables outside of a module's state and step by fixed strides; here they are the oracle of the tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

Steps = int | Tensor
"""A number of noise steps, or one for each image, (N,) int64."""


def monai() -> Any:
    """Import MONAI's diffusion networks; ImportError says how to get them."""
    try:
        from monai.networks.nets import diffusion_model_unet as module
    except ImportError as error:
        raise ImportError("this method needs MONAI; install it with: pip install 'monai>=1.5'") from error
    return module


class Schedule(nn.Module):
    """How much of an image is kept after each number of noise steps, and what follows from it.

    ``kept`` (T + 1,) is the fraction of the variance, 1 for no step. Images are (N, C, H, W) float32, noise likewise.
    """

    kept: Tensor

    def __init__(self, kept: Tensor) -> None:
        super().__init__()
        self.register_buffer("kept", kept.float(), persistent=False)

    @classmethod
    def linear(cls, steps: int) -> Schedule:
        """Return that of Ho et al.: each step's variance grows linearly, from 1e-4 to 0.02 for a thousand steps."""
        scale = 1000 / steps
        betas = torch.linspace(scale * 1e-4, scale * 0.02, steps, dtype=torch.float64).clamp(max=0.999)
        return cls(torch.cat([torch.ones(1, dtype=torch.float64), (1 - betas).cumprod(0)]))

    @classmethod
    def variance_preserving(cls, steps: int, least: float = 0.1, most: float = 20.0) -> Schedule:
        """Return that of Song et al. in a few large steps, its rate growing linearly from ``least`` to ``most``."""
        t = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        return cls((-0.5 * t.square() * (most - least) - t * least).exp())

    def _kept(self, t: Steps) -> Tensor:
        return self.kept[t].view(-1, 1, 1, 1)

    def deviation(self, t: Steps) -> Tensor:
        """Return the standard deviation of the noise after ``t`` steps, (N or 1, 1, 1, 1)."""
        return (1 - self._kept(t)).sqrt()

    def noisy(self, x: Tensor, t: Steps, noise: Tensor) -> Tensor:
        """Return images after ``t`` steps of ``noise``."""
        kept = self._kept(t)
        return kept.sqrt() * x + (1 - kept).sqrt() * noise

    def clean(self, y: Tensor, t: Steps, noise: Tensor) -> Tensor:
        """Return the images that became ``y`` after ``t`` steps of ``noise``: the inverse of `noisy`."""
        kept = self._kept(t)
        return (y - (1 - kept).sqrt() * noise) / kept.sqrt()

    def onwards(self, y: Tensor, t: Steps, to: Steps, noise: Tensor) -> Tensor:
        """Return ``y``, after ``t`` steps, with more ``noise``, so that it is after ``to`` steps."""
        step = self._kept(to) / self._kept(t)
        return step.sqrt() * y + (1 - step).sqrt() * noise

    def follow(self, y: Tensor, t: Steps, to: Steps, noise: Tensor) -> Tensor:
        """Return ``y``, after ``t`` steps, as it is after ``to`` steps of the same ``noise``: DDIM, in both ways."""
        return self.noisy(self.clean(y, t, noise), to, noise)

    def posterior(self, x: Tensor, y: Tensor, t: Steps, to: Steps) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of images after ``to`` steps, by ``x`` after none and ``y`` after ``t``.

        ``to`` is less than ``t``; the deviation (N or 1, 1, 1, 1) is 0 where it is 0.
        """
        late, early = self._kept(t), self._kept(to)
        step = late / early
        mean = early.sqrt() * (1 - step) / (1 - late) * x + step.sqrt() * (1 - early) / (1 - late) * y
        return mean, ((1 - early) / (1 - late) * (1 - step)).sqrt()


def chain(start: int, count: int) -> list[int]:
    """Return ``count`` numbers of steps from ``start`` down to 0, evenly spaced, 0 not counted."""
    return [round(start * (count - i) / count) for i in range(count + 1)]


class Denoiser(nn.Module):
    """MONAI's U-Net of residual blocks and self-attention, told the number of noise steps; its output in float32."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        widths: Sequence[int],
        blocks: int,
        attention: Sequence[int],
        heads: int,
    ) -> None:
        """Make it for images (N, inputs, size, size): ``widths`` channels at each level, of half the side each time.

        Maps of the sides ``attention`` in pixels, and those at the bottom, have self-attention of so many ``heads``.
        """
        super().__init__()
        self.net = tidied(
            monai().DiffusionModelUNet(2, inputs, outputs, **options(size, widths, blocks, attention, heads))
        )

    def forward(self, x: Tensor, t: Steps) -> Tensor:
        """Map (N, inputs, H, W) float32 to (N, outputs, H, W) float32."""
        found: Tensor = self.net(x, spread(t, x))
        return found.float()


class NoisyClassifier(nn.Module):
    """MONAI's classifier of noisy images: the encoder of such a U-Net and two linear layers."""

    def __init__(
        self, inputs: int, size: int, widths: Sequence[int], blocks: int, attention: Sequence[int], heads: int
    ) -> None:
        """Make it for images (N, inputs, size, size) of two classes; see `Denoiser`."""
        super().__init__()
        given = options(size, widths, blocks, attention, heads)
        self.net = tidied(monai().DiffusionModelEncoder(2, inputs, 2, input_shape=(size, size), **given))

    def forward(self, x: Tensor, t: Steps) -> Tensor:
        """Map (N, inputs, H, W) float32 to the log-probabilities (N, 2) float32 of normal and abnormal."""
        logits: Tensor = self.net(x, spread(t, x))
        return logits.float().log_softmax(1)


def options(size: int, widths: Sequence[int], blocks: int, attention: Sequence[int], heads: int) -> dict[str, Any]:
    """Return what MONAI's networks call all this; groups are its 32, or as many as divide the narrowest level."""
    return {
        "num_res_blocks": blocks,
        "channels": tuple(widths),
        "attention_levels": tuple(size >> level in attention for level in range(len(widths))),
        "norm_num_groups": min(32, *widths),
        "num_head_channels": tuple(width // heads for width in widths),
        "use_flash_attention": True,
    }


def tidied(network: nn.Module) -> nn.Module:
    """Take away the empty tensors that MONAI's attention keeps for what is not asked for: no move reaches them."""
    for part in network.modules():
        for name in ("att_mat", "causal_mask"):
            vars(part).pop(name, None)
    return network


def spread(t: Steps, x: Tensor) -> Tensor:
    """Return the number of steps of each image (N,)."""
    return t if isinstance(t, Tensor) else torch.full((x.shape[0],), t, device=x.device)
