"""Vector quantisation: replace each feature by the nearest entry of a learnt codebook (van den Oord et al. 2017).

The work is vector-quantize-pytorch's, which is imported where a codebook is made.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Quantize(nn.Module):
    """A codebook learnt by gradient; entries that die are revived from the features of the batch."""

    exact = True

    def __init__(self, codes: int, dim: int, revive_below: float = 1.0) -> None:
        """Make ``codes`` entries of ``dim`` values; one that is used less than ``revive_below`` times a batch dies."""
        super().__init__()
        from vector_quantize_pytorch import VectorQuantize

        self.codes = codes
        self.quantizer = VectorQuantize(
            dim,
            codes,
            decay=0.99,  # of the count of uses
            accept_image_fmap=True,
            learnable_codebook=True,
            ema_update=False,
            rotation_trick=False,  # straight-through, as in the paper
            threshold_ema_dead_code=revive_below,  # a mean of counts is compared with it
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return (N, D, h, w) quantised, straight-through in training, (N, h, w) int64 codes, and a scalar loss.

        The loss is the mean squared distance, which moves codebook (towards features) and features (commitment).
        """
        with torch.autocast(x.device.type, enabled=False):
            quantised, codes, loss = self.quantizer(x.float())
        return quantised, codes, loss.sum()

    def encode(self, x: Tensor) -> Tensor:
        """Map features (N, D, h, w) to the codes (N, h, w) int64 of their nearest entries, as a graph that exports."""
        with torch.autocast(x.device.type, enabled=False):
            book = self.quantizer.codebook
            distances = book.square().sum(1) - 2 * (x.float().permute(0, 2, 3, 1) @ book.mT)  # but for x's own square
        codes: Tensor = distances.argmin(3)
        return codes

    def lookup(self, codes: Tensor) -> Tensor:
        """Map codes (N, h, w) to their entries (N, D, h, w)."""
        entries: Tensor = self.quantizer.codebook[codes]
        return entries.permute(0, 3, 1, 2)

    def perplexity(self, codes: Tensor) -> Tensor:
        """Return how many codes a batch uses, as the exponential of their entropy: 1 to the size of the codebook."""
        frequencies = torch.bincount(codes.flatten(), minlength=self.codes) / codes.numel()
        entropy: Tensor = torch.special.entr(frequencies).sum()
        return entropy.exp()
