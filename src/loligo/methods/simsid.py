"""SimSID: simple space-aware memory matrices for in-painting and detecting anomalies (Xiang et al., TPAMI 2024).

Paper: arXiv 2403.08689. Patches of a radiograph are encoded apart; at three resolutions each block of features is
replaced by what a learnt memory of normal patterns at that very place says of it, at the coarsest after in-painting
from its neighbours: a normal image is rebuilt, an abnormal one is not. A teacher decoder without memory guides the
student by distillation. A discriminator that learnt to tell rebuilt images from real ones gives the score. Against
SQUID: learnt matrices instead of queues, at several levels on finer and finer grids; no masked shortcut; neighbours
outside the image masked; images in [-1, 1].

Departures: the paper's text leaves the convolutions open. A unit here has two 3x3 convolutions where SQUID's has three;
a decoder convolves before it doubles height and width, and adds the encoder's features through a 1x1 convolution where
SQUID joins them as channels: less than half the work. The generator's turn comes first and the discriminator's takes
its images, so that one forward pass serves both. The score is the mean logit of several discriminators
(``discriminators``) of some epochs (``snapshots``), since that of one hangs on the weights it began with and swings
widely between epochs; and they judge both the image and the rebuilt one, where the paper has them judge the latter
(``score: discriminator``, preset ``paper``): what a discriminator takes to be real is what normal images have in
common, and a rebuilt image has lost part of what departs from it. Contrast and gamma of training images are changed at
random (``train.intensity_augmentation``), since a logit otherwise hangs on how an image was exposed; for the same reason discriminators
see images in [0, 1], as SQUID's do: black is then what pads their convolutions, and a darker image a multiple of a
brighter one, which their norms take out. In [-1, 1] an image of 0.8 times the brightness was called abnormal thrice as
often. The preset ``paper`` has this, too.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from loligo.methods.configs import MethodConfig
from loligo.methods.contract import Method, Phase, Turn
from loligo.nn.conv import ConvNorm, upsample
from loligo.nn.discriminator import Judges, Statistics
from loligo.nn.inpaint import Inpaint, NeighbourAttention, masked_shortcut
from loligo.nn.losses import mean_square
from loligo.nn.memory import MemoryMatrix, MemoryQueue, Shrinkage, check_k
from loligo.nn.patches import cut, stitch
from loligo.nn.places import Places
from loligo.types import Inspection, Scores


@dataclass(frozen=True)
class SimsidConfig(MethodConfig):
    """Options of SimSID; the defaults are those for ZhangLab."""

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
    """Share of places at which training lets the in-painted feature through; 1 is without SQUID's masked shortcut."""
    skips: int = field(default=2, metadata={"least": 0})
    """Decoder levels that take the encoder's features beside their own, before their memory is read."""
    distillation: bool = True
    """Train a teacher decoder and draw the student's features towards its own."""
    discriminator_widths: tuple[int, ...] = (16, 32, 64, 128, 256)
    """Channels of the discriminator's layers."""
    discriminator_statistics: Statistics = "image"
    """Statistics by which the discriminator normalises when it scores: the image's own or the running ones."""
    discriminators: int = 4
    """Discriminators that learn apart, beginning at weights of their own; their mean logit hangs less on the seed."""
    snapshots: int = 3
    """Discriminators of so many epochs, evenly spaced, whose logits are averaged, each of the image moved a little
    another way; 1 is the last alone, of the image as it is."""
    score: Literal["pair", "discriminator", "reconstruction", "local"] = "pair"
    """Image score: minus the mean logit of image and rebuilt image; or of the rebuilt one alone, as in the paper; the
    mean squared error; or, for anomalies smaller than a patch, the least structural similarity of any patch-sized
    window, as unusual as it is there."""
    reconstruction_weight: float = 10.0
    """Weight of the mean squared error of the rebuilt image, by the student."""
    teacher_weight: float = 0.01
    """Weight of the mean squared error of the teacher's image."""
    distillation_weight: float = 0.001
    """Weight of the difference between the student's features and the teacher's."""
    adversarial_weight: float = 0.005
    """Weight of what the discriminator says of rebuilt images, in its own turn too."""
    learning_rate: float = 2e-4
    """Adam's rate for generator and discriminator; the generator's falls to a tenth by a cosine."""
    discriminator_final_rate: float = 0.1
    """Share of its rate that the discriminator's ends at by a cosine, as the generator's does; 1 keeps it constant,
    which in a training of few epochs lets it outrun the generator."""


