"""What the contract's base class does for every method."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from loligo.methods.base import Method, MethodConfig


class Bank(Method):
    grown = ("bank",)
    bank: Tensor

    def __init__(self) -> None:
        super().__init__(MethodConfig())
        self.register_buffer("bank", torch.zeros(0, 3))
        self.register_buffer("mean", torch.zeros(3))


def test_a_grown_buffer_takes_the_length_that_it_is_loaded_with(tmp_path: Path) -> None:
    full = Bank()
    full.bank = torch.arange(12.0).view(4, 3)
    save_file(full.state_dict(), tmp_path / "m.safetensors")
    state = load_file(tmp_path / "m.safetensors")
    fresh, within = Bank().double(), nn.Sequential(Bank())
    fresh.load_state_dict(state)
    within.load_state_dict({f"0.{name}": value for name, value in state.items()})
    assert torch.equal(fresh.bank, full.bank.double())
    assert fresh.bank.dtype == torch.float64
    assert torch.equal(within[0].bank, full.bank)
    assert [name for name, _ in fresh.named_buffers()] == ["bank", "mean"]
    fresh.load_state_dict(Bank().state_dict())
    assert fresh.bank.shape == (0, 3)


def test_what_does_not_fit_is_refused() -> None:
    state = Bank().state_dict()
    for changed, message in (
        ({**state, "bank": torch.zeros(4, 2)}, "size mismatch for bank"),
        ({**state, "mean": torch.zeros(4)}, "size mismatch for mean"),
        ({"mean": state["mean"]}, "Missing key.*bank"),
    ):
        with pytest.raises(RuntimeError, match=message):
            Bank().load_state_dict(changed)
