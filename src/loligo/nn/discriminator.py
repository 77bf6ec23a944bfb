"""SQUID's discriminator, two ways to normalise its features when one image is scored, and ensembles over epochs."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from loligo.config import Statistics
from loligo.nn import adversarial

WIDTHS = (16, 32, 64, 128, 128)
"""Channels of SQUID's discriminator."""
SHIFT = 0.025
"""Part of a side by which an ensemble sees images shifted; augmentation shifts by up to twice as much."""


class FeatureNorm(nn.BatchNorm2d):
    """Batch norm in training; in eval mode by running statistics or by those of the ``image`` itself.

    The reference code of SQUID scores single images with its discriminator in training mode, so the statistics are
    the image's own, as in instance norm. That decides its accuracy, and makes a score independent of its batch.
    """

    def __init__(self, channels: int, statistics: Statistics) -> None:
        super().__init__(channels)
        self.statistics = statistics

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (N, C, H, W)."""
        if self.training or self.statistics == "running":
            return super().forward(input)
        n, c, h, w = input.shape  # pixels as rows of channels, as in memory: half of F.instance_norm's time
        x = input.permute(0, 2, 3, 1).reshape(n, h * w, c).float()
        x = x - x.mean(1, keepdim=True)
        scale = self.weight * torch.rsqrt(x.square().mean(1, keepdim=True) + self.eps)
        return torch.addcmul(self.bias, x, scale).to(input.dtype).reshape(n, h, w, c).permute(0, 3, 1, 2)


class Logit(nn.Linear):
    """A linear layer to one logit, in float32 also under autocast: in bfloat16 scores of 10 would be 1/16 apart."""

    def forward(self, input: Tensor) -> Tensor:
        """Map (N, D) to (N,) float32."""
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.float()).squeeze(1)


class Discriminator(nn.Module):
    """Stride-2 5x5 convolutions with LeakyReLU 0.2, batch norm but for the first, and a linear layer to one logit."""

    def __init__(
        self,
        size: int,
        channels: int,
        widths: Sequence[int] = WIDTHS,
        statistics: Statistics = "image",
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i, (inputs, outputs) in enumerate(zip((channels, *widths), widths, strict=False)):
            layers.append(nn.Conv2d(inputs, outputs, 5, 2, 2))
            layers += [FeatureNorm(outputs, statistics)] if i else []
            layers.append(nn.LeakyReLU(0.2, inplace=True))
            size = (size + 1) // 2
        self.features = nn.Sequential(*layers)
        self.logit = Logit(widths[-1] * size**2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N,) logits: higher for what looks real."""
        logits: Tensor = self.logit(self.features(x).flatten(1))
        return logits