DIGITS = {
    **{"size": 48, "widths": (16, 32, 64), "grid": 3, "slots": 1600, "skips": 0, "memory_levels": 1},
    **{"learning_rate": 1e-3, "score": "local", "discriminators": 1, "train.augment": False},
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
    """Encode the patches of an image apart; return feature maps of whole images."""

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
    """Replace each block of a feature map by what the memory of its place says of it."""

    def __init__(self, channels: int, side: int, grid: int, inpainting: bool, config: SimsidConfig) -> None:
        super().__init__()
        self.grid = grid
        dim, positions = channels // 4 * (side // grid) ** 2, grid**2 if config.space_aware else 1
        kind = {"queue": MemoryQueue, "matrix": MemoryMatrix, "none": None}[config.memory]
        memory = kind and kind(config.slots, dim, positions, config.shrinkage, config.k, strict=False)
        attention = NeighbourAttention(dim, grid, mask_outside=True) if inpainting else None
        self.inpaint = Inpaint(channels, grid, memory, attention)
        self.shortcut_ratio = config.shortcut_ratio
        self.seen: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        inpainted, before, _ = self.inpaint(cut(x, self.grid))
        self.seen = before if isinstance(self.inpaint.memory, MemoryQueue) and self.training else None
        return masked_shortcut(stitch(inpainted, self.grid), x, self.shortcut_ratio, self.training)

    def look(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return features of blocks before and after in-painting, (N, L, D), and the slots (L, m, D)."""
        _, before, after = self.inpaint(cut(x, self.grid))
        memory = self.inpaint.memory
        return before, after, None if memory is None else memory.slots.expand(self.grid**2, -1, -1)

    def write(self) -> None:
        """Write the batch that was seen last to the memory, where that is a queue."""
        if isinstance(self.inpaint.memory, MemoryQueue) and self.seen is not None:
            self.inpaint.memory.write(self.seen)
        self.seen = None


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

    def forward(self, x: Tensor, skips: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Map (N, D, h, w) to the image (N, C, H, W) in [-1, 1] and the features of every level."""
        features = []
        for i, (narrow, unit) in enumerate(zip(self.narrow, self.units, strict=True)):
            x = self.memories[i](x) if i < len(self.memories) else x
            x = upsample(narrow(x))
            x = x + self.skips[i](skips[i]) if i < len(self.skips) else x
            x = unit(x, residual=x)
            features.append(x)
        return self.out(x).float().tanh(), features


class Simsid(Method):
    """See the module's docstring."""

    Config = SimsidConfig
    presets: ClassVar = {
        "default": {"train.intensity_augmentation": True},
        "paper": {
            **{"score": "discriminator", "snapshots": 1, "discriminators": 1, "discriminator_final_rate": 1.0},
            "train.epochs": 1000,
        },
        "digits": {**DIGITS, "train.epochs": 8},
        "digits_full": DIGITS,  # for the 60 epochs that are the default
        "tiny": {
            **{"size": 64, "widths": (4, 8, 16), "slots": 16, "memory_levels": 2, "snapshots": 2},
            **{"discriminators": 1, "learning_rate": 1e-2, "score": "reconstruction"},
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
        judge = (c.size, c.channels, c.discriminator_statistics, c.discriminator_widths)
        self.judges = Judges(c.snapshots, *judge, discriminators=c.discriminators)
        self.places = Places(c.size, c.size // c.grid)
        self._fake: Tensor | None = None

    def phases(self) -> tuple[Phase, ...]:
        """Train adversarially, the generator first, so that both share its forward pass."""
        rate, betas = self.config.learning_rate, (0.5, 0.999)
        modules = ("encoder", "student", *(["teacher"] if self.teacher else []))
        generator = Turn("generator", modules, 1, rate, betas, weight_decay=1e-5, final_rate=0.1)
        final = self.config.discriminator_final_rate
        judge = Turn("discriminator", ("judges.current",), 1, rate, betas, final_rate=final)
        return (Phase("adversarial", (generator, judge)),)

    def losses(self, x: Tensor, turn: str) -> dict[str, Tensor]:
        """Return the losses of a turn; the generator's leaves its images for the discriminator's of the same step."""
        if turn == "discriminator":
            if self._fake is None:
                raise RuntimeError("the discriminator's turn needs the images of the generator's before it")
            fake, self._fake = self._fake, None
            return {"discriminator": self.config.adversarial_weight * self.judges.loss(x, fake)}
        return self._generator_losses(2 * x - 1)

    def _generator_losses(self, x: Tensor) -> dict[str, Tensor]:
        c = self.config
        z, skips = self.encoder(x)
        fake, student = self.student(z, skips)
        judged = fake / 2 + 0.5
        self._fake = judged.detach()
        losses = {"reconstruction": c.reconstruction_weight * F.mse_loss(fake, x)}
        losses["adversarial"] = c.adversarial_weight * self.judges.generator_loss(judged)
        if self.teacher:
            image, teacher = self.teacher(z.detach(), [skip.detach() for skip in skips])
            losses["teacher"] = c.teacher_weight * F.mse_loss(image, x)
            apart = [mean_square(a - b) for a, b in zip(student, teacher, strict=True)]
            losses["distillation"] = c.distillation_weight * torch.stack(apart).sum()
        return {"generator": torch.stack(list(losses.values())).sum(), **losses}

    def after_step(self, turn: str) -> None:
        """Write the batch's features to queues once the generator has moved."""
        if turn == "generator":
            for memory in self.student.memories:
                memory.write()  # type: ignore[operator]

    def after_epoch(self, progress: float) -> None:
        """Keep a copy of the discriminator, where one is due."""
        self.judges.keep(progress)

    def reconstruct(self, x: Tensor) -> Tensor:
        """Rebuild images (N, C, H, W) in [0, 1]."""
        rebuilt: Tensor = self.student(*self.encoder(2 * x - 1))[0]
        return rebuilt / 2 + 0.5

    def fit(self, batches: Iterable[Tensor]) -> None:
        """Measure the error that is usual at each place of the training images, where the score asks for it."""
        if self.config.score == "local":
            self.places.fit(self.places(x, self.reconstruct(x)) for x in batches)

    def score(self, x: Tensor) -> Scores:
        """Score by the discriminators' logit of the image, or as the option says; map the squared error."""
        rebuilt = self.reconstruct(x)
        if self.config.score == "local":
            return self.places.score(x, rebuilt)
        error = (x - rebuilt).square().mean(1, keepdim=True)
        if self.config.score == "reconstruction":
            return Scores(error.mean((1, 2, 3)), error, rebuilt)
        judged = (x, rebuilt) if self.config.score == "pair" else (rebuilt,)
        return Scores(-self.judges.mean(*judged), error, rebuilt)

    def inspect(self, x: Tensor) -> Inspection:
        """Return what teacher and student rebuild, and the patches' features beside the coarsest memory."""
        z, skips = self.encoder(2 * x - 1)
        rebuilt = {"teacher": self.teacher(z, skips)[0] / 2 + 0.5} if self.teacher else {}
        rebuilt["student"] = self.student(z, skips)[0] / 2 + 0.5
        memory = self.student.memories[0] if self.student.memories else None
        return Inspection(rebuilt, *memory.look(z)) if isinstance(memory, SpaceMemory) else Inspection(rebuilt)


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
    Judges.check(config.snapshots, config.discriminators, config.size, config.discriminator_widths)
    check_k(config.shrinkage, config.k, strict=False)
