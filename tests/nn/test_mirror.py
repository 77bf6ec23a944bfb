"""The mirrored decoder: shapes, and which strides it takes."""

from __future__ import annotations

import pytest
import torch

from loligo.nn.mirror import Mirror, halvings


def test_it_reconstructs_each_stage_at_its_own_shape_and_from_the_one_below() -> None:
    channels, strides = [6, 40, 20], [4, 16, 32]  # one halving is skipped
    mirror = Mirror(12, 64, channels, strides, width=8).eval()
    found = mirror(torch.randn(2, 12, 2, 2))
    assert [tuple(m.shape) for m in found] == [
        (2, c, 128 // s, 128 // s) for c, s in zip(channels, strides, strict=True)
    ]
    assert all((m < 0).any() for m in found)  # linear, as features may be negative
    found[2].sum().backward()
    assert mirror.heads[1].weight.grad is None


def test_strides_that_are_no_halvings_are_refused() -> None:
    assert [halvings(4, 4), halvings(4, 8), halvings(4, 64)] == [0, 1, 4]
    for fine, coarse in ((4, 12), (8, 4), (14, 32)):
        with pytest.raises(ValueError, match=rf"stride {coarse} is not one of stride {fine} halved some times; choose"):
            halvings(fine, coarse)
