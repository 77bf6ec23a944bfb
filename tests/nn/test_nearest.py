from __future__ import annotations

import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from loligo.nn.nearest import ROOM, nearest


@pytest.mark.parametrize("room", [ROOM, 10_000, 1])
def test_distances_are_those_of_scikit_learn(room: int) -> None:
    draw = torch.Generator().manual_seed(0)
    bank, queries = torch.randn(300, 20, generator=draw) + 5, torch.randn(77, 20, generator=draw) + 5
    distance, which = nearest(queries, bank, room)
    expected, index = NearestNeighbors(n_neighbors=1).fit(bank.numpy()).kneighbors(queries.numpy())
    torch.testing.assert_close(distance, torch.from_numpy(expected[:, 0]).float(), rtol=1e-4, atol=1e-4)
    assert which.tolist() == index[:, 0].tolist()


def test_in_bfloat16_the_one_found_is_hardly_farther() -> None:
    draw = torch.Generator().manual_seed(0)
    bank, queries = torch.randn(2000, 100, generator=draw) + 3, torch.randn(200, 100, generator=draw) + 3
    exact = nearest(queries, bank)[0]
    with torch.autocast("cpu", torch.bfloat16):
        found, which = nearest(queries, bank)
    torch.testing.assert_close(found, torch.linalg.vector_norm(queries - bank[which], dim=1), rtol=1e-4, atol=1e-5)
    assert float((found / exact).max()) < 1.01
    assert float((found / exact).min()) > 1 - 1e-5
