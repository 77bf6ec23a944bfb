"""Average of weights over training: a remedy for methods whose last epoch is a lottery."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class WeightAverage:
    """Keep an exponential moving average of a module's floating parameters and running statistics.

    Izmailov et al. 2018 (1803.05407) average for flatter optima, Yazıcı et al. 2019 (1806.04498) for the oscillation
    of adversarial training. Other buffers (a memory queue, a pointer) are taken as they are.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.tensors = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
        averaged = {name for name, _ in module.named_parameters()}
        self.averaged = [n for n in self.tensors if n in averaged or n.endswith(("running_mean", "running_var"))]

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move the average towards the module's present state."""
        state = module.state_dict()
        torch._foreach_lerp_(
            [self.tensors[name] for name in self.averaged],
            [state[name] for name in self.averaged],
            1 - self.decay,
        )
        for name in self.tensors.keys() - set(self.averaged):
            self.tensors[name].copy_(state[name])

    def state(self) -> dict[str, Tensor]:
        """Return the averaged state, to be loaded into a module of the same kind."""
        return self.tensors
