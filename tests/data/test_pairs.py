from __future__ import annotations

import numpy as np
import torch

from conftest import anatomy
from loligo.data.pairs import changed, left_out, simulated, with_finding

X = torch.from_numpy(anatomy(6, 64))


def test_what_an_image_becomes_depends_on_its_content_and_the_copy_alone() -> None:
    assert torch.equal(changed(X, 1)[2:3], changed(X[2:3], 1))
    assert not torch.equal(changed(X, 1), changed(X, 2))
    assert torch.equal(left_out(X.flip(0)).flip(0), left_out(X))
    for whole, one in zip(with_finding(X), with_finding(X[2:3]), strict=True):
        assert torch.equal(whole[2:3], one)


def test_pairs_are_normals_without_a_mask_and_findings_with_one() -> None:
    torch.manual_seed(3)
    images, masks = simulated(X)
    assert images.shape == masks.shape == (12, 1, 64, 64)
    assert images.dtype == masks.dtype == torch.float32
    assert not masks[:6].any()
    assert masks[6:].flatten(1).any(1).float().mean() > 0.7  # a border that comes into view may take a small one away
    assert set(np.unique(masks.numpy())) <= {0.0, 1.0}
    assert float(images.min()) >= 0 and float(images.max()) <= 1


def test_the_state_of_torch_decides() -> None:
    torch.manual_seed(3)
    first = simulated(X)
    second = simulated(X)
    torch.manual_seed(3)
    again = simulated(X)
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], second[0])
