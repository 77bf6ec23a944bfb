"""EDC, Encoder-Decoder Contrast (Guo et al., IEEE TMI 2024, doi 10.1109/TMI.2023.3327720).

As in reverse distillation, a decoder rebuilds the stages of an encoder from its last one; but the encoder, trained on
photographs, moves too, so that it turns to the medical domain. Stopping the gradient at the features that are to be
rebuilt, as in contrastive learning, keeps both from collapsing to a constant, and so does the cosine of whole maps
rather than of places. The map is the mean distance of the stages at each place.

As in the paper the encoder moves at a small share of the decoder's rate, and its batch norms keep the statistics of the
photographs, or move slowly (the paper decides by data set). Departures: EfficientNet-Lite0 rather than ResNet-50, a
smaller decoder (bilinear doubling, one residual block a stage), Adam without weight decay, which at these rates decays
nothing in the paper either, and without the authors' clipping of the gradient to a norm of 1. What the decoder
normalises by is measured once more at the end, as trainings are shorter than theirs. The map is smoothed; the authors
take the maximum of it as it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from loligo.methods.configs import FeatureConfig
from loligo.methods.contract import Method, Phase, Turn
from loligo.nn.cosine import place_distance, summed, whole_distance
from loligo.nn.heat import pool
from loligo.nn.mirror import Mirror
from loligo.types import Scores

MOMENTUM = 0.01
"""Of the batch norms whose statistics move, in encoder and decoder; the paper's."""


@dataclass(frozen=True)
class EdcConfig(FeatureConfig):
    """Options of EDC."""

    width: int = 64
    """Least channels of a stage of the decoder; the deepest encoder's stages have more of their own."""
    statistics: Literal["pretrained", "moving"] = "pretrained"
    """What the encoder's batch norms normalise by in training: what they were trained with, or the batch."""
    sigma: float = 4.0
    """Pixels of the Gaussian that smooths the map."""
    learning_rate: float = 5e-4
    """Adam's rate of the decoder."""
    encoder_rate: float = 1e-5
    """Adam's rate of the encoder."""


class Edc(Method):
    """See the module's docstring."""

    Config = EdcConfig
    presets: ClassVar = {
        "radiograph": {"size": 160, "image_score": "mean", "train.epochs": 6},
        "digits": {"size": 96, "train.epochs": 8, "train.augment": False},
        "tiny": {"size": 64, "width": 24, "learning_rate": 3e-3},
    }
    config: EdcConfig

    def __init__(self, config: EdcConfig) -> None:
        super().__init__(config)
        self.encoder = encoder = config.extractor((*config.layers, config.layers[-1] + 1), frozen=False)
        if config.size % encoder.strides[-1]:
            raise ValueError(f"size {config.size} must be a multiple of the last stage's stride, {encoder.strides[-1]}")
        *channels, inputs = encoder.channels
        *strides, stride = encoder.strides
        self.decoder = Mirror(inputs, stride, channels, strides, config.width)
        self._before: list[Tensor] = []
        if not config.learning_rate > 0:
            raise ValueError(f"learning_rate is {config.learning_rate}; it must be above 0")
        for norm in self._norms(self):
            norm.momentum = MOMENTUM

    def train(self, mode: bool = True) -> Edc:
        """Go to training mode, but for the encoder where it keeps its statistics."""
        super().train(mode)
        self.encoder.train(mode and self.config.statistics == "moving")
        return self

    @staticmethod
    def _norms(part: nn.Module) -> list[nn.BatchNorm2d]:
        return [norm for norm in part.modules() if isinstance(norm, nn.BatchNorm2d)]

    def phases(self) -> tuple[Phase, ...]:
        """Train encoder and decoder together."""
        return (Phase("distance", (Turn("distance", ("encoder", "decoder"), 1, self.config.learning_rate),)),)

    def losses(self, x: Tensor, turn: str) -> dict[str, Tensor]:
        """Return the mean of 1 - cosine of whole maps, summed over stages; features do not move towards it."""
        self._before = [p.detach().clone() for p in self.encoder.parameters()]
        maps, rebuilt = self._rebuild(x)
        apart = [whole_distance(a.detach(), b).mean() for a, b in zip(maps, rebuilt, strict=True)]
        return {"distance": torch.stack(apart).sum()}

    @torch.no_grad()
    def after_step(self, turn: str) -> None:
        """Take back of the encoder's step all but its share: an Adam step is in proportion to its rate."""
        share = self.config.encoder_rate / self.config.learning_rate
        for parameter, before in zip(self.encoder.parameters(), self._before, strict=True):
            parameter.copy_(before.lerp_(parameter, share))
        self._before = []

    def fit(self, batches: Iterable[Tensor]) -> None:
        """Measure anew what the batch norms that move will normalise by.

        At their momentum it still holds half of where it began after 70 steps; the authors take 500 and more.
        """
        moving = self.config.statistics == "moving"
        norms = [*self._norms(self.decoder), *(self._norms(self.encoder) if moving else [])]
        for norm in norms:
            norm.reset_running_stats()
            norm.train()
            norm.momentum = None  # the mean of all batches
        for x in batches:
            self._rebuild(x)
        for norm in norms:
            norm.eval()
            norm.momentum = MOMENTUM

    def _rebuild(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return the stages' maps (N, C_i, h_i, w_i), and what is rebuilt of them from the last stage."""
        *maps, last = self.encoder(x)
        return maps, self.decoder(last)

    def score(self, x: Tensor) -> Scores:
        """Score by the map of distances, the mean over stages."""
        apart = [place_distance(a, b) for a, b in zip(*self._rebuild(x), strict=True)]
        heat = summed(apart, self.config.size, self.config.sigma) / len(apart)
        return Scores(pool(heat, self.config.image_score), heat)
