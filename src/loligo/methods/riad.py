"""RIAD: reconstruction by in-painting for visual anomaly detection (Zavrtanik et al., Pattern Recognition 112, 2021).

A grid of square cells is divided at random into three sets; a U-Net in-paints the cells of each set from the others,
so that every pixel is reconstructed by a network that did not see it. This is done for cells of four sizes. Where the
gradients of image and reconstruction differ in magnitude, at several scales, the image is abnormal.

Departures: the grids that score are drawn once, before training, and kept with the weights, in the paper anew for each
image, so that a score repeats. In training each image of a batch has its own. Channels of the U-Net are those of public
re-implementations; it halves by 3x3 convolutions of stride 2 and doubles bilinearly. Removed pixels are mid-grey, as
black ones would be air. The batch size is ours. Also ours is ``map`` ``deviation``: an in-painting that is better
than usual at its place counts as much as a worse one, since opacities of the lung are smooth and easily in-painted.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from loligo.config import Pooling
from loligo.methods.configs import MethodConfig
from loligo.methods.contract import ALONE, Group, Method, Phase, Reduce, Step, Turn
from loligo.methods.optimisation import Clock
from loligo.nn.conv import ConvNorm, upsample
from loligo.nn.heat import pool
from loligo.nn.places import Deviations
from loligo.nn.similarity import ms_gms, scales, ssim
from loligo.types import Scores


@dataclass(frozen=True)
class RiadConfig(MethodConfig):
    """Options of RIAD."""

    size: int = 256
    """Height and width of the images that it sees, in pixels."""
    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    """Channels of the U-Net at each resolution, that of the image first."""
    cells: tuple[int, ...] = (2, 4, 8, 16)
    """Sides of the grids' cells in pixels: one of them at each step of training, all of them for a score."""
    sets: int = 3
    """Sets that the cells of a grid are divided into; each is removed and in-painted once."""
    smoothing: int = 21
    """Side of the mean filter that smooths the map, in pixels; odd."""
    gradient_weight: float = 1.0
    """Weight of the dissimilarity of gradients, 1 - GMS; the mean squared error has 1."""
    structure_weight: float = 1.0
    """Weight of the dissimilarity in structure, 1 - SSIM."""
    map: Literal["dissimilarity", "deviation"] = "dissimilarity"
    """Map: the dissimilarity of gradients; or by how many standard deviations it differs, either way, from that of
    normal images at the place."""
    image_score: Pooling = "max"
    """Image score: the map's maximum, its mean, or the mean of its highest hundredth."""
    learning_rate: float = 1e-4
    """Adam's rate, a tenth of it in the last sixth of the epochs."""


