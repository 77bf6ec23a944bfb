"""PixelSNAIL, an autoregressive prior over a grid of codes, and what causality lets it keep (Chen et al. 2018).

Paper: 1712.09763. Codes are read in raster order; the distribution of each depends on those before it only, by causal
convolutions and causal attention. So what a layer sees at a place is settled once all codes before it are: `Memo` keeps
it, and to continue in raster order each place is computed once, alone.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from loligo.nn.elu import elu


class Memo:
    """What each layer saw of E grids: made by a full pass, then renewed place by place in raster order.

    A pass over one place is over that of the first grids, as many as it is given. What is kept, (E, H, W, C), has its
    channels last, so that a place lies in one piece.
    """

    def __init__(self) -> None:
        self.seen: dict[nn.Module, Tensor] = {}
        self.weights: dict[nn.Module, Tensor] = {}
        self.place: tuple[int, int] | None = None

    def take(self, grids: Tensor) -> None:
        """Have these grids (E',) int64, as often as they are named, instead of those there are."""
        self.seen = {layer: kept[grids] for layer, kept in self.seen.items()}

    def at(self, row: int, column: int) -> Memo:
        """Have the next pass be over this place."""
        self.place = row, column
        return self

    def keep(self, layer: nn.Module, x: Tensor, reach: int = 0) -> None:
        """Keep what a layer saw in a full pass, (E, C, H, W), with ``reach`` zeros above and on both sides."""
        self.seen[layer] = (
            F.pad(x, (reach, reach, reach, 0)).permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format)
        )

    def around(self, layer: nn.Module, x: Tensor, reach: int, places: int) -> Tensor:
        """Take in what a layer sees at the place, (n, C, 1, 1); return so many places around it, (n, places * C).

        They are those of the window that reaches up and to both sides, in raster order.
        """
        assert self.place is not None
        (row, column), kept = self.place, self.seen[layer]
        kept[: len(x), row + reach, column + reach] = x[:, :, 0, 0].to(kept.dtype)
        window = kept[: len(x), row : row + reach + 1, column : column + 2 * reach + 1]
        return window.flatten(1, 2)[:, :places].flatten(1)

    def change(self, layer: nn.Module, grids: Tensor, place: tuple[int, int], x: Tensor, reach: int) -> None:
        """Have a layer have seen x (n, C) at a place of these grids (n,)."""
        self.seen[layer][grids, place[0] + reach, place[1] + reach] = x.to(self.seen[layer].dtype)

    def before(self, layer: nn.Module, x: Tensor) -> Tensor:
        """Take in what a layer sees at the place, (n, C, 1, 1); return that and all before it, (n, places, C)."""
        assert self.place is not None
        (row, column), kept = self.place, self.seen[layer]
        kept[: len(x), row, column] = x[:, :, 0, 0].to(kept.dtype)
        return kept[: len(x)].flatten(1, 2)[:, : row * kept.shape[2] + column + 1]


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
        """Map (N, C, H, W) to (N, D, H, W); with a memo at a place, (n, C, 1, 1) to (n, D, 1, 1)."""
        if memo is not None and memo.place:
            if self not in memo.weights:
                memo.weights[self] = self.conv.weight.permute(0, 2, 3, 1)[:, self.mask[0, 0] > 0].flatten(1)
            weight = memo.weights[self]  # (D, places * C)
            window = memo.around(self, x, self.reach, weight.shape[1] // x.shape[1])
            return F.linear(window, weight, self.conv.bias)[:, :, None, None]
        if memo is not None:
            memo.keep(self, x, self.reach)
        return F.conv2d(
            F.pad(x, (0, 0, self.reach, 0)), self.conv.weight * self.mask, self.conv.bias, padding=(0, self.reach)
        )


class GatedResidual(nn.Module):
    """Add to x a gated pair of convolutions of it, conditioned on other features by 1x1 convolution."""

    def __init__(self, channels: int, kernel: int, dropout: float, condition: int = 0) -> None:
        super().__init__()
        self.first = CausalConv(channels, channels, kernel)
        self.second = CausalConv(channels, 2 * channels, kernel)
        self.condition = nn.Conv2d(condition, channels, 1) if condition else None
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, x: Tensor, memo: Memo | None = None, condition: Tensor | None = None) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        h = self.first(elu(x), memo)
        if self.condition is not None and condition is not None:
            h = h + self.condition(elu(condition))
        return x + F.glu(self.second(self.dropout(elu(h)), memo), 1)


class CausalAttention(nn.Module):
    """Attend from each position to itself and all before it, with one head."""

    def __init__(self, channels: int, key: int, value: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Conv2d(channels, size, 1) for size in (key, key, value))

    def forward(self, x: Tensor, memo: Memo | None = None) -> Tensor:
        """Map (N, C, H, W) to (N, value, H, W); with a memo at a place, (n, C, 1, 1) to (n, value, 1, 1)."""
        key, value = self.key(x), self.value(x)
        q, k, v = (t.flatten(2).transpose(1, 2) for t in (self.query(x), key, value))  # (n, places, channels)
        alone = memo is not None and memo.place is not None
        if memo is not None and alone:
            k, v = memo.before(self.key, key).to(q.dtype), memo.before(self.value, value).to(q.dtype)
        elif memo is not None:
            memo.keep(self.key, key)
            memo.keep(self.value, value)
        read = F.scaled_dot_product_attention(q, k, v, is_causal=not alone)
        return read.transpose(1, 2).reshape(x.shape[0], -1, *x.shape[2:])


