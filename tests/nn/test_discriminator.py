"""Discriminators that score as one network give the same logits."""

import pytest
import torch

from loligo.nn.conv import packed
from loligo.nn.discriminator import Ensemble, FeatureNorm, SideBySide


@pytest.mark.parametrize("statistics", ["image", "running"])
@pytest.mark.parametrize("discriminators", [1, 3])
def test_a_packed_ensemble_gives_the_logits_of_each_discriminator(statistics, discriminators):
    torch.manual_seed(0)
    ensemble = Ensemble(2, 64, 1, statistics, widths=(4, 8, 16), discriminators=discriminators)
    for norm in (m for m in ensemble.modules() if isinstance(m, FeatureNorm)):
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            torch.nn.init.uniform_(tensor, 0.5, 1.5)
    x, fake = torch.rand(2, 3, 1, 64, 64)
    ensemble.eval().keep(0.5)
    fast = packed(ensemble, torch.float32)
    assert [isinstance(members, SideBySide) for members in fast.past] == [discriminators > 1] * 2
    with torch.no_grad():
        torch.testing.assert_close(fast.past[0](x), ensemble.past[0](x), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(fast.mean(x, fake), ensemble.mean(x, fake), rtol=1e-4, atol=1e-5)
        assert ensemble.past[0](x).shape == (discriminators, 3)
        assert len(set(ensemble.past[0](x).flatten().tolist())) == 3 * discriminators


@pytest.mark.parametrize(("epochs", "count"), [(0, 1), (1, 1), (2, 1), (3, 2), (4, 2)])
def test_frozen_before_or_after_packing_the_same_discriminators_count(epochs, count):
    torch.manual_seed(0)
    ensemble = Ensemble(2, 64, 1, "image", widths=(4, 8), discriminators=2).eval()
    for epoch in range(epochs):
        torch.nn.init.normal_(ensemble.current[0].logit.bias)
        ensemble.keep((epoch + 1) / 4)
    x = torch.rand(3, 1, 64, 64)
    with torch.no_grad():
        plain = ensemble.mean(x)
        fast = packed(ensemble, torch.float32)
        for each in (fast, ensemble):
            each.freeze()
            assert len(each.members) == count
            torch.testing.assert_close(each.mean(x), plain, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(packed(ensemble, torch.float32).mean(x), plain, rtol=1e-4, atol=1e-5)
