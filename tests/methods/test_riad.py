"""RIAD's parts: what is in-painted from what, the network, the score by SciPy's filters."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import uniform_filter

from conftest import anatomy
from loligo.methods.optimisation import Clock
from loligo.methods.riad import Riad, RiadConfig, UNet, late_tenth, random_grids
from loligo.nn.similarity import ms_gms, ssim

TINY = dict(Riad.presets["tiny"])
X = torch.from_numpy(anatomy(4, 64, seed=1))


def riad(seed: int = 0, **options: object) -> Riad:
    torch.manual_seed(seed)
    return Riad(RiadConfig(**{**TINY, **options})).eval()


def test_no_pixel_is_in_painted_from_its_own_set() -> None:
    model = riad()
    grids = random_grids(4, 8, 3)
    chosen = (grids == 1).repeat_interleave(8, 1).repeat_interleave(8, 2)[:, None]
    with torch.no_grad():
        before = model.inpaint(X, grids, 8)
        after = model.inpaint(torch.where(chosen, torch.rand_like(X), X), grids, 8)
    assert torch.equal(before[chosen], after[chosen])
    assert (before[~chosen] != after[~chosen]).float().mean() > 0.5


def test_what_is_in_painted_is_the_networks_output_for_images_without_the_set() -> None:
    model, grids = riad(), random_grids(1, 4, 3)
    with torch.no_grad():
        found = model.inpaint(X, grids, 16)
        for row in range(4):
            for column in range(4):
                part = np.s_[:, :, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
                removed = (grids == grids[0, row, column])[0].kron(torch.ones(16, 16)).bool()
                image = model.network(torch.where(removed, 0.0, 2 * X - 1))
                torch.testing.assert_close(found[part], image[part])


def test_sets_are_of_equal_size_and_random() -> None:
    grids = random_grids(5, 16, 3)
    for grid in grids:
        assert sorted(torch.bincount(grid.flatten()).tolist()) == [85, 85, 86]
    assert not torch.equal(grids[0], grids[1])


def test_the_network_has_two_convolutions_a_resolution_each_way() -> None:
    network = UNet(1, (64, 128, 256, 512, 512))

    def pair(inputs: int, outputs: int) -> int:  # weights, biases, scales and shifts
        return 9 * outputs * (inputs + outputs) + 6 * outputs

    ways = [(1, 64), (64, 128), (128, 256), (256, 512), (512, 512)]
    ways += [(1024, 512), (768, 256), (384, 128), (192, 64)]
    expected = sum(pair(a, b) for a, b in ways) + 9 * 64 + 1
    assert sum(p.numel() for p in network.parameters()) == expected
    with torch.no_grad():
        assert UNet(1, (4, 8, 8)).eval()(X).shape == X.shape


def test_the_score_is_the_maximum_of_the_smoothed_mean_over_cells() -> None:
    model = riad()
    with torch.no_grad():
        images = [model.inpaint(X, model.get_buffer(f"grid{cell}"), cell) for cell in (4, 16)]
        scores = model(X)
    heat = np.mean([1 - ms_gms(X, image).numpy() for image in images], 0)[:, 0]
    inside = uniform_filter(np.ones((64, 64)), 11, mode="constant")
    expected = np.stack([uniform_filter(image, 11, mode="constant") / inside for image in heat])
    np.testing.assert_allclose(scores.map[:, 0].numpy(), expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(scores.image.numpy(), expected.max((1, 2)), rtol=1e-4)
    torch.testing.assert_close(scores.reconstruction, (images[0] + images[1]) / 2)


def test_as_a_deviation_a_better_in_painting_counts_as_much_as_a_worse_one() -> None:
    model, normals = riad(map="deviation", image_score="mean"), torch.from_numpy(anatomy(12, 64))
    with torch.no_grad():
        model.fit([normals[:8], normals[8:]])
        plain = riad()
        maps = plain(normals).map
        deviation = maps.std(0, correction=0)
        expected = (plain(X).map - maps.mean(0)) / (deviation + 0.1 * deviation.mean() + 1e-6)
        scores = model(X)
    torch.testing.assert_close(scores.map, expected.abs(), rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(scores.image, scores.map.mean((1, 2, 3)))
    assert (expected < -1).any()
    assert (expected > 1).any()


def test_the_grids_that_score_are_kept_with_the_weights() -> None:
    model, other = riad(0), riad(1)
    assert not torch.equal(model.grid4, other.grid4)
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(other(X).image, model(X).image)


def test_the_loss_sums_squared_error_gradients_and_structure() -> None:
    model = riad(cells=(8,), gradient_weight=2.0, structure_weight=3.0)
    with torch.no_grad():
        torch.manual_seed(3)
        losses = model.losses(X, "total", {})
        torch.manual_seed(3)
        torch.randint(1, ())
        image = model.inpaint(X, random_grids(4, 8, 3), 8)
    parts = ((X - image) ** 2).mean(), 1 - ms_gms(X, image).mean(), 1 - ssim(X, image).mean()
    torch.testing.assert_close(losses["total"], parts[0] + 2 * parts[1] + 3 * parts[2])


def test_the_rate_falls_to_a_tenth_after_250_of_300_epochs() -> None:
    assert [late_tenth(Clock(0, 1, epoch, 300)) for epoch in (0, 249, 250, 299)] == [1, 1, 0.1, 0.1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 66}, "size 66 must be a multiple of 2"),
        ({"size": 68}, "size 68 must be a multiple of each of cells"),
        ({"cells": (64,)}, "and larger; here of 64"),
        ({"cells": (4, 4)}, "each once"),
        ({"size": 8}, "8 pixels a side is smaller than the window"),
        ({"size": 12, "cells": (4,)}, "size is 12; four scales of gradients"),
        ({"sets": 1}, "sets is 1"),
        ({"smoothing": 10}, "smoothing is 10"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        riad(**options)
