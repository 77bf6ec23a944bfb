"""IGD's Gaussian, mixtures and losses by plain formulas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import anatomy, dataset
from loligo.config import TrainConfig
from loligo.methods.contract import UNMEASURED, Step
from loligo.methods.igd import Igd, IgdConfig, error, interpolate, one_minus_likelihood
from loligo.nn.precision import not_finite
from loligo.nn.similarity import ms_ssim
from loligo.training.loop import fit

TINY = {k: v for k, v in Igd.presets["tiny"].items() if not k.startswith("train.")}
X = torch.from_numpy(anatomy(6, 64, seed=1))


def igd(**options: object) -> Igd:
    torch.manual_seed(0)
    return Igd(IgdConfig(**{**TINY, "weights": "random", **options})).eval()


def test_one_minus_likelihood_is_one_minus_the_gaussians_density_against_its_peak() -> None:
    z, centre = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0)).double()
    variance = 1.7
    for row, found in zip(z, one_minus_likelihood(z, centre[0], torch.tensor(variance)), strict=True):
        gaussian = torch.distributions.Normal(centre[0], (variance / 2) ** 0.5)
        expected = 1 - (gaussian.log_prob(row) - gaussian.log_prob(centre[0])).sum().exp()
        torch.testing.assert_close(found, expected)
    assert not one_minus_likelihood(z, centre[0], torch.tensor(UNMEASURED)).any()


def test_images_that_are_all_the_same_leave_finite_weights() -> None:
    model = igd()
    fit(model, dataset(np.repeat(anatomy(1, 64), 4, 0)), TrainConfig(3, batch_size=4, device="cpu"), progress=False)
    assert not not_finite(model.state_dict())


def test_mixtures_lie_between_an_image_and_another() -> None:
    z, weight = torch.tensor([[0.0, 1.0], [10.0, 11.0], [20.0, 21.0]]), torch.tensor([[0.25], [0.5], [0.0]])
    expected = torch.tensor([[15.0, 16.0], [5.0, 6.0], [10.0, 11.0]])
    torch.testing.assert_close(interpolate(z, weight), expected)


def test_centre_and_variance_are_those_of_all_vectors_and_the_score_is_half_and_half() -> None:
    model, normals = igd(), torch.from_numpy(anatomy(12, 64))
    with torch.no_grad():
        model.fit([normals[:8], normals[8:]])
        z = model.project(model.backbone(normals)[0].mean((2, 3))).numpy().astype(float)
        np.testing.assert_allclose(model.centre.numpy(), z.mean(0), rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(float(model.variance), z.var(0).sum(), rtol=1e-3)
        scores, z = model(X), model.project(model.backbone(X)[0].mean((2, 3)))
        assert scores.reconstruction is not None
        found = error(X, scores.reconstruction)
        expected = 0.85 * (1 - ms_ssim(X, scores.reconstruction)) + 0.15 * (X - scores.reconstruction).abs().mean(
            (1, 2, 3)
        )
        torch.testing.assert_close(found, expected)
        gaussian = 1 - (-((z - model.centre) ** 2).sum(1) / model.variance).exp()
        torch.testing.assert_close(scores.image, found / 2 + gaussian / 2)


def test_the_turns_losses_follow_the_paper() -> None:
    model = igd()
    with torch.no_grad():
        step: Step = {}
        losses = model.losses(X, "encoder", step)
        image, mixed, weight = step["decoded"]
        assert 0 <= float(weight.min()) <= float(weight.max()) <= 0.5
        z = model._encode(model.backbone(X)[0])
        torch.testing.assert_close(mixed, model.decode(interpolate(z, weight)))
        torch.testing.assert_close(losses["reconstruction"], error(X, model.decode(z)).mean())
        assert losses["gaussian"] == 0
        torch.testing.assert_close(losses["encoder"], losses["reconstruction"] + 0.1 * losses["interpolation"])
        critic = model.losses(X, "critic", step)["critic"]
        plain = ((model.critic(mixed) - weight[:, 0]) ** 2).mean() + (model.critic(0.8 * image + 0.2 * X) ** 2).mean()
        torch.testing.assert_close(critic, plain)
    assert torch.isfinite(model.losses(X, "critic", {})["critic"])  # alone it makes its images itself


def test_moments_of_an_epoch_are_those_of_all_its_vectors() -> None:
    model = igd()
    z = torch.randn(12, 16, generator=torch.Generator().manual_seed(0)) + 3
    for part in z.split(5):
        model.after_step("encoder", {"codes": part})
    model.after_epoch(0.5)
    torch.testing.assert_close(model.centre, z.mean(0))
    torch.testing.assert_close(model.variance, (z - z.mean(0)).square().sum(1).mean())
    assert not model.count


def test_the_gaussian_is_measured_after_the_first_epoch_and_every_so_many(tmp_path: Path) -> None:
    found = []
    model = igd(every=2)
    options = TrainConfig(4, batch_size=8, augment=False, precision="float32")
    fit(model, dataset(anatomy(16, 64)), options, tmp_path, lambda *_: found.append(float(model.variance)))
    assert np.isfinite(found).all()
    assert found[0] == found[1] != found[2] == found[3]
    assert not any(p.requires_grad for p in model.backbone.parameters())


@pytest.mark.parametrize("rate", [0.0, 1e-3])
def test_the_backbone_learns_at_its_own_rate_or_stays(rate: float) -> None:
    model = igd(encoder_rate=rate, backbone="test_resnet", layers=(4,))
    before = {name: value.clone() for name, value in model.named_parameters()}
    groups = model.phases()[0].turns[0].groups
    assert [group.learning_rate for group in groups if "backbone" in group.modules] == ([rate] if rate else [])
    fit(model, dataset(anatomy(8, 64)), TrainConfig(1, batch_size=4, precision="float32", device="cpu"), progress=False)
    moved = {name.split(".")[0] for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert moved == {"project", "bottom", "ups", "out", "critic"} | ({"backbone"} if rate else set())
    with torch.no_grad():
        z = model._encode(model.eval().backbone(torch.from_numpy(anatomy(8, 64)))[0])
    torch.testing.assert_close(model.centre, z.mean(0), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": (3, 4)}, r"have strides \[16, 32\]; igd takes one"),
        ({"size": 80}, "a multiple of it"),
        ({"gaussian": 1.5}, "gaussian 1.5 must lie in"),
        ({"every": 0}, "every 0 be at least 1"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        igd(**options)
