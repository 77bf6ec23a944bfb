"""Adversarial losses: cross-entropy of telling real images from generated ones, and those of a Wasserstein critic."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Return the cross-entropy in nats of telling real images from generated ones by their logits, of any shape."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def generator_loss(fake: Tensor) -> Tensor:
    """Return the cross-entropy in nats of calling generated images real, by their logits of any shape."""
    return F.softplus(-fake).mean()


def feature_error(network: Callable[[Tensor], tuple[Tensor, Tensor]], real: Tensor, fake: Tensor) -> Tensor:
    """Return the squared error of the features that a network has of two images, mean over channels: (N, 1, h, w).

    ``network`` maps (N, C, H, W) to features (N, D, h, w) and to what else it says.
    """
    return (network(real)[0] - network(fake)[0]).square().mean(1, keepdim=True)


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
    """Return the mean squared departure from 1 of the critic's slope, at a random point between the two images.

    Gulrajani et al., NeurIPS 2017, 1704.00028. ``critic`` maps (N, C, H, W) to (N,), each by its image alone; ``real``
    and ``fake`` are (N, C, H, W) without gradients. It is computed in float32, also under autocast.
    """
    with torch.autocast(real.device.type, enabled=False):
        between = torch.lerp(fake.float(), real.float(), torch.rand_like(real[:, :1, :1, :1])).requires_grad_()
        (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    length: Tensor = torch.linalg.vector_norm(slope.flatten(1), dim=1)
    return (length - 1).square().mean()
