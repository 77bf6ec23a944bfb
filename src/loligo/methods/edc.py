"""EDC, Encoder-Decoder Contrast (Guo et al., IEEE TMI 2024, doi 10.1109/TMI.2023.3327720).

As in reverse distillation, a decoder reconstructs the stages of an ImageNet-pretrained encoder from its last one; but
the encoder learns too, at a fiftieth of the decoder's rate, so that it turns to the medical domain. Stopping the
gradient at the features that are to be reconstructed, as in contrastive learning, keeps both from collapsing to a
constant, and so does the cosine of whole maps rather than of places. The map is the mean distance of the stages at each
place.

The encoder's batch norms keep their pretrained statistics, or move slowly (the paper decides by data set). The schedule
is the authors' 1,000 steps of 32 images, in epochs of the 1,000 normals of their first set. Departures:
EfficientNet-Lite0 rather than ResNet-50, a smaller decoder (bilinear doubling, one residual block a stage). What the
decoder normalises by is measured once more at the end, as trainings may be shorter than theirs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from loligo.methods.configs import FeatureConfig
from loligo.methods.contract import ALONE, Group, Method, Phase, Reduce, Step, Turn
from loligo.methods.optimisation import adamw
from loligo.nn.cosine import place_distance, summed, whole_distance
from loligo.nn.heat import pool
from loligo.nn.mirror import Mirror
from loligo.types import Scores

MOMENTUM = 0.01
"""Of the batch norms whose statistics move, in encoder and decoder; the paper's."""


@dataclass(frozen=True)
class EdcConfig(FeatureConfig):
    """Options of EDC."""

    size: int = 256
    """Height and width of the images that it sees, in pixels."""
    width: int = 64
    """Least channels of a stage of the decoder; the deepest encoder's stages have more of their own."""
    statistics: Literal["pretrained", "moving"] = "pretrained"
    """What the encoder's batch norms normalise by in training: what they were trained with, or the batch."""
    sigma: float = 0.0
    """Pixels of the Gaussian that smooths the map; the paper has none."""
    learning_rate: float = 5e-4
    """AdamW's rate of the decoder."""
    encoder_rate: float = 1e-5
    """AdamW's rate of the encoder."""
    weight_decay: float = 1e-4
    """AdamW's weight decay."""
    clip: float = 1.0
    """Largest norm of the gradient."""


class Edc(Method):
    """See the module's docstring."""

    Config = EdcConfig
    training_defaults: ClassVar = {"epochs": 32, "batch_size": 32}
    presets: ClassVar = {
        "radiograph": {"size": 160, "image_score": "mean", "sigma": 4.0, "train.epochs": 6, "train.batch_size": 16},
        "digits": {"size": 96, "sigma": 4.0, "train.epochs": 8, "train.batch_size": 16, "train.augment": False},
        "tiny": {"size": 64, "width": 24, "learning_rate": 3e-3, "sigma": 4.0},
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
        for norm in self._norms(self):
            norm.momentum = MOMENTUM

    @staticmethod
    def _norms(part: nn.Module) -> list[nn.BatchNorm2d]:
        return [norm for norm in part.modules() if isinstance(norm, nn.BatchNorm2d)]

    def phases(self) -> tuple[Phase, ...]:
        """Train encoder and decoder together, each at its own rate."""
        config = self.config
        groups = (Group(("encoder",), config.encoder_rate), Group(("decoder",), config.learning_rate))
        turn = Turn("distance", groups, adamw(weight_decay=config.weight_decay), clip=config.clip)
        return (Phase("distance", (turn,), frozen=("encoder",) if config.statistics == "pretrained" else ()),)

    def losses(self, x: Tensor, turn: str, step: Step) -> dict[str, Tensor]:
        """Return the mean of 1 - cosine of whole maps, summed over stages; features do not move towards it."""
        maps, found = self._reconstruct(x)
        distances = [whole_distance(a.detach(), b).mean() for a, b in zip(maps, found, strict=True)]
        return {"distance": torch.stack(distances).sum()}

    def fit(self, batches: Iterable[Tensor], reduce: Reduce = ALONE) -> None:
        """Measure anew what the batch norms that move will normalise by: alike in each process.

        At their momentum it still holds half of where it began after 70 steps; the authors take 500 and more.
        """
        moving = self.config.statistics == "moving"
        norms = [*self._norms(self.decoder), *(self._norms(self.encoder) if moving else [])]
        for norm in norms:
            norm.reset_running_stats()
            norm.train()
            norm.momentum = None  # the mean of all batches
        for x in batches:
            self._reconstruct(x)
        for norm in norms:
            norm.eval()
            norm.momentum = MOMENTUM

    def _reconstruct(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return the stages' maps (N, C_i, h_i, w_i), and their reconstructions from the last stage."""
        *maps, last = self.encoder(x)
        return maps, self.decoder(last)

    def forward(self, x: Tensor) -> Scores:
        """Score by the map of distances, the mean over stages."""
        distances = [place_distance(a, b) for a, b in zip(*self._reconstruct(x), strict=True)]
        heat = summed(distances, self.config.size, self.config.sigma) / len(distances)
        return Scores(pool(heat, self.config.image_score), heat)
