"""AnoDDPM: diffusion of simplex noise, a part of the way and back (Wyatt et al., CVPR Workshops 2022).

A network learns to find the noise in normal images. To score an image, noise is added for 250 of 1,000 steps, too few
to lose the anatomy, and removed step by step: what comes back is an image as the network knows them, and its squared
difference from the one given is the map. The noise is simplex noise of six octaves, from 64 pixels down to 2: it hides
large structures that Gaussian noise of the same strength leaves in sight, so that these are replaced as well.

The network is MONAI's U-Net with the authors' widths. Departures: the noise of scoring is drawn once, a field for each
step of the way back, and kept with the weights: a score repeats, depends on no other image, and changes little where
the image does; as all images meet the same noise, their scores differ by the images alone. The clean image that each
step predicts is cut to the range of pixels, and a step's variance is the posterior's, not the forward one's. The paper
segments; an image's score is the mean of its map here.

At the paper's settings training takes 300,000 steps, and scoring 250 passes of 5e11 operations: days, and ten minutes
an image, on a CPU. The preset ``radiograph`` learns the 250 steps that scoring uses and goes back in four; its score
counts windows that are reconstructed unusually well, too.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from loligo.config import Reading
from loligo.methods.configs import DiffusionConfig
from loligo.methods.contract import ALONE, Group, Method, Phase, Reduce, Step, Turn
from loligo.methods.optimisation import Cosine, adamw
from loligo.nn import simplex
from loligo.nn.diffusion import Schedule, chain
from loligo.nn.places import Comparison
from loligo.types import Scores

APART = 97.0
"""Pixels of depth between the fields of noise of scoring: those of neighbouring steps have nothing in common."""


@dataclass(frozen=True)
class AnoddpmConfig(DiffusionConfig):
    """Options of AnoDDPM."""

    attention: tuple[int, ...] = (16, 8)
    """Sides in pixels of the maps with self-attention; those at the bottom have it always."""
    heads: int = 2
    """Heads of the self-attention."""
    diffusion_steps: int = 1000
    """Noise steps after which nothing of an image is left."""
    level: int = 250
    """Noise steps that an image is taken through before it is restored."""
    trained: int = 1000
    """Training draws from the first so many noise steps; those beyond the level are not used for scoring."""
    steps: int = 250
    """Steps of the way back, evenly spaced, of one pass of the network each."""
    octaves: int = 6
    """Scales of the noise."""
    persistence: float = 0.8
    """Amplitude of an octave relative to the one before."""
    wavelength: float = 64.0
    """Of the first octave, in pixels; each further one has half of it."""
    image_score: Reading = "error"
    """Image score: the mean squared error; or the least similar window (local), or how unlike normal images all windows
    are, for better or worse (unusual), both standardised over training images."""
    final_rate: float = 1.0
    """Fraction of the rate that a cosine takes it down to; 1 keeps it, as in the paper."""
    ema: float = 0.9999
    """Decay of the moving average of the weights, which is what scores."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.steps <= self.level <= self.trained <= self.diffusion_steps:
            raise ValueError(
                f"steps {self.steps}, level {self.level}, trained {self.trained} and diffusion_steps"
                f" {self.diffusion_steps} must not decrease in this order"
            )


class Anoddpm(Method):
    """See the module's docstring."""

    Config = AnoddpmConfig
    training_defaults: ClassVar = {"steps": 300_000, "batch_size": 1}
    presets: ClassVar = {
        "radiograph": {
            **{"size": 64, "widths": (16, 32, 64), "blocks": 1, "trained": 250, "steps": 4, "wavelength": 16.0},
            **{"octaves": 4, "image_score": "unusual", "learning_rate": 2e-3, "final_rate": 0.05, "ema": 0.99},
            **{"train.epochs": 12, "train.steps": 0, "train.batch_size": 16},
        },
        "digits": {
            **{"size": 48, "widths": (16, 32, 64), "blocks": 1, "trained": 250, "steps": 4, "wavelength": 16.0},
            **{"octaves": 4, "image_score": "local", "learning_rate": 2e-3, "final_rate": 0.05, "ema": 0.99},
            **{"train.epochs": 6, "train.steps": 0, "train.batch_size": 16, "train.augment": False},
        },
        "tiny": {
            **{
                "size": 64,
                "widths": (4, 8, 8),
                "blocks": 1,
                "attention": (8,),
                "trained": 250,
                "steps": 2,
                "octaves": 1,
            },
            **{"wavelength": 16.0, "learning_rate": 1e-2, "final_rate": 0.05, "ema": 0.8},
        },
    }
    config: AnoddpmConfig
    order: Tensor
    noise: Tensor

    def __init__(self, config: AnoddpmConfig) -> None:
        super().__init__(config)
        self.denoiser = config.denoiser(config.channels, config.channels)
        self.schedule = Schedule.linear(config.diffusion_steps)
        self.comparison = Comparison(config.size, config.image_score)
        self.register_buffer("order", simplex.permutation(seed=0))
        self.register_buffer("noise", torch.zeros(config.steps, config.channels, config.size, config.size))

    def phases(self) -> tuple[Phase, ...]:
        """Train the network on one loss."""
        c = self.config
        turn = Turn(
            "noise",
            (Group(("denoiser",), c.learning_rate),),
            adamw(weight_decay=0.0),
            Cosine(c.final_rate, by_step=True),
            clip=1.0,
            ema=c.ema,
        )
        return (Phase("diffusion", (turn,)),)

    def losses(self, x: Tensor, turn: str, step: Step) -> dict[str, Tensor]:
        """Return the mean squared error of the noise that is found in images."""
        t = torch.randint(1, self.config.trained + 1, x.shape[:1], device=x.device)
        noise = self._noise(torch.rand(len(x), 3, device=x.device) * simplex.SPAN)
        return {"noise": F.mse_loss(self.denoiser(self.schedule.noisy(2 * x - 1, t, noise), t), noise)}

    def _noise(self, origin: Tensor) -> Tensor:
        """Return simplex noise (N, 1, H, W) from places (N, 3) on."""
        c = self.config
        return simplex.octaves(origin, c.size, self.order, c.octaves, c.persistence, c.wavelength)

    def fit(self, batches: Iterable[Tensor], reduce: Reduce = ALONE) -> None:
        """Draw the noise of scoring, and measure normal images where the score asks for it."""
        depth = torch.arange(self.config.steps, device=self.noise.device) * APART
        self.noise.copy_(self._noise(torch.stack([torch.zeros_like(depth), torch.zeros_like(depth), depth], 1)))
        self.comparison.fit(self.reconstruct, batches)

    def reconstruct(self, x: Tensor) -> Tensor:
        """Take images through noise and back, both (N, C, H, W) in [0, 1]."""
        way = chain(self.config.level, self.config.steps)
        y = self.schedule.noisy(2 * x - 1, way[0], self.noise[:1])
        for (t, to), noise in zip(itertools.pairwise(way), torch.split(self.noise.roll(-1, 0), 1), strict=True):
            clean = self.schedule.clean(y, t, self.denoiser(y, t)).clamp(-1, 1)
            mean, deviation = self.schedule.posterior(clean, y, t, to)
            y = mean + deviation * noise
        return (y / 2 + 0.5).clamp(0, 1)

    def forward(self, x: Tensor) -> Scores:
        """Score by the difference between images and what comes back of them."""
        found: Scores = self.comparison(x, self.reconstruct(x))
        return found
