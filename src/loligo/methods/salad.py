"""SALAD: self-supervised and translation-consistent features for anomaly detection (Zhao et al., TMI 40(12), 2021).

An autoencoder translates an image to a code, the code to an image, and that to a code again. On normal images all that
is made consistent: the images alike in structure, the codes of image and reconstruction equal, and near one centre. In
each space a discriminator learns to tell what comes from images from what comes from reconstructions, and the
autoencoder learns against both. A self-supervised task adds that images with shuffled or painted-over pieces are
restored. An abnormal image is reconstructed badly, its two codes differ, and they lie far from the centre; the score is
made of these features.

Implemented from the paper's abstract, as no more of it is open, nor any code of its authors: translation between image
and latent space, structural similarity loss, centre constraint, a self-supervised module, and a score made of the
features of both spaces. Network, weights, schedule and the form of the adversarial losses (cross-entropy,
non-saturating) are ours, so that its published figures say little of this implementation. Also decided here: The code
is a map with a centre at each place, a running mean, and its channels are normalised without a scale of their own, so
that it cannot shrink to the centre. Images and reconstructions pass the same batch norms, one batch each: in training
each has its codes normalised by its own statistics, so that a shift or scale between the two is invisible to the losses
of codes; in scoring both are normalised by one running mean. The task is local pixel shuffling and boxes of one grey
(Models Genesis, Zhou et al. 2019) on every second image, which then takes no part in the losses of codes. The score is
the sum of the three parts, each standardised over training images. The score ``features`` is the Mahalanobis distance,
at each place, of the second and third part's vectors from those of normal images: in either direction, as an image that
is easier to reconstruct than normal ones is no more normal for that.
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
from loligo.methods.optimisation import Cosine, adam
from loligo.nn.conv import ConvNorm, upsample
from loligo.nn.density import PlaceGaussian
from loligo.nn.discriminator import Discriminator
from loligo.nn.heat import enlarge, pool
from loligo.nn.similarity import scales, ssim
from loligo.types import Scores

MOMENTUM = 0.05
"""Weight of a batch in the running mean that is the centre."""
CODE_WIDTHS = (64, 64)
"""Channels of the discriminator of codes."""
REGULARISATION = 0.001
"""Fraction of a place's mean variance that is added to the covariance of its codes."""


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
    adversarial_weight: float = 0.05
    """Weight of each of the two adversarial losses, of images and of codes; 0 is without discriminators."""
    image_score: Literal[Pooling, "sum", "features"] = "sum"
    """Image score: the reconstruction's error, the difference of the codes and their distance from the centre, each in
    standard deviations, summed; the Mahalanobis distance of the last two, which is then the map; or of the map of the
    reconstruction's error its maximum, its mean, or the mean of its highest hundredth."""
    learning_rate: float = 1e-3
    """Adam's rate, falling to a tenth by a cosine."""


class Salad(Method):
    """See the module's docstring."""

    Config = SaladConfig
    least = 2
    presets: ClassVar = {
        "radiograph": {"image_score": "features", "train.epochs": 12},
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
        self.image_discriminator = Discriminator(config.size, config.channels)
        self.code_discriminator = Discriminator(side, config.code, CODE_WIDTHS)
        self.gaussian = PlaceGaussian(2 * config.code, side**2 if config.image_score == "features" else 0)
        self.register_buffer("centre", torch.zeros(config.code, side, side))
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("deviation", torch.ones(3))

    def phases(self) -> tuple[Phase, ...]:
        """Train the autoencoder, then the discriminators on what it left."""
        rate, falling = self.config.learning_rate, Cosine(0.1)
        turns = [Turn("total", (Group(("encoder", "bottom", "ups", "out"), rate),), schedule=falling)]
        if self.config.adversarial_weight:
            both = Group(("image_discriminator", "code_discriminator"), rate)
            turns.append(Turn("discriminators", (both,), adam((0.5, 0.999)), falling))
        return (Phase("translation", tuple(turns)),)

    def losses(self, x: Tensor, turn: str, step: Step) -> dict[str, Tensor]:
        """Return the losses of a turn; the autoencoder's leaves its images and codes to the discriminators'."""
        return self._translation_losses(x, step) if turn == "total" else self._discriminator_losses(step)

    def _translation_losses(self, x: Tensor, step: Step) -> dict[str, Tensor]:
        """Return the losses of images, of all, and of codes, of those that are not corrupted."""
        c = self.config
        corrupted = torch.rand(len(x), device=x.device) < c.corrupted
        z, reconstruction, again = self._translate(torch.where(corrupted[:, None, None, None], corrupt(x, c.boxes), x))
        step["codes"] = z[~corrupted].detach()
        clean = (~corrupted).float() / (~corrupted).sum().clamp(min=1)
        step["pairs"] = x, reconstruction.detach(), z.detach(), again.detach(), clean
        parts = self._parts(x, z, reconstruction, again)
        losses = {
            "reconstruction": (x - reconstruction).abs().mean(),
            "structure": (1 - ssim(x, reconstruction)).mean(),
            "consistency": (clean * parts[:, 1]).sum(),
            "centre": (clean * parts[:, 2]).sum(),
        }
        weights = [1.0, c.structure_weight, c.consistency_weight, c.centre_weight]
        if c.adversarial_weight:
            losses["image_adversarial"] = F.softplus(-self.image_discriminator(reconstruction)).mean()
            losses["code_adversarial"] = (clean * F.softplus(-self.code_discriminator(again))).sum()
            weights += [c.adversarial_weight] * 2
        return {"total": torch.stack([w * v for w, v in zip(weights, losses.values(), strict=True)]).sum(), **losses}

    def _discriminator_losses(self, step: Step) -> dict[str, Tensor]:
        """Return the cross-entropies of telling originals from what was translated to and fro."""
        x, reconstruction, z, again, clean = step["pairs"]
        of_images = F.softplus(-self.image_discriminator(x)) + F.softplus(self.image_discriminator(reconstruction))
        of_codes = F.softplus(-self.code_discriminator(z)) + F.softplus(self.code_discriminator(again))
        images, codes = of_images.mean(), (clean * of_codes).sum()
        return {"discriminators": images + codes, "image_discriminator": images, "code_discriminator": codes}

    def after_step(self, turn: str, step: Step, reduce: Reduce = ALONE) -> None:
        """Move the centre towards the codes of the batch."""
        if turn != "total":
            return
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
        """Measure mean and standard deviation of the score's parts, or the Gaussian of the two codes at each place."""
        found, moments = [self.mean[None][:0]], self.gaussian.moments(torch.float64)
        for x in reduce.shard(batches):
            z, reconstruction, again = self._translate(x)
            found.append(self._parts(x, z, reconstruction, again))
            if self.config.image_score == "features":
                moments.add(torch.cat([z - self.centre, again - z], 1))
        parts = reduce.gather(torch.cat(found))
        self.mean.copy_(parts.mean(0))
        self.deviation.copy_(parts.std(0).clamp(min=1e-8))
        if self.config.image_score == "features":
            moments.reduce(reduce.sum)
            self.gaussian.fit(moments, REGULARISATION)

    def forward(self, x: Tensor) -> Scores:
        """Score by the sum of standardised parts, by the Gaussian, or by the map of the reconstruction's error."""
        z, reconstruction, again = self._translate(x)
        if self.config.image_score == "features":
            distance = self.gaussian(torch.cat([z - self.centre, again - z], 1))
            return Scores(distance.mean((1, 2, 3)), enlarge(distance, self.config.size), reconstruction)
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
