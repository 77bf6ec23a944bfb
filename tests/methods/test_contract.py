"""What every registered method must do, on its own preset ``tiny``."""

from __future__ import annotations

import ast
import itertools
import textwrap
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import anatomy, dataset, ready, swapped
from loligo import methods
from loligo.config import TrainConfig, build
from loligo.methods.contract import Method
from loligo.training.loop import fit

EPOCHS, SIZE = 12, 64
pytestmark = pytest.mark.parametrize("name", sorted(methods.METHODS))


def fresh(name: str) -> Method:
    torch.manual_seed(0)
    kind = methods.get(name)
    return kind(build(kind.Config, {k: v for k, v in kind.presets["tiny"].items() if not k.startswith("train.")}))


@cache
def trained(name: str, folder: Path) -> tuple[Method, pd.DataFrame]:
    method = fresh(name)
    augment = bool(method.presets["tiny"].get("train.augment", True))
    config = TrainConfig(EPOCHS, batch_size=8, augment=augment, precision="float32")
    return method, fit(method, dataset(anatomy(64, SIZE)), config, folder)


@pytest.fixture
def method(name: str, tmp_path_factory: pytest.TempPathFactory) -> Method:
    return trained(name, tmp_path_factory.getbasetemp() / name)[0]


X = torch.from_numpy(anatomy(5, SIZE, seed=1))


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


def test_every_loss_is_finite_and_what_rebuilds_falls(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    history = trained(name, tmp_path_factory.getbasetemp() / name)[1]
    phases = fresh(name).phases()
    assert len(history) == (EPOCHS if phases else 0)
    for number, phase in enumerate(phases):
        rows = history[history["phase"] == phase.name].dropna(axis="columns", how="all")  # others' losses
        losses = rows.drop(columns=["epoch", "phase", "seconds", "cpu_seconds", "images_per_s"])
        assert {turn.loss for turn in phase.turns} <= set(losses)
        assert np.isfinite(losses.to_numpy()).all()
        if number == 0:
            rebuilds = losses["reconstruction"] if "reconstruction" in losses else losses[phase.turns[0].loss]
            assert rebuilds.iloc[-1] < 0.7 * rebuilds.iloc[0]


def test_the_same_seed_gives_the_same_scores(name: str, tmp_path: Path) -> None:
    scores = []
    for folder in ("one", "two"):
        method = fresh(name)
        fit(method, dataset(anatomy(24, SIZE)), TrainConfig(3, batch_size=8, precision="float32"), tmp_path / folder)
        scores.append(ready(method, "float32")(X).image)
    assert torch.equal(*scores)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_score_does_not_depend_on_its_batch(name: str, method: Method, precision: str) -> None:
    scorer = ready(method, precision)
    together = scorer(X).image
    alone = torch.cat([scorer(X[i : i + 1]).image for i in range(5)])
    turned = scorer(X.flip(0)).image.flip(0)
    spread = float(scorer(torch.from_numpy(anatomy(40, SIZE, seed=3))).image.std())
    tolerance = (1e-4 if precision == "float32" else 0.1) * spread
    torch.testing.assert_close(alone, together, rtol=1e-5, atol=tolerance)
    torch.testing.assert_close(turned, together, rtol=1e-5, atol=tolerance)


def test_packing_for_scoring_changes_nothing(name: str, method: Method) -> None:
    with torch.no_grad():
        plain = method.eval()(X)
    fast = ready(method, "float32")(X)
    torch.testing.assert_close(fast.image, plain.image, rtol=1e-4, atol=1e-5)
    if plain.map is not None:
        torch.testing.assert_close(fast.map, plain.map, rtol=1e-3, atol=1e-5)


def test_saved_and_loaded_it_scores_the_same(name: str, method: Method, tmp_path: Path) -> None:
    save_file({k: v.contiguous() for k, v in method.state_dict().items()}, tmp_path / "m.safetensors")
    loaded = fresh(name)
    loaded.load_state_dict(load_file(tmp_path / "m.safetensors"))
    assert torch.equal(ready(loaded, "float32")(X).image, ready(method, "float32")(X).image)


def test_an_anomaly_that_keeps_the_mean_scores_above_its_normal_twin(name: str, method: Method) -> None:
    normal = anatomy(20, SIZE, seed=2)
    scorer = ready(method, "float32")
    twins, planted = (scorer(torch.from_numpy(images)).image for images in (normal, swapped(normal)))
    assert (planted > twins).float().mean() >= 0.9


def test_its_map_rises_where_the_anomaly_is(name: str, method: Method) -> None:
    normal = anatomy(20, SIZE, seed=2)
    scorer = ready(method, "float32")
    twins, planted = (scorer(torch.from_numpy(images)).map for images in (normal, swapped(normal)))
    if twins is None or planted is None:
        pytest.skip("it says nothing of where")
    where = torch.from_numpy(swapped(normal) != normal)
    rise = planted - twins
    inside, outside = ((rise * part).sum((1, 2, 3)) / part.sum((1, 2, 3)) for part in (where, ~where))
    assert (inside > outside).float().mean() >= 0.8


def test_frozen_it_exports_to_the_same_scores(name: str, method: Method) -> None:
    import copy

    frozen = copy.deepcopy(method).freeze()
    if frozen.not_exportable:
        pytest.skip(frozen.not_exportable)
    with torch.no_grad():
        plain = frozen(X[:2])
        exported = torch.export.export(frozen, (X[:2],), strict=False).module()(X[:2])
    torch.testing.assert_close(exported[0], plain.image, rtol=1e-4, atol=1e-5)
    if plain.map is not None:
        torch.testing.assert_close(exported[1], plain.map, rtol=1e-3, atol=1e-5)


def test_a_resumed_training_ends_in_the_same_numbers(name: str, tmp_path: Path) -> None:
    data, config = dataset(anatomy(24, SIZE)), TrainConfig(4, batch_size=8, precision="float32")

    def kill(method: Method, epoch: int) -> None:
        if epoch == 2:
            raise KeyboardInterrupt

    whole, again = fresh(name), fresh(name)
    if not whole.phases():
        pytest.skip("it has no epochs")
    fit(whole, data, config)
    with pytest.raises(KeyboardInterrupt):
        fit(again, data, config, tmp_path, kill)
    again = fresh(name)
    fit(again, data, config, tmp_path)
    for key, value in again.state_dict().items():
        assert torch.equal(value, whole.state_dict()[key]), key


def test_options_carry_a_line_of_meaning(name: str, method: Method) -> None:
    import inspect

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
