"""What the experiment on brains says of voxels, against the exact metrics."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from loligo.evaluation import metrics


@pytest.fixture
def brains(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    from experiments import brains

    return brains


def test_metrics_of_counts_are_near_the_exact_ones_and_within_their_interval(brains: ModuleType) -> None:
    random = np.random.default_rng(0)
    masks = [random.random((8, 20, 20)) < (0.02 if i % 2 else 0) for i in range(12)]
    maps = [(random.gamma(1, 1, m.shape) + 3 * m).astype(np.float32) for m in masks]
    exact = metrics.pixel_metrics(maps, masks)
    counts = brains.binned(maps, masks)
    assert counts.sum(2).tolist() == [[int((~m).sum()), int(m.sum())] for m in masks]
    found = brains.from_counts(counts.sum(0))
    assert found["auc"] == pytest.approx(exact["auroc"], abs=1e-3)
    assert found["ap"] == pytest.approx(exact["ap"], abs=0.01)
    assert found["dice"] == pytest.approx(exact["best_dice"], abs=0.01)
    whole = brains.voxels(maps, masks)
    assert whole["ap"] == exact["ap"]
    assert whole["ap_low"] < whole["ap"] < whole["ap_high"] < whole["ap_low"] + 0.3
    assert brains.from_counts(counts[:1].sum(0)) is None


def test_intervals_of_volumes_hold_their_values(brains: ModuleType) -> None:
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1], 12)
    scores = random.normal(labels * 1.5)
    found = brains.samples(labels, scores)
    assert found["auc"] == metrics.roc_auc(labels, scores)
    for name in ("auc", "ap"):
        assert 0 < found[f"{name}_low"] < found[name] < found[f"{name}_high"] <= 1