class UNet(nn.Module):
    """Two conv-BN-ReLU a resolution on the way down and up again, the latter with the former's maps beside its own."""

    def __init__(self, channels: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        pairs = list(itertools.pairwise(widths))
        self.stem = nn.Sequential(ConvNorm(channels, widths[0]), ConvNorm(widths[0], widths[0]))
        self.downs = nn.ModuleList(nn.Sequential(ConvNorm(a, b, stride=2), ConvNorm(b, b)) for a, b in pairs)
        self.ups = nn.ModuleList(nn.Sequential(ConvNorm(a + b, a), ConvNorm(a, a)) for a, b in reversed(pairs))
        self.out = nn.Conv2d(widths[0], channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) in [-1, 1] to (N, C, H, W) in [0, 1]."""
        x, skips = self.stem(x), []
        for down in self.downs:
            skips.append(x)
            x = down(x)
        for up, skip in zip(self.ups, reversed(skips), strict=True):
            x = up(torch.cat([upsample(x), skip], 1))
        out: Tensor = self.out(x)
        return out.float().sigmoid()


class Riad(Method):
    """See the module's docstring."""

    Config = RiadConfig
    training_defaults: ClassVar = {"epochs": 300, "batch_size": 8, "augment": False}
    presets: ClassVar = {
        "radiograph": {
            **{"size": 128, "widths": (8, 16, 32, 64), "smoothing": 11, "map": "deviation", "image_score": "mean"},
            **{"learning_rate": 1e-3, "train.epochs": 8, "train.batch_size": 16, "train.augment": True},
        },
        "digits": {
            **{"size": 48, "widths": (16, 32, 64, 64), "smoothing": 11, "map": "deviation"},
            **{"learning_rate": 1e-3, "train.epochs": 6, "train.batch_size": 16},
        },
        "tiny": {"size": 64, "widths": (4, 8, 8), "cells": (4, 16), "smoothing": 11, "learning_rate": 1e-2},
    }
    config: RiadConfig

    def __init__(self, config: RiadConfig) -> None:
        super().__init__(config)
        check(config)
        self.network = UNet(config.channels, config.widths)
        self.deviations = Deviations(config.size)
        for cell in config.cells:
            self.register_buffer(f"grid{cell}", random_grids(1, config.size // cell, config.sets))

    def phases(self) -> tuple[Phase, ...]:
        """Train the network on one loss."""
        group = Group(("network",), self.config.learning_rate)
        return (Phase("inpainting", (Turn("total", (group,), schedule=late_tenth),)),)

    def losses(self, x: Tensor, turn: str, step: Step) -> dict[str, Tensor]:
        """Return the losses of images in-painted on random grids, of cells of one size."""
        cell = self.config.cells[int(torch.randint(len(self.config.cells), ()))]
        grids = random_grids(len(x), self.config.size // cell, self.config.sets).to(x.device)
        reconstruction = self.inpaint(x, grids, cell)
        losses = {
            "reconstruction": F.mse_loss(reconstruction, x),
            "gradients": (1 - ms_gms(x, reconstruction)).mean(),
            "structure": (1 - ssim(x, reconstruction)).mean(),
        }
        weights = (1.0, self.config.gradient_weight, self.config.structure_weight)
        return {"total": torch.stack([w * v for w, v in zip(weights, losses.values(), strict=True)]).sum(), **losses}

    def inpaint(self, x: Tensor, grids: Tensor, cell: int) -> Tensor:
        """In-paint every pixel of images (N, C, H, W) in [0, 1] from the cells that are not of its set.

        ``grids`` (N or 1, H / cell, W / cell) int64 says of which set a cell is.
        """
        where = grids.repeat_interleave(cell, 1).repeat_interleave(cell, 2)[:, None]
        removed = torch.stack([where == i for i in range(self.config.sets)])  # (sets, N or 1, 1, H, W)
        found: Tensor = self.network(((2 * x - 1) * ~removed).flatten(0, 1))
        return (found.view(self.config.sets, -1, *x.shape[1:]) * removed).sum(0)

    def _compare(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the dissimilarity of images (N, 1, H, W), over all sizes of cells, and the mean reconstruction."""
        found = [self.inpaint(x, self.get_buffer(f"grid{cell}"), cell) for cell in self.config.cells]
        heat = torch.stack([1 - ms_gms(x, image) for image in found]).mean(0).mean(1, keepdim=True)
        window = self.config.smoothing
        smooth = F.avg_pool2d(heat, window, 1, window // 2, count_include_pad=False)
        return smooth, torch.stack(found).mean(0)

    def fit(self, batches: Iterable[Tensor], reduce: Reduce = ALONE) -> None:
        """Measure mean and deviation of the dissimilarity at each place over normal images."""
        if self.config.map == "deviation":
            self.deviations.fit(self._compare(x)[0] for x in batches)

    def forward(self, x: Tensor) -> Scores:
        """Score by the dissimilarity of gradients, or by its deviation from that of normal images."""
        heat, reconstruction = self._compare(x)
        if self.config.map == "deviation":
            heat = self.deviations.standardised(heat).abs()
        return Scores(pool(heat, self.config.image_score), heat, reconstruction)


def random_grids(count: int, side: int, sets: int) -> Tensor:
    """Return (count, side, side) int64: of which set each cell is, at random; sets are of equal size, but for one."""
    return (torch.rand(count, side**2).argsort(1) % sets).view(count, side, side)


def late_tenth(clock: Clock) -> float:
    """Return the factor of the learning rate: a tenth in the last sixth of the epochs."""
    return 0.1 if 6 * clock.epoch >= 5 * clock.epochs else 1.0


def check(config: RiadConfig) -> None:
    """Raise ValueError where the options do not fit each other."""
    scales(config.size)
    if not config.cells or len(set(config.cells)) < len(config.cells):
        raise ValueError(f"cells {config.cells} must name one side or more, each once")
    for name, step in (("2**levels", 1 << (len(config.widths) - 1)), *(("each of cells", k) for k in config.cells)):
        if config.size % step or config.size == step:
            raise ValueError(f"size {config.size} must be a multiple of {name}, and larger; here of {step}")
    if config.size < 16:
        raise ValueError(f"size is {config.size}; four scales of gradients need 16 pixels or more")
    if config.sets < 2:
        raise ValueError(f"sets is {config.sets}; cells are in-painted from those of other sets, so there must be 2")
    if config.smoothing % 2 == 0:
        raise ValueError(f"smoothing is {config.smoothing}; a mean filter that keeps the map's size has an odd side")
