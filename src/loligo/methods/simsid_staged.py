"""Staged SimSID: patches, hierarchical memory, in-painting, teacher, student and discriminator, one after another.

After "Unsupervised Anomaly Detection Using SimSID Algorithm" (project report of Swetha R, chapters 3 to 5), which
simplifies SimSID (Xiang et al., TPAMI 2024, 2403.08689). A patch CNN describes each of 8x8 patches by 64 values; the
teacher reconstructs the image from them, the student from the same with inner patches in-painted from what memory holds
for their neighbours. A discriminator trained to tell the student's images from real ones gives the score.

Where the report is silent or contradicts itself, we decided:

- The patch CNN is called pre-trained, yet nothing trains it: it keeps its random weights. In eval mode with fresh
  statistics its features all but vanish (0.01 in figure 5.6) and its bias makes all patches alike. So batch norm takes
  the statistics of a first batch, and the linear layer is turned so that there its features are uncorrelated, of mean 0
  and variance 1; both stay. Random features then tell patches apart by cosine, and the teacher needs fewer steps to
  learn from weak features what the strong ones leave out.
- Patch sizes (4, 16) and (4, 4) are one here: ``grid`` x ``grid`` patches, all in one pass.
- Memory is written in the student's stage only, image by image in order, after the step of their batch. Softmax and its
  temperature change no order: the top k of score plus Gumbel noise are taken and summed unweighted, without noise in
  eval mode, where a score is its image's own. A level grows to the highest position written and only so far is read;
  its buffer holds all positions, so that it loads. (The report grows one position late, and all levels alike.)
- In-painting: each neighbour's feature queries the memory; what three levels hold is one token, the patch's own
  feature the ninth, which leaves the encoder in-painted. Patches at the border keep their features, as in figure 5.6.
  Algorithm 4.10 trains the student alone; an untrained transformer is noise, so ours trains with it.
- The discriminator sees the student's image of in-painted features (section 3.3), not of raw ones (algorithm 4.11).
  Its loss is minus equation 5.6. Equation 5.7 would call abnormal what looks real: the raw score is minus the logit, so
  that calibration gives A = 1 - sigmoid((D - mean) / std).
- The generator's last layer has no activation. Images are clamped to [0, 1], by a straight-through estimator in the
  losses, so that black costs nothing where the layer goes below it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from loligo.methods.configs import MethodConfig, check_fractions
from loligo.methods.contract import ALONE, Group, Method, Phase, Reduce, Step, Turn
from loligo.methods.optimisation import Cosine
from loligo.nn.adversarial import discriminator_loss
from loligo.nn.conv import ConvNorm
from loligo.nn.discriminator import Discriminator
from loligo.nn.inpaint import neighbours
from loligo.nn.patches import cut
from loligo.types import Inspection, Scores

LEVELS = 4
"""Halvings of a patch in the CNN, and doublings in the generator."""


@dataclass(frozen=True)
class SimsidStagedConfig(MethodConfig):
    """Options of the staged SimSID; the defaults are the report's where it names them."""

    grid: int = 8
    """Patches a side."""
    width: int = 32
    """Channels of the patch CNN's first block and of the generator's last; each level doubles them."""
    features: int = 64
    """Values that describe a patch."""
    block: int = 2
    """Patches a side of the blocks whose means the second level of memory keeps."""
    threshold: float = 0.1
    """A slot is replaced by a feature whose cosine similarity to it is lower."""
    k: int = 3
    """Slots of a level whose sum is read."""
    heads: int = 4
    """Attention heads of the in-painting transformer."""
    layers: int = 2
    """Layers of the in-painting transformer."""
    distillation_weight: float = 0.01
    """Of the distance to the teacher's intermediate outputs in the student's loss."""
    teacher_fraction: float = 1000
    """Part of the epochs that trains the teacher, relative to the others."""
    student_fraction: float = 250
    """Part of the epochs that trains transformer and student, relative to the others."""
    discriminator_fraction: float = 50
    """Part of the epochs that trains the discriminator, relative to the others."""
    learning_rate: float = 5e-4
    """Adam's rate for teacher and student, falling to a hundredth by a cosine."""
    discriminator_rate: float = 1e-4
    """Adam's rate for the discriminator."""
    score: Literal["discriminator", "reconstruction"] = "discriminator"
    """Image score: minus the logit of the student's image, or its mean squared error."""


