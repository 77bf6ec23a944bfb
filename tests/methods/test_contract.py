"""What every registered method must do, on its own preset ``tiny``."""

from __future__ import annotations

import ast
import copy
import inspect
import itertools
import textwrap
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.stats import spearmanr
from torch import Tensor

from conftest import anatomy, dataset, ready, swapped
from loligo import methods
from loligo.config import TrainConfig, build
from loligo.methods.contract import Method
from loligo.nn.precision import Resolved
from loligo.training import loop

EPOCHS, SIZE = 12, 64
CPU = torch.device("cpu")
HELD = ("_parameters", "_buffers", "_modules")
pytestmark = pytest.mark.parametrize("name", sorted(methods.METHODS))


def fresh(name: str) -> Method:
    torch.manual_seed(0)
    kind = methods.get(name)
    return kind(build(kind.Config, {k: v for k, v in kind.presets["tiny"].items() if not k.startswith("train.")}))


ABNORMAL = dataset(swapped(anatomy(16, SIZE, seed=9)))
"""Of the kind that is planted later: a weakly supervised method knows no other."""


def fit(method: Method, *given: Any, **options: Any) -> pd.DataFrame:
    """Train a method, on abnormal images, too, where it is weakly supervised."""
    abnormal = ABNORMAL if method.weakly_supervised else None
    return loop.fit(method, *given, **options, abnormal=abnormal)


@cache
def trained(name: str) -> tuple[Method, pd.DataFrame]:
    method = fresh(name)
    augment = bool(method.presets["tiny"].get("train.augment", True))
    config = TrainConfig(EPOCHS, batch_size=8, augment=augment, precision="float32", device="cpu")
    history = fit(method, dataset(anatomy(64, SIZE)), config, progress=False)
    return method.eval(), history


@cache
def of_normals(name: str, precision: Resolved) -> Tensor:
    return ready(trained(name)[0], precision)(torch.from_numpy(anatomy(40, SIZE, seed=3))).image


@pytest.fixture
def method(name: str) -> Method:
    return trained(name)[0]


X = torch.from_numpy(anatomy(5, SIZE, seed=1))


def test_too_few_normals_are_refused_before_anything_is_learnt(name: str) -> None:
    method = fresh(name)
    few = method.least - 1
    with pytest.raises(ValueError, match=f"{name} needs {method.least} normal images? or more; it got {few}"):
        fit(method, dataset(anatomy(max(few, 1), SIZE)).subset(range(few)), TrainConfig(2, device="cpu"))


def test_abnormal_images_are_for_weakly_supervised_methods_alone(name: str) -> None:
    method, data = fresh(name), dataset(anatomy(max(2, methods.get(name).least), SIZE))
    assert methods.METHODS[name].weakly_supervised == methods.weakly_supervised(name) == method.weakly_supervised
    assert (" (weakly supervised)" in methods.marked(name)) == method.weakly_supervised
    if method.weakly_supervised:
        with pytest.raises(ValueError, match=f"{name} is weakly supervised: .* got no abnormal image to train on"):
            loop.fit(method, data, TrainConfig(1, device="cpu"), progress=False)
    else:
        with pytest.raises(ValueError, match=f"{name} learns from normal images alone; it got 16 abnormal ones"):
            loop.fit(method, data, TrainConfig(1, device="cpu"), progress=False, abnormal=ABNORMAL)


def test_scores_have_the_shapes_of_the_contract(name: str, method: Method) -> None:
    scores = ready(method, "float32")(X)
    assert scores.image.shape == (5,)
    assert scores.map is None or scores.map.shape == (5, 1, SIZE, SIZE)
    for part in (scores.image, scores.map, scores.reconstruction):
        if part is not None:
            assert part.dtype == torch.float32
            assert torch.isfinite(part).all()
    if scores.reconstruction is not None:
        assert scores.reconstruction.shape == X.shape
        assert 0 <= float(scores.reconstruction.min()) <= float(scores.reconstruction.max()) <= 1


def test_every_loss_is_finite_and_that_of_reconstruction_falls(name: str) -> None:
    history = trained(name)[1]
    phases = fresh(name).phases()
    assert len(history) == (EPOCHS if phases else 0)
    for number, phase in enumerate(phases):
        rows = history[history["phase"] == phase.name].dropna(axis="columns", how="all")  # others' losses
        losses = rows.drop(columns=["epoch", "phase", "seconds", "cpu_seconds", "images_per_s"])
        assert {turn.loss for turn in phase.turns} <= set(losses)
        assert np.isfinite(losses.to_numpy()).all()
        if number == 0:
            known = [loss for loss in ("reconstruction", "difference") if loss in losses]  # the other one is a GAN's
            falls = losses[known[0] if known else phase.turns[0].loss]
            assert falls.iloc[-1] < 0.7 * falls.iloc[0]


def test_the_same_seed_gives_the_same_numbers_also_where_it_was_killed(name: str, tmp_path: Path) -> None:
    data, config = dataset(anatomy(16, SIZE)), TrainConfig(4, batch_size=8, precision="float32", device="cpu")

    def kill(method: Method, epoch: int) -> None:
        if epoch == 3:
            raise KeyboardInterrupt

    whole, again = fresh(name), fresh(name)
    fit(whole, data, config, progress=False)
    if whole.phases():
        with pytest.raises(KeyboardInterrupt):
            fit(again, data, config, tmp_path, kill, progress=False)
        again = fresh(name)
        again.load_state_dict({k: torch.zeros_like(v) for k, v in again.state_dict().items()})
    fit(again, data, config, tmp_path, progress=False)
    expected = whole.state_dict()
    assert again.state_dict().keys() == expected.keys()
    for key, value in again.state_dict().items():
        assert torch.equal(value, expected[key]), key


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_score_does_not_depend_on_its_batch(name: str, method: Method, precision: Resolved) -> None:
    detector = ready(method, precision)
    together = detector(X).image
    alone = torch.cat([detector(X[i : i + 1]).image for i in range(5)])
    turned = detector(X.flip(0)).image.flip(0)
    tolerance = (1e-4 if precision == "float32" else 0.1) * float(of_normals(name, precision).std())
    torch.testing.assert_close(alone, together, rtol=1e-5, atol=tolerance)
    torch.testing.assert_close(turned, together, rtol=1e-5, atol=tolerance)


