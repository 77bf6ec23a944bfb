"""SimSID: simple space-aware memory matrices for in-painting and detecting anomalies (Xiang et al., TPAMI 2024).

Paper: arXiv 2403.08689. Patches of a radiograph are encoded separately; at three resolutions each block of features is
replaced by what a learnt memory of normal patterns at that very place holds for it, at the coarsest after in-painting
from its neighbours: a normal image is reconstructed, an abnormal one is not. A teacher decoder without memory guides
the student by distillation. A discriminator trained to tell reconstructions from real images gives the score. Against
SQUID: learnt matrices instead of queues, at several levels on finer and finer grids; no masked shortcut; neighbours
outside the image masked; images in [-1, 1].

Departures: the paper's text leaves the convolutions open. A unit here has two 3x3 convolutions where SQUID's has three;
a decoder convolves before it doubles height and width, and adds the encoder's features through a 1x1 convolution where
SQUID joins them as channels: less than half the work. The generator's turn comes first and the discriminator's takes
its images, so that one forward pass serves both. Discriminators see images in [0, 1], as SQUID's do, and not in the
[-1, 1] of the generator: black is then what pads their convolutions, and a darker image a multiple of a brighter one,
which their norms take out. In [-1, 1] an image of 0.8 times the brightness was called abnormal three times as often.

The preset ``ensemble`` is ours. Its score is the mean logit of several discriminators (``discriminators``) at several
epochs (``snapshots``), since that of one depends on its initial weights and swings widely between epochs, on both the
image and its reconstruction (``score: pair``): what a discriminator takes to be real is what normal images have in
common, and a reconstruction has lost part of what departs from it. Contrast and gamma of training images are augmented
(``train.intensity_augmentation``), since a logit otherwise depends on exposure.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from loligo.config import Shrinkage, Statistics
from loligo.methods.configs import MethodConfig
from loligo.methods.contract import ALONE, Group, Method, Phase, Reduce, Step, Turn
from loligo.methods.optimisation import Cosine, adam
from loligo.nn.conv import ConvNorm, upsample
from loligo.nn.discriminator import Ensemble
from loligo.nn.inpaint import Inpaint, NeighbourAttention, masked_shortcut
from loligo.nn.losses import mean_square
from loligo.nn.memory import MemoryMatrix, MemoryQueue, check_k
from loligo.nn.patches import cut, stitch
from loligo.nn.places import Places
from loligo.types import Inspection, Scores


@dataclass(frozen=True)
class SimsidConfig(MethodConfig):
    """Options of SimSID; the defaults are the paper's for ZhangLab."""

    widths: tuple[int, ...] = (32, 64, 128, 256, 256)
    """Channels of the encoder at each resolution, that of the image first; the decoder mirrors them."""
    grid: int = 2
    """Patches a side, and blocks a side of the coarsest memory; the grid of each finer memory is twice as fine."""
    memory: Literal["matrix", "queue", "none"] = "matrix"
    """Learnt slots, recent features as in SQUID, or the feature itself."""
    memory_levels: int = field(default=3, metadata={"least": 0})
    """Levels that read a memory, coarsest first; 1 is without hierarchy."""
    slots: int = 200
    """Slots of each place's memory."""
    space_aware: bool = True
    """One memory a place, or one a level for all places."""
    shrinkage: Shrinkage = "gumbel"
    """How similarities become addressing weights."""
    k: int = 5
    """Slots that Gumbel shrinkage keeps."""
    inpainting: bool = True
    """Attend to the features read for the 8 neighbours, at the coarsest level."""
    shortcut_ratio: float = 1.0
    """Fraction of places at which training lets the in-painted feature through; below 1 is SQUID's masked shortcut."""
    skips: int = field(default=2, metadata={"least": 0})
    """Decoder levels that take the encoder's features beside their own, before their memory is read."""
    distillation: bool = True
    """Train a teacher decoder and draw the student's features towards its own."""
    discriminator_widths: tuple[int, ...] = (16, 32, 64, 128, 256)
    """Channels of the discriminator's layers."""
    discriminator_statistics: Statistics = "image"
    """Statistics by which the discriminator normalises when it scores: the image's own or the running ones."""
    discriminators: int = 1
    """Discriminators trained independently; the mean logit of several depends less on the seed."""
    snapshots: int = 1
    """Epochs, evenly spaced, whose discriminators are kept and their logits averaged, each of the image shifted another
    way; 1 is the last alone, of the image as it is."""
    score: Literal["discriminator", "pair", "reconstruction", "local"] = "discriminator"
    """Image score: minus the mean logit of the reconstruction; or of image and reconstruction; the mean squared error;
    or, for anomalies smaller than a patch, the largest structural dissimilarity of any patch-sized window, in
    deviations over normals."""
    reconstruction_weight: float = 10.0
    """Weight of the mean squared error of the student's reconstruction."""
    teacher_weight: float = 0.01
    """Weight of the mean squared error of the teacher's reconstruction."""
    distillation_weight: float = 0.001
    """Weight of the difference between the student's features and the teacher's."""
    adversarial_weight: float = 0.005
    """Weight of the adversarial losses of generator and discriminator."""
    learning_rate: float = 2e-4
    """Adam's rate for generator and discriminator; the generator's falls to a tenth by a cosine."""
    discriminator_final_rate: float = 1.0
    """Fraction of its rate at which the discriminator's ends by a cosine; 1 keeps it constant. In a training of few
    epochs it then outruns the generator, whose rate falls to a tenth."""


