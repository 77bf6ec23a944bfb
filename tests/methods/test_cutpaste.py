"""CutPaste and AnatPaste: classes and what they are drawn from, the map, and resuming."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import anatomy, dataset
from loligo import methods
from loligo.config import TrainConfig
from loligo.methods import cutpaste
from loligo.methods.contract import Method
from loligo.methods.cutpaste import CutpasteConfig, planted, toned
from loligo.nn.heat import enlarge
from loligo.scoring import Scorer
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
    losses = method.losses(X, "classification")
    assert 0.5 < float(losses["classification"]) / np.log(classes) < 2
    assert 0 <= float(losses["wrong"]) <= 1
    images = seen[0]
    assert images.shape == (6 * classes, 1, 64, 64)
    normal, *others = images.split(6)
    for made in others:
        assert ((made != normal).flatten(1).any(1)).all()
        assert ((made == normal).float().flatten(1).mean(1) > 0.5).all()  # and each is its own image, changed


def test_anomalies_follow_torchs_state() -> None:
    torch.manual_seed(3)
    first, second = planted(X, "cutpaste"), planted(X, "cutpaste")
    torch.manual_seed(3)
    assert torch.equal(planted(X, "cutpaste"), first)
    assert not torch.equal(first, second)
    assert (first.dtype, first.shape) == (X.dtype, X.shape)


def test_toning_keeps_the_range_and_moves_every_image_by_its_own() -> None:
    changed = toned(X, 0.1)
    assert 0 <= float(changed.min()) <= float(changed.max()) <= 1
    share = changed.mean((1, 2, 3)) / X.mean((1, 2, 3))
    assert float(share.min()) > 0.85 and float(share.max()) < 1.15 and float(share.std()) > 0.01
    torch.testing.assert_close(toned(X, 0.0), X)


def test_anatpaste_measures_from_the_mean_alone(tmp_path: Path) -> None:
    data, config = dataset(anatomy(16, 64)), TrainConfig(1, batch_size=8, precision="float32")
    method = fresh("anatpaste")
    fit(method, data, config, tmp_path)
    pooled = torch.nn.functional.normalize(method.backbone(X)[-1].mean((2, 3)), dim=1)
    normal = torch.nn.functional.normalize(method.backbone(torch.from_numpy(anatomy(16, 64)))[-1].mean((2, 3)), dim=1)
    expected = (pooled - normal.mean(0)).square().mean(1)
    torch.testing.assert_close(Scorer(method, "float32")(X).image, expected, rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize("name", ["cutpaste", "anatpaste"])
def test_a_resumed_training_equals_an_unbroken_one(name: str, tmp_path: Path) -> None:
    data, config = dataset(anatomy(16, 64)), TrainConfig(2, batch_size=8, precision="float32")

    class Cut(Exception):
        pass

    def cut(method: Method, epoch: int) -> None:
        if epoch == 2:
            raise Cut

    whole, broken, resumed = fresh(name), fresh(name), fresh(name)
    fit(whole, data, config, tmp_path / "whole")
    with pytest.raises(Cut):
        fit(broken, data, config, tmp_path / "broken", cut)
    fit(resumed, data, config, tmp_path / "broken")
    for key, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[key], value), key


def test_the_map_is_where_the_score_comes_from(tmp_path: Path) -> None:
    method = fresh("cutpaste")
    fit(method, dataset(anatomy(16, 64)), TrainConfig(1, batch_size=8, precision="float32"), tmp_path)
    method.config = CutpasteConfig(**TINY | {"sigma": 0.1})
    scores = Scorer(method, "float32")(X)
    parts = method.density(method.backbone(X)[-1])[1]
    torch.testing.assert_close(parts.mean((1, 2, 3)), scores.image, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(scores.map, enlarge(parts, 64, 0.1), rtol=1e-3, atol=1e-3 * float(parts.abs().max()))


def test_more_stages_than_one_are_refused() -> None:
    with pytest.raises(ValueError, match=r"layers \(1, 2\) must be one: the stage that is pooled"):
        cutpaste.Cutpaste(CutpasteConfig(layers=(1, 2)))