def test_bf16_scores_are_close_to_those_in_float32(name: str, method: Method) -> None:
    normal = anatomy(40, SIZE, seed=3)
    images = torch.from_numpy(np.concatenate([normal[:20], swapped(normal[20:])]))
    exact, rounded = (ready(method, precision)(images).image for precision in ("float32", "bf16"))
    assert spearmanr(exact, rounded).statistic > 0.9


def test_packing_for_scoring_changes_nothing(name: str, method: Method) -> None:
    with torch.no_grad():
        plain = method.eval()(X)
    fast = ready(method)(X)
    torch.testing.assert_close(fast.image, plain.image, rtol=1e-4, atol=1e-5)
    if plain.map is not None:
        torch.testing.assert_close(fast.map, plain.map, rtol=1e-3, atol=1e-5 * max(1, float(plain.map.abs().max())))


def test_saved_loaded_and_moved_it_scores_the_same(name: str, method: Method, tmp_path: Path) -> None:
    save_file({k: v.contiguous() for k, v in method.state_dict().items()}, tmp_path / "m.safetensors")
    (tmp_path / "m.safetensors").rename(tmp_path / "moved.safetensors")
    loaded = fresh(name)
    loaded.load_state_dict(load_file(tmp_path / "moved.safetensors"))
    assert torch.equal(ready(loaded)(X).image, ready(method)(X).image)
    frozen = loaded.freeze()
    own = [(f"{part}.{k}", v) for part, m in frozen.named_modules() for k, v in vars(m).items() if k not in HELD]
    assert not [name for name, value in own if holds_tensors(value)]
    with torch.no_grad():
        before = frozen(X).image
        assert torch.equal(frozen.double().float().to(CPU)(X).image, before)


def holds_tensors(value: object) -> bool:
    """Say whether an attribute is what no `Module.to` moves."""
    if isinstance(value, dict):
        value = list(value.values())
    return isinstance(value, Tensor) or (isinstance(value, list | tuple) and any(map(holds_tensors, value)))


def test_an_anomaly_that_keeps_the_mean_scores_above_its_normal_twin(
    name: str, method: Method, request: pytest.FixtureRequest
) -> None:
    if name == "simsid_staged":  # its discriminator meets the finished student alone; sharp edges look real to it
        request.applymarker(pytest.mark.xfail(reason="found in a quarter of the images by its default score"))
    normal = anatomy(20, SIZE, seed=2)
    detector = ready(method)
    twins, abnormal = (detector(torch.from_numpy(images)).image for images in (normal, swapped(normal)))
    assert (abnormal > twins).float().mean() >= 0.9


def test_its_map_rises_where_the_anomaly_is(name: str, method: Method) -> None:
    normal = anatomy(20, SIZE, seed=2)
    detector = ready(method)
    twins, abnormal = (detector(torch.from_numpy(images)).map for images in (normal, swapped(normal)))
    if twins is None or abnormal is None:
        pytest.skip("it says nothing of where")
    where = torch.from_numpy(swapped(normal) != normal)
    rise = abnormal - twins
    inside, outside = ((rise * part).sum((1, 2, 3)) / part.sum((1, 2, 3)) for part in (where, ~where))
    assert (inside > outside).float().mean() >= 0.8


def test_frozen_it_exports_to_the_same_scores_or_says_truly_that_it_cannot(name: str, method: Method) -> None:
    frozen = copy.deepcopy(method).freeze()
    with torch.no_grad():
        plain = frozen(X[:2])
        if frozen.not_exportable:
            with pytest.raises(Exception, match=r"(?i)data-dependent|functorch|Tensor"):
                torch.export.export(frozen, (X[:2],), strict=False)
            return
        exported = torch.export.export(frozen, (X[:2],), strict=False).module()(X[:2])
    for found, expected, rtol in zip(exported, plain, (1e-4, 1e-3, 1e-3), strict=True):
        assert (found is None) == (expected is None)
        if expected is not None:
            torch.testing.assert_close(found, expected, rtol=rtol, atol=1e-5)


def test_the_registry_says_what_its_default_options_say_of_export(name: str) -> None:
    kind = methods.get(name)
    method = kind.__new__(kind)  # its options alone decide, and the networks of some are large
    method.__dict__["config"] = kind.Config()
    assert methods.METHODS[name].not_exportable == method.not_exportable


def test_options_carry_a_line_of_meaning(name: str, method: Method) -> None:
    kind = type(method.config)
    fields = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0].body  # type: ignore[attr-defined]
    assert kind.__doc__
    bare = [
        a.target.id
        for a, b in itertools.pairwise([*fields, None])
        if isinstance(a, ast.AnnAssign) and not (isinstance(b, ast.Expr) and isinstance(b.value, ast.Constant))
    ]
    assert not bare
    assert methods.get(name).__module__ == f"loligo.methods.{name}"
    assert inspect.getdoc(inspect.getmodule(methods.get(name)))
