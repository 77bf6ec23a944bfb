"""MemAE against its paper: network, loss, and a decoder that sees nothing but the memory."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from loligo.methods.memae import Memae, MemaeConfig
from loligo.nn.places import dissimilarity

TINY = dict(Memae.presets["tiny"])
X = torch.rand(3, 1, 64, 64, generator=torch.Generator().manual_seed(0))


def memae(**options: object) -> Memae:
    torch.manual_seed(0)
    return Memae(MemaeConfig(**{**TINY, **options}))


def test_the_network_is_the_papers_for_cifar_10() -> None:
    with torch.device("meta"):
        model = Memae(MemaeConfig())
        assert model.encoder(torch.empty(1, 1, 128, 128)).shape == (1, 256, 8, 8)
    down = [layer for layer in model.encoder.modules() if isinstance(layer, nn.Conv2d)]
    up = [layer for layer in model.decoder.modules() if isinstance(layer, nn.ConvTranspose2d)]
    assert [layer.out_channels for layer in down] == [64, 128, 128, 256]
    assert [layer.out_channels for layer in up] == [256, 128, 128, 1]
    assert {layer.kernel_size for layer in (*down, *up)} == {(3, 3)}
    assert {layer.stride for layer in (*down, *up)} == {(2, 2)}
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in model.modules()) == 7  # behind all but the last
    assert isinstance(model.decoder[-1], nn.ConvTranspose2d)
    assert model.memory.slots.shape == (1, 500, 256)
    pairs = [(1, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 128), (128, 128), (128, 1)]
    convolutions = sum(9 * a * b + b for a, b in pairs)
    assert sum(p.numel() for p in model.parameters()) == convolutions + 2 * sum(b for _, b in pairs[:-1]) + 500 * 256


def test_the_loss_is_the_squared_error_and_the_entropy_weighed() -> None:
    model = memae(entropy_weight=0.1, threshold=1.0).eval()
    losses = model.losses(X, "total", {})
    with torch.no_grad():
        z = model.encoder(X).flatten(2).mT.reshape(-1, 32)
        slots = model.memory.slots[0]
        weights = torch.cosine_similarity(z[:, None], slots, dim=2).softmax(1)
        weights = weights.where(weights > 1 / 40, 0)
        weights = weights / weights.sum(1, keepdim=True)
        read = (weights @ slots).view(3, 64, 32).mT.reshape(3, 32, 8, 8)
        squared = (model.decoder(read) - X).square().mean()
        entropy = torch.distributions.Categorical(probs=weights).entropy().mean()
    assert float((weights > 0).sum(1).float().mean()) < 40
    torch.testing.assert_close(losses["reconstruction"], squared)
    torch.testing.assert_close(losses["entropy"], entropy, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(losses["total"], squared + 0.1 * entropy, rtol=1e-4, atol=1e-5)


def test_memory_encoder_and_decoder_learn_together() -> None:
    model = memae()
    model.losses(X, "total", {})["total"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in (model.memory.slots, *model.decoder.parameters()))
    assert model.encoder[0].conv.weight.grad.abs().sum() > 0


@torch.no_grad()
def test_the_decoder_sees_nothing_but_the_memory() -> None:
    model = memae(slots=1, threshold=0.0).eval()
    torch.testing.assert_close(*(model(x).reconstruction for x in (X, X.flip(0) ** 2)))
    richer = memae().eval()
    richer.memory.slots *= 100  # untrained ones are much alike
    assert not torch.allclose(*(richer(x).reconstruction for x in (X, X.flip(0) ** 2)), atol=1e-4)


@torch.no_grad()
def test_the_score_is_the_mean_squared_error() -> None:
    scores = memae().eval()(X)
    torch.testing.assert_close(scores.image, (X - scores.reconstruction).square().mean((1, 2, 3)))
    torch.testing.assert_close(scores.map, (X - scores.reconstruction).square())


@torch.no_grad()
def test_by_typicality_what_is_changed_stands_out_at_its_place() -> None:
    model = memae(score="typicality").eval()
    model.fit([X, X.flip(0)])
    altered = X.clone()
    altered[:, :, 20:44, 20:44] = 1
    normal, abnormal = model(X), model(altered)
    assert (abnormal.image > normal.image).all()
    rise = (abnormal.map - normal.map)[:, 0]
    assert (rise[:, 24:40, 24:40].mean((1, 2)) > rise[:, :12].mean((1, 2))).all()


@torch.no_grad()
def test_by_the_local_score_an_image_counts_by_its_least_similar_window() -> None:
    model = memae(score="local").eval()
    model.memory.slots *= 100  # untrained ones give reconstructions of no contrast
    model.fit([X, X.flip(0)])
    new = X.flip(3).sqrt()
    found, normal = (dissimilarity(x, model(x).reconstruction, 21, 5) for x in (new, X))
    deviation = normal.std(0, correction=0)
    expected = (found - normal.mean(0)) / (deviation + 0.1 * deviation.mean())
    torch.testing.assert_close(model(new).image, expected.amax((1, 2, 3)), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 60}, "size 60 must be a multiple of 8, 2 to the number of widths"),
        ({"widths": ()}, "name one or more"),
        ({"threshold": 4.0}, r"threshold is 4.0; it must lie in \[0, 3\]"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        memae(**options)
