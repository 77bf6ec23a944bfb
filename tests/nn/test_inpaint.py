import pytest
import torch
from torch import nn

from loligo.nn.inpaint import NeighbourAttention, masked_shortcut, neighbours, position_code


def test_neighbours_of_a_2x2_grid() -> None:
    outside = 4
    assert neighbours(2)[0].tolist() == [outside, outside, outside, outside, 1, outside, 2, 3]
    assert neighbours(2)[3].tolist() == [0, 1, outside, 2, outside, outside, outside, outside]


def test_neighbours_of_the_centre_of_a_3x3_grid_are_all_but_itself() -> None:
    assert neighbours(3)[4].tolist() == [0, 1, 2, 3, 5, 6, 7, 8]


@pytest.mark.parametrize(("grid", "bits"), [(1, 1), (2, 3), (3, 4), (8, 7)])
def test_position_code_is_binary(grid: int, bits: int) -> None:
    code = position_code(grid)
    assert code.shape == (grid**2, bits)
    values = (code * 2 ** torch.arange(bits - 1, -1, -1)).sum(1)
    assert values.tolist() == list(range(grid**2))


def plain_attention(module: NeighbourAttention, own: torch.Tensor, read: torch.Tensor, grid: int) -> torch.Tensor:
    """As the paper's description: torch's own attention, one patch at a time, zeros outside the grid."""
    dim = own.shape[-1]
    attention = nn.MultiheadAttention(dim, module.heads)
    attention.in_proj_weight.data = torch.cat([m.weight for m in (module.query, module.key, module.value)])
    attention.in_proj_bias.data = torch.cat([m.bias for m in (module.query, module.key, module.value)])
    attention.out_proj = module.out
    out = torch.zeros_like(own)
    for n in range(len(own)):
        for row in range(grid):
            for column in range(grid):
                around, outside = [], []
                for i in (row - 1, row, row + 1):
                    for j in (column - 1, column, column + 1):
                        if (i, j) == (row, column):
                            continue
                        inside = 0 <= i < grid and 0 <= j < grid
                        around.append(read[n, i * grid + j] if inside else torch.zeros(dim))
                        outside.append(not inside)
                keys, place = torch.stack(around)[:, None], row * grid + column
                mask = torch.tensor(outside)[None] if module.mask_outside else None
                mixed = attention(own[n, place][None, None], keys, keys, key_padding_mask=mask)[0][0, 0]
                x = torch.relu(module.norm1(mixed + read[n, place]))
                out[n, place] = torch.relu(module.norm2(module.feed(x) + x))
    return out


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("grid", [2, 3])
def test_attention_agrees_with_a_plain_loop(mask: bool, grid: int) -> None:
    torch.manual_seed(0)
    module = NeighbourAttention(16, grid, heads=4, mask_outside=mask)
    for linear in (module.query, module.key, module.value):
        nn.init.normal_(linear.bias)
    own, read = torch.randn(2, 2, grid**2, 16)
    torch.testing.assert_close(module(own, read), plain_attention(module, own, read, grid), rtol=1e-4, atol=1e-5)


def test_a_grid_of_one_patch_has_only_outside_neighbours() -> None:
    assert torch.isfinite(NeighbourAttention(8, 1, heads=2, mask_outside=True)(*torch.randn(2, 3, 1, 8))).all()


def test_heads_must_share_the_feature_evenly() -> None:
    with pytest.raises(ValueError, match="feature of 12 values cannot be shared among 8"):
        NeighbourAttention(12, 2)


def test_masked_shortcut_lets_the_original_through_in_training_only() -> None:
    new, old = torch.ones(50, 2, 8, 8), torch.zeros(50, 2, 8, 8)
    mixed = masked_shortcut(new, old, 0.8, training=True)
    assert torch.equal(mixed[:, 0], mixed[:, 1])
    assert float(mixed.mean()) == pytest.approx(0.8, abs=0.03)
    assert torch.equal(masked_shortcut(new, old, 0.8, training=False), new)
