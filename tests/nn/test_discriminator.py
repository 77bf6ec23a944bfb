"""Discriminators of a panel that score as one network give the same logits."""

import pytest
import torch

from loligo.nn.conv import packed
from loligo.nn.discriminator import FeatureNorm, Judges, SideBySide


@pytest.mark.parametrize("statistics", ["image", "running"])
@pytest.mark.parametrize("discriminators", [1, 3])
def test_packed_judges_give_the_logits_of_each_discriminator(statistics, discriminators):
    torch.manual_seed(0)
    judges = Judges(2, 64, 1, statistics, widths=(4, 8, 16), discriminators=discriminators)
    for norm in (m for m in judges.modules() if isinstance(m, FeatureNorm)):
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            torch.nn.init.uniform_(tensor, 0.5, 1.5)
    x, rebuilt = torch.rand(2, 3, 1, 64, 64)
    judges.eval().keep(0.5)
    fast = packed(judges, torch.float32)
    assert [isinstance(panel, SideBySide) for panel in fast.past] == [discriminators > 1] * 2
    with torch.no_grad():
        torch.testing.assert_close(fast.past[0](x), judges.past[0](x), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(fast.mean(x, rebuilt), judges.mean(x, rebuilt), rtol=1e-4, atol=1e-5)
        assert judges.past[0](x).shape == (discriminators, 3)
        assert len(set(judges.past[0](x).flatten().tolist())) == 3 * discriminators
