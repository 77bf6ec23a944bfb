"""In-paint the feature of a patch from what memory holds for its neighbours (SQUID, CVPR 2023, section 3.3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from loligo.nn.conv import ConvNorm
from loligo.nn.memory import Memory


def neighbours(grid: int) -> Tensor:
    """Return (L, 8) int64: the raster index of each patch's 3x3 neighbours, centre left out; L = grid**2 is outside."""
    index = torch.full((grid + 2, grid + 2), grid**2)
    index[1:-1, 1:-1] = torch.arange(grid**2).view(grid, grid)
    around = index.unfold(0, 3, 1).unfold(1, 3, 1).reshape(grid**2, 9)
    return around[:, [0, 1, 2, 3, 5, 6, 7, 8]]


def position_code(grid: int) -> Tensor:
    """Return (L, bits) float32: the raster index of each patch in binary, the highest bit first."""
    bits = (grid**2).bit_length()
    shifts = torch.arange(bits - 1, -1, -1)
    return ((torch.arange(grid**2)[:, None] >> shifts) & 1).float()


class NeighbourAttention(nn.Module):
    """Attend from a patch's own feature to the features read for its 8 neighbours; feed-forward; both residual."""

    around: Tensor

    def __init__(self, dim: int, grid: int, heads: int = 8, mask_outside: bool = False) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"a patch feature of {dim} values cannot be shared among {heads} attention heads")
        self.heads, self.mask_outside = heads, mask_outside
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim) for _ in range(4))
        for linear in (self.query, self.key, self.value):  # as torch's MultiheadAttention: one matrix of three
            nn.init.uniform_(linear.weight, -((6 / (4 * dim)) ** 0.5), (6 / (4 * dim)) ** 0.5)
        for linear in (self.query, self.key, self.value, self.out):
            nn.init.zeros_(linear.bias)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.feed = nn.Sequential(nn.Linear(dim, dim // 4), nn.ReLU(), nn.Linear(dim // 4, dim))
        self.register_buffer("around", neighbours(grid), persistent=False)

    def forward(self, own: Tensor, read: Tensor) -> Tensor:
        """Take own and memory-read features, both (N, L, D); return (N, L, D).

        Outside the grid a neighbour is the zero vector, so its key and value are the biases; it takes part in the
        softmax unless ``mask_outside``. Keys and values are projected once a patch, then gathered: (N, L, 8, D).
        """
        n, length, dim = own.shape
        split = (n, length, -1, self.heads, dim // self.heads)
        query = self.query(own).view(split)  # (N, L, 1, h, d)
        key = self._gather(self.key, read).view(split)  # (N, L, 8, h, d)
        value = self._gather(self.value, read).view(split)
        weights = (query * key).sum(-1, dtype=torch.float32) / (dim // self.heads) ** 0.5  # (N, L, 8, h)
        if self.mask_outside and length > 1:
            weights = weights.masked_fill((self.around == length)[:, :, None], float("-inf"))
        mixed = (weights.softmax(2).to(value.dtype)[..., None] * value).sum(2).reshape(n, length, dim)
        x = F.relu(self.norm1(self.out(mixed) + read))
        return F.relu(self.norm2(self.feed(x) + x))

    def _gather(self, project: nn.Linear, read: Tensor) -> Tensor:
        projected = project(read)
        outside = project.bias.to(projected.dtype).expand(len(read), 1, -1)
        return torch.cat([projected, outside], 1)[:, self.around]


class Inpaint(nn.Module):
    """In-paint bottleneck features from memory: (N * L, C, h, w) to (N * L, C, h, w)."""

    code: Tensor

    def __init__(self, channels: int, grid: int, memory: Memory | None, attention: NeighbourAttention | None) -> None:
        super().__init__()
        self.length = grid**2
        self.squeeze = ConvNorm(channels, channels // 4, kernel=1)
        self.memory, self.attention = memory, attention
        self.register_buffer("code", position_code(grid), persistent=False)
        self.expand = ConvNorm(channels // 4 + self.code.shape[1], channels, kernel=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the new feature map, and as (N, L, D) the squeezed features before and after in-painting."""
        own = self.squeeze(x)
        n, c, h, w = own.shape
        flat = own.reshape(n // self.length, self.length, c * h * w)
        read = flat if self.memory is None else self.memory(flat)
        inpainted = read if self.attention is None else self.attention(flat, read)
        code = self.code.to(inpainted.dtype)[:, :, None, None].expand(-1, -1, h, w).repeat(n // self.length, 1, 1, 1)
        y = torch.cat([inpainted.reshape(n, c, h, w), code], 1).contiguous(memory_format=torch.channels_last)
        return self.expand(y), flat.detach(), inpainted.detach()


def masked_shortcut(new: Tensor, old: Tensor, ratio: float, training: bool) -> Tensor:
    """Return ``new`` (N, C, h, w); in training ``old`` at all but a fraction ``ratio`` of places, chosen at random."""
    if not training or ratio >= 1:
        return new
    mask = torch.rand(len(new), 1, *new.shape[2:], device=new.device) < ratio
    return torch.where(mask, new, old)
