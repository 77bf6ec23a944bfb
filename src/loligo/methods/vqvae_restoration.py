"""VQ-VAE with an autoregressive prior (Marimont & Tarroni 2020): how likely an image's codes are, and mending them.

Paper: arXiv 2012.06765. A vector-quantised autoencoder turns an image into a grid of discrete codes; an autoregressive
prior learns which codes follow which in normal images. An image scores by how unlikely its codes are; where they are
very unlikely they are drawn anew from the prior, several times over, and what restored images differ in is the map.

Departures: images in [0, 1] rather than z-scores. The prior learns what is usual at each place of the grid: anatomy
stands still. Codes are drawn by one fixed uniform number a place and restoration, so that a score is the image's own;
restoration is exact and computes each place once (see `nn.autoregressive`). Entries of the codebook that are hardly
used are drawn anew from features (see `nn.quantize`), and the rates fall by a cosine. All slices of a volume train it,
those of air too: a volume's score looks at all, and the prior must know that nothing is to be expected there. The
preset ``volumes`` scores by the least likely 3x3 codes and maps error of rebuilding times surprise; the paper's sums
and restored images, which found less in made brains, are its other options.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from loligo.methods.configs import SliceConfig, check_shares
from loligo.methods.contract import Method, Phase, Turn
from loligo.nn.autoregressive import PixelSnail, excess, resample, surprise
from loligo.nn.elu import Elu
from loligo.nn.heat import smooth
from loligo.nn.places import mean_and_deviation
from loligo.nn.quantize import Quantize
from loligo.types import Scores

SURE = 0.02
"""Variance of surprise (nats squared) that is added to a window's: no prior is sure without end."""
DARK = 1e-3
"""Absolute error that is added to both of which the restoration score is a quotient: in air there is none."""


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
    """Share of channels of a block of the autoencoder that training leaves out."""
    prior_dropout: float = 0.1
    """Share of channels of a pair of the prior that training leaves out."""
    context_dropout: float = 0.0
    """Share of the codes before a code that training hides from the prior, the mean of one share an image, from none
    to twice as many; above 0 the prior learns to expect by the place what the codes before do not tell."""
    restorations: int = 15
    """Images that are drawn for each."""
    sample_percentile: float = 98.0
    """Percentile of held-out normals' surprise above which a code counts in the density score."""
    pixel_percentile: float = 90.0
    """Percentile of held-out normals' surprise above which a code is drawn anew."""
    least: int = 3
    """Side in pixels of the window whose least value the map keeps, which drops thin edges; 1 keeps them."""
    window: int = 7
    """Side in pixels of the window that the map is averaged over then."""
    map: Literal["restoration", "surprise"] = "restoration"
    """What the map shows before it is smoothed: how far restored images lie from the image, as in the paper; or how far
    the one that its own codes rebuild does, times the codes' surprise, for which nothing needs restoring."""
    sharpness: float = 0.5
    """The softmax of this over their mean distance to the image weighs restorations: the paper's 3 is for z-scores, of
    which [0, 1] holds six."""
    score: Literal["density", "restoration", "both", "rarest", "local"] = "both"
    """Image score: the sum of surprises above the limit; how many times as far from the image the restored one lies as
    the one that its own codes rebuild, for what codes cannot hold is in both; or the sum of both scores, each in
    standard deviations of held-out normals. Or the greatest mean surprise of 3x3 codes, and a volume's that of its
    slices: what is small drowns in a sum over a hundred slices. Or, for small anomalies, by how many deviations the
    surprise of any window of a third of the grid exceeds what the prior expects, as unusual as it is there; that is
    also the map then, and nothing is restored."""
    prior_share: float = 1.0
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
            **{"prior_share": 1.25, "learning_rate": 2e-3, "train.epochs": 18, "train.augment": False},
        },
        "radiograph": {
            **{"widths": (8, 16, 32, 64), "prior_channels": 64, "prior_blocks": 2, "prior_pairs": 2, "dropout": 0.0},
            **{"restorations": 5, "prior_share": 3.0, "learning_rate": 1e-3, "train.epochs": 40, "train.batch_size": 8},
        },
        "volumes": {
            **{"position": True, "widths": (8, 16, 32, 64), "prior_channels": 64, "prior_blocks": 2, "prior_pairs": 2},
            **{"dropout": 0.0, "prior_share": 2.0, "learning_rate": 1e-3, "score": "rarest", "map": "surprise"},
            **{"least": 1, "window": 13, "train.epochs": 15, "train.batch_size": 8, "train.augment": False},
        },
        "tiny": {
            **{"size": 64, "widths": (8, 8, 16, 16), "codes": 16, "prior_channels": 16, "prior_blocks": 1},
            **{"prior_pairs": 1, "restorations": 3, "learning_rate": 5e-3},
        },
    }
    config: VqvaeRestorationConfig
    limits: Tensor
    usual: Tensor
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
        self.register_buffer("limits", torch.full((2,), torch.inf))  # of density and of restoration
        self.register_buffer("usual", torch.tensor([[0.0, 1.0], [0.0, 1.0]]))  # mean, deviation of both scores
        self.around = side // 3 | 1
        self.register_buffer("places", torch.stack([torch.zeros(side, side), torch.ones(side, side)]))  # same, local
        draw = torch.Generator().manual_seed(0)
        self.register_buffer("uniforms", torch.rand(c.restorations, side, side, generator=draw), persistent=False)

    def phases(self) -> tuple[Phase, ...]:
        """Train the autoencoder, then with it frozen the prior."""
        rate, c = self.config.learning_rate, self.config
        codes = Turn("vqvae", ("encoder", "quantize", "decoder"), learning_rate=rate, final_rate=0.1)
        prior = Turn("prior", ("prior",), learning_rate=rate, final_rate=0.1)
        return Phase("vqvae", (codes,)), Phase("prior", (prior,), c.prior_share)

    def losses(self, x: Tensor, turn: str) -> dict[str, Tensor]:
        """Return absolute error and codebook loss with the perplexity of codes, or the prior's surprise a code."""
        image, condition = self.config.split(x)
        if turn == "prior":
            seen = codes = self._codes(x)
            if self.config.context_dropout:
                share = 2 * self.config.context_dropout * torch.rand(len(codes), 1, 1, device=codes.device)
                seen = codes.masked_fill(torch.rand(codes.shape, device=codes.device) < share, self.config.codes)
            return {"prior": surprise(self.prior(seen, condition), codes).mean()}
        quantised, codes, loss = self.quantize(self.encoder(x))
        reconstruction = F.l1_loss(self.decoder(quantised).float(), image)
        return {
            "vqvae": reconstruction + loss,
            "reconstruction": reconstruction,
            "codebook": loss,
            "perplexity": self.quantize.perplexity(codes),
        }

    @torch.no_grad()
    def _codes(self, x: Tensor) -> Tensor:
        """Encode (N, C, H, W) to codes (N, h, w) as they are at test time."""
        self.encoder.eval()
        self.quantize.eval()
        codes: Tensor = self.quantize(self.encoder(x))[1]
        return codes

    def fit(self, batches: Iterable[Tensor]) -> None:
        """Measure which local scores are usual at each place.

        Of training images: held-out ones, from which p-values come, would count in their own deviation.
        """
        if self.config.score == "local":
            local = torch.cat([self._local(x)[0][:, 0] for x in batches])
            self.places.copy_(torch.cat(mean_and_deviation(local)))

    def calibrate(self, batches: Iterable[Tensor]) -> None:
        """Set both limits to percentiles of held-out normals' surprise, and note how large their scores usually are."""
        if self.config.score == "local":
            return
        seen = [self._surprise(x) for x in batches]
        values = torch.cat([surprises.flatten() for surprises, _ in seen])
        shares = torch.tensor([self.config.sample_percentile, self.config.pixel_percentile], device=values.device) / 100
        self.limits.copy_(torch.quantile(values[: 1 << 24], shares))
        if not self.restores:
            return
        scores = torch.cat([self.parts(x, known)[0][:, :2] for x, known in zip(batches, seen, strict=True)])
        deviation = scores.std(0, correction=0)
        self.usual.copy_(torch.stack([scores.mean(0), deviation.where(deviation > 0, 1)], 1))

    def _surprise(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the surprise of each code, and the codes, both (N, h, w)."""
        codes = self._codes(x)
        return surprise(self.prior(codes, self.config.split(x)[1]), codes), codes

    def _local(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return by how many deviations the codes around each surprise too much (N, 1, h, w), and the codes."""
        codes = self._codes(x)
        both = torch.stack(excess(self.prior(codes, self.config.split(x)[1]), codes), 1)
        mean, variance = F.avg_pool2d(both, self.around, 1, self.around // 2, count_include_pad=False).chunk(2, 1)
        return mean / (variance + SURE).sqrt(), codes

    def parts(self, x: Tensor, seen: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return scores (N, 3) by density, restoration and rarest codes, the map and the restored image (N, 1, H, W).

        ``seen`` is what `_surprise` returns of x, where that is known. The image is the mean of those restored. Where
        nothing is restored it is the one that the codes rebuild, and the score by restoration is nan.
        """
        image, condition = self.config.split(x)
        surprises, codes = seen or self._surprise(x)
        density = (surprises * (surprises > self.limits[0])).sum((1, 2))
        rebuilt = self.decoder(self.quantize.lookup(codes)).float().clamp(0, 1)
        heat = lost = (image - rebuilt).abs()
        restoration = torch.full_like(density, torch.nan)
        if self.restores:
            drawn = resample(self.prior, codes, float(self.limits[1]), self.uniforms, condition)
            images = self.decoder(self.quantize.lookup(drawn.flatten(0, 1))).float().clamp(0, 1)
            images = images.view(len(x), -1, *image.shape[1:])  # (N, J, 1, H, W)
            apart = (image[:, None] - images).abs()
            weights = (self.config.sharpness / apart.mean((2, 3, 4)).clamp_min(1e-6)).softmax(1)[:, :, None, None, None]
            heat, rebuilt = (weights * apart).sum(1), (weights * images).sum(1)
            restoration = (heat.mean((1, 2, 3)) + DARK) / (lost.mean((1, 2, 3)) + DARK)
        if self.config.map == "surprise":
            heat = lost * F.interpolate(surprises[:, None], x.shape[2:], mode="bilinear")
        heat = heat if self.config.position else smooth(heat, self.config.least, self.config.window)
        rarest = F.avg_pool2d(surprises, 3, 1, 1, count_include_pad=False).amax((1, 2))
        return torch.stack([density, restoration, rarest], 1), heat, rebuilt

    @property
    def restores(self) -> bool:
        """Whether score or map are by restored images."""
        return self.config.map == "restoration" or self.config.score in ("restoration", "both")

    def score(self, x: Tensor) -> Scores:
        """Score by the likelihood of codes, by restoration, or by both; map what restored images differ in.

        By the local score, the map is that, and what is rebuilt is the image as its own codes have it.
        """
        if self.config.score == "local":
            local, codes = self._local(x)
            unusual = (local - self.places[0]) / self.places[1]
            image = self.decoder(self.quantize.lookup(codes)).float().clamp(0, 1)
            return Scores(unusual.amax((1, 2, 3)), F.interpolate(unusual, x.shape[2:], mode="bilinear"), image)
        found, heat, image = self.parts(x)
        if self.config.score == "both":
            return Scores(((found[:, :2] - self.usual[:, 0]) / self.usual[:, 1]).sum(1), heat, image)
        return Scores(found[:, ("density", "restoration", "rarest").index(self.config.score)], heat, image)

    @property
    def volume_score(self) -> Literal["sum", "max"]:
        """A volume's rarest codes are those of any of its slices; everything else sums over them."""
        return "max" if self.config.score == "rarest" else "sum"

    def pool(self, maps: Tensor) -> Tensor:
        """Smooth the maps of a volume's slices (N, H, W) across slices too; see `smooth_slices`."""
        return smooth_slices(maps, self.config.least, self.config.window) if self.config.position else maps


def smooth_slices(x: Tensor, least: int, window: int) -> Tensor:
    """Take the least of a cube of voxels, then the mean over window x window of 3 slices, of slices (N, H, W)."""
    x = -F.max_pool3d(-x[None], least, 1, least // 2)[0]
    x = F.avg_pool2d(x[:, None], window, 1, window // 2, count_include_pad=False)[:, 0]
    total, counts = x.clone(), x.new_full((len(x), 1, 1), 3)  # not by avg_pool3d: it refuses fewer slices than 3
    total[1:] += x[:-1]
    total[:-1] += x[1:]
    counts[0] -= 1
    counts[-1] -= 1
    return total / counts


def check(config: VqvaeRestorationConfig) -> None:
    """Raise ValueError where the options do not fit each other."""
    step = 1 << (len(config.widths) - 1)
    if config.size % step:
        raise ValueError(f"size {config.size} must be a multiple of 2**stages = {step}")
    for name in ("least", "window"):
        if not (side := getattr(config, name)) > 0 or side % 2 == 0:
            raise ValueError(f"{name} is {side}; a window around a pixel has an odd number of them a side, such as 3")
    for name in ("sample_percentile", "pixel_percentile"):
        if not 0 <= (value := getattr(config, name)) <= 100:
            raise ValueError(f"{name} is {value}; it must lie in 0 to 100")
    if not 0 <= config.context_dropout <= 0.5:
        raise ValueError(f"context_dropout is {config.context_dropout}; it must lie in 0 to 0.5")
    check_shares(config)
