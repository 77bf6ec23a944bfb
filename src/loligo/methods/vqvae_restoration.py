"""VQ-VAE with an autoregressive prior (Marimont & Tarroni 2020): how likely an image's codes are, and restoring them.

Paper: arXiv 2012.06765. A vector-quantised autoencoder turns an image into a grid of discrete codes; an autoregressive
prior learns which codes follow which in normal images. An image scores by how unlikely its codes are; where they are
very unlikely they are sampled anew from the prior, several times over, and what restored images differ in is the map.

Departures: images in [0, 1] rather than z-scores. The prior learns the typical code at each place of the grid: anatomy
stands still. Codes are sampled by one fixed uniform number a place and restoration, so that a score is the image's own,
but for a rare code that rounding decides; restoration computes each place once (see `nn.autoregressive`). Entries of
the codebook that are hardly used are revived from features (see `nn.quantize`), and the rates fall by a cosine. The
limits above which a code counts or is sampled anew are percentiles over training images, by which both scores are
standardised too: images that p-values come from may not set the limits of their own scores. All slices of a volume
train it, those of air too: a volume's score looks at all, and the prior must know that nothing is to be expected there.
The preset ``volumes`` scores by the least likely 3x3 codes and maps the reconstruction error times the negative
log-likelihood; the paper's sums and restored images, which found less in toy brains, are its other options.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from loligo.methods.configs import SliceConfig, check_fractions
from loligo.methods.contract import ALONE, UNMEASURED, Group, Method, Phase, Reduce, Step, Turn
from loligo.methods.optimisation import Cosine
from loligo.nn.autoregressive import PixelSnail, excess, nll, resample
from loligo.nn.elu import Elu
from loligo.nn.heat import smooth
from loligo.nn.places import mean_and_deviation
from loligo.nn.quantize import Quantize
from loligo.types import Scores

SURE = 0.02
"""Variance of the negative log-likelihood (nats squared) that is added to a window's: no prior is sure without end."""
DARK = 1e-3
"""Absolute error that is added to both of which the restoration score is a quotient: in air there is none."""
MEASURED = 512
"""Training images, at most, over which the restoration score is standardised: restoring all would take too long."""


@dataclass(frozen=True)
class VqvaeRestorationConfig(SliceConfig):
    """Options of the VQ-VAE with its prior; the defaults are the paper's for brains but for the size."""

    widths: tuple[int, ...] = (16, 32, 64, 256)
    """Channels at each resolution, that of the image first; codes have the last and its resolution."""
    codes: int = 128
    """Entries of the codebook."""
    prior_channels: int = 128
    """Channels of the prior."""
    prior_blocks: int = 4
    """Blocks of the prior, each ended by attention."""
    prior_pairs: int = 4
    """Gated residual pairs of a block."""
    dropout: float = 0.1
    """Fraction of channels of a block of the autoencoder that training leaves out."""
    prior_dropout: float = 0.1
    """Fraction of channels of a pair of the prior that training leaves out."""
    context_dropout: float = 0.0
    """Fraction of the codes before a code that training hides from the prior, the mean of one fraction an image, from
    none to twice as many; above 0 the prior learns to expect by the place what the codes before do not say."""
    restorations: int = 15
    """Images that are sampled for each."""
    sample_percentile: float = 98.0
    """Percentile of the negative log-likelihood of training images' codes above which a code counts in the density
    score."""
    pixel_percentile: float = 90.0
    """Percentile of the negative log-likelihood of training images' codes above which a code is sampled anew."""
    min_filter_size: int = 3
    """Side in pixels of the window whose minimum the map keeps, which drops thin edges; odd, 1 keeps them."""
    mean_filter_size: int = 7
    """Side in pixels of the window that the map is averaged over then; odd."""
    map: Literal["restoration", "nll"] = "restoration"
    """What the map shows before it is filtered: how far restored images lie from the image, as in the paper; or the
    reconstruction error times the negative log-likelihood (nll) of the codes, for which nothing needs restoring."""
    sharpness: float = 0.5
    """The softmax of this over their mean distance to the image weighs restorations: the paper's 3 is for z-scores, of
    which [0, 1] holds six."""
    score: Literal["density", "restoration", "both", "max_nll", "local"] = "both"
    """Image score: the sum of negative log-likelihoods (nll) above the limit; how many times as far from the image the
    restored one lies as its reconstruction, for what codes cannot hold is in both; or the sum of both scores, each in
    standard deviations over training images. Or the greatest mean nll of 3x3 codes, and a volume's that of its slices:
    what is small drowns in a sum over a hundred slices. Or, for small anomalies, by how many deviations the nll of any
    window of a third of the grid exceeds what the prior expects, standardised place by place over training images; that
    is also the map then, and nothing is restored."""
    prior_fraction: float = 1.0
    """Epochs of the prior for each of the autoencoder."""
    learning_rate: float = 1e-4
    """Adam's rate in both phases, falling to a tenth by a cosine."""


