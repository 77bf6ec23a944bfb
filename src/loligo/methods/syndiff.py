"""SynDiff: abnormal images translated to normal ones by adversarial diffusion in few steps (Özbey et al., TMI 2023).

Two networks translate between unpaired sets, normal to abnormal and back, held together by cycles and discriminators:
they give each normal image an abnormal source. A diffusive generator then learns to restore the normal image from
noise, given that source, in four large steps; a discriminator sees each step, as steps so large are not Gaussian. To
score an image, it is the source: the normal image that is generated from it is subtracted. **Weakly supervised**: it
learns from abnormal images, too.

The paper translates between contrasts of MRI; that it is used to find anomalies, by the mean absolute difference, is
ours. Departures: only the diffusive generator towards normal images is trained, the other one is not needed. It is
MONAI's U-Net of the authors' widths in place of NCSN++, without a latent style; the translating networks and the
discriminators are this package's, the diffusive one told the step by a channel. The gradient penalty of each tenth step
is taken at each, with a tenth of the weight. The noise of scoring is drawn once and kept with the weights, so that a
score repeats and depends on no other image.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from loligo.config import Reading
from loligo.methods.configs import DiffusionConfig
from loligo.methods.contract import ALONE, Group, Method, Phase, Reduce, Step, Turn
from loligo.methods.optimisation import Cosine, adam
from loligo.nn.conv import ConvNorm, Unit, upsample
from loligo.nn.diffusion import Schedule
from loligo.nn.discriminator import Discriminator
from loligo.nn.places import Comparison
from loligo.types import Scores


@dataclass(frozen=True)
class SyndiffConfig(DiffusionConfig):
    """Options of SynDiff."""

    widths: tuple[int, ...] = (64, 64, 128, 128, 256, 256)
    """Channels of the U-Net at each level; each has half the side of the one before."""
    learning_rate: float = 1.6e-4
    """Adam's rate of the generators, falling to a tenth by a cosine."""
    critic_rate: float = 1e-4
    """The same of the discriminators."""
    steps: int = 4
    """Steps from noise to an image."""
    translator_width: int = 64
    """Channels of the translating networks at full size, four times as many at a quarter of the side."""
    translator_blocks: int = 6
    """Their blocks there."""
    critic_widths: tuple[int, ...] = (16, 32, 64, 128, 128)
    """Channels of the discriminators at each level."""
    weight: float = 0.5
    """Weight of the absolute errors of restored images and of cycles; adversarial losses have 1."""
    penalty: float = 0.05
    """Weight of the squared gradient of the diffusive discriminator at real images."""
    image_score: Reading = "error"
    """Image score: the mean absolute difference; or the least similar window (local), or how unlike normal images all
    windows are, for better or worse (unusual), both standardised over normal training images."""
    ema: float = 0.999
    """Decay of the moving average of the generators' weights, which is what scores."""


