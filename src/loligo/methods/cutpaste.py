"""CutPaste: classify normal and synthetic images, then a Gaussian of features (Li et al., CVPR 2021, 2104.04015).

A ResNet-18 from random weights learns to classify normal images, the same with a rectangle from elsewhere pasted in,
and with a thin, rotated one, a scar. What it must see for that departs from normal in real anomalies too: the image's
score is the Mahalanobis distance of its pooled feature from those of normal images.

Departures and choices:

- Optimiser and schedule are the paper's: SGD, 65,536 steps (its 256 epochs of 256) of 64 images of each class. The
  preset ``radiograph`` starts at ImageNet weights, as the paper does with its second network, in EfficientNet-Lite0, of
  which they come with the package, and takes 500 steps of 16: a 131st of the steps, a 524th of the images. ``digits``
  has random weights, as the paper's first network.
- Features are scaled to unit length, as in the programs that others published; the covariance is shrunk.
- The map. For images whose anatomy differs from place to place the paper trains on whole images and explains them by
  GradCAM; its dense map needs another network, trained on patches, and thousands of passes an image. Ours is GradCAM
  taken to its end: the distance is the mean of what the places of the last feature map add to it, which is shown.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from loligo.config import Pooling
from loligo.data import synthetic
from loligo.data.transforms import stretch
from loligo.methods.configs import STAGES, FeatureConfig
from loligo.methods.contract import ALONE, Group, Method, Phase, Reduce, Step, Turn
from loligo.methods.optimisation import Cosine, sgd
from loligo.nn.cpu_convolutions import by_product
from loligo.nn.density import GaussianDensity
from loligo.nn.heat import enlarge, pool
from loligo.types import Scores


@dataclass(frozen=True)
class CutpasteConfig(FeatureConfig):
    """Options of CutPaste."""

    size: int = 256
    """Height and width of the images that it sees, in pixels."""
    backbone: str = "resnet18"
    """Name of the network in timm."""
    weights: str = "random"
    """What it starts from: random, as in the paper; or auto, download or a file, see the methods on features."""
    layers: tuple[int, ...] = field(default=(-1,), metadata=STAGES)
    """The stage whose features are pooled: the last one."""
    image_score: Literal[Pooling, "distance"] = "distance"  # type: ignore[assignment]  # one more than others have
    """Image score: the distance; or the map's maximum, its mean, or the mean of its highest hundredth."""
    head: tuple[int, ...] = (512, 128)
    """Widths of the layers between the pooled feature and the classes."""
    distance: Literal["mahalanobis", "euclidean"] = "mahalanobis"
    """Distance of a feature from the mean of normal ones: with their covariance, or without."""
    jitter: float = 0.1
    """Fraction by which brightness and contrast of each training image change at most."""
    sigma: float = 4.0
    """Pixels of the Gaussian that smooths the map."""
    learning_rate: float = 0.03
    """SGD's rate, at a momentum of 0.9, falling to none by a cosine."""
    weight_decay: float = 3e-5
    """SGD's weight decay."""


class Cutpaste(Method):
    """See the module's docstring."""

    Config = CutpasteConfig
    least = 2
    training_defaults: ClassVar = {"steps": 65536, "batch_size": 64}
    presets: ClassVar = {
        "radiograph": {
            **{"size": 128, "backbone": "tf_efficientnet_lite0", "weights": "auto", "learning_rate": 0.01},
            **{"train.steps": 500, "train.batch_size": 16},
        },
        "digits": {
            **{"size": 96, "learning_rate": 0.01, "train.epochs": 10},
            **{"train.batch_size": 16, "train.augment": False},
        },
        "tiny": {"size": 64, "backbone": "test_resnet", "head": (32,)},
    }
    kinds: ClassVar[tuple[str, ...]] = ("cutpaste", "cutpaste_scar")
    """Kinds of synthetic anomaly, each a class beside normal."""
    config: CutpasteConfig

    def __init__(self, config: CutpasteConfig) -> None:
        super().__init__(config)
        if len(config.layers) != 1:
            raise ValueError(f"layers {config.layers} must be one: the stage that is pooled")
        self.backbone = config.extractor(frozen=False)
        features, side = self.backbone.channels[-1], self.backbone.sides(config.size)[-1]
        widths = [features, *config.head]
        layers = [_layer(a, b) for a, b in itertools.pairwise(widths)]
        self.head = nn.Sequential(*layers, nn.Linear(widths[-1], 1 + len(self.kinds)))
        self.density = GaussianDensity(features, (side, side), covariance=config.distance == "mahalanobis")

    def phases(self) -> tuple[Phase, ...]:
        """Train everything on one loss."""
        group = Group(("backbone", "head"), self.config.learning_rate)
        optimiser = sgd(momentum=0.9, weight_decay=self.config.weight_decay)
        return (Phase("classification", (Turn("classification", (group,), optimiser, Cosine(0.0)),)),)

    def losses(self, x: Tensor, turn: str, step: Step) -> dict[str, Tensor]:
        """Return the cross-entropy of the classes, and the error rate."""
        x = jittered(x, self.config.jitter)
        images = torch.cat([x, *(synthesised(x, kind) for kind in self.kinds)])
        classes = torch.arange(1 + len(self.kinds), device=x.device).repeat_interleave(len(x))
        with by_product(x.device):
            logits = self.head(self.backbone(images)[-1].mean((2, 3))).float()
        return {
            "classification": F.cross_entropy(logits, classes),
            "error_rate": (logits.argmax(1) != classes).float().mean(),
        }

    def fit(self, batches: Iterable[Tensor], reduce: Reduce = ALONE) -> None:
        """Estimate the Gaussian."""
        backbone = self.backbone.ready(self.density.mean.device)
        self.density.fit((backbone(x)[-1] for x in reduce.shard(batches)), reduce.sum)

    def forward(self, x: Tensor) -> Scores:
        """Score by the squared distance a feature, or by the map: what each place adds to it."""
        image, parts = self.density(self.backbone(x)[-1])
        heat = enlarge(parts, self.config.size, self.config.sigma)
        return Scores(image if self.config.image_score == "distance" else pool(heat, self.config.image_score), heat)


def _layer(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU(inplace=True))


def jittered(x: Tensor, amount: float) -> Tensor:
    """Change brightness and contrast of each image of x (N, C, H, W) in [0, 1] by up to ``amount``, a fraction of 1."""
    brightness, contrast = (1 + amount * (2 * torch.rand(2, len(x), 1, 1, 1) - 1)).to(x.device)
    changed: Tensor = stretch(x, contrast) * brightness
    return changed.clamp(0, 1)


def synthesised(x: Tensor, kind: str) -> Tensor:
    """Return images (N, C, H, W) in [0, 1] with a synthetic anomaly inserted in each, sampled from torch's state."""
    rng = np.random.default_rng(int(torch.randint(2**62, ())))
    images = [synthetic.insert(image, kind, rng)[0] for image in x.float().cpu().numpy()]
    return torch.from_numpy(np.stack(images)).to(x).contiguous(memory_format=torch.channels_last)
