"""DDPM guided by a classifier: images encoded into noise and decoded as healthy ones (Wolleb et al., MICCAI 2022).

A diffusion model learns normal and abnormal images alike, a classifier to tell them apart through any amount of noise.
To score an image, the noise that it is made of is found step by step, half of the way (DDIM, which loses nothing), and
removed again; on the way back each step follows the gradient by which the classifier calls the image more normal. What
the image and its healthy version differ in is the map. **Weakly supervised**: the classifier needs abnormal images.

The networks are MONAI's, of the paper's widths. Departures: the network predicts the noise alone, not its variance
too, which DDIM has no use for, and is not told the class. Noise is found by the network as it is told the step that is
gone to, not the one that is left, as it never saw an image without any noise. The clean image that each step of the way
back predicts is cut to the range of pixels. Slices of four channels become images of one. The paper segments; an
image's score is the mean of its map here.

The gradient of the classifier is taken in scoring, which PyTorch's exporter cannot record. Scoring at the paper's
settings takes 1,000 passes of the U-Net and 500 of the classifier, there and back.
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
from loligo.methods.configs import DiffusionConfig, check_fractions
from loligo.methods.contract import ALONE, Group, Method, Phase, Reduce, Step, Turn
from loligo.methods.optimisation import Cosine, adam
from loligo.nn.diffusion import NoisyClassifier, Schedule, chain
from loligo.nn.places import Comparison
from loligo.types import Scores

NORMAL, ABNORMAL = 0, 1
"""The classes of the classifier."""


@dataclass(frozen=True)
class DdpmGuidedConfig(DiffusionConfig):
    """Options of the guided DDPM."""

    diffusion_steps: int = 1000
    """Noise steps after which nothing of an image is left."""
    level: int = 500
    """Noise steps that an image is encoded through."""
    trained: int = 1000
    """Training draws from the first so many noise steps; those beyond the level are not used for scoring."""
    steps: int = 500
    """Steps each way, evenly spaced."""
    scale: float = 100.0
    """How far each step back follows the classifier's gradient; 0 gives the image back."""
    classifier_widths: tuple[int, ...] = (32, 32, 64, 64, 128, 128)
    """Channels of the classifier at each level."""
    classifier_blocks: int = 4
    """Residual blocks a level of the classifier."""
    classifier_attention: tuple[int, ...] = (32, 16, 8)
    """Sides in pixels of its maps with self-attention."""
    diffusion_fraction: float = 5.0
    """Part of the epochs that trains the diffusion model, relative to the classifier's."""
    classifier_fraction: float = 2.0
    """Part of the epochs that trains the classifier."""
    image_score: Reading = "error"
    """Image score: the mean absolute difference; or the least similar window (local), or how unlike normal images all
    windows are, for better or worse (unusual), both standardised over normal training images."""
    final_rate: float = 1.0
    """Fraction of the rates that a cosine takes them down to; 1 keeps them, as in the paper."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fractions(self)
        if not self.steps <= self.level <= self.trained <= self.diffusion_steps:
            raise ValueError(
                f"steps {self.steps}, level {self.level}, trained {self.trained} and diffusion_steps"
                f" {self.diffusion_steps} must not decrease in this order"
            )


class DdpmGuided(Method):
    """See the module's docstring."""

    Config = DdpmGuidedConfig
    training_defaults: ClassVar = {"steps": 70_000, "batch_size": 10}
    presets: ClassVar = {
        "radiograph": {
            **{"size": 64, "widths": (16, 32, 64), "blocks": 1, "level": 250, "trained": 250, "steps": 4},
            **{"scale": 10.0, "classifier_widths": (16, 32, 64), "classifier_blocks": 1},
            **{"learning_rate": 2e-3, "final_rate": 0.05},
            **{"train.epochs": 12, "train.steps": 0, "train.batch_size": 16},
        },
        "digits": {
            **{"size": 48, "widths": (16, 32, 64), "blocks": 1, "level": 250, "trained": 250, "steps": 4},
            **{"scale": 10.0, "classifier_widths": (16, 32, 64), "classifier_blocks": 1},
            **{"learning_rate": 2e-3, "final_rate": 0.05},
            **{"train.epochs": 6, "train.steps": 0, "train.batch_size": 16, "train.augment": False},
        },
        "tiny": {
            **{"size": 64, "widths": (8, 16, 16), "blocks": 1, "level": 250, "trained": 250, "steps": 2},
            **{"scale": 10.0, "classifier_widths": (8, 16, 16), "classifier_blocks": 1},
            **{"learning_rate": 1e-2, "final_rate": 0.05},
        },
    }
    weakly_supervised = True
    config: DdpmGuidedConfig

    def __init__(self, config: DdpmGuidedConfig) -> None:
        super().__init__(config)
        c = config
        self.denoiser = c.denoiser(c.channels, c.channels)
        self.classifier = NoisyClassifier(
            c.channels, c.size, c.classifier_widths, c.classifier_blocks, c.classifier_attention, heads=1
        )
        self.schedule = Schedule.linear(c.diffusion_steps)
        self.comparison = Comparison(c.size, c.image_score, power=1.0)

    @property
    def not_exportable(self) -> str:
        """Say why `forward` cannot be exported: it takes a gradient."""
        return "it follows a classifier's gradient, which torch.export cannot record"

    def phases(self) -> tuple[Phase, ...]:
        """Train the diffusion model, then the classifier."""
        c = self.config
        noise, label = (
            Turn(loss, (Group((part,), c.learning_rate),), adam(), Cosine(c.final_rate, by_step=True))
            for loss, part in (("noise", "denoiser"), ("classification", "classifier"))
        )
        return (
            Phase("diffusion", (noise,), c.diffusion_fraction, ("classifier",)),
            Phase("classifier", (label,), c.classifier_fraction, ("denoiser",)),
        )

    def losses(self, x: Tensor, turn: str, step: Step) -> dict[str, Tensor]:
        """Return the squared error of the noise that is found, or the cross-entropy of the classes of noisy images."""
        images = 2 * torch.cat([x, step["abnormal"]]) - 1
        t, noise = (
            torch.randint(1, self.config.trained + 1, images.shape[:1], device=x.device),
            torch.randn_like(images),
        )
        noisy = self.schedule.noisy(images, t, noise)
        if turn == "noise":
            return {"noise": F.mse_loss(self.denoiser(noisy, t), noise)}
        label = torch.full(images.shape[:1], ABNORMAL, device=x.device)
        label[: len(x)] = NORMAL
        return {"classification": F.nll_loss(self.classifier(noisy, t), label)}

    def fit(self, batches: Iterable[Tensor], reduce: Reduce = ALONE) -> None:
        """Measure normal images where the score asks for it."""
        self.comparison.fit(self.reconstruct, batches)

    def reconstruct(self, x: Tensor) -> Tensor:
        """Return the healthy versions of images, both (N, C, H, W) in [0, 1]."""
        way, y = chain(self.config.level, self.config.steps), 2 * x - 1
        for t, to in itertools.pairwise(reversed(way)):
            y = self.schedule.follow(y, t, to, self.denoiser(y, to))
        for t, to in itertools.pairwise(way):
            noise = self.denoiser(y, t) - self.config.scale * self.schedule.deviation(t) * self._slope(y, t)
            y = self.schedule.noisy(self.schedule.clean(y, t, noise).clamp(-1, 1), to, noise)
        return (y / 2 + 0.5).clamp(0, 1)

    def _slope(self, y: Tensor, t: int) -> Tensor:
        """Return the gradient by noisy images (N, C, H, W) of their log-probability of being normal."""
        slope: Tensor = torch.func.grad(lambda noisy: self.classifier(noisy, t)[:, NORMAL].sum())(y)
        return slope

    def forward(self, x: Tensor) -> Scores:
        """Score by the difference between images and their healthy versions."""
        found: Scores = self.comparison(x, self.reconstruct(x))
        return found
