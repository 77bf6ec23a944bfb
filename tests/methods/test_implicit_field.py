"""The implicit field by plain formulas, and the descent that finds a code."""

from __future__ import annotations

import functools
import math

import pytest
import torch

from conftest import anatomy, dataset, ready
from loligo.config import TrainConfig
from loligo.methods.implicit_field import Field, ImplicitField, ImplicitFieldConfig, nll
from loligo.training.loop import fit

TINY = dict(ImplicitField.presets["tiny"])
X = torch.from_numpy(anatomy(4, 64, seed=1))


def field(**options: object) -> ImplicitField:
    torch.manual_seed(0)
    return ImplicitField(ImplicitFieldConfig(**{**TINY, **options})).eval()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> ImplicitField:
    model = field()
    options = TrainConfig(8, batch_size=8, precision="float32", augment=False)
    fit(model, dataset(anatomy(32, 64)), options, tmp_path_factory.mktemp("field"))
    return model.eval()


def error(model: ImplicitField, steps: int) -> torch.Tensor:
    """Return the mean nll of each image's pixels, all of which the code was found by."""
    classes, grid = model._classes(X).flatten(1), model.grid.flatten(0, 1)
    z = model.field.find(classes, grid, steps)
    return nll(model.field(z, grid), classes).mean(1).detach()


def test_descent_lowers_the_error_of_new_images(trained: ImplicitField) -> None:
    start, found = error(trained, 0), error(trained, trained.config.steps)
    assert (found < 0.9 * start).all()


def test_a_step_is_the_slope_of_the_mean_error_by_finite_differences() -> None:
    model = field()
    classes, grid = model._classes(X[:1]).flatten(1)[:, :50], model.grid.flatten(0, 1)[:50]

    def loss(z: torch.Tensor) -> float:
        return nll(model.field(z, grid).double(), classes).mean().item()

    z = model.field.find(classes, grid, 1)
    for i in (0, 7):
        nudge = torch.zeros_like(z)
        nudge[0, i] = 2e-3
        slope = (loss(nudge) - loss(-nudge)) / 4e-3
        assert math.isclose(z[0, i].item(), -model.config.step_size * slope, rel_tol=2e-2, abs_tol=1e-4)


def test_descent_and_the_training_through_it_are_those_of_autograd() -> None:
    model = field(steps=3)
    with torch.no_grad():
        model.field.codes[1].weight.mul_(3)
        model.field.log_steps.copy_(torch.linspace(0, 3, 32))
    target, grid = model._classes(X).flatten(1)[:, ::8], model.grid.flatten(0, 1)[::8]
    expected = torch.zeros(4, 32, requires_grad=True)
    for _ in range(3):
        loss = nll(model.field(expected, grid), target).mean(1).sum()
        (slope,) = torch.autograd.grad(loss, expected, create_graph=True)
        expected = expected - model.field.log_steps.exp() * slope
    found = model.field.find(target, grid, 3)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    parameters = list(model.field.parameters())
    slopes = (torch.autograd.grad(nll(model.field(z, grid), target).mean(), parameters) for z in (found, expected))
    for a, b in zip(*slopes, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3 * float(b.abs().max()))
    with torch.inference_mode():
        assert torch.equal(model.field.find(target, grid, 3), found)


def test_the_field_reads_code_and_place_at_the_first_and_the_middle_layer() -> None:
    net = Field(ImplicitFieldConfig(size=64, latent=3, width=5, layers=2, frequencies=2, classes=4))
    z, place = torch.randn(2, 3), torch.rand(6, 2) * 2 - 1
    found = net(z, place)
    for n in range(2):
        for p in range(6):
            angles = [math.pi * 2**octave * float(c) for c in place[p] for octave in range(2)]
            waves = torch.tensor([math.sin(a) for a in angles] + [math.cos(a) for a in angles])
            enters = [code(z[n]) + spot(waves) for code, spot in zip(net.codes, net.places, strict=True)]
            y = (net.hidden[0](enters[0].relu()) + enters[1]).relu()
            torch.testing.assert_close(found[n, p], net.out(y), rtol=1e-4, atol=1e-5)


def test_the_map_is_the_negative_log_likelihood_min_filtered_then_averaged(trained: ImplicitField) -> None:
    scores = ready(trained, "float32")(X)
    nats, reconstruction = (torch.cat(parts) for parts in zip(*(trained._restore(x[None]) for x in X), strict=True))
    nats = nats.detach()[0, 0]
    least = torch.full((64, 64), math.inf)
    for row in range(64):
        for column in range(64):
            least[row, column] = nats[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2].min()
    expected = functools.reduce(torch.add, (least[20 + i, 30 + j] for i in range(-3, 4) for j in range(-3, 4))) / 49
    torch.testing.assert_close(scores.map[0, 0, 20, 30], expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(scores.map[0, 0, 0, 0], least[:4, :4].mean(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(scores.image, scores.map.mean((1, 2, 3)))
    torch.testing.assert_close(scores.reconstruction, reconstruction.detach(), rtol=1e-4, atol=1e-5)


def test_classes_are_equal_intervals_of_intensity() -> None:
    grey = torch.tensor([0.0, 0.099, 0.101, 0.5, 0.999, 1.0]).view(1, 1, 1, 6)
    assert field()._classes(grey).flatten().tolist() == [0, 0, 1, 5, 9, 9]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean_filter_size": 4}, "mean_filter_size 4 must be odd"),
        ({"steps": 0}, "steps is 0; it must be at least 1"),
        ({"points": 5000}, "an image of size 64 has 4096"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        field(**options)
