"""The networks of DCGAN and of WGAN-GP: layers, shapes and counts of the papers, and gradients through them."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from loligo.nn import dcgan, wgan


def learnt(network: nn.Module) -> nn.Module:
    """Give batch norms statistics and weights that are not those of the start."""
    torch.manual_seed(0)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean, std=0.1)
            for tensor in (part.running_var, part.weight.data):
                nn.init.uniform_(tensor, 0.5, 2)
            nn.init.normal_(part.bias, std=0.1)
    return network.eval()


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("kernel", [4, 5])
def test_dcgan_has_the_papers_layers(kernel: int) -> None:
    widths = (64, 128, 256, 512)
    down, up = dcgan.Downward(64, 1, widths, 100, kernel), dcgan.Upward(64, 1, widths, 100, kernel)
    convolutions = kernel**2 * (64 + 64 * 128 + 128 * 256 + 256 * 512) + 100 * 512 * 4 * 4
    assert parameters(down) == convolutions + 2 * (128 + 256 + 512)
    assert parameters(up) == convolutions + 2 * (64 + 128 + 256 + 512)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in down.layers[:3])
    features, z = down(torch.rand(2, 1, 64, 64))
    assert (features.shape, z.shape) == ((2, 512, 4, 4), (2, 100))
    image = up(z).detach()
    assert image.shape == (2, 1, 64, 64)
    assert -1 <= float(image.min()) <= float(image.max()) <= 1
    assert 0.018 < down.layers[-3].weight.std().item() < 0.022


@pytest.mark.parametrize("kernel", [4, 5])
def test_gradients_pulled_back_are_those_of_autograd(kernel: int) -> None:
    up = learnt(dcgan.Upward(16, 1, (3, 4), 5, kernel)).double()
    down = learnt(dcgan.Downward(16, 1, (3, 4), 1, kernel)).double()
    for layers, x in ((up.layers, torch.randn(2, 5, 1, 1)), (down.layers, torch.randn(2, 1, 16, 16))):
        x = x.double().requires_grad_()
        y = layers(x)
        slope = torch.randn_like(y)
        (expected,) = torch.autograd.grad(y, x, slope)
        with torch.inference_mode():
            outputs = dcgan.outputs_of(layers, x.detach().clone())
            found = dcgan.pulled_back(layers, outputs, slope)
        torch.testing.assert_close(outputs[-1], y.detach())
        torch.testing.assert_close(found, expected)


def test_layers_of_another_kind_have_no_gradient() -> None:
    layers = nn.Sequential(nn.Softmax(1))
    with pytest.raises(TypeError, match="there is no gradient of Softmax"):
        dcgan.pulled_back(layers, dcgan.outputs_of(layers, torch.ones(1, 2)), torch.ones(1, 2))


def block(inputs: int, middle: int, outputs: int) -> int:
    """Return the parameters of a residual block: two norms, two 3x3 convolutions (one bias), a 1x1 one with bias."""
    return 2 * inputs + 2 * middle + 9 * inputs * middle + (9 * middle + 1) * outputs + (inputs + 1) * outputs


def test_wgan_has_the_layers_of_the_authors() -> None:
    width, latent = 8, 12
    critic = wgan.Downward(64, 1, width, 1, wgan.layer_norm)
    encoder = wgan.Downward(64, 1, width, latent, nn.BatchNorm2d)
    generator = wgan.Upward(64, 1, width, latent)
    down, up = ([width * a for a in sides] for sides in ((1, 2, 4, 8, 8), (8, 8, 4, 2, 1)))
    blocks = 10 * width + sum(block(a, a, b) for a, b in itertools.pairwise(down))
    assert parameters(critic) == blocks + 8 * width * 16 + 1
    assert parameters(encoder) == blocks + (8 * width * 16 + 1) * latent
    blocks = sum(block(a, b, b) for a, b in itertools.pairwise(up))
    assert parameters(generator) == (latent + 1) * 8 * width * 16 + blocks + 2 * width + 9 * width + 1
    features, z = encoder(torch.rand(2, 1, 64, 64))
    assert (features.shape, z.shape, generator(z).shape) == ((2, 64, 4, 4), (2, latent), (2, 1, 64, 64))


def test_blocks_are_those_of_the_authors_step_by_step() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 8, 8)

    def halves(y: Tensor) -> Tensor:
        return (y[:, :, ::2, ::2] + y[:, :, 1::2, ::2] + y[:, :, ::2, 1::2] + y[:, :, 1::2, 1::2]) / 4

    def twice(y: Tensor) -> Tensor:
        return y.repeat_interleave(2, 2).repeat_interleave(2, 3)

    down = wgan.DownBlock(3, 5, wgan.layer_norm)
    y = down.conv(F.layer_norm(x, x.shape[1:]).relu())
    y = halves(down.second[2](F.layer_norm(y, y.shape[1:]).relu()))
    torch.testing.assert_close(down(x), y + down.shortcut(halves(x)), rtol=1e-4, atol=1e-5)
    up = learnt(wgan.UpBlock(3, 5, nn.BatchNorm2d))
    y = up.conv(twice(up.first(x)))
    torch.testing.assert_close(up(x), up.shortcut(twice(x)) + up.second(y), rtol=1e-4, atol=1e-5)


def test_a_critic_sees_each_image_alone() -> None:
    torch.manual_seed(0)
    critic, x = wgan.Downward(32, 1, 2, 1, wgan.layer_norm), torch.rand(3, 1, 32, 32)
    torch.testing.assert_close(critic(x)[1][:1], critic(x[:1])[1], rtol=1e-4, atol=1e-6)