class Block(nn.Module):
    """Gated residual pairs, then attention over what they found."""

    def __init__(self, channels: int, pairs: int, key: int, value: int, dropout: float) -> None:
        super().__init__()
        self.pairs = nn.ModuleList(GatedResidual(channels, 3, dropout) for _ in range(pairs))
        self.attention = CausalAttention(channels, key, value)
        self.mix = GatedResidual(channels, 1, dropout, condition=value)

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
        """Fit the prior for ``codes`` entries; with a ``grid`` (H, W) it learns the typical code at each place."""
        super().__init__()
        self.codes = codes
        self.places = nn.Parameter(torch.zeros(1, channels, *grid)) if grid else None
        self.first = CausalConv(codes, channels, 7, include_self=False)
        self.condition = nn.Linear(conditions, channels) if conditions else None
        self.blocks = nn.ModuleList(Block(channels, pairs, key, value, dropout) for _ in range(blocks))
        self.out = nn.Conv2d(channels, codes, 1)

    def forward(self, codes: Tensor, condition: Tensor | None = None, memo: Memo | None = None) -> Tensor:
        """Map codes (N, H, W) int64 to logits (N, K, H, W) float32 of each given those before it.

        A code K is one that is hidden. ``condition`` is (N, conditions) float32. With a memo at a place, codes are
        (n, 1, 1) and logits (n, K, 1, 1).
        """
        with torch.autocast(codes.device.type, enabled=self.training and torch.is_autocast_enabled(codes.device.type)):
            return self._logits(codes, condition, memo)

    def _logits(self, codes: Tensor, condition: Tensor | None, memo: Memo | None) -> Tensor:
        one_hot = F.one_hot(codes, self.codes + 1)[..., :-1].permute(0, 3, 1, 2).to(self.out.weight.dtype)
        x = self.first(one_hot, memo)
        if self.condition is not None and condition is not None:
            x = x + self.condition(condition)[:, :, None, None]
        if self.places is not None:
            row, column = memo.place if memo is not None and memo.place else (..., ...)
            x = x + self.places[..., row, column].view(1, -1, *x.shape[2:])
        for block in self.blocks:
            x = block(x, memo)
        out: Tensor = self.out(elu(x)).float()
        return out


def nll(logits: Tensor, codes: Tensor) -> Tensor:
    """Return the negative log-likelihood (N, H, W), in nats, of codes (N, H, W) by logits (N, K, H, W)."""
    return F.cross_entropy(logits, codes, reduction="none")


def excess(logits: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """Return `nll` less what the prior itself expects, its entropy, and the variance of that, both (N, H, W).

    Were the codes sampled from the prior, their sum over any places would have mean 0 and the sum of these variances:
    by it the typical is distinguished from what is merely likely (Nalisnick et al. 2019, 1906.02994).
    """
    logs = logits.log_softmax(1)
    probabilities, nats = logs.exp(), -logs
    entropy = (probabilities * nats).sum(1)
    return nll(logits, codes) - entropy, (probabilities * nats.square()).sum(1) - entropy.square()


@torch.no_grad()
def resample(
    prior: PixelSnail, codes: Tensor, limit: float | Tensor, uniforms: Tensor, condition: Tensor | None = None
) -> Tensor:
    """Replace codes that the prior finds unlikely by samples from it, in raster order, several times over.

    ``codes`` (N, H, W) int64; ``uniforms`` (J, H, W) float32 in [0, 1) holds the chance of each of J restorations at
    each place. A code whose `nll`, given those before it as they now are, exceeds ``limit`` is sampled anew by the
    inverse of its cumulative distribution. Returns (N, J, H, W) int64. All restorations are computed together; each
    place after a restoration's first unlikely one is computed once.

    Matrix products round by the number of their rows, about 1e-6 apart, and so by the size of the batch: where a nll
    lies that close to the limit, or a chance to the edge of a code's interval, which is rare, another code may be
    sampled.
    """
    (n, height, width), times = codes.shape, len(uniforms)
    memo = Memo()
    given = prior(codes, condition, memo)  # (N, K, H, W): the last word on what lies before the first unlikely place
    high = (nll(given, codes) > limit).flatten(1)
    first = torch.where(high.any(1), high.int().argmax(1), height * width).repeat_interleave(times)
    first, order = first.sort(stable=True)  # those that have begun at a place are the first grids
    images = order // times
    memo.take(images)
    found, uniforms = codes[images], uniforms[order % times]
    condition = None if condition is None else condition[images]
    for place in range(int(first.min()), height * width):
        row, column = divmod(place, width)
        begun, starting = (int(torch.searchsorted(first, place, right=right)) for right in (False, True))
        logits = given[images[:starting], :, row, column]
        if begun:
            own = None if condition is None else condition[:begun]
            logits[:begun] = prior(found[:begun, row, column, None, None], own, memo.at(row, column))[:, :, 0, 0]
        hit = (F.cross_entropy(logits, found[:starting, row, column], reduction="none") > limit).nonzero()[:, 0]
        cumulative = logits[hit].softmax(1).cumsum(1)
        sampled = torch.searchsorted(cumulative, uniforms[hit, row, column, None], right=True)[:, 0]
        found[hit, row, column] = sampled = sampled.clamp(max=prior.codes - 1)
        memo.change(prior.first, hit, (row, column), F.one_hot(sampled, prior.codes), prior.first.reach)
    return torch.empty_like(found).index_copy_(0, order, found).view(n, times, height, width)
