"""PixelSNAIL, an autoregressive prior over a grid of codes, and what causality lets it keep (Chen et al. 2018).

Paper: 1712.09763. Codes are read in raster order; the distribution of each depends on those before it only, by causal
convolutions and causal attention. So a change of one code leaves all before it as they were: `Memo` keeps what every
layer saw, and a single row is computed anew instead of all.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Memo:
    """What each layer saw of E grids, by rows; made by a full pass, changed by passes over one row of each.

    ``grids`` (n,) and ``rows`` (n,) int64 say which row of which grid a pass is over. What is kept, (E, H, W, C), has
    its channels last, so that a row lies in one piece: rows are taken out and put back all the time.
    """

    def __init__(self) -> None:
        self.seen: dict[nn.Module, Tensor] = {}
        self.grids: Tensor | None = None
        self.rows: Tensor | None = None

    def repeat(self, times: int) -> None:
        """Have every grid ``times`` times: grid i becomes i * times to (i + 1) * times - 1."""
        self.seen = {layer: kept.repeat_interleave(times, 0) for layer, kept in self.seen.items()}

    def at(self, grids: Tensor, rows: Tensor) -> Memo:
        """Have the next pass be over these rows."""
        self.grids, self.rows = grids, rows
        return self

    def keep(self, layer: nn.Module, x: Tensor) -> None:
        """Keep what a layer saw in a full pass, (E, C, H, W)."""
        self.seen[layer] = x.permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format)

    def update(self, layer: nn.Module, x: Tensor, above: int) -> Tensor:
        """Take in the rows (n, C, 1, W); return them with the ``above`` ones over them, (n, C, above + 1, W)."""
        kept = self.seen[layer]  # (E, above + H, W, C), zeros on top
        assert self.grids is not None and self.rows is not None
        kept[self.grids, self.rows + above] = x[:, :, 0].transpose(1, 2).to(kept.dtype)
        window = self.rows[:, None] + torch.arange(above + 1, device=x.device)
        return kept[self.grids[:, None], window].permute(0, 3, 1, 2)

    def whole(self, layer: nn.Module) -> Tensor:
        """Return all places (n, H * W, C) of the grids that the pass is over."""
        return self.seen[layer][self.grids].flatten(1, 2)


class CausalConv(nn.Module):
    """Convolve with what lies before a position in raster order, with or without the position itself."""

    mask: Tensor

    def __init__(self, inputs: int, outputs: int, kernel: int, include_self: bool = True) -> None:
        super().__init__()
        self.reach = kernel // 2
        self.conv = nn.Conv2d(inputs, outputs, (self.reach + 1, kernel))
        mask = torch.ones(1, 1, self.reach + 1, kernel)
        mask[..., -1, self.reach + include_self :] = 0
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor, memo: Memo | None = None) -> Tensor:
        """Map (N, C, H, W) to (N, D, H, W); with a memo of rows, (n, C, 1, W) to (n, D, 1, W)."""
        if memo is not None and memo.rows is not None:
            x = memo.update(self, x, self.reach)
        else:
            x = F.pad(x, (0, 0, self.reach, 0))
            if memo is not None:
                memo.keep(self, x)
        return F.conv2d(x, self.conv.weight * self.mask, self.conv.bias, padding=(0, self.reach))


class GatedResidual(nn.Module):
    """Add to x a gated pair of convolutions of it, told of other features by 1x1 convolution."""

    def __init__(self, channels: int, kernel: int, dropout: float, told: int = 0) -> None:
        super().__init__()
        self.first = CausalConv(channels, channels, kernel)
        self.second = CausalConv(channels, 2 * channels, kernel)
        self.told = nn.Conv2d(told, channels, 1) if told else None
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, x: Tensor, memo: Memo | None = None, told: Tensor | None = None) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        h = self.first(F.elu(x), memo)
        if self.told is not None and told is not None:
            h = h + self.told(F.elu(told))
        return x + F.glu(self.second(self.dropout(F.elu(h)), memo), 1)


class CausalAttention(nn.Module):
    """Attend from each position to itself and all before it, with one head."""

    def __init__(self, channels: int, key: int, value: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Conv2d(channels, size, 1) for size in (key, key, value))

    def forward(self, x: Tensor, memo: Memo | None = None) -> Tensor:
        """Map (N, C, H, W) to (N, value, H, W), rows alone with a memo of rows."""
        n, _, rows, width = x.shape
        key, value = self.key(x), self.value(x)
        q, k, v = (t.flatten(2).transpose(1, 2) for t in (self.query(x), key, value))  # (n, places, channels)
        at = torch.arange(rows * width, device=x.device).expand(n, -1)  # (n, q): each query's place in raster order
        if memo is not None and memo.rows is not None:
            memo.update(self.key, key, 0)
            memo.update(self.value, value, 0)
            k, v = memo.whole(self.key), memo.whole(self.value)
            at = at + memo.rows[:, None] * width
        elif memo is not None:
            memo.keep(self.key, key)
            memo.keep(self.value, value)
        mask = torch.arange(k.shape[1], device=x.device) <= at[:, :, None]
        read = F.scaled_dot_product_attention(q, k.to(q.dtype), v.to(q.dtype), mask)
        return read.transpose(1, 2).reshape(n, -1, rows, width)


class Block(nn.Module):
    """Gated residual pairs, then attention over what they found."""

    def __init__(self, channels: int, pairs: int, key: int, value: int, dropout: float) -> None:
        super().__init__()
        self.pairs = nn.ModuleList(GatedResidual(channels, 3, dropout) for _ in range(pairs))
        self.attention = CausalAttention(channels, key, value)
        self.mix = GatedResidual(channels, 1, dropout, told=value)

    def forward(self, x: Tensor, memo: Memo | None = None) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        for pair in self.pairs:
            x = pair(x, memo)
        out: Tensor = self.mix(x, memo, self.attention(x, memo))
        return out


class PixelSnail(nn.Module):
    """Give each code's distribution by those before it, and by a condition such as a slice's position.

    Autocast applies in training only: in eval mode a rounding may not decide whether a code is replaced.
    """

    exact = True

    def __init__(
        self,
        codes: int,
        channels: int = 128,
        blocks: int = 4,
        pairs: int = 4,
        key: int = 16,
        value: int = 128,
        dropout: float = 0.1,
        conditions: int = 0,
        grid: tuple[int, int] | None = None,
    ) -> None:
        """Fit the prior for ``codes`` entries; with a ``grid`` (H, W) it learns what is usual at each place of it."""
        super().__init__()
        self.codes = codes
        self.places = nn.Parameter(torch.zeros(1, channels, *grid)) if grid else None
        self.first = CausalConv(codes, channels, 7, include_self=False)
        self.condition = nn.Linear(conditions, channels) if conditions else None
        self.blocks = nn.ModuleList(Block(channels, pairs, key, value, dropout) for _ in range(blocks))
        self.out = nn.Conv2d(channels, codes, 1)

    def forward(self, codes: Tensor, condition: Tensor | None = None, memo: Memo | None = None) -> Tensor:
        """Map codes (N, H, W) int64 to logits (N, K, H, W) float32 of each given those before it.

        ``condition`` is (N, conditions) float32. With a memo of rows, codes are (n, 1, W) and so are the logits.
        """
        with torch.autocast(codes.device.type, enabled=self.training and torch.is_autocast_enabled(codes.device.type)):
            return self._logits(codes, condition, memo)

    def _logits(self, codes: Tensor, condition: Tensor | None, memo: Memo | None) -> Tensor:
        one_hot = F.one_hot(codes, self.codes).permute(0, 3, 1, 2).to(self.out.weight.dtype)
        x = self.first(one_hot, memo)
        if self.condition is not None and condition is not None:
            x = x + self.condition(condition)[:, :, None, None]
        if self.places is not None:
            x = x + (self.places if memo is None or memo.rows is None else self._places_of(memo.rows))
        for block in self.blocks:
            x = block(x, memo)
        out: Tensor = self.out(F.elu(x)).float()
        return out

    def _places_of(self, rows: Tensor) -> Tensor:
        """Return what is learnt of the places of rows (n,), as (n, C, 1, W)."""
        assert self.places is not None
        return self.places[0, :, rows].transpose(0, 1)[:, :, None]


def surprise(logits: Tensor, codes: Tensor) -> Tensor:
    """Return the negative log-likelihood (N, H, W), in nats, of codes (N, H, W) by logits (N, K, H, W)."""
    return F.cross_entropy(logits, codes, reduction="none")


@torch.no_grad()
def resample(
    prior: PixelSnail, codes: Tensor, limit: float, uniforms: Tensor, condition: Tensor | None = None
) -> tuple[Tensor, int]:
    """Replace codes that surprise the prior by samples from it, in raster order, several times over.

    ``codes`` (N, H, W) int64; ``uniforms`` (J, H, W) float32 in [0, 1) holds the chance of each of J restorations at
    each place. A code whose surprise, given those before it as they now are, exceeds ``limit`` is drawn anew by the
    inverse of its cumulative distribution. Returns (N, J, H, W) int64, and how many passes over a row of each grid it
    took. All restorations go through together; each starts at its first surprising row and computes a row again
    only after a replacement in it.
    """
    (n, height, width), times = codes.shape, len(uniforms)
    memo = Memo()
    high = surprise(prior(codes, condition, memo), codes) > limit  # (N, H, W)
    memo.repeat(times)
    codes, uniforms = codes.repeat_interleave(times, 0), uniforms.repeat(n, 1, 1)
    condition = None if condition is None else condition.repeat_interleave(times, 0)
    surprising = high.any(2)
    row = torch.where(surprising.any(1), surprising.int().argmax(1), height).repeat_interleave(times)
    column = torch.zeros_like(row)  # all before it in its row are settled
    places, passes = torch.arange(width, device=codes.device), 0
    while (active := (row < height).nonzero()[:, 0]).numel():
        r, passes = row[active], passes + 1
        here = codes[active, r]  # (n, W)
        told = None if condition is None else condition[active]
        logits = prior(here[:, None], told, memo.at(active, r))[:, :, 0]  # (n, K, W)
        high = (F.cross_entropy(logits, here, reduction="none") > limit) & (places >= column[active, None])
        found, at = high.any(1), high.int().argmax(1)
        hit, r_hit, c_hit = active[found], r[found], at[found]
        cumulative = logits[found, :, c_hit].softmax(1).cumsum(1)
        drawn = torch.searchsorted(cumulative, uniforms[hit, r_hit, c_hit, None], right=True)[:, 0]
        codes[hit, r_hit, c_hit] = drawn.clamp(max=prior.codes - 1)
        column[hit] = c_hit + 1
        row[active[~found]] += 1
        column[active[~found]] = 0
    return codes.view(n, times, height, width), passes
