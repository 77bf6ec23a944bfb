"""The optimisers of a training: one a turn, made by the turn's factory, stepped, averaged, saved and restored."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from loligo.methods.contract import Reduce, Turn
from loligo.methods.optimisation import Clock


class TurnOptimiser:
    """What moves the parameters of one turn."""

    def __init__(self, method: nn.Module, turn: Turn) -> None:
        self.turn = turn
        own = [[p for name in g.modules for p in method.get_submodule(name).parameters()] for g in turn.groups]
        self.parameters = [parameter for group in own for parameter in group]
        rates = [group.learning_rate for group in turn.groups]
        self.optimiser = turn.optimiser([{"params": p, "lr": rate} for p, rate in zip(own, rates, strict=True)])
        self.averages = [p.detach().clone() for p in self.parameters] if turn.ema is not None else []

    def step(self, clock: Clock, reduce: Reduce) -> None:
        """Move the parameters by their gradients, summed over processes, and let go of these."""
        factor = self.turn.schedule(clock)
        for group, own in zip(self.optimiser.param_groups, self.turn.groups, strict=True):
            group["lr"] = own.learning_rate * factor
        if reduce.size > 1:
            _sum_gradients(self.parameters, reduce)
        if self.turn.clip is not None:
            nn.utils.clip_grad_norm_(self.parameters, self.turn.clip)
        self.optimiser.step()
        self.optimiser.zero_grad()
        if self.turn.ema is not None:
            torch._foreach_lerp_(self.averages, [p.detach() for p in self.parameters], 1 - self.turn.ema)

    @torch.no_grad()
    def put_averages(self, method: nn.Module) -> None:
        """Put the averages of the parameters in place of those in ``method``, this training's or a copy of it."""
        names = [name for group in self.turn.groups for name in group.modules] if self.averages else []
        own = [p for name in names for p in method.get_submodule(name).parameters()]
        for parameter, average in zip(own, self.averages, strict=True):
            parameter.copy_(average)

    def state(self) -> dict[str, Tensor]:
        """Return all that the next step depends on, by names such as ``state.0.exp_avg``."""
        found: dict[str, Tensor] = {}
        for j, values in self.optimiser.state_dict()["state"].items():
            found |= {f"state.{j}.{k}": torch.as_tensor(v) for k, v in values.items() if v is not None}
        return found | {f"average.{j}": average for j, average in enumerate(self.averages)}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take what `state` returned."""
        state: dict[int, dict[str, Any]] = defaultdict(dict)
        for name, tensor in tensors.items():
            kind, index, *key = name.split(".")
            if kind == "average":
                self.averages[int(index)].copy_(tensor)
                continue
            like = self.parameters[int(index)]
            same = tensor.shape == like.shape  # fused Adam takes memory as it lies: lay it as the parameter's
            state[int(index)][key[0]] = torch.empty_like(like).copy_(tensor).detach() if same else tensor
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": dict(state)})


def _sum_gradients(parameters: list[nn.Parameter], reduce: Reduce) -> None:
    """Replace the gradients by their sums over processes, all in one message."""
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    whole = reduce.sum(torch.cat([gradient.flatten() for gradient in gradients]))
    for parameter, part in zip(parameters, torch.split(whole, [p.numel() for p in parameters]), strict=True):
        parameter.grad = torch.empty_like(parameter).copy_(part.view(parameter.shape)).detach()  # see `restore`
