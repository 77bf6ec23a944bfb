"""The implicit field: its codes, classes and scores by plain formulas."""

from __future__ import annotations

import functools
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.cluster import KMeans
from torch.optim.lr_scheduler import StepLR

from conftest import anatomy, dataset, ready, write_images
from loligo import api
from loligo.config import TrainConfig
from loligo.methods.contract import Step
from loligo.methods.implicit_field import ImplicitField, ImplicitFieldConfig, halving
from loligo.methods.optimisation import Clock
from loligo.nn.auto_decoder import nll
from loligo.training.loop import fit

TINY = {name: value for name, value in ImplicitField.presets["tiny"].items() if not name.startswith("train.")}
X = torch.from_numpy(anatomy(4, 64, seed=1))


def field(**options: object) -> ImplicitField:
    torch.manual_seed(0)
    return ImplicitField(ImplicitFieldConfig(**{**TINY, **options})).eval()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> ImplicitField:
    model = field()
    options = TrainConfig(30, batch_size=8, precision="float32", augment=False)
    fit(model, dataset(anatomy(32, 64)), options, tmp_path_factory.mktemp("field"))
    return model.eval()


def test_descent_lowers_the_error_of_new_images(trained: ImplicitField) -> None:
    classes, grid = trained._classes(X).flatten(1), trained.grid.flatten(0, 1)

    def error(steps: int) -> torch.Tensor:
        return nll(trained.field(trained.field.find(classes, grid, steps, 0.02), grid), classes).mean(1).detach()

    assert (error(20) < 0.95 * error(0)).all()


def test_the_papers_network_and_schedule_are_the_default() -> None:
    model, kind = ImplicitField(ImplicitFieldConfig()), ImplicitField
    shapes = [tuple(layer.weight.shape) for layer in model.field.layers]
    assert shapes == [(512, 296), (512, 512), (512, 512), (216, 512), *[(512, 512)] * 4]  # 256 + 40 enter the fifth
    assert model.field.out.weight.shape == (10, 512)
    assert kind.training_defaults["epochs"] == 2000
    assert not kind.training_defaults["augment"]
    (turn,) = model.phases()[0].turns
    assert [(group.modules, group.learning_rate) for group in turn.groups] == [(("field",), 5e-4), (("codes",), 1e-3)]
    optimiser = torch.optim.SGD([torch.zeros(1)], 1.0)
    oracle = StepLR(optimiser, 500, 0.5)
    for epoch in range(2000):
        if epoch % 250 == 0:
            assert halving(Clock(epoch * 10, 20000, epoch, 2000)) == optimiser.param_groups[0]["lr"]
        optimiser.step()
        oracle.step()


def test_each_training_image_has_a_code_of_its_own_within_the_ball() -> None:
    model = field()
    model.prepare([X[:3], X[3:]])
    codes = model.codes.weight
    assert codes.shape == (4, 16)
    norms = codes.detach().norm(dim=1)
    assert 0.5 < float(norms.mean()) <= float(norms.max()) <= 1 + 1e-6
    losses = model.losses(X[[2, 0]], "total", {"index": torch.tensor([2, 0])})
    losses["total"].backward()
    assert [bool(row.any()) for row in codes.grad] == [True, False, True, False]
    torch.testing.assert_close(losses["total"], losses["reconstruction"] + 1e-4 * codes[[0, 2]].norm(dim=1).mean())
    step: Step = {"index": torch.tensor([1])}
    torch.manual_seed(1)
    chosen = torch.randperm(64 * 64)[:512]
    torch.manual_seed(1)
    found = model.losses(X[1:2], "total", step)["reconstruction"]
    logits = model.field(codes[1:2], model.grid.flatten(0, 1)[chosen])[0]
    own = model._classes(X[1:2]).flatten()[chosen]
    torch.testing.assert_close(found, -logits.log_softmax(1)[torch.arange(512), own].mean())
    model.codes.weight.data.mul_(5)
    model.after_step("total", step)
    torch.testing.assert_close(model.codes.weight.norm(dim=1), torch.ones(4))


