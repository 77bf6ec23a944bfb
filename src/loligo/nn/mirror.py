"""A residual network turned round: from a narrow bottleneck back to the feature maps of an encoder's stages."""

from __future__ import annotations

import math

from torch import Tensor, nn

from loligo.nn.conv import ConvNorm, upsample


def halvings(fine: int, coarse: int) -> int:
    """Return how often a map of stride ``fine`` is halved to one of stride ``coarse``; ValueError if it never is."""
    count = round(math.log2(coarse / fine)) if coarse >= fine else -1
    if count < 0 or fine << count != coarse:
        raise ValueError(
            f"a map of stride {coarse} is not one of stride {fine} halved some times; choose stages of a convolutional "
            "network, in order (for vision transformers there is dinomaly)"
        )
    return count


class Mirror(nn.Module):
    """Reconstruct the maps of stages, the deepest first, each from the one below it.

    ``inputs`` channels enter at ``stride`` pixels a place; a stage of C channels is reconstructed by residual blocks of
    ``width`` or C channels, whichever is more, and a linear 1x1 convolution, as features may be negative.
    """

    def __init__(self, inputs: int, stride: int, channels: list[int], strides: list[int], width: int) -> None:
        super().__init__()
        stages, heads = [], []
        for outputs, own in zip(channels[::-1], strides[::-1], strict=True):
            steps: list[nn.Module] = [UpBlock(max(width, outputs)) for _ in range(halvings(own, stride))]
            wide = max(width, outputs)
            stages.append(nn.Sequential(ConvNorm(inputs, wide, 1), *steps))
            heads.append(nn.Conv2d(wide, outputs, 1))
            inputs, stride = wide, own
        self.stages, self.heads = nn.ModuleList(stages), nn.ModuleList(heads)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (N, D, h, w) to the maps (N, C_i, h_i, w_i) of the stages, the shallowest first."""
        found = []
        for stage, head in zip(self.stages, self.heads, strict=True):
            x = stage(x)
            found.append(head(x))
        return found[::-1]


class UpBlock(nn.Module):
    """Double height and width, then a residual block of two 3x3 convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = ConvNorm(width, width), ConvNorm(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, h, w) to (N, C, 2h, 2w)."""
        x = upsample(x)
        out: Tensor = self.second(self.first(x), residual=x)
        return out
