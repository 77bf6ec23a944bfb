"""Dinomaly (Guo et al., CVPR 2025, 2405.14573): reconstruct a vision transformer's features, and anomalies badly.

The features of a frozen transformer's middle blocks are averaged, passed through a perceptron whose dropout is noise
enough to spoil identity, and reconstructed by blocks of linear attention, which cannot attend to one place alone.
Blocks are compared in loose groups, not one by one, by the cosine of whole maps, and places that are reconstructed well
already hardly count: so what is abnormal is not reconstructed by accident. The map is the mean distance of the groups
at each place.

The schedule is the authors' 10,000 steps of 16 images, in epochs of the 3,629 images of MVTec AD. One departure: the
decoder sees the patches alone, not class and register tokens. The presets take the small DINOv2 rather than the base
one, and fewer pixels, for a CPU. Its weights are in no package: give a file, or download them; no figure of ours was
measured with them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from loligo.config import Pooling
from loligo.methods.configs import STAGES, FeatureConfig
from loligo.methods.contract import ALONE, Group, Method, Phase, Reduce, Step, Turn
from loligo.methods.optimisation import Cosine, stable_adamw
from loligo.nn.cosine import place_distance, summed, whole_distance
from loligo.nn.heat import pool
from loligo.types import Scores

EASY = 0.1
"""Fraction of the gradient that places keep which are reconstructed well; the paper's."""
STABLE_ADAMW = stable_adamw(weight_decay=1e-4, amsgrad=True, eps=1e-10)
CLIP = 0.1
"""Largest norm of the gradient."""
SMALL = {"backbone": "vit_small_patch14_reg4_dinov2", "heads": 6, "learning_rate": 5e-4, "warmup": 20}
"""What the presets for a CPU have in common."""


@dataclass(frozen=True)
class DinomalyConfig(FeatureConfig):
    """Options of Dinomaly; the defaults are the paper's."""

    size: int = 392
    """Height and width of the images that it sees, in pixels."""
    backbone: str = "vit_base_patch14_reg4_dinov2"
    """Name of the vision transformer in timm."""
    layers: tuple[int, ...] = field(default=(2, 3, 4, 5, 6, 7, 8, 9), metadata=STAGES)
    """Blocks whose features are reconstructed, the first is 0; the decoder has as many of its own."""
    image_score: Pooling = "top"
    """How a map becomes an image's score: its maximum, its mean, or the mean of its highest hundredth."""
    groups: int = 2
    """Groups of neighbouring blocks that are compared as one."""
    heads: int = 12
    """Heads of the decoder's attention."""
    dropout: float = 0.2
    """Fraction of the bottleneck's values that is dropped: of those that enter, that are hidden, and that leave."""
    mining: float = 0.9
    """Fraction of the places, the best reconstructed, that hardly counts."""
    mining_steps: int = field(default=1000, metadata={"least": 0})
    """Steps in which that fraction rises from none."""
    sigma: float = 4.0
    """Pixels of the Gaussian that smooths the map."""
    learning_rate: float = 2e-3
    """StableAdamW's rate, falling to a tenth by a cosine."""
    warmup: int = field(default=100, metadata={"least": 0})
    """Steps in which the rate rises from none."""


class LinearAttention(nn.Module):
    """Attention by elu + 1 in place of softmax: linear in the number of patches, and unable to focus on one."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, L, D) to the same shape."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each (N, heads, L, d)
        q, k = F.elu(q) + 1, F.elu(k) + 1
        weights = q @ k.sum(2, dtype=q.dtype)[..., None]  # (N, heads, L, 1)
        y = (q @ (k.mT @ v)) / weights
        out: Tensor = self.out(y.transpose(1, 2).flatten(2))
        return out


class Block(nn.Module):
    """Linear attention and a perceptron, each added to its input, normalised before."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.attention = LinearAttention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, L, D) to the same shape."""
        x = x + self.attention(self.norms[0](x))
        out: Tensor = x + self.mlp(self.norms[1](x))
        return out