def test_training_tells_the_images_apart_and_lets_their_codes_go() -> None:
    model, seen = field(), []

    def losses(x: torch.Tensor, turn: str, step: Step) -> dict[str, torch.Tensor]:
        for image, index in zip(x, step["index"], strict=True):
            seen.append(int(index))
            torch.testing.assert_close(image, data[int(index)], atol=1e-4, rtol=0)
        return ImplicitField.losses(model, x, turn, step)

    images = anatomy(7, 64)
    data, before = torch.from_numpy(images), model.codes.weight
    model.losses = losses  # type: ignore[method-assign]
    options = TrainConfig(2, batch_size=3, precision="float32", augment=False, intensity_augmentation=False)
    fit(model, dataset(images), options, progress=False)
    assert sorted(seen) == sorted([*range(7), *range(7)])
    assert seen[:7] != seen[7:]
    assert model.codes.weight.shape == (0, 16)
    assert model.codes.weight is before


def test_a_run_is_loaded_without_the_codes_of_its_training_images(tmp_path: Path) -> None:
    rows = [(str(path), "train") for path in write_images(tmp_path, anatomy(8, 64))]
    rows += [(str(path), "calibration") for path in write_images(tmp_path, anatomy(4, 64, seed=1), "c")]
    table, train = pd.DataFrame(rows, columns=["path", "split"]), {"epochs": 1, "precision": "float32"}
    run = api.train("implicit_field", table, tmp_path / "run", preset="tiny", train=train)
    assert run.model().codes.weight.shape == (0, 16)
    assert len(api.load(run).predict(anatomy(2, 64, seed=3)[:, 0])) == 2


def test_classes_are_those_of_k_means_of_all_intensities() -> None:
    model = field(classes=4)
    model.prepare([X])
    pixels, start = X.flatten()[:, None].numpy(), (np.arange(4)[:, None] + 0.5) / 4
    oracle = KMeans(4, init=start, n_init=1, tol=0).fit(pixels)
    np.testing.assert_allclose(model.centres, np.sort(oracle.cluster_centers_[:, 0]), atol=0.01)
    nearest = (X - model.centres.view(4, 1, 1, 1, 1)).abs().argmin(0)[:, 0]
    assert torch.equal(model._classes(X), nearest)
    blank = field()
    blank.prepare([torch.zeros(2, 1, 64, 64)])
    assert (blank.centres.diff() > 0).all()


def test_the_map_is_the_negative_log_likelihood_min_filtered_then_averaged(trained: ImplicitField) -> None:
    scores = ready(trained, "float32")(X)
    with torch.no_grad():
        classes, grid = trained._classes(X), trained.grid
        z = trained.field.find(classes[:, ::4, ::4].flatten(1), grid[::4, ::4].flatten(0, 1), 20, 0.02)
        logits = trained.field(z, grid.flatten(0, 1))
    nats = nll(logits, classes.flatten(1)).view(4, 64, 64)[0]
    least = torch.full((64, 64), math.inf)
    for row in range(64):
        for column in range(64):
            least[row, column] = nats[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2].min()
    expected = functools.reduce(torch.add, (least[20 + i, 30 + j] for i in range(-3, 4) for j in range(-3, 4))) / 49
    torch.testing.assert_close(scores.map[0, 0, 20, 30], expected, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(scores.map[0, 0, 0, 0], least[:4, :4].mean(), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(scores.image, scores.map.mean((1, 2, 3)))
    expected = (logits.softmax(2) @ trained.centres).view(4, 1, 64, 64)
    torch.testing.assert_close(scores.reconstruction, expected, rtol=1e-3, atol=1e-4)


def test_deviation_counts_in_either_direction(trained: ImplicitField) -> None:
    model, normals = field(image_score="deviation"), torch.from_numpy(anatomy(12, 64))
    shared = {k: v for k, v in trained.state_dict().items() if not k.startswith("deviations.")}
    model.load_state_dict({**model.state_dict(), **shared})
    with torch.no_grad():
        model.fit([normals[:5], normals[5:]])
        of_normals, maps, scores = trained(normals).map, trained(X).map, model(X)
    spread = of_normals.std(0, correction=0)
    apart = (maps - of_normals.mean(0)) / (spread + 0.1 * spread.mean() + 1e-6)
    torch.testing.assert_close(scores.image, (apart**2).mean((1, 2, 3)).sqrt(), rtol=1e-2, atol=1e-3)
    torch.testing.assert_close(scores.map, apart.abs(), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean_filter_size": 4}, "mean_filter_size 4 must be odd"),
        ({"steps": 0}, "steps is 0; it must be at least 1"),
        ({"layers": 1}, "layers is 1; it must be at least 2"),
        ({"points": 5000}, "an image of size 64 has 4096"),
        ({"width": 36}, "width 36 must be more than code and coordinates"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        field(**options)