def shifted(x: Tensor, way: int) -> Tensor:
    """Shift images (N, C, H, W) in [0, 1] by `SHIFT` along a diagonal, one of four ways; what they leave is black."""
    reach = round(SHIFT * x.shape[3])
    down, right = 2 * reach * (way // 2 % 2), 2 * reach * (way % 2)
    part = F.pad(x, [reach] * 4)[:, :, down : down + x.shape[2], right : right + x.shape[3]]
    return part.contiguous(memory_format=torch.channels_last)


class Discriminators(nn.ModuleList):
    """Discriminators trained independently on the same images, from initial weights of their own.

    After generative multi-adversarial networks (Durugkar, Gemp, Mahadevan, ICLR 2017, 1611.01673), with mean losses.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the logits of each (M, N)."""
        return torch.stack([discriminator(x) for discriminator in self])


class SideBySide(nn.Module):
    """Several discriminators as one network of grouped convolutions: the same logits in as many steps as one's.

    With one image, the number of steps is what takes time.
    """

    def __init__(self, members: Discriminators) -> None:
        super().__init__()
        networks = [m for m in members if isinstance(m, Discriminator)]
        layers = zip(*(network.features for network in networks), strict=True)
        self.features = nn.Sequential(*(grouped(parts, i > 0) for i, parts in enumerate(layers)))
        self.logits = nn.ModuleList(network.logit for network in networks)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the logits of each (M, N)."""
        parts = self.features(x).chunk(len(self.logits), 1)
        return torch.stack([logit(part.flatten(1)) for logit, part in zip(self.logits, parts, strict=True)])


def grouped(layers: Sequence[nn.Module], separate: bool) -> nn.Module:
    """Return a layer that does what each of ``layers`` does, on ``separate`` channels or on the same ones."""
    layer, states = copy.deepcopy(layers[0]), [part.state_dict() for part in layers]
    for name, tensor in states[0].items():
        if tensor.ndim:
            values = torch.cat([state[name] for state in states])
            setattr(layer, name, nn.Parameter(values, False) if name in ("weight", "bias") else values)
    if isinstance(layer, nn.Conv2d) and separate:
        layer.groups = len(layers)
    return layer


class Ensemble(nn.Module):
    """Discriminators in training and snapshots of them, evenly spaced, whose mean logit varies less than one's own.

    A logit also depends on where the strides fall, and in training nearly every image has a black edge where
    augmentation shifted it: each snapshot of several sees the image shifted another way.
    """

    kept: Tensor
    copied: Tensor

    def __init__(
        self,
        snapshots: int,
        size: int,
        channels: int,
        statistics: Statistics,
        widths: Sequence[int] = WIDTHS,
        discriminators: int = 1,
    ) -> None:
        """Make them for images (N, channels, size, size) in [0, 1]."""
        super().__init__()
        self.current, *past = (
            Discriminators(Discriminator(size, channels, widths, statistics) for _ in range(discriminators))
            for _ in range(snapshots + 1)
        )
        self.past = nn.ModuleList(past).requires_grad_(False)
        self.register_buffer("kept", torch.zeros((), dtype=torch.long))
        self.register_buffer("copied", torch.zeros((), dtype=torch.bool))  # by the last epoch
        self.members: list[int] | None = None  # those of ``past`` that count, and -1 for those in training; once frozen

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (M, N), the logits of those in training."""
        logits: Tensor = self.current(x)
        return logits

    @staticmethod
    def check(snapshots: int, discriminators: int, size: int, widths: Sequence[int] = WIDTHS) -> None:
        """Raise ValueError where there would be no discriminator, or nothing to normalise in one."""
        for name, value in (("snapshots", snapshots), ("discriminators", discriminators)):
            if value < 1:
                raise ValueError(f"{name} is {value}; the score needs at least 1 discriminator")
        if not widths:
            raise ValueError("discriminator_widths is empty; name the channels of one layer or more")
        if size <= 1 << len(widths):
            raise ValueError(
                f"size {size} leaves the discriminator a single pixel to normalise; its {len(widths)} layers need more "
                f"than {1 << len(widths)}"
            )

    def pack(self, dtype: torch.dtype) -> None:
        """Let the discriminators of each snapshot compute as one network."""
        for i, members in enumerate(self.past):
            if isinstance(members, Discriminators) and len(members) > 1:
                self.past[i] = SideBySide(members)

    def freeze(self) -> None:
        """Make constant which of them count."""
        self.members = self._members()

    def _members(self) -> list[int]:
        return [*range(int(self.kept)), *([] if self.copied else [-1])]

    @torch.no_grad()
    def keep(self, progress: float) -> None:
        """Copy those in training where a snapshot is due, by what part of the training is done, in (0, 1]."""
        due = int(self.kept) < math.floor(progress * len(self.past) + 1e-6)
        self.copied.fill_(due)
        if due:
            self.past[int(self.kept)].load_state_dict(self.current.state_dict())
            self.kept += 1

    def mean(self, *images: Tensor) -> Tensor:
        """Map one or more (N, C, H, W) to (N,): mean logit of snapshots and, if not among them, those in training."""
        indices = self._members() if self.members is None else self.members
        views = [torch.cat(images)]
        if len(indices) > 1:
            views = [shifted(views[0], way) for way in range(4)]
        networks = [self.current if i < 0 else self.past[i] for i in indices]
        logits = torch.stack([network(view) for network, view in zip(networks, itertools.cycle(views))])
        return logits.view(-1, len(images), images[0].shape[0]).mean((0, 1))

    def generator_loss(self, fake: Tensor) -> Tensor:
        """Return the cross-entropy of calling reconstructions (N, C, H, W) real."""
        return adversarial.generator_loss(self(fake))

    def loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the cross-entropy of telling real images from reconstructions, both (N, C, H, W)."""
        return adversarial.discriminator_loss(self(real), self(fake))
