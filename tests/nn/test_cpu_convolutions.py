"""Convolutions as they are computed while a network learns: the same function and the same gradients."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from loligo.nn.cpu_convolutions import by_product, exact_depthwise

CPU = torch.device("cpu")


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, 1), (3, 2, 1), (1, 2, 0), (1, 1, 0), (5, 2, 2)])
@pytest.mark.parametrize("side", [1, 4, 7, 8])
def test_products_give_the_convolution_and_its_gradients(kernel: int, stride: int, padding: int, side: int) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(128, 16, kernel, stride, padding, bias=kernel == 1)
    fast, found = copy.deepcopy(plain), []
    for network in (plain, fast):
        x = torch.rand(3, 128, side, side + 1, generator=torch.Generator().manual_seed(1), requires_grad=True)
        if network is plain:
            y = network(x)
        else:
            with by_product(CPU):
                y = network(x)
        assert ("Conv" in type(y.grad_fn).__name__) is (network is plain or max(y.shape[2:]) > 4)
        (y * torch.arange(y.numel()).view_as(y).sin()).sum().backward()
        found.append([y.detach(), x.grad, network.weight.grad])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "conv", [nn.Conv2d(8, 8, 3), nn.Conv2d(128, 128, 3, groups=128), nn.Conv2d(128, 8, 3, dilation=2, padding=2)]
)
def test_other_convolutions_stay(conv: nn.Conv2d) -> None:
    with by_product(CPU):
        assert "Conv" in type(conv(torch.rand(2, conv.in_channels, 4, 4)).grad_fn).__name__


def test_depthwise_convolutions_learn_in_float32() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 8, 16, 16, dtype=torch.bfloat16)
    for conv, exact in ((nn.Conv2d(8, 8, 3, groups=8), True), (nn.Conv2d(8, 8, 3), False)):
        expected = nn.functional.conv2d(x.float(), conv.weight, conv.bias, groups=conv.groups).to(torch.bfloat16)
        with torch.autocast("cpu", torch.bfloat16):
            with exact_depthwise(CPU):
                assert torch.equal(conv(x), expected) is exact
            with torch.no_grad(), exact_depthwise(CPU):
                assert not torch.equal(conv(x), expected)


def test_outside_autocast_and_without_gradient_nothing_changes() -> None:
    from contextlib import nullcontext

    assert isinstance(exact_depthwise(CPU), nullcontext)
    with torch.no_grad():
        assert isinstance(by_product(CPU), nullcontext)
