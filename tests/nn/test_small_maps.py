"""Convolutions by matrix products: the same function and the same gradients."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from loligo.nn import small_maps


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, 1), (3, 2, 1), (1, 2, 0), (1, 1, 0), (5, 2, 2)])
@pytest.mark.parametrize("side", [1, 4, 7, 8])
def test_products_give_the_convolution_and_its_gradients(kernel: int, stride: int, padding: int, side: int) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(128, 16, kernel, stride, padding, bias=kernel == 1))
    fast = copy.deepcopy(plain)
    small_maps.by_product(fast)
    assert type(fast[0]) is not nn.Conv2d and isinstance(fast[0], nn.Conv2d)
    found = []
    for network in (plain, fast):
        x = torch.rand(3, 128, side, side + 1, generator=torch.Generator().manual_seed(1), requires_grad=True)
        y = network(x)
        (y * torch.arange(y.numel()).view_as(y).sin()).sum().backward()
        found.append([y.detach(), x.grad, network[0].weight.grad])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_only_convolutions_of_many_channels_change() -> None:
    network = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Conv2d(128, 128, 3, groups=128), nn.Conv2d(128, 8, 3, dilation=2))
    small_maps.by_product(network)
    assert all(type(conv) is nn.Conv2d for conv in network)
