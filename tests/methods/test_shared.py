"""What the contract's base class does for every method."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from conftest import anatomy
from loligo import methods
from loligo.config import build
from loligo.methods.configs import FeatureConfig, MethodConfig
from loligo.methods.contract import Method


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


def tiny(name: str, **options: object) -> Method:
    torch.manual_seed(0)
    kind = methods.get(name)
    preset = {k: v for k, v in kind.presets["tiny"].items() if not k.startswith("train.")}
    return kind(build(kind.Config, {**preset, **options}))


ON_FEATURES = [name for name in methods.METHODS if issubclass(methods.get(name).Config, FeatureConfig)]
VIT = {"backbone": "vit_tiny_patch16_224", "size": 72}


@pytest.mark.parametrize("name", ON_FEATURES)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": ()}, "layers is empty; name one stage or more"),
        ({"image_score": "loud"}, "image_score is 'loud'"),
        (VIT, "size 72 must be a multiple of the patches of vit_tiny_patch16_224, 16"),
    ],
)
def test_options_that_no_such_method_takes_are_refused(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(name, **options)


@pytest.mark.parametrize("how", ["max", "mean", "top"])
@pytest.mark.parametrize("name", [*ON_FEATURES, "salad", "implicit_field"])
@torch.no_grad()
def test_where_it_is_asked_for_an_images_score_is_its_map_pooled(name: str, how: str) -> None:
    if (name, how) == ("patchcore", "max"):
        pytest.skip("its maximum is weighed, as in the paper")
    method = tiny(name, image_score=how).eval()
    method.fit([torch.from_numpy(anatomy(8, 64, seed=1))])
    scores = method(torch.from_numpy(anatomy(3, 64)))
    falling = scores.map.flatten(1).sort(descending=True).values
    count = {"max": 1, "mean": 64 * 64, "top": 41}[how]  # 1 % of 64 x 64
    torch.testing.assert_close(scores.image, falling[:, :count].mean(1))
