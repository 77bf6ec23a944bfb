"""Vector quantisation against brute force."""

from __future__ import annotations

import pytest
import torch

from loligo.nn.quantize import Quantize

X = torch.randn(2, 6, 4, 5, generator=torch.Generator().manual_seed(0))


def fresh(codes: int = 10, revive_below: float = 0.0) -> Quantize:
    torch.manual_seed(0)
    module = Quantize(codes, 6, revive_below)
    with torch.no_grad():
        module.quantizer.codebook.copy_(torch.randn(codes, 6))
    return module


def test_each_feature_becomes_the_nearest_entry() -> None:
    module = fresh().eval()
    quantised, codes, _ = module(X)
    book = module.quantizer.codebook.detach()
    for n in range(2):
        for row in range(4):
            for column in range(5):
                nearest = min(range(10), key=lambda k: (book[k] - X[n, :, row, column]).square().sum())
                assert int(codes[n, row, column]) == nearest
                torch.testing.assert_close(quantised[n, :, row, column], book[nearest])
    torch.testing.assert_close(module.lookup(codes), quantised)
    assert torch.equal(module.encode(X), codes)


def test_the_loss_moves_entries_and_features_and_the_gradient_passes_straight_through() -> None:
    module, x = fresh().train(), X.clone().requires_grad_()
    quantised, codes, loss = module(x)
    torch.testing.assert_close(loss, (module.lookup(codes) - x).square().mean())
    (x_grad, book_grad) = torch.autograd.grad(loss, [x, *module.parameters()], retain_graph=True)
    torch.testing.assert_close(x_grad, 2 * (x - module.lookup(codes)) / x.numel())
    assert (book_grad.abs().sum(-1) > 0).any()
    (through,) = torch.autograd.grad((quantised * X).sum(), x)
    torch.testing.assert_close(through, X)


def test_entries_that_nothing_uses_are_revived() -> None:
    module = fresh(revive_below=0.05).train()
    with torch.no_grad():
        module.quantizer.codebook[5:] += 1000
    for _ in range(400):
        module(X)
    _, codes, _ = module.eval()(X)
    assert float(module.quantizer.codebook.detach().abs().max()) < 100
    assert codes.max() >= 5


@pytest.mark.parametrize(("codes", "expected"), [([3, 3, 3, 3], 1.0), ([0, 1, 2, 3], 4.0), ([0, 0, 1, 1], 2.0)])
def test_perplexity_counts_the_codes_in_use(codes: list[int], expected: float) -> None:
    assert float(fresh().perplexity(torch.tensor(codes).view(1, 2, 2))) == pytest.approx(expected)
