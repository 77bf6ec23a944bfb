"""SALAD: self-supervised and translation-consistent features for anomaly detection (Zhao et al., TMI 40(12), 2021).

An autoencoder translates an image to a code, the code to an image, and that to a code again. On normal images all that
is made consistent: the images alike in structure, the codes of image and reconstruction equal, and near one centre. A
self-supervised task adds that images with shuffled or painted-over pieces are restored. An abnormal image is
reconstructed badly, its two codes differ, and they lie far from the centre; the score is made of these features.

Implemented from the paper's abstract alone: translation between image and latent space, structural similarity loss,
centre constraint, a self-supervised module, and a score of both spaces. The paper's adversarial losses are missing, and
network and weights are ours, so that its published figures say nothing of this implementation. Also decided here: The
code is a map with a centre at each place, a running mean, and its channels are normalised without a scale of their own,
so that it cannot shrink to the centre. Images and reconstructions pass the same batch norms, one batch each: in
training each has its codes normalised by its own statistics, so that a shift or scale between the two is invisible to
the consistency loss; in scoring both are normalised by one running mean. The task is local pixel shuffling and boxes of
one grey (Models Genesis, Zhou et al. 2019) on every second image, which then takes no part in the losses of codes. The
score is the sum of the three parts, each standardised over training images.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from loligo.config import Pooling
from loligo.methods.configs import MethodConfig
from loligo.methods.contract import ALONE, Group, Method, Phase, Reduce, Step, Turn
from loligo.methods.optimisation import Cosine
from loligo.nn.conv import ConvNorm, upsample
from loligo.nn.heat import pool
from loligo.nn.similarity import scales, ssim
from loligo.types import Scores

MOMENTUM = 0.05
"""Weight of a batch in the running mean that is the centre."""


@dataclass(frozen=True)
class SaladConfig(MethodConfig):
    """Options of SALAD."""

    widths: tuple[int, ...] = (16, 32, 64, 128, 128)
    """Channels of the encoder at each resolution, that of the image first; the decoder mirrors them."""
    code: int = 32
    """Channels of the code."""
    corrupted: float = 0.5
    """Fraction of training images that are restored from a corrupted copy; 0 is without the self-supervised task."""
    boxes: int = 4
    """Pieces of a corrupted image that are shuffled or painted over."""
    structure_weight: float = 1.0
    """Weight of the dissimilarity in structure, 1 - SSIM; the absolute error has 1."""
    consistency_weight: float = 0.1
    """Weight of the squared difference between the codes of image and reconstruction."""
    centre_weight: float = 0.1
    """Weight of the codes' squared distance from their centre."""
    image_score: Literal[Pooling, "sum"] = "sum"
    """Image score: the reconstruction's error, the difference of the codes and their distance from the centre, each in
    standard deviations, summed; or the map's maximum, its mean (the first alone), or the mean of its highest
    hundredth."""
    learning_rate: float = 1e-3
    """Adam's rate, falling to a tenth by a cosine."""


