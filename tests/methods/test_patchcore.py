from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.neighbors import NearestNeighbors
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

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


def test_scores_are_weighted_distances_from_the_bank(fitted: Patchcore) -> None:
    new, bank = torch.from_numpy(anatomy(3, 64, seed=5)), fitted.bank.numpy()
    features = described(fitted, new).flatten(2).mT.numpy()  # (3, P, D)
    with torch.no_grad():
        scores = fitted(new)
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


class Peak(TorchDispatchMode):
    """Measure the bytes of all tensors that are made within it and still live, at most."""

    def __init__(self) -> None:
        super().__init__()
        self.live, self.bytes = WeakIdKeyDictionary(), 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        given = {
            tensor.untyped_storage().data_ptr() for tensor in tree_leaves(args) if isinstance(tensor, torch.Tensor)
        }
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in given:
                self.live[tensor.untyped_storage()] = tensor.untyped_storage().nbytes()
        self.bytes = max(self.bytes, sum(self.live.values()))
        return out


@pytest.mark.parametrize(("layers", "limit"), [((1, 2), 2_000_000), ((1, 2), 4_000_000), ((2, 3, 4), 8_000_000)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_sample_bank_and_search_stay_within_the_memory_limit(
    layers: tuple[int, ...], limit: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"size": 64, "layers": layers, "coreset": 1.0, "image_score": "mean"}
    patchcore = Patchcore(PatchcoreConfig(**options, memory_limit=str(limit))).eval()  # type: ignore[arg-type]
    features = torch.randn(200, patchcore.side**2, patchcore.bank.shape[1])
    monkeypatch.setattr(patchcore, "_describe", lambda x, backbone: features[int(x[0]) : int(x[0]) + len(x)])
    monkeypatch.setattr(type(patchcore.backbone), "ready", lambda self, device: self)
    batches = torch.arange(200).split(8)
    with Peak() as peak, torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
        patchcore.fit(batches)
        assert 0.3 * limit < peak.bytes <= limit
        peak.bytes = 0
        patchcore(batches[0])
        assert peak.bytes <= limit


def test_a_limit_without_room_for_a_bank_is_refused() -> None:
    for limit in ("1", "1kB", "1MB"):
        with pytest.raises(ValueError, match=f"memory_limit is {limit}, too little for 100 features of 64: raise it"):
            Patchcore(PatchcoreConfig(size=64, layers=(1, 2), memory_limit=limit))


@pytest.mark.parametrize("options", [{"coreset": 0.0}, {"coreset": 1.5}, {"neighbours": 0}])
def test_options_that_choose_nothing_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Patchcore(PatchcoreConfig(**options))  # type: ignore[arg-type]


def test_a_limit_that_is_no_size_is_refused() -> None:
    with pytest.raises(ValueError, match="no size in bytes"):
        Patchcore(PatchcoreConfig(memory_limit="much"))
