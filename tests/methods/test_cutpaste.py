"""CutPaste and AnatPaste: classes and what they are sampled from, and the map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import anatomy, dataset, ready
from loligo import methods
from loligo.config import TrainConfig
from loligo.methods import cutpaste
from loligo.methods.contract import Method
from loligo.methods.cutpaste import CutpasteConfig, jittered, synthesised
from loligo.nn.heat import enlarge
from loligo.training.loop import fit

TINY = {k: v for k, v in cutpaste.Cutpaste.presets["tiny"].items() if not k.startswith("train.")}
X = torch.from_numpy(anatomy(6, 64))


def fresh(name: str) -> Method:
    torch.manual_seed(0)
    method = methods.get(name)
    return method(method.Config(**TINY))


@pytest.mark.parametrize(("name", "classes"), [("cutpaste", 3), ("anatpaste", 2)])
def test_classes_are_normal_and_one_a_kind(name: str, classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    method, seen = fresh(name), []
    forward = method.backbone.forward
    monkeypatch.setattr(method.backbone, "forward", lambda x: forward(seen.append(x) or x))
    losses = method.losses(X, "classification", {})
    assert 0.5 < losses["classification"].item() / np.log(classes) < 2
    assert 0 <= float(losses["error_rate"]) <= 1
    images = seen[0]
    assert images.shape == (6 * classes, 1, 64, 64)
    normal, *others = images.split(6)
    for changed in others:
        assert ((changed != normal).flatten(1).any(1)).all()
        assert ((changed == normal).float().flatten(1).mean(1) > 0.5).all()  # and each is its own image, changed


def test_anomalies_follow_torchs_state() -> None:
    torch.manual_seed(3)
    first, second = synthesised(X, "cutpaste"), synthesised(X, "cutpaste")
    torch.manual_seed(3)
    assert torch.equal(synthesised(X, "cutpaste"), first)
    assert not torch.equal(first, second)
    assert (first.dtype, first.shape) == (X.dtype, X.shape)


def test_jitter_keeps_the_range_and_changes_every_image_by_its_own() -> None:
    changed = jittered(X, 0.1)
    assert 0 <= float(changed.min()) <= float(changed.max()) <= 1
    ratio = changed.mean((1, 2, 3)) / X.mean((1, 2, 3))
    assert float(ratio.min()) > 0.85 and float(ratio.max()) < 1.15 and float(ratio.std()) > 0.01
    torch.testing.assert_close(jittered(X, 0.0), X)


def test_anatpaste_measures_from_the_mean_alone(tmp_path: Path) -> None:
    data, config = dataset(anatomy(16, 64)), TrainConfig(1, batch_size=8, precision="float32")
    method = fresh("anatpaste")
    fit(method, data, config, tmp_path)
    pooled = torch.nn.functional.normalize(method.backbone(X)[-1].mean((2, 3)), dim=1)
    normal = torch.nn.functional.normalize(method.backbone(torch.from_numpy(anatomy(16, 64)))[-1].mean((2, 3)), dim=1)
    expected = (pooled - normal.mean(0)).square().mean(1)
    torch.testing.assert_close(ready(method, "float32")(X).image, expected, rtol=1e-2, atol=1e-6)


def test_the_map_is_where_the_score_comes_from(tmp_path: Path) -> None:
    method = fresh("cutpaste")
    fit(method, dataset(anatomy(16, 64)), TrainConfig(1, batch_size=8, precision="float32"), tmp_path)
    method.config = CutpasteConfig(**TINY | {"sigma": 0.1})
    scores = ready(method, "float32")(X)
    parts = method.density(method.backbone(X)[-1])[1]
    torch.testing.assert_close(parts.mean((1, 2, 3)), scores.image, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(scores.map, enlarge(parts, 64, 0.1), rtol=1e-3, atol=1e-3 * float(parts.abs().max()))


@pytest.mark.parametrize("kind", [cutpaste.Cutpaste, methods.get("anatpaste")])
def test_the_papers_schedule_is_the_default(kind: type[cutpaste.Cutpaste]) -> None:
    train = TrainConfig(**kind.training_defaults)
    assert (train.epochs_on(1133) - 1) * 18 < 256 * 256 <= train.epochs_on(1133) * 18  # of 64 images
    method = fresh(kind.__module__.rpartition(".")[2])
    (turn,) = method.phases()[0].turns
    optimiser = turn.optimiser([{"params": [torch.zeros(1, requires_grad=True)], "lr": 0.03}])
    assert isinstance(optimiser, torch.optim.SGD)
    assert optimiser.defaults["momentum"] == 0.9 and optimiser.defaults["weight_decay"] == 3e-5
    assert turn.groups[0].learning_rate == 0.03
    assert kind.Config().backbone == "resnet18" and kind.Config().weights == "random"


def test_more_stages_than_one_are_refused() -> None:
    with pytest.raises(ValueError, match=r"layers \(1, 2\) must be one: the stage that is pooled"):
        cutpaste.Cutpaste(CutpasteConfig(layers=(1, 2)))