class Translator(nn.Module):
    """Translate images: convolutions to a quarter of the side, residual blocks, and back."""

    def __init__(self, channels: int, width: int, blocks: int) -> None:
        super().__init__()
        self.down = nn.Sequential(
            ConvNorm(channels, width, 7), ConvNorm(width, 2 * width, stride=2), ConvNorm(2 * width, 4 * width, stride=2)
        )
        self.blocks = nn.Sequential(*(Unit(4 * width, 4 * width) for _ in range(blocks)))
        self.ups = nn.ModuleList([ConvNorm(4 * width, 2 * width), ConvNorm(2 * width, width)])
        self.out = nn.Conv2d(width, channels, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, C, H, W) in [-1, 1] to such."""
        x = self.blocks(self.down(x))
        for up in self.ups:
            x = up(upsample(x))
        out: Tensor = self.out(x)
        return out.float().tanh()


class Syndiff(Method):
    """See the module's docstring."""

    Config = SyndiffConfig
    training_defaults: ClassVar = {"epochs": 50, "batch_size": 1}
    presets: ClassVar = {
        "radiograph": {
            **{"size": 64, "widths": (16, 32, 64), "blocks": 1, "translator_width": 8, "translator_blocks": 2},
            **{"critic_widths": (16, 32, 64), "learning_rate": 1e-3, "critic_rate": 5e-4, "ema": 0.99, "weight": 5.0},
            **{"train.epochs": 10, "train.batch_size": 16},
        },
        "digits": {
            **{"size": 48, "widths": (16, 32, 64), "blocks": 1, "translator_width": 8, "translator_blocks": 2},
            **{"critic_widths": (16, 32, 64), "learning_rate": 1e-3, "critic_rate": 5e-4, "ema": 0.99, "weight": 5.0},
            **{"train.epochs": 6, "train.batch_size": 16, "train.augment": False},
        },
        "tiny": {
            **{"size": 64, "widths": (8, 16, 16), "blocks": 1, "steps": 2, "translator_width": 4},
            **{"translator_blocks": 1, "critic_widths": (4, 8, 8), "weight": 10.0, "ema": 0.8},
            **{"learning_rate": 1e-2, "critic_rate": 1e-3},
        },
    }
    weakly_supervised = True
    config: SyndiffConfig
    noise: Tensor

    def __init__(self, config: SyndiffConfig) -> None:
        super().__init__(config)
        c = config
        self.generator = c.denoiser(2 * c.channels, c.channels)
        self.to_abnormal, self.to_normal = (
            Translator(c.channels, c.translator_width, c.translator_blocks) for _ in range(2)
        )
        self.step_critic = Discriminator(c.size, 2 * c.channels + 1, c.critic_widths, "running")
        self.abnormal_critic, self.normal_critic = (
            Discriminator(c.size, c.channels, c.critic_widths, "running") for _ in range(2)
        )
        self.schedule = Schedule.variance_preserving(c.steps)
        self.comparison = Comparison(c.size, c.image_score, power=1.0)
        drawn = torch.randn(c.steps, c.channels, c.size, c.size, generator=torch.Generator().manual_seed(0))
        self.register_buffer("noise", drawn)

    def phases(self) -> tuple[Phase, ...]:
        """Train discriminators and generators in turn."""
        c, betas = self.config, (0.5, 0.9)
        critics = Group(("step_critic", "abnormal_critic", "normal_critic"), c.critic_rate)
        generators = Group(("generator", "to_abnormal", "to_normal"), c.learning_rate)
        return (
            Phase(
                "translation",
                (
                    Turn("discriminator", (critics,), adam(betas), Cosine(0.1)),
                    Turn("generator", (generators,), adam(betas), Cosine(0.1), ema=c.ema),
                ),
            ),
        )

    def losses(self, x: Tensor, turn: str, step: Step) -> dict[str, Tensor]:
        """Return the loss of the discriminators, or that of the generators and its parts."""
        normal, abnormal = 2 * x - 1, 2 * step["abnormal"] - 1
        t = torch.randint(1, self.config.steps + 1, x.shape[:1], device=x.device)
        early = self.schedule.noisy(normal, t - 1, torch.randn_like(x))
        late = self.schedule.onwards(early, t - 1, t, torch.randn_like(x))
        source = self.to_abnormal(normal)
        restored = self._restored(late, source, t)
        mean, deviation = self.schedule.posterior(restored, late, t, t - 1)
        fake = mean + deviation * torch.randn_like(x)
        if turn == "discriminator":
            return {turn: self._told_apart(early, fake, late, t) + self._told(normal, abnormal, source)}
        healed = self.to_normal(abnormal)
        real = F.softplus(-self._judged(fake, late, t)).mean()
        real = real + F.softplus(-self.abnormal_critic(source)).mean() + F.softplus(-self.normal_critic(healed)).mean()
        cycle = F.l1_loss(self.to_normal(source), normal) + F.l1_loss(self.to_abnormal(healed), abnormal)
        error = F.l1_loss(restored, normal)
        total = real + self.config.weight * (cycle + error)
        return {"generator": total, "adversarial": real, "cycle": cycle, "reconstruction": error}

    def _restored(self, late: Tensor, source: Tensor, t: int | Tensor) -> Tensor:
        """Return the normal images that the generator sees in noisy ones, given their sources, all in [-1, 1]."""
        found: Tensor = self.generator(torch.cat([late, source], 1), t).tanh()
        return found

    def _judged(self, early: Tensor, late: Tensor, t: Tensor) -> Tensor:
        """Return logits (N,) that images were noisy ones, one step before ``late``, and not restored from it."""
        told = (t.float() / self.config.steps).view(-1, 1, 1, 1).expand_as(late[:, :1])
        logits: Tensor = self.step_critic(torch.cat([early, late, told], 1))
        return logits

    def _told_apart(self, early: Tensor, fake: Tensor, late: Tensor, t: Tensor) -> Tensor:
        """Return the loss of the diffusive discriminator, its gradient's penalty included."""
        early = early.requires_grad_()
        logits = self._judged(early, late, t)
        slope = torch.autograd.grad(logits.sum(), early, create_graph=True)[0]
        penalty = slope.square().sum((1, 2, 3)).mean()
        return (
            F.softplus(-logits).mean() + F.softplus(self._judged(fake, late, t)).mean() + self.config.penalty * penalty
        )

    def _told(self, normal: Tensor, abnormal: Tensor, source: Tensor) -> Tensor:
        """Return the loss of the discriminators of translated images."""
        pairs = ((self.abnormal_critic, abnormal, source), (self.normal_critic, normal, self.to_normal(abnormal)))
        parts = [F.softplus(-critic(real)).mean() + F.softplus(critic(fake)).mean() for critic, real, fake in pairs]
        return parts[0] + parts[1]

    def fit(self, batches: Iterable[Tensor], reduce: Reduce = ALONE) -> None:
        """Measure normal images where the score asks for it."""
        self.comparison.fit(self.reconstruct, batches)

    def reconstruct(self, x: Tensor) -> Tensor:
        """Generate normal images from abnormal ones, both (N, C, H, W) in [0, 1]."""
        source, fields = 2 * x - 1, torch.split(self.noise, 1)
        y = fields[0].expand_as(x)
        for t, field in zip(range(self.config.steps, 0, -1), (*fields[1:], fields[0]), strict=True):
            mean, deviation = self.schedule.posterior(self._restored(y, source, t), y, t, t - 1)
            y = mean + deviation * field
        return (y / 2 + 0.5).clamp(0, 1)

    def forward(self, x: Tensor) -> Scores:
        """Score by the difference between images and the normal ones generated from them."""
        found: Scores = self.comparison(x, self.reconstruct(x))
        return found