class Salad(Method):
    """See the module's docstring."""

    Config = SaladConfig
    least = 2
    presets: ClassVar = {
        "radiograph": {"train.epochs": 12},
        "digits": {"size": 48, "widths": (16, 32, 64), "train.epochs": 6, "train.augment": False},
        "tiny": {"size": 64, "widths": (4, 8, 8, 16), "code": 8, "learning_rate": 1e-2},
    }
    config: SaladConfig
    centre: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(self, config: SaladConfig) -> None:
        super().__init__(config)
        check(config)
        widths, pairs = config.widths, list(itertools.pairwise(config.widths))
        self.encoder = nn.Sequential(
            ConvNorm(config.channels, widths[0]),
            *(ConvNorm(a, b, stride=2) for a, b in pairs),
            nn.Conv2d(widths[-1], config.code, 1),
        )
        self.scale = nn.BatchNorm2d(config.code, affine=False)
        self.bottom = ConvNorm(config.code, widths[-1], kernel=1)
        self.ups = nn.ModuleList(ConvNorm(b, a) for a, b in reversed(pairs))
        self.out = nn.Conv2d(widths[0], config.channels, 3, padding=1)
        side = config.size >> len(pairs)
        self.register_buffer("centre", torch.zeros(config.code, side, side))
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("deviation", torch.ones(3))

    def phases(self) -> tuple[Phase, ...]:
        """Train everything on one loss."""
        group = Group(("encoder", "bottom", "ups", "out"), self.config.learning_rate)
        return (Phase("translation", (Turn("total", (group,), schedule=Cosine(0.1)),)),)

    def losses(self, x: Tensor, turn: str, step: Step) -> dict[str, Tensor]:
        """Return the losses of images, of all, and of codes, of those that are not corrupted."""
        c = self.config
        corrupted = torch.rand(len(x), device=x.device) < c.corrupted
        z, reconstruction, again = self._translate(torch.where(corrupted[:, None, None, None], corrupt(x, c.boxes), x))
        step["codes"] = z[~corrupted].detach()
        clean = (~corrupted).float() / (~corrupted).sum().clamp(min=1)
        parts = self._parts(x, z, reconstruction, again)
        losses = {
            "reconstruction": (x - reconstruction).abs().mean(),
            "structure": (1 - ssim(x, reconstruction)).mean(),
            "consistency": (clean * parts[:, 1]).sum(),
            "centre": (clean * parts[:, 2]).sum(),
        }
        weights = (1.0, c.structure_weight, c.consistency_weight, c.centre_weight)
        return {"total": torch.stack([w * v for w, v in zip(weights, losses.values(), strict=True)]).sum(), **losses}

    def after_step(self, turn: str, step: Step, reduce: Reduce = ALONE) -> None:
        """Move the centre towards the codes of the batch."""
        codes = step["codes"]
        count, total = reduce.sum(codes.new_tensor(float(len(codes)))), reduce.sum(codes.sum(0))
        if count:
            self.centre += MOMENTUM * (total / count - self.centre)

    def _translate(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the codes (N, D, h, w) of images, what they decode to, (N, C, H, W) in [0, 1], and its codes."""
        z = self._encode(x)
        y = self.bottom(z)
        for up in self.ups:
            y = up(upsample(y))
        reconstruction = self.out(y).float().sigmoid()
        return z, reconstruction, self._encode(reconstruction)

    def _encode(self, x: Tensor) -> Tensor:
        z: Tensor = self.scale(self.encoder(x).float())
        return z

    def _parts(self, x: Tensor, z: Tensor, reconstruction: Tensor, again: Tensor) -> Tensor:
        """Return the score's parts (N, 3): reconstruction's error, difference of codes, distance from the centre."""
        return torch.stack(
            [
                dissimilarity(x, reconstruction).mean((1, 2, 3)),
                (again - z).square().mean((1, 2, 3)),
                (z - self.centre).square().mean((1, 2, 3)),
            ],
            1,
        )

    def fit(self, batches: Iterable[Tensor], reduce: Reduce = ALONE) -> None:
        """Measure mean and standard deviation of the score's parts."""
        own = [self._parts(x, *self._translate(x)) for x in reduce.shard(batches)]
        found = reduce.gather(torch.cat([self.mean[None][:0], *own]))
        self.mean.copy_(found.mean(0))
        self.deviation.copy_(found.std(0).clamp(min=1e-8))

    def forward(self, x: Tensor) -> Scores:
        """Score by the sum of standardised parts, or by the map: the reconstruction's error."""
        z, reconstruction, again = self._translate(x)
        heat = dissimilarity(x, reconstruction)
        if self.config.image_score != "sum":
            return Scores(pool(heat, self.config.image_score), heat, reconstruction)
        parts = self._parts(x, z, reconstruction, again)
        return Scores(((parts - self.mean) / self.deviation).sum(1), heat, reconstruction)


def dissimilarity(x: Tensor, reconstruction: Tensor) -> Tensor:
    """Return absolute difference and dissimilarity in structure of images (N, C, H, W), added: (N, 1, H, W)."""
    return ((x - reconstruction).abs() + 1 - ssim(x, reconstruction)).mean(1, keepdim=True)


def corrupt(x: Tensor, boxes: int) -> Tensor:
    """Return images (N, C, H, W) with boxes of a sixteenth to a quarter of the side shuffled or painted over."""
    x, size = x.clone(), x.shape[2]
    for image in x:
        for _ in range(boxes):
            sides = torch.randint(max(2, size // 16), size // 4 + 1, (2,))
            top, left = (int(torch.randint(size - int(side) + 1, ())) for side in sides)
            box = image[:, top : top + int(sides[0]), left : left + int(sides[1])]
            pixels = box.flatten(1)
            if torch.rand(()) < 0.5:
                box.copy_(pixels[:, torch.randperm(pixels.shape[1])].view(box.shape))
            else:
                box.fill_(torch.rand(()).item())
    return x


def check(config: SaladConfig) -> None:
    """Raise ValueError where the options do not fit each other."""
    scales(config.size)
    step = 1 << (len(config.widths) - 1)
    if config.size % step:
        raise ValueError(f"size {config.size} must be a multiple of 2**levels = {step}")
    if not 0 <= config.corrupted <= 1 or config.boxes < 1:
        raise ValueError(f"corrupted {config.corrupted} must lie in [0, 1], and boxes {config.boxes} be at least 1")
