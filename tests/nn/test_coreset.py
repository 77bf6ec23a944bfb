from __future__ import annotations

import numpy as np
import torch
from scipy.stats import chisquare

from loligo.nn.coreset import Reservoir, greedy


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_reservoir_keeps_all_that_fit() -> None:
    sample = Reservoir(10, 2, generator())
    for part in torch.arange(14.0).view(7, 2).split(3):
        sample.add(part)
    assert torch.equal(sample.taken(), torch.arange(14.0).view(7, 2))


def test_a_reservoir_keeps_each_with_the_same_chance() -> None:
    counts = np.zeros(60)
    for seed in range(2000):
        sample = Reservoir(12, 1, generator(seed))
        for part in torch.arange(60.0)[:, None].split(7):
            sample.add(part)
        assert sample.seen == 60
        counts[sample.taken()[:, 0].long().numpy()] += 1
    assert counts.sum() == 2000 * 12
    assert chisquare(counts).pvalue > 1e-3


def farthest_first(features: torch.Tensor, count: int, start: int) -> list[int]:
    """Take the feature that is farthest from all that were taken, one at a time."""
    chosen = [start]
    while len(chosen) < count:
        chosen.append(int(torch.cdist(features, features[chosen]).amin(1).argmax()))
    return chosen


def radius(features: torch.Tensor, chosen: torch.Tensor | list[int]) -> float:
    return float(torch.cdist(features, features[chosen]).amin(1).max())


def test_the_coreset_covers_as_well_as_one_chosen_one_at_a_time() -> None:
    features = torch.randn(3000, 8, generator=generator(1)) * torch.linspace(0.2, 2, 8)
    chosen = greedy(features, 300, generator(2))
    assert len(chosen.unique()) == 300
    exact = farthest_first(features, 300, int(chosen[0]))
    drawn = torch.randperm(3000, generator=generator(3))[:300]
    assert radius(features, chosen) <= 1.05 * radius(features, exact)
    assert radius(features, chosen) < 0.7 * radius(features, drawn)


def test_one_at_a_time_it_is_the_greedy_choice_itself(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("loligo.nn.coreset.AT_ONCE", 1)
    features = torch.randn(400, 5, generator=generator(4))
    chosen = greedy(features, 40, generator(5))
    assert chosen.tolist() == farthest_first(features, 40, int(chosen[0]))


def test_projected_distances_choose_nearly_as_well() -> None:
    features = torch.randn(2000, 200, generator=generator(6)) @ torch.randn(200, 200, generator=generator(7))
    chosen = greedy(features, 100, generator(8))
    assert radius(features, chosen) <= 1.1 * radius(features, farthest_first(features, 100, int(chosen[0])))


def test_where_few_are_asked_of_fewer_all_are_taken() -> None:
    assert greedy(torch.zeros(3, 2), 5, generator()).tolist() == [0, 1, 2]


def test_equal_features_do_not_hold_it_up() -> None:
    assert len(greedy(torch.ones(500, 4), 100, generator())) == 100