class PatchBasedCNN(nn.Module):
    """Describe patches by conv-BN-ReLU-maxpool blocks and a linear layer, all random; only batch norm is measured."""

    def __init__(self, channels: int, width: int, patch: int, features: int) -> None:
        super().__init__()
        widths = [channels, *(width << i for i in range(LEVELS))]
        self.blocks = nn.ModuleList(ConvNorm(a, b) for a, b in itertools.pairwise(widths))
        for norm in self.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.momentum = 1.0  # statistics are those of the one batch that is measured
        self.fc = nn.Linear(widths[-1] * (patch >> LEVELS) ** 2, features)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N * L, C, h, w) to (N * L, D)."""
        for block in self.blocks:
            x = F.max_pool2d(block(x), 2)
        out: Tensor = self.fc(x.flatten(1))
        return out

    @torch.no_grad()
    def measure(self, x: Tensor) -> None:
        """Give batch norm the statistics of these patches (M, C, h, w), and whiten the features."""
        with torch.autocast(x.device.type, enabled=False):
            features = self.train()(x).double()
            values, vectors = torch.linalg.eigh(features.T.cov())
            whiten = (vectors * values.clamp(min=1e-3 * float(values[-1])).rsqrt()) @ vectors.mT
            self.fc.weight.copy_(whiten @ self.fc.weight.double())
            self.fc.bias.copy_(whiten @ (self.fc.bias.double() - features.mean(0)))
        self.eval()


class SpaceAwareMemory(nn.Module):
    """Keep one feature a position; write what is dissimilar to it, read the sum of those nearest to a query."""

    slots: Tensor
    grown: Tensor

    def __init__(self, capacity: int, dim: int, threshold: float, k: int) -> None:
        super().__init__()
        self.threshold, self.k = threshold, k
        self.register_buffer("slots", torch.zeros(capacity, dim))
        self.register_buffer("grown", torch.zeros((), dtype=torch.long))
        self.size: int | None = None  # of what is read, once frozen

    def freeze(self) -> None:
        """Make constant how many slots are read."""
        self.size = int(self.grown)

    @torch.no_grad()
    def write(self, features: Tensor, positions: Tensor) -> None:
        """Write (N, P, D), image after image, to P distinct positions; grow where one lies beyond the size."""
        self.grown.clamp_(min=int(positions.max()) + 1)
        held = self.slots[positions]
        for new in features.to(held.dtype):
            replaced = F.cosine_similarity(new, held, dim=-1) < self.threshold  # (P,); a zero slot always is
            held = torch.where(replaced[:, None], new, held)
        self.slots[positions] = held

    @torch.no_grad()
    def read(self, query: Tensor) -> Tensor:
        """Map queries (N, P, D) to the sum of the k slots of largest dot product, in training with Gumbel noise."""
        with torch.autocast(query.device.type, enabled=False):
            slots = self.slots[: int(self.grown) if self.size is None else self.size]
            scores = query.to(slots.dtype) @ slots.mT  # (N, P, m)
            if self.training:
                scores = scores - torch.empty_like(scores).exponential_().log()
            top = scores.topk(min(self.k, len(slots)), -1).indices
            return torch.zeros_like(scores).scatter_(-1, top, 1) @ slots


class HierarchicalMemory(nn.Module):
    """Remember patches, means of blocks of patches, and the maximum over the whole image."""

    block_of: Tensor

    def __init__(self, config: SimsidStagedConfig) -> None:
        super().__init__()
        side = config.grid // config.block
        rest = (config.features, config.threshold, config.k)
        self.patches = SpaceAwareMemory(config.grid**2, *rest)
        self.blocks = SpaceAwareMemory(side**2, *rest)
        self.image = SpaceAwareMemory(1, *rest)
        along = torch.arange(config.grid) // config.block
        self.register_buffer("block_of", (along[:, None] * side + along).flatten(), persistent=False)

    @torch.no_grad()
    def write(self, features: Tensor, positions: Tensor) -> None:
        """Write features (N, P, D) of the patches at P distinct positions to all levels."""
        self.patches.write(features, positions)
        member, length = self.block_of[positions], len(self.blocks.slots)
        counts = member.bincount(minlength=length)
        sums = features.new_zeros(len(features), length, features.shape[-1]).index_add_(1, member, features)
        present = counts.nonzero()[:, 0]
        self.blocks.write(sums[:, present] / counts[present, None], present)
        self.image.write(features.amax(1, keepdim=True), torch.zeros_like(positions[:1]))

    def read(self, query: Tensor) -> Tensor:
        """Map queries (N, P, D) to what the three levels hold, concatenated: (N, P, 3 * D)."""
        return torch.cat([self.patches.read(query), self.blocks.read(query), self.image.read(query)], -1)


class InpaintingTransformer(nn.Module):
    """In-paint the features of inner patches from memory of their neighbours and from themselves."""

    around: Tensor
    inner: Tensor

    def __init__(self, config: SimsidStagedConfig) -> None:
        super().__init__()
        dim, around = config.features, neighbours(config.grid)
        self.project = nn.Linear(3 * dim, dim)
        layer = nn.TransformerEncoderLayer(dim, config.heads, 4 * dim, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False)
        self.out = nn.Linear(dim, dim)
        inner = (around < config.grid**2).all(1).nonzero()[:, 0]
        self.register_buffer("inner", inner, persistent=False)  # (I,)
        self.register_buffer("around", around[inner], persistent=False)  # (I, 8)

    def forward(self, features: Tensor, read: Tensor) -> Tensor:
        """Take features (N, L, D) and what was read for them (N, L, 3 * D); return (N, L, D), the border as it was."""
        near = self.project(read)[:, self.around]  # (N, I, 8, D)
        tokens = torch.cat([near, features[:, self.inner, None].to(near.dtype)], 2)
        n, inner, _, dim = tokens.shape
        inpainted = self.out(self.encoder(tokens.flatten(0, 1))[:, -1]).view(n, inner, dim)
        return features.to(inpainted.dtype).index_copy(1, self.inner, inpainted)


class FloatLinear(nn.Linear):
    """A linear layer in float32 also under autocast: casting 67 million weights costs more than it saves."""

    def forward(self, input: Tensor) -> Tensor:
        """Map (N, D) to (N, E) float32."""
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.float())


class FloatConvTranspose2d(nn.ConvTranspose2d):
    """A transposed convolution in float32 also under autocast: bfloat16 knows but 128 greys above one half."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Map (N, C, H, W) to (N, D, 2 * H, 2 * W) float32."""
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.float(), output_size)


