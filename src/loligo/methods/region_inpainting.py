"""Region in-painting: superpixels that a network in-paints badly (Nguyen et al., ISBI 2021, 2010.01942).

A network learns adversarially to in-paint square windows of normal images. A new image is in-painted window by window
as they slide over it, and superpixels in which the error is largest are abnormal: their borders follow the image.

Implemented from the paper's abstract and summaries of it, which say no more than that; its published figures, Dice
scores of brain tumours, say nothing of this implementation. Decided here: the generator is the coarse network of Yu et
al. (2018, 1801.07892) of gated convolutions (Yu et al. 2019, 1806.03589), as black pixels are not always missing ones,
with batch norm. The error is the absolute one, with an adversarial loss weighted as by Pathak et al. (2016,
1604.07379). Superpixels are SLIC's, each scored by its mean error, and the image by the largest. Windows that do not
touch are in-painted together, in a lattice that leaves as much between them as it covers; in training it is shifted at
random. Also ours is ``map`` ``deviation``: a region that is in-painted better than usual at its place counts as much as
a worse one, since opacities of the lung are smooth and easily in-painted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from loligo.config import Pooling
from loligo.methods.configs import MethodConfig
from loligo.methods.contract import ALONE, Group, Method, Phase, Reduce, Step, Turn
from loligo.methods.optimisation import Cosine, adam
from loligo.nn.adversarial import discriminator_loss, generator_loss
from loligo.nn.conv import upsample
from loligo.nn.discriminator import WIDTHS, Discriminator
from loligo.nn.elu import elu
from loligo.nn.heat import pool
from loligo.nn.places import Deviations
from loligo.nn.superpixels import pool_regions, slic
from loligo.types import Scores


@dataclass(frozen=True)
class RegionInpaintingConfig(MethodConfig):
    """Options of region in-painting."""

    width: int = 32
    """Channels of the generator at full size; each of its two levels doubles them."""
    dilations: tuple[int, ...] = (2, 4, 8, 16)
    """Dilations of the generator's middle convolutions, at a quarter of the size."""
    window: int = 32
    """Side of the windows that are in-painted, in pixels."""
    stride: int = 16
    """Pixels by which windows slide when an image is scored; a divisor of the window."""
    superpixel: int = 8
    """Side of the squares that superpixels grow from, in pixels; a divisor of the size."""
    contrast: float = 0.1
    """Difference in intensity, in [0, 1], that weighs like the side of a superpixel in distance."""
    adversarial_weight: float = 0.001
    """Weight of the generator's adversarial loss; the absolute error within windows has 1."""
    map: Literal["error", "deviation"] = "error"
    """Map: each superpixel's mean absolute error; or by how many standard deviations it differs, either way, from that
    of normal images at the place."""
    image_score: Pooling = "max"
    """Image score: the map's maximum, its mean, or the mean of its highest hundredth."""
    learning_rate: float = 2e-4
    """Adam's rate for generator and discriminator, falling to a tenth by a cosine."""


class Gated(nn.Module):
    """A gated convolution: features by ELU times a sigmoid gate, both learnt and batch-normalised."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, 2 * outputs, kernel, stride, dilation * (kernel // 2), dilation)
        self.norm = nn.BatchNorm2d(2 * outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, D, H / stride, W / stride)."""
        features, gate = self.norm(self.conv(x)).chunk(2, 1)
        gated: Tensor = elu(features) * gate.sigmoid()
        return gated


class Generator(nn.Module):
    """In-paint what a mask says is missing, by gated convolutions, dilated ones at a quarter of the size."""

    def __init__(self, channels: int, width: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        middle, wide = 2 * width, 4 * width
        self.down = nn.Sequential(
            Gated(channels + 1, width, kernel=5),
            Gated(width, middle, stride=2),
            Gated(middle, middle),
            Gated(middle, wide, stride=2),
            Gated(wide, wide),
            *(Gated(wide, wide, dilation=dilation) for dilation in dilations),
            Gated(wide, wide),
        )
        self.ups = nn.ModuleList([Gated(wide, middle), Gated(middle, width)])
        self.out = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, x: Tensor, missing: Tensor) -> Tensor:
        """Map images (N, C, H, W) and masks (N or 1, 1, H, W) float32, 1 where pixels are missing, to images."""
        y = torch.cat([(2 * x - 1) * (1 - missing), missing.expand(x.shape[0], -1, -1, -1)], 1)
        y = self.down(y)
        for up in self.ups:
            y = up(upsample(y))
        image: Tensor = self.out(y)
        return image.float().sigmoid()


