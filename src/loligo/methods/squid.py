"""SQUID: space-aware memory queues for in-painting and detecting anomalies (Xiang et al., CVPR 2023, 2111.13495).

Patches of a radiograph are encoded, each is replaced by what a memory of recent normal patches at that place holds for
its neighbours, and decoded: a normal image is reconstructed, an abnormal one is not. A teacher decoder without memory
guides the student by distillation. A discriminator trained to tell reconstructions from real images gives the score.

Departures: the generator's turn is taken before the discriminator's and both share one forward pass of the generator,
which the reference computes twice; the generator so meets the discriminator of the step before. Mean and deviation that
turn the score into an anomaly score are of held-out normals, in the paper of training images. What paper and reference
code do otherwise is an option; the defaults are the reference code's for ZhangLab.

The preset ``ensemble`` is ours. Its score is the mean logit of several discriminators (``discriminators``) at several
epochs (``snapshots``), since that of one depends on its initial weights and swings widely between epochs, on the image
and on its reconstruction (``score``), since each of the two shows some anomalies that the other does not. Contrast and
gamma of training images are augmented (``train.intensity_augmentation``), since a logit otherwise depends on exposure.
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
from loligo.nn.conv import Unit, upsample
from loligo.nn.discriminator import Ensemble
from loligo.nn.inpaint import Inpaint, NeighbourAttention, masked_shortcut
from loligo.nn.losses import mean_square
from loligo.nn.memory import MemoryMatrix, MemoryQueue, check_k
from loligo.nn.patches import cut, stitch
from loligo.nn.places import Places
from loligo.types import Inspection, Scores


@dataclass(frozen=True)
class SquidConfig(MethodConfig):
    """Options of SQUID; the defaults are the reference code's for ZhangLab."""

    width: int = 32
    """Channels of the stem; each level doubles them."""
    levels: int = 4
    """Stride-2 units in the encoder."""
    grid: int = 2
    """Patches a side."""
    memory: Literal["queue", "matrix", "none"] = "queue"
    """Memory at the bottleneck: recent features, learnt slots, or the feature itself."""
    slots: int = 200
    """Slots of each memory."""
    space_aware: bool = True
    """One memory a patch position, or one for all."""
    shrinkage: Shrinkage = "gumbel"
    """How similarities become addressing weights."""
    k: int = 5
    """Slots that Gumbel shrinkage keeps."""
    strict_top_k: bool = True
    """Keep only weights above the k-th largest, k - 1 slots, as the reference code does."""
    inpainting: Literal["feature", "pixel", "none"] = "feature"
    """Attend to the neighbours' features; or blank a patch of pixels and reconstruct it; or neither."""
    mask_neighbours: bool = False
    """Leave neighbours outside the image out of the attention; the reference lets them in as zeros."""
    shortcut_ratio: float = 0.95
    """Fraction of places at which training lets the in-painted feature through; the others keep the original."""
    skips: int = field(default=2, metadata={"least": 0})
    """Decoder levels that take the encoder's features beside their own, 0 to 2; they let an anomaly past the memory."""
    decoder_memory: Literal["quadrant", "image", "none"] = "quadrant"
    """Position by which the decoder's matrices are indexed: within each patch (reference) or within the image."""
    distillation: bool = True
    """Train a teacher decoder and draw the student's features towards its own."""
    discriminator_statistics: Statistics = "image"
    """Statistics by which the discriminator normalises when it scores: the image's own or the running ones."""
    discriminators: int = 1
    """Discriminators trained independently; the mean logit of several depends less on the seed."""
    snapshots: int = 1
    """Epochs, evenly spaced, whose discriminators are kept and their logits averaged, each of the image shifted another
    way; 1 is the last alone, of the image as it is (reference)."""
    score: Literal["discriminator", "pair", "reconstruction", "both", "local"] = "discriminator"
    """Image score: minus the mean logit of the reconstruction; or of image and reconstruction; the mean squared error;
    the sum of the first and this in units of their spread; or, for anomalies smaller than a patch, the largest
    structural dissimilarity of any patch-sized window, in deviations over normals."""
    reconstruction_weight: float = 10.0
    """Weight of the mean squared error of the student's reconstruction."""
    teacher_weight: float = 0.01
    """Weight of the mean squared error of the teacher's reconstruction."""
    distillation_weight: float = 0.001
    """Weight of the difference between the student's features and the teacher's."""
    adversarial_weight: float = 0.005
    """Weight of the adversarial losses of generator and discriminator."""
    generator_every: int = 2
    """The generator moves at every so-many-th step, the discriminator at each."""
    learning_rate: float = 1e-4
    """Adam's rate for generator and discriminator; the generator's falls to a tenth by a cosine."""
    discriminator_final_rate: float = 1.0
    """Fraction of its rate at which the discriminator's ends by a cosine; 1 keeps it constant (reference). In a short
    training it then outruns the generator, whose rate falls to a tenth."""