DIGITS = {
    **{"size": 48, "widths": (16, 32, 64), "grid": 3, "slots": 1600, "skips": 0, "memory_levels": 1},
    **{"learning_rate": 1e-3, "score": "local", "snapshots": 3, "discriminator_final_rate": 0.1},
    "train.augment": False,
}
"""For DigitAnatomy: anomalies fill a patch, so that nothing may pass the memory, and the score is local."""


class Pair(nn.Module):
    """Two 3x3 ConvNorms, the second around a residual."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.first = ConvNorm(inputs, outputs, stride=stride)
        self.second = ConvNorm(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, D, H / stride, W / stride)."""
        x = self.first(x)
        out: Tensor = self.second(x, residual=x)
        return out


class Encoder(nn.Module):
    """Encode the patches of an image separately; return feature maps of whole images."""

    def __init__(self, config: SimsidConfig) -> None:
        super().__init__()
        self.grid, self.skips = config.grid, config.skips
        self.stem = Pair(config.channels, config.widths[0])
        self.downs = nn.ModuleList(Pair(a, b, stride=2) for a, b in itertools.pairwise(config.widths))

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Map (N, C, H, W) to the bottleneck (N, D, h, w) and the skips, coarsest first."""
        x = self.stem(cut(x, self.grid).contiguous(memory_format=torch.channels_last))
        taken = []
        for down in self.downs:
            taken.append(x)
            x = down(x)
        return stitch(x, self.grid), [stitch(t, self.grid) for t in taken[::-1][: self.skips]]


class SpaceMemory(nn.Module):
    """Replace each block of a feature map by what the memory of its place holds for it."""

    def __init__(self, channels: int, side: int, grid: int, inpainting: bool, config: SimsidConfig) -> None:
        super().__init__()
        self.grid = grid
        dim, positions = channels // 4 * (side // grid) ** 2, grid**2 if config.space_aware else 1
        kind = {"queue": MemoryQueue, "matrix": MemoryMatrix, "none": None}[config.memory]
        memory = kind and kind(config.slots, dim, positions, config.shrinkage, config.k, strict=False)
        attention = NeighbourAttention(dim, grid, mask_outside=True) if inpainting else None
        self.inpaint = Inpaint(channels, grid, memory, attention)
        self.shortcut_ratio = config.shortcut_ratio

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map (N, C, H, W) to the same shape; return beside it the blocks' features before in-painting, (N, L, D)."""
        inpainted, before, _ = self.inpaint(cut(x, self.grid))
        return masked_shortcut(stitch(inpainted, self.grid), x, self.shortcut_ratio, self.training), before

    def inspect(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return features of blocks before and after in-painting, (N, L, D), and the slots (L, m, D)."""
        _, before, after = self.inpaint(cut(x, self.grid))
        memory = self.inpaint.memory
        return before, after, None if memory is None else memory.slots.expand(self.grid**2, -1, -1)

    def write(self, features: Tensor) -> None:
        """Write features (N, L, D) to the memory, where that is a queue."""
        if isinstance(self.inpaint.memory, MemoryQueue):
            self.inpaint.memory.write(features)


class Decoder(nn.Module):
    """Decode the bottleneck to an image; the student reads memories at its first levels."""

    def __init__(self, config: SimsidConfig, memory_levels: int) -> None:
        super().__init__()
        widths = config.widths[::-1]
        pairs = list(itertools.pairwise(widths))
        self.narrow = nn.ModuleList(ConvNorm(a, b) for a, b in pairs)
        self.skips = nn.ModuleList(nn.Conv2d(b, b, 1) for _, b in pairs[: config.skips])
        self.units = nn.ModuleList(ConvNorm(b, b) for _, b in pairs)
        sides = [config.size >> len(pairs) - i for i in range(memory_levels)]
        self.memories = nn.ModuleList(
            SpaceMemory(widths[i], side, config.grid << i, config.inpainting and i == 0, config)
            for i, side in enumerate(sides)
        )
        self.out = nn.Conv2d(widths[-1], config.channels, 1)

    def forward(self, x: Tensor, skips: list[Tensor]) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Map (N, D, h, w) to the image (N, C, H, W) in [-1, 1], every level's features, and what memories were asked.

        That is, for each memory, its blocks' features (N, L, D) before in-painting.
        """
        features, asked = [], []
        for i, (narrow, unit) in enumerate(zip(self.narrow, self.units, strict=True)):
            if i < len(self.memories):
                x, before = self.memories[i](x)
                asked.append(before)
            x = upsample(narrow(x))
            x = x + self.skips[i](skips[i]) if i < len(self.skips) else x
            x = unit(x, residual=x)
            features.append(x)
        return self.out(x).float().tanh(), features, asked


class Simsid(Method):
    """See the module's docstring."""

    Config = SimsidConfig
    training_defaults: ClassVar = {"epochs": 1000}
    presets: ClassVar = {
        "ensemble": {
            **{"discriminators": 4, "snapshots": 3, "score": "pair", "discriminator_final_rate": 0.1},
            **{"train.epochs": 60, "train.intensity_augmentation": True},
        },
        "digits": {**DIGITS, "train.epochs": 8},
        "digits_full": {**DIGITS, "train.epochs": 60},
        "tiny": {
            **{"size": 64, "widths": (4, 8, 16), "slots": 16, "memory_levels": 2},
            **{"snapshots": 4, "learning_rate": 5e-3},
        },
    }
    config: SimsidConfig

    def __init__(self, config: SimsidConfig) -> None:
        super().__init__(config)
        check(config)
        c = config
        self.encoder = Encoder(c)
        self.student = Decoder(c, c.memory_levels)
        self.teacher = Decoder(c, 0) if c.distillation else None
        discriminator = (c.size, c.channels, c.discriminator_statistics, c.discriminator_widths)
        self.ensemble = Ensemble(c.snapshots, *discriminator, discriminators=c.discriminators)
        self.places = Places(c.size, c.size // c.grid)

    def phases(self) -> tuple[Phase, ...]:
        """Train adversarially, the generator first, so that both share its forward pass."""
        rate, betas = self.config.learning_rate, (0.5, 0.999)
        modules = ("encoder", "student", *(["teacher"] if self.teacher else []))
        generator = Turn("generator", (Group(modules, rate),), adam(betas, 1e-5), Cosine(0.1))
        final = Cosine(self.config.discriminator_final_rate)
        discriminator = Turn("discriminator", (Group(("ensemble.current",), rate),), adam(betas), final)
        return (Phase("adversarial", (generator, discriminator)),)

    def losses(self, x: Tensor, turn: str, step: Step) -> dict[str, Tensor]:
        """Return the losses of a turn; the generator's leaves its images for the discriminator's of the same step."""
        if turn == "generator":
            return self._generator_losses(2 * x - 1, step)
        if "fake" not in step:
            with torch.no_grad():
                step["fake"] = self.reconstruct(x)
        return {"discriminator": self.config.adversarial_weight * self.ensemble.loss(x, step["fake"])}

    def _generator_losses(self, x: Tensor, step: Step) -> dict[str, Tensor]:
        c = self.config
        z, skips = self.encoder(x)
        image, student, step["asked"] = self.student(z, skips)
        fake = image / 2 + 0.5
        step["fake"] = fake.detach()
        losses = {"reconstruction": c.reconstruction_weight * F.mse_loss(image, x)}
        losses["adversarial"] = c.adversarial_weight * self.ensemble.generator_loss(fake)
        if self.teacher:
            guide, teacher, _ = self.teacher(z.detach(), [skip.detach() for skip in skips])
            losses["teacher"] = c.teacher_weight * F.mse_loss(guide, x)
            distances = [mean_square(a - b) for a, b in zip(student, teacher, strict=True)]
            losses["distillation"] = c.distillation_weight * torch.stack(distances).sum()
        return {"generator": torch.stack(list(losses.values())).sum(), **losses}

    def after_step(self, turn: str, step: Step, reduce: Reduce = ALONE) -> None:
        """Write the batch's features to queues once the generator has moved."""
        if turn == "generator" and self.config.memory == "queue":
            for memory, features in zip(self.student.memories, step["asked"], strict=True):
                memory.write(reduce.gather(features))  # type: ignore[operator]

    def after_epoch(self, progress: float) -> None:
        """Keep a snapshot of the discriminators, where one is due."""
        self.ensemble.keep(progress)

    def reconstruct(self, x: Tensor) -> Tensor:
        """Reconstruct images (N, C, H, W) in [0, 1]."""
        image: Tensor = self.student(*self.encoder(2 * x - 1))[0]
        return image / 2 + 0.5

    def fit(self, batches: Iterable[Tensor], reduce: Reduce = ALONE) -> None:
        """Measure mean and deviation of the error at each place of the training images, where the score asks for it."""
        if self.config.score == "local":
            self.places.fit(self.places(x, self.reconstruct(x)) for x in batches)

    def forward(self, x: Tensor) -> Scores:
        """Score by the discriminators' logits, or as the option says; map the squared error."""
        fake = self.reconstruct(x)
        if self.config.score == "local":
            return self.places.score(x, fake)
        error = (x - fake).square().mean(1, keepdim=True)
        if self.config.score == "reconstruction":
            return Scores(error.mean((1, 2, 3)), error, fake)
        images = (x, fake) if self.config.score == "pair" else (fake,)
        return Scores(-self.ensemble.mean(*images), error, fake)

    def inspect(self, x: Tensor) -> Inspection:
        """Return the images of teacher and student, and the patches' features beside the coarsest memory."""
        z, skips = self.encoder(2 * x - 1)
        images = {"teacher": self.teacher(z, skips)[0] / 2 + 0.5} if self.teacher else {}
        images["student"] = self.student(z, skips)[0] / 2 + 0.5
        memory = self.student.memories[0] if self.student.memories else None
        return Inspection(images, *memory.inspect(z)) if isinstance(memory, SpaceMemory) else Inspection(images)


def check(config: SimsidConfig) -> None:
    """Raise ValueError where the sizes do not fit each other."""
    levels = len(config.widths) - 1
    step = config.grid << levels
    if levels < 1 or config.size % step:
        raise ValueError(f"size {config.size} must be a multiple of grid * 2**levels = {step}, and widths two or more")
    if not 0 <= config.memory_levels <= levels:
        raise ValueError(f"memory_levels is {config.memory_levels}; it may be 0 to levels = {levels}")
    if not 0 <= config.skips <= levels:
        raise ValueError(f"skips is {config.skips}; 0 to levels = {levels} may take the encoder's features")
    Ensemble.check(config.snapshots, config.discriminators, config.size, config.discriminator_widths)
    check_k(config.shrinkage, config.k, strict=False)
