"""SALAD's parts by plain formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis

from conftest import anatomy, dataset
from loligo.config import TrainConfig
from loligo.methods.contract import Step
from loligo.methods.salad import Salad, SaladConfig, corrupt, dissimilarity
from loligo.nn.similarity import ssim
from loligo.training.loop import fit

TINY = dict(Salad.presets["tiny"])
X = torch.from_numpy(anatomy(6, 64, seed=1))


def salad(**options: object) -> Salad:
    torch.manual_seed(0)
    return Salad(SaladConfig(**{**TINY, **options})).eval()


def test_the_score_sums_three_parts_in_standard_deviations() -> None:
    model, normals = salad(), torch.from_numpy(anatomy(12, 64))
    model.centre.normal_()

    def parts(x: torch.Tensor) -> torch.Tensor:
        z = model.scale(model.encoder(x))
        y = model.bottom(z)
        for up in model.ups:
            y = up(torch.nn.functional.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False))
        fake = model.out(y).sigmoid()
        image = [(a - b).abs().mean() + (1 - ssim(a[None], b[None])).mean() for a, b in zip(x, fake, strict=True)]
        again = model.scale(model.encoder(fake))
        return torch.stack(
            [torch.stack(image), ((again - z) ** 2).mean((1, 2, 3)), ((z - model.centre) ** 2).mean((1, 2, 3))]
        )

    with torch.no_grad():
        model.fit([normals[:8], normals[8:]])
        found = parts(normals)
        expected = ((parts(X) - found.mean(1)[:, None]) / found.std(1)[:, None]).sum(0)
        scores = model(X)
        torch.testing.assert_close(scores.image, expected, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(scores.map, dissimilarity(X, scores.reconstruction))
        alone = salad(image_score="mean")
        alone.load_state_dict(model.state_dict())
        torch.testing.assert_close(alone(X).image, scores.map.mean((1, 2, 3)))


def test_features_are_scored_by_the_distance_of_code_and_difference_at_each_place() -> None:
    model, normals = salad(image_score="features", code=3), torch.from_numpy(anatomy(24, 64))

    def codes(x: torch.Tensor) -> np.ndarray:
        z, _, again = model._translate(x)
        return torch.cat([z, again - z], 1).flatten(2).permute(2, 0, 1).double().numpy()  # (places, N, 6)

    with torch.no_grad():
        model.scale.running_mean.copy_(model.encoder(normals).mean((0, 2, 3)))
        model.scale.running_var.copy_(model.encoder(normals).var((0, 2, 3)))
        model.centre.copy_(model._translate(normals)[0].mean(0))
        model.fit([normals[:10], normals[10:]])
        scores, of_normals, found = model(X), codes(normals), codes(X)
    expected = np.empty(found.shape[:2])
    for place, (rows, own) in enumerate(zip(of_normals, found, strict=True)):
        covariance = np.cov(rows.T)
        covariance += 0.001 * np.trace(covariance) / 6 * np.eye(6)
        inverse = np.linalg.inv(covariance)
        expected[place] = [mahalanobis(row, rows.mean(0), inverse) for row in own]
    np.testing.assert_allclose(scores.image, expected.mean(0), rtol=1e-3)
    assert scores.map.shape == (6, 1, 64, 64)


def test_discriminators_learn_cross_entropy_and_the_autoencoder_learns_against_them() -> None:
    model = salad(corrupted=0.0)
    step: Step = {}
    losses = model.losses(X, "total", step)
    of_both = model.losses(X, "discriminators", step)
    cross, ones = torch.nn.functional.binary_cross_entropy_with_logits, torch.ones(6)
    z, fake, again = model._translate(X)
    for name, judge, real, translated in (
        ("image", model.image_discriminator, X, fake),
        ("code", model.code_discriminator, z, again),
    ):
        torch.testing.assert_close(losses[f"{name}_adversarial"], cross(judge(translated), ones))
        told = cross(judge(real), ones) + cross(judge(translated), 0 * ones)
        torch.testing.assert_close(of_both[f"{name}_discriminator"], told)
    assert all(not part.requires_grad for part in step["pairs"])
    without = {"reconstruction": 1, "structure": 1, "consistency": 0.1, "centre": 0.1}
    weights = without | {"image_adversarial": 0.05, "code_adversarial": 0.05}
    torch.testing.assert_close(losses["total"], sum(w * losses[name] for name, w in weights.items()))
    alone = salad(adversarial_weight=0.0)
    assert [turn.loss for turn in alone.phases()[0].turns] == ["total"]
    assert set(alone.losses(X, "total", {})) == {"total", *without}


def test_a_turn_moves_its_own_networks_alone() -> None:
    model = salad()
    before = {name: value.clone() for name, value in model.named_parameters()}
    fit(model, dataset(anatomy(8, 64)), TrainConfig(1, batch_size=8, precision="float32", device="cpu"), progress=False)
    moved = {name.split(".")[0] for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert moved == {"encoder", "bottom", "ups", "out", "image_discriminator", "code_discriminator"}
    groups = [group.modules for turn in model.phases()[0].turns for group in turn.groups]
    assert groups == [("encoder", "bottom", "ups", "out"), ("image_discriminator", "code_discriminator")]


def test_corrupted_images_are_restored_but_teach_the_codes_nothing() -> None:
    model = salad(corrupted=1.0)
    with torch.no_grad():
        step: Step = {}
        losses = model.losses(X, "total", step)
        model.after_step("total", step)
        assert losses["consistency"] == losses["centre"] == losses["code_adversarial"] == 0
        assert model.losses(X, "discriminators", step)["code_discriminator"] == 0
        assert not model.centre.any()
        of_images = losses["reconstruction"] + losses["structure"] + 0.05 * losses["image_adversarial"]
        torch.testing.assert_close(losses["total"], of_images)
        clean = salad(corrupted=0.0)
        losses = clean.losses(X, "total", step)
        z, fake, again = clean._translate(X)
        clean.after_step("total", step)
        torch.testing.assert_close(clean.centre, 0.05 * z.mean(0))
        torch.testing.assert_close(losses["consistency"], (again - z).square().mean())
        torch.testing.assert_close(losses["reconstruction"], (X - fake).abs().mean())


def test_corruption_changes_boxes_alone_and_is_that_of_the_seed() -> None:
    torch.manual_seed(0)
    found = corrupt(X, 1)
    for before, after in zip(X[:, 0], found[:, 0], strict=True):
        rows, columns = (before != after).nonzero(as_tuple=True)
        assert len(rows) > 0
        assert max(int(rows.max() - rows.min()), int(columns.max() - columns.min())) < 64 // 4
        box = after[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        same = before[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert len(box.unique()) == 1 or torch.equal(box.flatten().sort().values, same.flatten().sort().values)
    torch.manual_seed(0)
    assert torch.equal(corrupt(X, 1), found)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 60}, "size 60 must be a multiple of 2"),
        ({"size": 8}, "8 pixels a side is smaller than the window"),
        ({"corrupted": 1.5}, "corrupted 1.5 must lie in"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        salad(**options)
