"""An auto-decoder's perceptron (DeepSDF, Park et al., CVPR 2019): from a code and coordinates to classes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

DROPOUT = 0.2
"""Fraction dropped at each hidden layer in training; DeepSDF's."""
BETAS, EPS = (0.9, 0.999), 1e-8
"""Adam's, in the search for a code."""


class Field(nn.Module):
    """Map codes and coordinates to logits of classes; in float32 where not under autocast."""

    exact = True
    octaves: Tensor

    def __init__(self, latent: int, width: int, layers: int, frequencies: int, classes: int) -> None:
        """Make ``layers`` hidden layers of ``width``; code and coordinates enter the first and the middle one.

        They take their part of the inputs of the middle one: the layer before it has so many values fewer.
        """
        super().__init__()
        self.latent, self.middle = latent, layers // 2
        self.register_buffer("octaves", math.pi * 2.0 ** torch.arange(frequencies), persistent=False)
        entering = latent + 4 * frequencies
        widths = [0, *[width] * layers]
        widths[self.middle] -= entering
        self.before = widths[:-1]  # how many inputs of a layer come from the one before
        inputs = [n + entering * (i in (0, self.middle)) for i, n in enumerate(self.before)]
        self.layers = nn.ModuleList(weight_norm(nn.Linear(a, b)) for a, b in zip(inputs, widths[1:], strict=True))
        self.out = nn.Linear(width, classes)

    def forward(self, z: Tensor, coordinates: Tensor) -> Tensor:
        """Map codes (N, D) and coordinates (P, 2) in [-1, 1] to logits (N, P, classes) float32."""
        *_, last = self._hidden(z, self._describe(coordinates), self._weights())
        logits: Tensor = self.out(last)
        return logits.float()

    def _weights(self) -> list[tuple[Tensor, Tensor]]:
        """Return weight and bias of each layer: normalised once, for as many steps as they are needed."""
        return [(layer.weight, layer.bias) for layer in cast(Iterator[nn.Linear], iter(self.layers))]

    def _describe(self, coordinates: Tensor) -> Tensor:
        """Map coordinates (P, 2) to sines and cosines (P, 4 * frequencies)."""
        angles = (coordinates[:, :, None] * self.octaves).flatten(1)
        return torch.cat([angles.sin(), angles.cos()], 1)

    def _hidden(self, z: Tensor, place: Tensor, weights: list[tuple[Tensor, Tensor]]) -> Iterator[Tensor]:
        """Yield what each hidden layer gives, (N, P, width); its inputs are the layer before, the code, the place."""
        x = z.new_zeros(z.shape[0], place.shape[0], 0)
        for i, (weight, bias) in enumerate(weights):
            own, of_code, of_place = self._parts(i, weight)
            if i in (0, self.middle):
                entering = F.linear(z, of_code)[:, None] + F.linear(place, of_place, bias)
                y = entering if i == 0 else F.linear(x, own) + entering
            else:
                y = F.linear(x, weight, bias)
            x = F.dropout(F.relu(y), DROPOUT, self.training)
            yield x

    def _parts(self, i: int, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the columns of a layer's weight that the layer before, the code and the place meet."""
        n = self.before[i]
        return weight[:, :n], weight[:, n : n + self.latent], weight[:, n + self.latent :]

    def gradient(self, z: Tensor, target: Tensor, place: Tensor, weights: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Return the gradient (N, D) by codes of the mean `nll` of classes (N, P) at described places; in eval mode."""
        hidden, found = list(self._hidden(z, place, weights)), torch.zeros_like(z)
        probabilities = self.out(hidden[-1]).float().softmax(2)
        back = (probabilities - F.one_hot(target, self.out.out_features)) / target.shape[1] @ self.out.weight
        for i in reversed(range(len(hidden))):
            own, of_code, _ = self._parts(i, weights[i][0])
            back = torch.ops.aten.threshold_backward(back, hidden[i], 0)  # through the ReLU
            if i in (0, self.middle):
                found = found + back.sum(1) @ of_code
            back = back @ own
        return found

    def find(self, target: Tensor, coordinates: Tensor, steps: int, rate: float) -> Tensor:
        """Return codes (N, D) that decode to classes (N, P) at coordinates (P, 2): Adam from zero, in eval mode."""
        place, weights, (a, b) = self._describe(coordinates), self._weights(), BETAS
        z = place.new_zeros(target.shape[0], self.latent)
        mean, square = torch.zeros_like(z), torch.zeros_like(z)
        for step in range(1, steps + 1):
            slope = self.gradient(z, target, place, weights).float()
            mean, square = mean.lerp(slope, 1 - a), square.lerp(slope.square(), 1 - b)
            z = z - rate / (1 - a**step) * mean / ((square / (1 - b**step)).sqrt() + EPS)
        return z


def nll(logits: Tensor, target: Tensor) -> Tensor:
    """Return the negative log-likelihood of classes (N, P) by logits (N, P, classes): (N, P)."""
    return F.cross_entropy(logits.mT, target, reduction="none")