class Gated(nn.Module):
    """Convolve, and gate by another convolution: a GLU of one convolution, but twice as fast by halves of their own."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.value, self.gate = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        out: Tensor = self.value(x) * self.gate(x).sigmoid()
        return out


class GatedResidual(nn.Module):
    """Add to x: BN, ELU, 3x3 convolution, twice, with channel dropout between and a gate at the end."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.BatchNorm2d(channels),
            Elu(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
            Elu(),
            nn.Dropout2d(dropout),
            Gated(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        out: Tensor = x + self.branch(x)
        return out


def encoder(config: VqvaeRestorationConfig) -> nn.Sequential:
    """Return a network from (N, C, H, W) to features (N, D, h, w): stem, then two blocks and a halving a stage."""
    layers: list[nn.Module] = [nn.Conv2d(config.channels, config.widths[0], 7, padding=3)]
    for a, b in itertools.pairwise(config.widths):
        layers += [GatedResidual(a, config.dropout), GatedResidual(a, config.dropout), nn.Conv2d(a, b, 5, 2, 2)]
    return nn.Sequential(*layers)


def decoder(config: VqvaeRestorationConfig) -> nn.Sequential:
    """Return the encoder's mirror: transposed 6x6 convolutions, the image (N, 1, H, W) at the end."""
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(config.widths[::-1]):
        layers += [
            nn.ConvTranspose2d(a, b, 6, 2, 2),
            GatedResidual(b, config.dropout),
            GatedResidual(b, config.dropout),
        ]
    return nn.Sequential(*layers, nn.Conv2d(config.widths[0], 1, 7, padding=3))


class VqvaeRestoration(Method):
    """See the module's docstring."""

    Config = VqvaeRestorationConfig
    presets: ClassVar = {
        "digits": {
            **{"size": 48, "widths": (8, 16, 32), "codes": 64, "prior_channels": 64, "prior_blocks": 2},
            **{"prior_pairs": 2, "dropout": 0.0, "prior_dropout": 0.2, "context_dropout": 0.3, "score": "local"},
            **{"prior_fraction": 1.25, "learning_rate": 2e-3, "train.epochs": 18, "train.augment": False},
        },
        "radiograph": {
            **{"widths": (8, 16, 32, 64), "prior_channels": 64, "prior_blocks": 2, "prior_pairs": 2, "dropout": 0.0},
            **{
                "restorations": 5,
                "prior_fraction": 3.0,
                "learning_rate": 1e-3,
                "train.epochs": 40,
                "train.batch_size": 8,
            },
        },
        "volumes": {
            **{"position": True, "widths": (8, 16, 32, 64), "prior_channels": 64, "prior_blocks": 2, "prior_pairs": 2},
            **{"dropout": 0.0, "prior_fraction": 2.0, "learning_rate": 1e-3, "score": "max_nll", "map": "nll"},
            **{
                "min_filter_size": 1,
                "mean_filter_size": 13,
                "train.epochs": 15,
                "train.batch_size": 8,
                "train.augment": False,
            },
        },
        "tiny": {
            **{"size": 64, "widths": (8, 8, 16, 16), "codes": 16, "prior_channels": 16, "prior_blocks": 1},
            **{"prior_pairs": 1, "restorations": 3, "learning_rate": 5e-3},
        },
    }
    config: VqvaeRestorationConfig
    limits: Tensor
    moments: Tensor
    places: Tensor
    uniforms: Tensor

    def __init__(self, config: VqvaeRestorationConfig) -> None:
        super().__init__(config)
        check(config)
        c, side = config, config.size >> (len(config.widths) - 1)
        self.encoder, self.decoder = encoder(c), decoder(c)
        self.quantize = Quantize(c.codes, c.widths[-1])
        self.prior = PixelSnail(
            c.codes,
            c.prior_channels,
            c.prior_blocks,
            c.prior_pairs,
            value=c.prior_channels,
            dropout=c.prior_dropout,
            conditions=int(c.position),
            grid=(side, side),
        )
        self.register_buffer("limits", torch.full((2,), UNMEASURED))  # of density and of restoration
        self.register_buffer("moments", torch.tensor([[0.0, 1.0], [0.0, 1.0]]))  # mean, deviation of both scores
        self.window = side // 3 | 1
        self.register_buffer("places", torch.stack([torch.zeros(side, side), torch.ones(side, side)]))  # same, local
        fixed = torch.Generator().manual_seed(0)
        self.register_buffer("uniforms", torch.rand(c.restorations, side, side, generator=fixed), persistent=False)

    @property
    def restores(self) -> bool:
        """Whether score or map are by restored images."""
        c = self.config
        return c.score != "local" and (c.map == "restoration" or c.score in ("restoration", "both"))

    @property
    def not_exportable(self) -> str:
        """Say that restoring is a loop; scores and maps without it are a graph."""
        return "it restores codes by a raster loop, whose length depends on the image" if self.restores else ""

    def phases(self) -> tuple[Phase, ...]:
        """Train the autoencoder, then with it frozen the prior."""
        rate, parts = self.config.learning_rate, ("encoder", "quantize", "decoder")
        codes = Turn("vqvae", (Group(parts, rate),), schedule=Cosine(0.1))
        prior = Turn("prior", (Group(("prior",), rate),), schedule=Cosine(0.1))
        return Phase("vqvae", (codes,)), Phase("prior", (prior,), self.config.prior_fraction, frozen=parts)

    def losses(self, x: Tensor, turn: str, step: Step) -> dict[str, Tensor]:
        """Return absolute error and codebook loss with the perplexity of codes, or the prior's nll a code."""
        image, condition = self.config.split(x)
        if turn == "prior":
            seen = codes = self.encode(x)
            if self.config.context_dropout:
                fraction = 2 * self.config.context_dropout * torch.rand(len(codes), 1, 1, device=codes.device)
                seen = codes.masked_fill(torch.rand(codes.shape, device=codes.device) < fraction, self.config.codes)
            return {"prior": nll(self.prior(seen, condition), codes).mean()}
        quantised, codes, loss = self.quantize(self.encoder(x))
        reconstruction = F.l1_loss(self.decoder(quantised).float(), image)
        return {
            "vqvae": reconstruction + loss,
            "reconstruction": reconstruction,
            "codebook": loss,
            "perplexity": self.quantize.perplexity(codes),
        }

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Encode (N, C, H, W) to codes (N, h, w)."""
        return self.quantize.encode(self.encoder(x))

    def decode(self, codes: Tensor) -> Tensor:
        """Decode codes (N, h, w) to images (N, 1, H, W) in [0, 1]."""
        image: Tensor = self.decoder(self.quantize.lookup(codes))
        return image.float().clamp(0, 1)

    def fit(self, batches: Iterable[Tensor], reduce: Reduce = ALONE) -> None:
        """Set the limits, and the mean and deviation of the scores that are standardised, all by training images.

        Held-out ones, from which p-values come, would count in their own limits.
        """
        if self.config.score == "local":
            self.places.copy_(torch.cat(mean_and_deviation(torch.cat([self._local(x)[0][:, 0] for x in batches]))))
            return
        seen = [self._code_nll(x) for x in batches]
        values = torch.cat([found.flatten() for found, _ in seen])
        wanted = torch.tensor([self.config.sample_percentile, self.config.pixel_percentile], device=values.device)
        self.limits.copy_(torch.quantile(values[: 1 << 24], wanted / 100))
        if self.config.score != "both":
            return
        every = math.ceil(sum(len(codes) for _, codes in seen) / MEASURED)
        scores = torch.cat([self.parts(x, seen[i])[0][:, :2] for i, x in enumerate(batches) if i % every == 0])
        deviation = scores.std(0, correction=0)
        self.moments.copy_(torch.stack([scores.mean(0), deviation.where(deviation > 0, 1)], 1))

    def _code_nll(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the negative log-likelihood of each code, and the codes, both (N, h, w)."""
        codes = self.encode(x)
        return nll(self.prior(codes, self.config.split(x)[1]), codes), codes

    def _local(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return by how many deviations the nll around each code exceeds the expected (N, 1, h, w), and the codes."""
        codes = self.encode(x)
        both = torch.stack(excess(self.prior(codes, self.config.split(x)[1]), codes), 1)
        mean, variance = F.avg_pool2d(both, self.window, 1, self.window // 2, count_include_pad=False).chunk(2, 1)
        return mean / (variance + SURE).sqrt(), codes

    def parts(self, x: Tensor, seen: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return scores (N, 3) by density, restoration and greatest nll, the map and the restored image (N, 1, H, W).

        ``seen`` is the negative log-likelihood of x's codes and these, where they are known. The image is the mean of
        those restored. Where nothing is restored it is the reconstruction, and the score by restoration is nan.
        """
        image, condition = self.config.split(x)
        nats, codes = seen or self._code_nll(x)
        density = (nats * (nats > self.limits[0])).sum((1, 2))
        reconstruction = self.decode(codes)
        heat = lost = (image - reconstruction).abs()
        restoration = torch.full_like(density, torch.nan)
        if self.restores:
            sampled = resample(self.prior, codes, self.limits[1], self.uniforms, condition)
            images = self.decode(sampled.flatten(0, 1)).view(len(x), -1, *image.shape[1:])  # (N, J, 1, H, W)
            far = (image[:, None] - images).abs()
            weights = (self.config.sharpness / far.mean((2, 3, 4)).clamp_min(1e-6)).softmax(1)[:, :, None, None, None]
            heat, reconstruction = (weights * far).sum(1), (weights * images).sum(1)
            restoration = (heat.mean((1, 2, 3)) + DARK) / (lost.mean((1, 2, 3)) + DARK)
        if self.config.map == "nll":
            heat = lost * F.interpolate(nats[:, None], x.shape[2:], mode="bilinear")
        if not self.config.position:
            heat = smooth(heat, self.config.min_filter_size, self.config.mean_filter_size)
        greatest = F.avg_pool2d(nats, 3, 1, 1, count_include_pad=False).amax((1, 2))
        return torch.stack([density, restoration, greatest], 1), heat, reconstruction

    def forward(self, x: Tensor) -> Scores:
        """Score by the likelihood of codes, by restoration, or by both; map what restored images differ in.

        By the local score, the map is that, and the image is the reconstruction.
        """
        if self.config.score == "local":
            local, codes = self._local(x)
            unusual = (local - self.places[0]) / self.places[1]
            grown = F.interpolate(unusual, x.shape[2:], mode="bilinear")
            return Scores(unusual.amax((1, 2, 3)), grown, self.decode(codes))
        found, heat, image = self.parts(x)
        if self.config.score == "both":
            return Scores(((found[:, :2] - self.moments[:, 0]) / self.moments[:, 1]).sum(1), heat, image)
        return Scores(found[:, ("density", "restoration", "max_nll").index(self.config.score)], heat, image)

    @property
    def volume_score(self) -> Literal["mean", "max"]:
        """A volume's least likely codes are those of any of its slices; of everything else the slices' mean counts."""
        return "max" if self.config.score == "max_nll" else "mean"

    @property
    def slice_filter(self) -> tuple[int, int] | None:
        """The windows of the map of an image, across slices too."""
        c = self.config
        return (c.min_filter_size, c.mean_filter_size) if c.position else None


def check(config: VqvaeRestorationConfig) -> None:
    """Raise ValueError where the options do not fit each other."""
    step = 1 << (len(config.widths) - 1)
    if config.size % step:
        raise ValueError(f"size {config.size} must be a multiple of 2**stages = {step}")
    for name in ("min_filter_size", "mean_filter_size"):
        if not (side := getattr(config, name)) > 0 or side % 2 == 0:
            raise ValueError(f"{name} is {side}; a window around a pixel has an odd number of them a side, such as 3")
    for name in ("sample_percentile", "pixel_percentile"):
        if not 0 <= (value := getattr(config, name)) <= 100:
            raise ValueError(f"{name} is {value}; it must lie in 0 to 100")
    if not 0 <= config.context_dropout <= 0.5:
        raise ValueError(f"context_dropout is {config.context_dropout}; it must lie in 0 to 0.5")
    check_fractions(config)
