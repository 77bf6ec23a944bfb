from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.neighbors import NearestNeighbors

from conftest import anatomy
from loligo.methods.patchcore import Patchcore, PatchcoreConfig

IMAGES = torch.from_numpy(anatomy(40, 64))


@pytest.fixture(scope="module")
def fitted() -> Patchcore:
    torch.manual_seed(0)
    patchcore = Patchcore(PatchcoreConfig(size=64, layers=(1, 2), coreset=0.02, neighbours=4, sigma=0)).eval()
    patchcore.start()
    with torch.no_grad():
        patchcore.fit(IMAGES.split(8))
    return patchcore


def described(patchcore: Patchcore, x: torch.Tensor) -> torch.Tensor:
    """Return the features (N, D, h, w) of each place averaged over 3x3, coarse ones brought to the finest stage."""
    with torch.no_grad():
        maps = patchcore.backbone(x)
    means = [F.conv2d(m, torch.ones(m.shape[1], 1, 3, 3) / 9, padding=1, groups=m.shape[1]) for m in maps]
    return torch.cat([F.interpolate(m, maps[0].shape[2:], mode="bilinear") for m in means], 1)


def test_the_bank_is_a_share_of_the_features_of_the_training_images(fitted: Patchcore) -> None:
    features = described(fitted, IMAGES).permute(0, 2, 3, 1).flatten(0, 2).numpy()  # (40 * 256, D)
    assert len(fitted.bank) == round(0.02 * len(features))
    apart, _ = NearestNeighbors(n_neighbors=1).fit(features).kneighbors(fitted.bank.numpy())
    assert apart.max() < 1e-2 * np.linalg.norm(features, axis=1).mean()


def test_scores_are_weighed_distances_from_the_bank(fitted: Patchcore) -> None:
    new, bank = torch.from_numpy(anatomy(3, 64, seed=5)), fitted.bank.numpy()
    features = described(fitted, new).flatten(2).mT.numpy()  # (3, P, D)
    with torch.no_grad():
        scores = fitted.score(new)
    search = NearestNeighbors(n_neighbors=4).fit(bank)
    for i in range(3):
        distance, which = search.kneighbors(features[i], n_neighbors=1)
        place = int(distance[:, 0].argmax())
        around = bank[search.kneighbors(bank[which[place]])[1][0]]
        to_them = np.exp(np.linalg.norm(features[i, place] - around, axis=1))
        weighed = (1 - np.exp(distance[place, 0]) / to_them.sum()) * distance[place, 0]
        np.testing.assert_allclose(float(scores.image[i]), weighed, rtol=1e-3)
        grown = F.interpolate(torch.from_numpy(distance).view(1, 1, 16, 16), (64, 64), mode="bilinear")
        torch.testing.assert_close(scores.map[i : i + 1], grown.float(), rtol=1e-3, atol=1e-3)


def test_the_sample_stays_within_the_memory_limit() -> None:
    patchcore = Patchcore(PatchcoreConfig(size=64, layers=(1, 2), coreset=1.0, memory_limit="400kB")).eval()
    with torch.no_grad():
        patchcore.fit(IMAGES.split(8))
    room = 400_000 // (3 * 4 * 64)
    assert len(patchcore.bank) == room // 2


@pytest.mark.parametrize("options", [{"coreset": 0.0}, {"coreset": 1.5}, {"sample": 1}, {"neighbours": 0}])
def test_options_that_choose_nothing_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Patchcore(PatchcoreConfig(**options))  # type: ignore[arg-type]


def test_a_limit_that_is_no_size_is_refused() -> None:
    with pytest.raises(ValueError, match="no size in bytes"):
        Patchcore(PatchcoreConfig(memory_limit="much"))
