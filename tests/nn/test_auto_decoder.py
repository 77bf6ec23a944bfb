"""The auto-decoder's perceptron by a plain network, its search by autograd and torch's Adam."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from loligo.nn.auto_decoder import Field, nll

GRID = torch.rand(40, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1


def field(layers: int = 4) -> Field:
    torch.manual_seed(0)
    net = Field(6, 24, layers, 2, 5).eval()
    for layer in net.layers:
        layer.parametrizations.weight.original0.data.mul_(2)
    return net


def plain(net: Field, z: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """Return the logits of one code (D,) at one place (2,): inputs concatenated, weights normalised by hand."""
    angles = [math.pi * 2**octave * float(c) for c in place for octave in range(2)]
    entering = torch.cat([z, torch.tensor([math.sin(a) for a in angles] + [math.cos(a) for a in angles])])
    x = entering
    for i, layer in enumerate(net.layers):
        gain, direction = layer.parametrizations.weight.original0, layer.parametrizations.weight.original1
        x = torch.cat([x, entering]) if i == len(net.layers) // 2 else x
        x = (gain * direction / direction.norm(dim=1, keepdim=True) @ x + layer.bias).relu()
    return net.out(x)


def test_code_and_place_are_concatenated_to_the_first_and_the_middle_layer() -> None:
    for layers in (2, 3, 4):
        net, z = field(layers), torch.randn(2, 6)
        found = net(z, GRID[:5])
        expected = torch.stack([torch.stack([plain(net, code, place) for place in GRID[:5]]) for code in z])
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_fifth_of_the_values_is_dropped_in_training_alone() -> None:
    net, z = field(), torch.randn(2, 6)
    assert torch.equal(net(z, GRID), net(z, GRID))
    net.train()
    *_, last = net._hidden(z, net._describe(GRID), net._weights())
    *_, whole = net.eval()._hidden(z, net._describe(GRID), net._weights())
    assert 0.1 < float((last[whole > 0] == 0).float().mean()) < 0.35


def test_the_search_is_that_of_autograd_and_adam() -> None:
    net, target = field(), torch.randint(5, (3, 40))
    z = torch.zeros(3, 6, requires_grad=True)
    adam = torch.optim.Adam([z], 0.05)
    for step in range(9):
        if step in (0, 1, 8):
            torch.testing.assert_close(net.find(target, GRID, step, 0.05), z.detach(), rtol=1e-3, atol=1e-4)
        adam.zero_grad()
        F.cross_entropy(net(z, GRID).mT, target, reduction="none").mean(1).sum().backward()
        slope = net.gradient(z.detach(), target, net._describe(GRID), net._weights())
        torch.testing.assert_close(slope, z.grad, rtol=1e-3, atol=1e-6)
        adam.step()


def test_nll_is_that_of_the_own_class() -> None:
    logits, target = torch.randn(2, 3, 5), torch.randint(5, (2, 3))
    expected = -logits.log_softmax(2).gather(2, target[..., None])[..., 0]
    torch.testing.assert_close(nll(logits, target), expected)