class Dinomaly(Method):
    """See the module's docstring."""

    Config = DinomalyConfig
    training_defaults: ClassVar = {"epochs": 44, "batch_size": 16}
    presets: ClassVar = {
        "radiograph": {**SMALL, "size": 168, "image_score": "mean", "mining_steps": 100, "train.epochs": 2},
        "digits": {**SMALL, "size": 98, "mining_steps": 200, "train.epochs": 8, "train.augment": False},
        "tiny": {
            **{"size": 64, "backbone": "vit_tiny_patch16_224", "weights": "random", "layers": (2, 3, 4, 5)},
            **{"heads": 3, "mining_steps": 50, "warmup": 10, "image_score": "max", "sigma": 0.0},
        },
    }
    config: DinomalyConfig
    steps: Tensor

    def __init__(self, config: DinomalyConfig) -> None:
        super().__init__(config)
        self.backbone = config.extractor()
        check(config, self.backbone.channels, self.backbone.strides)
        width = self.backbone.channels[0]
        drop = nn.Dropout(config.dropout)
        inner, outer = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.bottleneck = nn.Sequential(drop, inner, nn.GELU(), drop, outer, drop)
        self.decoder = nn.ModuleList(Block(width, config.heads) for _ in config.layers)
        for part in [*self.bottleneck.modules(), *self.decoder.modules()]:
            if isinstance(part, nn.Linear):
                nn.init.trunc_normal_(part.weight, std=0.01, a=-0.03, b=0.03)
                nn.init.zeros_(part.bias)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def phases(self) -> tuple[Phase, ...]:
        """Train bottleneck and decoder."""
        group = Group(("bottleneck", "decoder"), self.config.learning_rate)
        schedule = Cosine(0.1, by_step=True, warmup=self.config.warmup)
        return (Phase("distance", (Turn("distance", (group,), STABLE_ADAMW, schedule, clip=CLIP),)),)

    def losses(self, x: Tensor, turn: str, step: Step) -> dict[str, Tensor]:
        """Return the mean of 1 - cosine of whole maps of the groups; its gradient is of the places that are hard."""
        pairs = self._groups(self.backbone.teach(x))
        easy = self.config.mining * min(1.0, int(self.steps) / max(1, self.config.mining_steps))
        return {"distance": torch.stack([whole_distance(a, mined(a, b, easy)).mean() for a, b in pairs]).mean()}

    def after_step(self, turn: str, step: Step, reduce: Reduce = ALONE) -> None:
        """Count the steps."""
        self.steps += 1

    def _groups(self, maps: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Return, a group, the mean of the transformer's maps and of their reconstructions, (N, D, h, w) float32."""
        seen = torch.stack([m.float() for m in maps])  # (blocks, N, D, h, w)
        x = self.bottleneck(seen.mean(0).flatten(2).mT)
        found = []
        for block in self.decoder:
            x = block(x)
            found.append(x.float().mT.unflatten(2, seen.shape[3:]))
        return [
            (a.mean(0), b.mean(0))
            for a, b in zip(
                seen.chunk(self.config.groups), torch.stack(found[::-1]).chunk(self.config.groups), strict=True
            )
        ]

    def forward(self, x: Tensor) -> Scores:
        """Score by the map of distances, the mean over groups."""
        distances = [place_distance(a, b) for a, b in self._groups(self.backbone(x))]
        heat = summed(distances, self.config.size, self.config.sigma) / len(distances)
        return Scores(pool(heat, self.config.image_score), heat)


def mined(target: Tensor, found: Tensor, easy: float) -> Tensor:
    """Return ``found`` (N, D, h, w); its gradient is small at the fraction ``easy`` of places nearest to ``target``."""
    still = found.detach()
    distance = place_distance(target, still)
    hard = max(1, round(distance.numel() * (1 - easy)))
    limit = distance.flatten().topk(hard).values[-1]
    return torch.where(distance < limit, still + EASY * (found - still), found)


def check(config: DinomalyConfig, channels: list[int], strides: list[int]) -> None:
    """Raise ValueError where the options do not fit each other or the transformer."""
    if len(set(strides)) > 1 or len(set(channels)) > 1:
        raise ValueError(
            f"dinomaly needs a vision transformer; the stages of {config.backbone} differ in stride or width"
        )
    if channels[0] % config.heads:
        raise ValueError(f"heads is {config.heads}; it must divide the transformer's width, {channels[0]}")
    if not 1 <= config.groups <= len(config.layers) or len(config.layers) % config.groups:
        raise ValueError(f"groups is {config.groups}; it must divide the number of layers, {len(config.layers)}")