DIGITS = {
    **{"size": 48, "width": 16, "levels": 2, "grid": 3, "slots": 1600, "skips": 0, "decoder_memory": "none"},
    **{"learning_rate": 1e-3, "generator_every": 1, "score": "local", "snapshots": 3, "discriminator_final_rate": 0.1},
    "train.augment": False,
}
"""For DigitAnatomy: anomalies fill a patch, so that nothing may pass the memory, and the score is local."""


class Encoder(nn.Module):
    """Encode patches; return the bottleneck and the input of each level, finest first."""

    def __init__(self, channels: int, width: int, levels: int) -> None:
        super().__init__()
        self.stem = Unit(channels, width)
        self.downs = nn.ModuleList(Unit(width << i, width << (i + 1), stride=2) for i in range(levels))

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Map (N * L, C, h, w) to (N * L, width * 2**levels, h / 2**levels, w / 2**levels) and the skips."""
        x, skips = self.stem(x), []
        for down in self.downs:
            skips.append(x)
            x = down(x)
        return x, skips


class DecoderMemory(nn.Module):
    """Read learnt slots for every part of a feature map; a masked shortcut lets the original through in training."""

    def __init__(self, channels: int, size: int, config: SquidConfig) -> None:
        super().__init__()
        self.grid, self.quadrants = config.grid, config.decoder_memory == "quadrant"
        self.shortcut_ratio = config.shortcut_ratio
        side = size // config.grid if self.quadrants else size
        self.memory = MemoryMatrix(
            config.slots, channels * side**2, config.grid**2, config.shrinkage, config.k, config.strict_top_k
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map the patches (N * L, C, h, w) to the same shape."""
        parts = cut(x, self.grid) if self.quadrants else x
        n, c, h, w = parts.shape
        flat = parts.permute(0, 2, 3, 1).reshape(n // self.grid**2, self.grid**2, -1)  # (N, L, h * w * C)
        read = self.memory(flat).reshape(n, h, w, c).permute(0, 3, 1, 2)
        return masked_shortcut(
            stitch(read, self.grid) if self.quadrants else read, x, self.shortcut_ratio, self.training
        )


class Decoder(nn.Module):
    """Decode patches: two levels with skips and, in the student, memories; then stitched to an image."""

    def __init__(self, config: SquidConfig, with_memory: bool) -> None:
        super().__init__()
        self.grid, self.skips, levels = config.grid, config.skips, config.levels
        widths = [config.width << i for i in range(levels, -1, -1)]  # bottleneck first
        self.units = nn.ModuleList(
            Unit(a + b * (i < config.skips), b) for i, (a, b) in enumerate(itertools.pairwise(widths))
        )
        patch = config.size // config.grid
        self.memories = nn.ModuleList(
            DecoderMemory(widths[i + 1], patch >> (levels - 1 - i), config) for i in range(2 * with_memory)
        )
        self.out = nn.Conv2d(config.width, config.channels, 1)

    def forward(self, x: Tensor, skips: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Map (N * L, D, h, w) to the image (N, C, H, W) in [0, 1] and the features of every level."""
        features = []
        for i, unit in enumerate(self.units):
            if i == 2:
                x = stitch(x, self.grid)
            x = upsample(x)
            x = unit(torch.cat([skips[-1 - i], x], 1) if i < self.skips else x)
            if i < len(self.memories):
                x = self.memories[i](x)
            features.append(x)
        x = stitch(x, self.grid) if len(self.units) == 2 else x
        return self.out(x).float().sigmoid(), features


class Squid(Method):
    """See the module's docstring."""

    Config = SquidConfig
    training_defaults: ClassVar = {"epochs": 200}
    presets: ClassVar = {
        "ensemble": {
            **{"discriminators": 4, "snapshots": 3, "score": "pair", "discriminator_final_rate": 0.1},
            **{"train.epochs": 60, "train.intensity_augmentation": True},
        },
        "digits": {**DIGITS, "train.epochs": 8},
        "digits_full": {**DIGITS, "train.epochs": 60},
        "tiny": {
            **{"size": 64, "width": 8, "levels": 2, "slots": 16, "decoder_memory": "none"},
            **{"generator_every": 1, "snapshots": 4, "learning_rate": 3e-3},
        },
    }
    config: SquidConfig
    spread: Tensor

    def __init__(self, config: SquidConfig) -> None:
        super().__init__(config)
        check(config)
        c = config
        bottleneck, side = c.width << c.levels, (c.size // c.grid) >> c.levels
        dim = bottleneck // 4 * side**2
        self.encoder = Encoder(c.channels, c.width, c.levels)
        kind = {"queue": MemoryQueue, "matrix": MemoryMatrix, "none": None}[c.memory]
        positions = c.grid**2 if c.space_aware else 1
        memory = kind and kind(c.slots, dim, positions, c.shrinkage, c.k, c.strict_top_k)
        attention = (
            NeighbourAttention(dim, c.grid, mask_outside=c.mask_neighbours) if c.inpainting == "feature" else None
        )
        self.inpaint = Inpaint(bottleneck, c.grid, memory, attention)
        self.student = Decoder(c, with_memory=c.decoder_memory != "none")
        self.teacher = Decoder(c, with_memory=False) if c.distillation else None
        self.ensemble = Ensemble(
            c.snapshots, c.size, c.channels, c.discriminator_statistics, discriminators=c.discriminators
        )
        self.register_buffer("spread", torch.ones(2))  # of logit and mean squared error over the training images
        self.places = Places(c.size, c.size // c.grid)

    def phases(self) -> tuple[Phase, ...]:
        """Train adversarially, the generator first, so that both share its forward pass."""
        c, betas = self.config, (0.5, 0.999)
        modules = ("encoder", "inpaint", "student", *(["teacher"] if self.teacher else []))
        generator = Turn(
            "generator", (Group(modules, c.learning_rate),), adam(betas, 1e-5), Cosine(0.1), c.generator_every
        )
        groups = (Group(("ensemble.current",), c.learning_rate),)
        discriminator = Turn("discriminator", groups, adam(betas), Cosine(c.discriminator_final_rate))
        return (Phase("adversarial", (generator, discriminator)),)

    def losses(self, x: Tensor, turn: str, step: Step) -> dict[str, Tensor]:
        """Return the losses of a turn; the generator's leaves its images for the discriminator's of the same step."""
        if turn == "generator":
            return self._generator_losses(x, step)
        if "fake" not in step:
            with torch.no_grad():
                step["fake"] = self._forward(self._blank(x))[2]
        return {"discriminator": self.config.adversarial_weight * self.ensemble.loss(x, step["fake"])}

    def _generator_losses(self, x: Tensor, step: Step) -> dict[str, Tensor]:
        c = self.config
        z, skips, fake, student, step["squeezed"] = self._forward(self._blank(x))
        step["fake"] = fake.detach()
        losses = {"reconstruction": c.reconstruction_weight * F.mse_loss(fake, x)}
        losses["adversarial"] = c.adversarial_weight * self.ensemble.generator_loss(fake)
        if self.teacher:
            image, teacher = self.teacher(z.detach(), [skip.detach() for skip in skips])
            losses["teacher"] = c.teacher_weight * F.mse_loss(image, x)
            distances = [mean_square(a - b) for a, b in zip(student, teacher, strict=True)]
            losses["distillation"] = c.distillation_weight * torch.stack(distances).sum()
        return {"generator": torch.stack(list(losses.values())).sum(), **losses}

    def _forward(self, x: Tensor) -> tuple[Tensor, list[Tensor], Tensor, list[Tensor], Tensor]:
        """Return bottleneck, skips, reconstructions, the student's features, and squeezed ones before in-painting."""
        z, skips = self._encode(x)
        inpainted, squeezed, _ = self.inpaint(z)
        image, features = self.student(masked_shortcut(inpainted, z, self.config.shortcut_ratio, self.training), skips)
        return z, skips, image, features, squeezed

    def _encode(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        bottleneck, skips = self.encoder(cut(x, self.config.grid).contiguous(memory_format=torch.channels_last))
        return bottleneck, skips

    def _blank(self, x: Tensor) -> Tensor:
        """Blank one patch of each image at random where pixels are in-painted."""
        if self.config.inpainting != "pixel":
            return x
        which = torch.randint(self.config.grid**2, (len(x),), device=x.device)
        return blank(x, which, self.config.grid)

    def after_step(self, turn: str, step: Step, reduce: Reduce = ALONE) -> None:
        """Write the batch's features to the queue once the generator has moved."""
        if turn == "generator" and isinstance(self.inpaint.memory, MemoryQueue):
            self.inpaint.memory.write(reduce.gather(step["squeezed"]))

    def after_epoch(self, progress: float) -> None:
        """Keep a snapshot of the discriminators, where one is due."""
        self.ensemble.keep(progress)

    def reconstruct(self, x: Tensor) -> Tensor:
        """Reconstruct (N, C, H, W); where pixels are in-painted, every patch from an image that lacks it."""
        grid = self.config.grid
        if self.config.inpainting != "pixel":
            return self._forward(x)[2]
        patches = []
        for i in range(grid**2):
            image = self._forward(blank(x, torch.full((x.shape[0],), i, device=x.device), grid))[2]
            patches.append(by_image(image, grid)[:, i])
        return stitch(torch.stack(patches, 1).flatten(0, 1), grid)

    def fit(self, batches: Iterable[Tensor], reduce: Reduce = ALONE) -> None:
        """Measure over the training images the spread of both scores, or mean and deviation of the error by place."""
        if self.config.score == "local":
            self.places.fit(self.places(x, self.reconstruct(x)) for x in batches)
        elif self.config.score == "both":
            self.spread.copy_(torch.cat([self._parts(x, self.reconstruct(x)) for x in batches]).std(0).clamp_min(1e-12))

    def _parts(self, x: Tensor, reconstruction: Tensor) -> Tensor:
        """Return (N, 2): minus the logit and the mean squared error."""
        return torch.stack([-self.ensemble.mean(reconstruction), (x - reconstruction).square().mean((1, 2, 3))], 1)

    def forward(self, x: Tensor) -> Scores:
        """Score by the discriminators' logits, or as the options say; map the squared error."""
        fake = self.reconstruct(x)
        if self.config.score == "local":
            return self.places.score(x, fake)
        error = (x - fake).square().mean(1, keepdim=True)
        if self.config.score == "pair":
            return Scores(-self.ensemble.mean(x, fake), error, fake)
        logit, mse = self._parts(x, fake).unbind(1)
        both = logit / self.spread[0] + mse / self.spread[1]
        return Scores({"discriminator": logit, "reconstruction": mse, "both": both}[self.config.score], error, fake)

    def inspect(self, x: Tensor) -> Inspection:
        """Return the images of teacher and student, and the patches' squeezed features beside their memory."""
        z, skips = self._encode(x)
        inpainted, before, after = self.inpaint(z)
        images = {"teacher": self.teacher(z, skips)[0]} if self.teacher else {}
        images["student"] = self.student(inpainted, skips)[0]
        memory = self.inpaint.memory
        slots = None if memory is None else memory.slots.expand(self.config.grid**2, -1, -1)
        return Inspection(images, before, after, slots)


def check(config: SquidConfig) -> None:
    """Raise ValueError where the sizes do not fit each other."""
    step = config.grid << config.levels
    if config.levels < 2 or config.size % step:
        raise ValueError(f"size {config.size} must be a multiple of grid * 2**levels = {step}, and levels at least 2")
    if not 0 <= config.skips <= 2:
        raise ValueError(f"skips is {config.skips}; 0, 1 or 2 decoder levels may take the encoder's features")
    Ensemble.check(config.snapshots, config.discriminators, config.size)
    check_k(config.shrinkage, config.k, strict=config.strict_top_k)
    if config.decoder_memory == "quadrant" and ((config.size // config.grid) >> (config.levels - 1)) % config.grid:
        raise ValueError(
            f"features of patches cannot be cut into {config.grid}x{config.grid} quadrants; "
            "use decoder_memory 'image' or 'none'"
        )


def by_image(x: Tensor, grid: int) -> Tensor:
    """Cut (N, C, H, W) into (N, L, C, h, w)."""
    patches = cut(x, grid)
    return patches.reshape(x.shape[0], grid**2, *patches.shape[1:])


def blank(x: Tensor, which: Tensor, grid: int) -> Tensor:
    """Set patch ``which`` (N,) of each image (N, C, H, W) to zero."""
    patches = by_image(x, grid).clone()
    patches[torch.arange(x.shape[0], device=x.device), which] = 0
    return stitch(patches.flatten(0, 1), grid)