class RegionInpainting(Method):
    """See the module's docstring."""

    Config = RegionInpaintingConfig
    presets: ClassVar = {
        "radiograph": {
            **{"width": 16, "stride": 32, "map": "deviation", "image_score": "mean"},
            **{"learning_rate": 1e-3, "train.epochs": 10},
        },
        "digits": {
            **{"size": 48, "width": 16, "dilations": (2, 4), "window": 16, "stride": 8, "map": "deviation"},
            **{"learning_rate": 1e-3, "train.epochs": 12, "train.augment": False},
        },
        "tiny": {"size": 64, "width": 4, "dilations": (2,), "window": 16, "stride": 16, "learning_rate": 3e-3},
    }
    config: RegionInpaintingConfig
    masks: Tensor

    def __init__(self, config: RegionInpaintingConfig) -> None:
        super().__init__(config)
        check(config)
        self.generator = Generator(config.channels, config.width, config.dilations)
        self.discriminator = Discriminator(config.size, config.channels, statistics="running")
        self.deviations = Deviations(config.size)
        steps = torch.arange(0, 2 * config.window, config.stride)
        masks = lattice(config.size, config.window, torch.cartesian_prod(steps, steps))
        self.register_buffer("masks", masks, persistent=False)

    def phases(self) -> tuple[Phase, ...]:
        """Train adversarially, the generator first, so that both share its forward pass."""
        rate, betas = self.config.learning_rate, (0.5, 0.999)
        turns = (
            Turn(name, (Group((name,), rate),), adam(betas), Cosine(0.1)) for name in ("generator", "discriminator")
        )
        return (Phase("adversarial", tuple(turns)),)

    def losses(self, x: Tensor, turn: str, step: Step) -> dict[str, Tensor]:
        """Return the losses of a turn; the generator's leaves its images for the discriminator's of the same step."""
        if turn == "discriminator":
            return {"discriminator": discriminator_loss(self.discriminator(x), self.discriminator(step["fake"]))}
        shifts = torch.randint(2 * self.config.window, (len(x), 2))
        missing = lattice(self.config.size, self.config.window, shifts).to(x.device)
        image = self.generator(x, missing)
        fake = torch.where(missing > 0, image, x)
        step["fake"] = fake.detach()
        losses = {
            "reconstruction": (fake - x).abs().sum() / (missing.sum() * x.shape[1]),
            "adversarial": self.config.adversarial_weight * generator_loss(self.discriminator(fake)),
        }
        return {"generator": losses["reconstruction"] + losses["adversarial"], **losses}

    def _inpaint(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return absolute errors (N, 1, H, W) and what is in-painted (N, C, H, W), means over a pixel's windows."""
        error, inpainted = torch.zeros_like(x), torch.zeros_like(x)
        for missing in self.masks.unsqueeze(1):
            image = self.generator(x, missing)
            error, inpainted = error + missing * (x - image).abs(), inpainted + missing * image
        windows = (self.config.window // self.config.stride) ** 2
        return error.mean(1, keepdim=True) / windows, inpainted / windows

    def fit(self, batches: Iterable[Tensor], reduce: Reduce = ALONE) -> None:
        """Measure mean and deviation of the error at each place over normal images."""
        if self.config.map == "deviation":
            self.deviations.fit(self._inpaint(x)[0] for x in batches)

    def forward(self, x: Tensor) -> Scores:
        """Score by the superpixels' mean errors, or by their deviation from those of normal images."""
        heat, inpainted = self._inpaint(x)
        if self.config.map == "deviation":
            heat = self.deviations.standardised(heat)
        count = (self.config.size // self.config.superpixel) ** 2
        regions = slic(x, self.config.superpixel, self.config.contrast)
        heat = pool_regions(heat, regions, count).abs()
        return Scores(pool(heat, self.config.image_score), heat, inpainted)


def lattice(size: int, window: int, shifts: Tensor) -> Tensor:
    """Return masks (N, 1, size, size) float32, 1 in windows as far apart as they are wide, shifted by (N, 2) pixels."""
    along = (torch.arange(size) - shifts[..., None]) % (2 * window) < window  # (N, 2, size)
    return (along[:, 0, :, None] & along[:, 1, None, :])[:, None].float()


def check(config: RegionInpaintingConfig) -> None:
    """Raise ValueError where the options do not fit each other."""
    if config.size % 4 or config.size % config.superpixel:
        raise ValueError(f"size {config.size} must be a multiple of 4 and of superpixel {config.superpixel}")
    if config.size <= 1 << len(WIDTHS):
        raise ValueError(f"size is {config.size}; the discriminator needs more than {1 << len(WIDTHS)} pixels")
    if config.window % config.stride:
        raise ValueError(f"window {config.window} must be a multiple of stride {config.stride}, so that all is covered")
    if 2 * config.window > config.size:
        raise ValueError(f"window is {config.window}; half of size {config.size} is the most, so that context is left")
    if config.contrast <= 0:
        raise ValueError(f"contrast is {config.contrast}; it must be more than 0")
