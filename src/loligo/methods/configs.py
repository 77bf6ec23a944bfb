"""Options that methods share: what every one has, what those of volumes have, and those on a pretrained network.

Options are read by the command line, which must be quick: nothing here imports torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from loligo.config import Pooling

if TYPE_CHECKING:
    from torch import Tensor

    from loligo.nn.backbones import Backbone
    from loligo.nn.diffusion import Denoiser

STAGES = {"least": -math.inf}
"""Metadata of options that name stages: timm says which there are, and -1 is the last."""


def check_fractions(config: MethodConfig) -> None:
    """Raise ValueError where a phase's fraction of the epochs, a field that ends in _fraction, is not above 0."""
    for name, value in vars(config).items():
        if name.endswith("_fraction") and value <= 0:
            raise ValueError(f"{name} is {value}; it must be more than 0")


@dataclass(frozen=True)
class MethodConfig:
    """What every method has. Subclasses add their own, one line of meaning a field."""

    size: int = 128
    """Height and width of the images that it sees, in pixels."""

    @property
    def channels(self) -> int:
        """Channels of the images that it sees."""
        return 1


@dataclass(frozen=True)
class SliceConfig(MethodConfig):
    """What methods have that may be conditioned on where a slice lies in its volume."""

    position: bool = False
    """The last channel of an image is its slice's position, from -0.5 to 0.5; for volumes. It is not reconstructed."""

    @property
    def channels(self) -> int:
        """Channels of the images that it sees: one, and one more for the position."""
        return 1 + self.position

    def split(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return images (N, 1, H, W) and the positions (N, 1) of their slices, None where they are not given."""
        return (x[:, :-1], x[:, -1].mean((1, 2))[:, None]) if self.position else (x, None)


@dataclass(frozen=True)
class BackboneConfig(MethodConfig):
    """What methods on an ImageNet-pretrained network have."""

    size: int = 224
    """Height and width of the images that it sees, in pixels."""
    backbone: str = "tf_efficientnet_lite0"
    """Name of the network in timm."""
    weights: str = "auto"
    """Where its weights come from: auto, a package or the hub's cache; download; random; or a file in timm's names."""
    layers: tuple[int, ...] = field(default=(1, 2, 3), metadata=STAGES)
    """Stages whose maps are used: in most CNNs stage i has a stride of 2**(i + 1) pixels, in VGG half of that and in
    ConvNeXt twice; in a ViT they are blocks."""

    def __post_init__(self) -> None:
        if not self.layers:
            raise ValueError("layers is empty; name one stage or more")
        if len(set(self.layers)) < len(self.layers):
            raise ValueError(f"layers {self.layers} names a stage twice; name each once")

    def extractor(self, layers: tuple[int, ...] = (), frozen: bool = True) -> Backbone:
        """Return the network, with random weights until `Backbone.load`; it gives other ``layers`` where asked.

        Raises ValueError where the size is no multiple of a transformer's patches.
        """
        from loligo.nn.backbones import Backbone  # here: it imports torch

        backbone = Backbone(self.backbone, layers or self.layers, frozen, self.weights)
        if self.size % backbone.step:
            raise ValueError(f"size {self.size} must be a multiple of the patches of {self.backbone}, {backbone.step}")
        return backbone


@dataclass(frozen=True)
class FeatureConfig(BackboneConfig):
    """What methods have that score an image by its map of a pretrained network's features."""

    image_score: Pooling = "max"
    """How a map becomes an image's score: its maximum, its mean, or the mean of its highest hundredth."""


@dataclass(frozen=True)
class DiffusionConfig(MethodConfig):
    """What methods have that remove noise from images by a U-Net; the defaults are guided diffusion's at 256 pixels."""

    size: int = 256
    """Height and width of the images that it sees, in pixels."""
    widths: tuple[int, ...] = (128, 128, 256, 256, 512, 512)
    """Channels of the U-Net at each level; each has half the side of the one before."""
    blocks: int = 2
    """Residual blocks a level."""
    attention: tuple[int, ...] = (16,)
    """Sides in pixels of the maps with self-attention; those at the bottom have it always."""
    heads: int = 1
    """Heads of the self-attention."""
    learning_rate: float = 1e-4
    """Rate of the optimiser."""

    def __post_init__(self) -> None:
        if not self.widths:
            raise ValueError("widths is empty; name the channels of one level or more")
        if self.size % (step := 1 << (len(self.widths) - 1)):
            raise ValueError(f"size {self.size} must be a multiple of {step}, for {len(self.widths)} levels of widths")
        groups = min(32, *self.widths)
        if wrong := [width for width in self.widths if width % groups or width % self.heads]:
            raise ValueError(
                f"widths {self.widths}: {wrong[0]} must be a multiple of {groups}, the groups to normalise, and of"
                f" heads, {self.heads}"
            )

    def denoiser(self, inputs: int, outputs: int) -> Denoiser:
        """Return the U-Net; ImportError, which says how to get it, without MONAI."""
        from loligo.nn.diffusion import Denoiser  # here: it imports torch

        return Denoiser(inputs, outputs, self.size, self.widths, self.blocks, self.attention, self.heads)