class Generator(nn.Module):
    """Reconstruct an image from its features: a linear layer, then transposed convolutions that double its sides."""

    def __init__(self, inputs: int, size: int, width: int, channels: int) -> None:
        super().__init__()
        widths = [width << i for i in range(LEVELS - 1, -1, -1)]
        self.side = size >> LEVELS
        self.fc = FloatLinear(inputs, widths[0] * self.side**2)
        self.deconvs = nn.ModuleList(nn.ConvTranspose2d(a, b, 4, 2, 1) for a, b in itertools.pairwise(widths))
        self.norms = nn.ModuleList(nn.BatchNorm2d(b) for b in widths[1:])
        self.out = FloatConvTranspose2d(width, channels, 4, 2, 1)
        nn.init.zeros_(self.out.weight)  # begin at mid grey: else the first epoch is spent on the way to the mean image
        nn.init.constant_(self.out.bias, 0.5)  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Map (N, L, D) to the image (N, C, H, W) float32, not bounded, and the intermediate outputs."""
        x = self.fc(features.flatten(1)).view(features.shape[0], self.side, self.side, -1).permute(0, 3, 1, 2)
        between = []
        for deconv, norm in zip(self.deconvs, self.norms, strict=True):
            x = F.relu(norm(deconv(x)), inplace=True)
            between.append(x)
        image = self.out(x)
        return image, [*between, image]


class SimsidStaged(Method):
    """See the module's docstring."""

    Config = SimsidStagedConfig
    presets: ClassVar = {
        "report": {  # without augmentation, as the report; in fewer epochs, of which the student takes more
            **{"teacher_fraction": 80, "student_fraction": 24, "discriminator_fraction": 6},
            **{"train.epochs": 110, "train.augment": False},
        },
        "tiny": {
            **{"size": 64, "grid": 4, "width": 4, "features": 16, "heads": 2, "learning_rate": 1e-2},
            **{"teacher_fraction": 6, "student_fraction": 4, "discriminator_fraction": 2},
        },
    }
    config: SimsidStagedConfig

    def __init__(self, config: SimsidStagedConfig) -> None:
        super().__init__(config)
        check(config)
        c = config
        self.patch_cnn = PatchBasedCNN(c.channels, c.width, c.size // c.grid, c.features).eval()
        self.memory = HierarchicalMemory(c)
        self.inpaint = InpaintingTransformer(c)
        self.teacher = Generator(c.grid**2 * c.features, c.size, c.width, c.channels)
        self.student = Generator(c.grid**2 * c.features, c.size, c.width, c.channels)
        self.discriminator = Discriminator(c.size, c.channels)

    def prepare(self, batches: Iterable[Tensor], reduce: Reduce = ALONE) -> None:
        """Measure the patch CNN on the first batch."""
        self.patch_cnn.measure(cut(next(iter(batches)), self.config.grid))

    def phases(self) -> tuple[Phase, ...]:
        """Train the teacher, then transformer and student, then the discriminator."""
        c, cosine = self.config, Cosine(0.01)
        teacher = Turn("teacher", (Group(("teacher",), c.learning_rate),), schedule=cosine)
        student = Turn("student", (Group(("inpaint", "student"), c.learning_rate),), schedule=cosine)
        discriminator = Turn("discriminator", (Group(("discriminator",), c.discriminator_rate),))
        frozen = ("patch_cnn", "teacher", "memory", "inpaint", "student")  # it learns from the images that it scores
        return (
            Phase("teacher", (teacher,), c.teacher_fraction, frozen[:1]),
            Phase("student", (student,), c.student_fraction, frozen[:2]),
            Phase("discriminator", (discriminator,), c.discriminator_fraction, frozen),
        )

    def losses(self, x: Tensor, turn: str, step: Step) -> dict[str, Tensor]:
        """Return the losses of a stage."""
        if turn == "teacher":
            return {"teacher": F.mse_loss(bounded(self.teacher(self._encode(x))[0]), x)}
        return self._student_losses(x, step) if turn == "student" else self._discriminator_losses(x)

    def _student_losses(self, x: Tensor, step: Step) -> dict[str, Tensor]:
        step["features"] = features = self._encode(x)
        with torch.no_grad():
            theirs = self.teacher(features)[1]
        image, ours = self.student(self._inpaint(features))
        reconstruction = F.mse_loss(bounded(image), x)
        distillation = torch.stack([F.mse_loss(a.float(), b.float()) for a, b in zip(ours, theirs, strict=True)]).sum()
        total = reconstruction + self.config.distillation_weight * distillation
        return {"student": total, "reconstruction": reconstruction, "distillation": distillation}

    def _discriminator_losses(self, x: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            fake = self.reconstruct(x)
        return {"discriminator": discriminator_loss(self.discriminator(x), self.discriminator(fake))}

    def after_step(self, turn: str, step: Step, reduce: Reduce = ALONE) -> None:
        """Write the batch's features to memory in the student's stage."""
        if turn == "student":
            features = reduce.gather(step["features"])
            self.memory.write(features, torch.arange(features.shape[1], device=features.device))

    @torch.no_grad()
    def _encode(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the features of all patches (N, L, D) float32."""
        features: Tensor = self.patch_cnn(cut(x, self.config.grid).contiguous(memory_format=torch.channels_last))
        return features.float().view(x.shape[0], -1, features.shape[-1])

    def _inpaint(self, features: Tensor) -> Tensor:
        inpainted: Tensor = self.inpaint(features, self.memory.read(features))
        return inpainted

    def reconstruct(self, x: Tensor) -> Tensor:
        """Return the student's image (N, C, H, W) in [0, 1]."""
        image: Tensor = self.student(self._inpaint(self._encode(x)))[0]
        return image.clamp(0, 1)

    def forward(self, x: Tensor) -> Scores:
        """Score by minus the logit of the student's image, or by its error; map the squared error."""
        image = self.reconstruct(x)
        error = (x - image).square().mean(1, keepdim=True)
        by_error = self.config.score == "reconstruction"
        return Scores(error.mean((1, 2, 3)) if by_error else -self.discriminator(image), error, image)

    def inspect(self, x: Tensor) -> Inspection:
        """Return the images of teacher and student, features before and after in-painting, and each patch's slot."""
        features = self._encode(x)
        inpainted = self._inpaint(features)
        images = {"teacher": self.teacher(features)[0].clamp(0, 1), "student": self.student(inpainted)[0].clamp(0, 1)}
        return Inspection(images, features, inpainted.float(), self.memory.patches.slots[:, None])


def bounded(x: Tensor) -> Tensor:
    """Clamp to [0, 1] and pass gradients through as if it had not been done."""
    return x + (x.clamp(0, 1) - x).detach()


def check(config: SimsidStagedConfig) -> None:
    """Raise ValueError where the options do not fit each other."""
    step = config.grid << LEVELS
    if config.grid < 3 or config.size % step:
        raise ValueError(
            f"size {config.size} must be a multiple of grid * {1 << LEVELS} = {step}, and grid at least 3: "
            "a patch is halved four times, and one with 8 neighbours is in-painted"
        )
    if config.grid % config.block:
        raise ValueError(f"a grid of {config.grid} patches a side cannot be cut into blocks of {config.block}")
    if config.features % config.heads:
        raise ValueError(f"a patch feature of {config.features} values cannot be shared among {config.heads} heads")
    if not 0 < config.threshold <= 1 or config.k < 1:
        raise ValueError(f"threshold {config.threshold} must lie in (0, 1], and k {config.k} be at least 1")
    check_fractions(config)
