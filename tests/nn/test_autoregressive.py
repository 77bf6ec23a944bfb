"""PixelSNAIL: causality, single places against full passes, restoration against the plain raster scan."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from loligo.nn.autoregressive import CausalConv, Memo, PixelSnail, nll, resample


def prior(conditions: int = 0) -> PixelSnail:
    """Make one of uneven weights, which learns of places of a 5x6 grid where it is conditioned."""
    torch.manual_seed(0)
    grid = (5, 6) if conditions else None
    model = PixelSnail(8, channels=16, blocks=2, pairs=2, key=4, value=8, conditions=conditions, grid=grid).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.15)
    return model


def some_codes(n: int = 3, height: int = 5, width: int = 6) -> Tensor:
    return torch.randint(8, (n, height, width), generator=torch.Generator().manual_seed(1))


def test_a_code_changes_nothing_before_it_nor_itself_and_something_after() -> None:
    model, codes = prior(), some_codes(1)
    before = model(codes)
    for row, column in ((0, 0), (2, 3), (4, 4)):
        changed = codes.clone()
        changed[0, row, column] = (changed[0, row, column] + 1) % 8
        differs = (model(changed) != before).any(1)[0].flatten()
        place = row * 6 + column
        assert not differs[: place + 1].any()
        assert differs[place + 1]


def test_what_is_learnt_of_a_place_is_of_that_place() -> None:
    model, codes = prior(1), some_codes(1)
    before = model(codes)
    with torch.no_grad():
        model.places[..., 2, 3] += 1
    differs = (model(codes) != before).any(1)[0].flatten()
    assert differs.nonzero()[0] == 2 * 6 + 3


def test_a_hidden_code_tells_nothing() -> None:
    model, codes = prior(), some_codes(2)
    hidden = codes.masked_fill(torch.tensor([True, False])[:, None, None], model.codes)
    logits = model(hidden)
    with torch.no_grad():
        blank = model.first.conv.bias.view(1, -1, 1, 1).expand(1, -1, 5, 6)
        for block in model.blocks:
            blank = block(blank)
        torch.testing.assert_close(logits[:1], model.out(F.elu(blank)))
        torch.testing.assert_close(logits[1:], model(codes)[1:])


def test_every_place_before_is_seen() -> None:
    model, codes = prior(), some_codes(1)
    last = model(codes)[0, :, -1, -1]
    for place in range(29):
        changed = codes.clone().flatten(1)
        changed[0, place] = (changed[0, place] + 1) % 8
        assert not torch.equal(model(changed.view(1, 5, 6))[0, :, -1, -1], last), place


def test_a_causal_convolution_is_a_masked_one() -> None:
    torch.manual_seed(0)
    layer, x = CausalConv(3, 4, 7, include_self=False), torch.randn(2, 3, 9, 8)
    weight = torch.zeros(4, 3, 7, 7)
    weight[:, :, :4] = layer.conv.weight.detach()
    weight[:, :, 3, 3:] = 0
    torch.testing.assert_close(layer(x), F.conv2d(x, weight, layer.conv.bias, padding=3), rtol=1e-4, atol=1e-5)


def test_places_computed_alone_equal_the_full_pass() -> None:
    model, codes, condition = prior(1), some_codes(), torch.tensor([[0.1], [-0.5], [0.4]])
    changed, chosen = codes.clone(), torch.tensor([2, 0, 0])
    changed[:, 1, 2] = 7 - changed[:, 1, 2]
    memo = Memo()
    with torch.no_grad():
        torch.testing.assert_close(model(codes, condition, memo), model(codes, condition))
        memo.take(chosen)
        full, changed, condition = model(changed, condition)[chosen], changed[chosen], condition[chosen]
        for place in range(6 + 2, 30):  # from the change on; of two grids of three
            row, column = divmod(place, 6)
            got = model(changed[:2, row, column, None, None], condition[:2], memo.at(row, column))
            torch.testing.assert_close(got[:, :, 0, 0], full[:2, :, row, column], rtol=1e-4, atol=1e-5)


def raster_scan(model: PixelSnail, codes: Tensor, limit: float, uniforms: Tensor, condition: Tensor | None) -> Tensor:
    """Restore by the plain definition: a full pass for every place of every restoration of every image."""
    found = codes[:, None].repeat(1, len(uniforms), 1, 1)
    for i in range(len(codes)):
        own = None if condition is None else condition[i : i + 1]
        for j in range(len(uniforms)):
            for row in range(codes.shape[1]):
                for column in range(codes.shape[2]):
                    logits = model(found[i, j][None], own)
                    if nll(logits, found[i, j][None])[0, row, column] > limit:
                        cumulative = logits[0, :, row, column].softmax(0).cumsum(0)
                        sampled = int((cumulative <= uniforms[j, row, column]).sum())
                        found[i, j, row, column] = min(sampled, model.codes - 1)
    return found


@pytest.mark.parametrize("conditions", [0, 1])
@pytest.mark.parametrize("limit", [1.5, 2.5, 100.0])
def test_fast_restoration_gives_the_codes_of_the_plain_raster_scan(limit: float, conditions: int) -> None:
    model, codes = prior(conditions), some_codes()
    uniforms = torch.rand(4, 5, 6, generator=torch.Generator().manual_seed(2))
    condition = torch.tensor([[0.1], [-0.5], [0.4]]) if conditions else None
    with torch.no_grad():
        expected = raster_scan(model, codes, limit, uniforms, condition)
    assert torch.equal(resample(model, codes, limit, uniforms, condition), expected)
    changes = int((expected != codes[:, None]).sum((2, 3)).max())
    assert (changes > 0) == (limit < 100)


def test_an_image_is_restored_alike_in_any_batch() -> None:
    model, codes = prior(), some_codes()
    uniforms = torch.rand(4, 5, 6, generator=torch.Generator().manual_seed(2))
    together = resample(model, codes, 2.0, uniforms)
    alone = torch.cat([resample(model, codes[i : i + 1], 2.0, uniforms) for i in range(3)])
    assert torch.equal(together, alone)
