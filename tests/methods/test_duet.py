from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import multivariate_normal

from conftest import anatomy, dataset, swapped
from loligo.config import TrainConfig, build
from loligo.data import acquisition
from loligo.data.pairs import LEFT_OUT, left_out, with_finding
from loligo.methods.duet import COVERED, Duet, DuetConfig, standardised
from loligo.training.loop import fit

DATA = dataset(anatomy(60, 64))
IMAGES = DATA.batch(np.arange(60))  # as a training sees them: content decides how they are changed


@pytest.fixture(scope="module")
def duet() -> Duet:
    torch.manual_seed(0)
    options = {k: v for k, v in Duet.presets["tiny"].items() if not k.startswith("train.")}
    method = Duet(build(DuetConfig, options))
    fit(method, DATA, TrainConfig(12, batch_size=8, augment=False, precision="float32", device="cpu"), progress=False)
    return method.eval()


@torch.no_grad()
def described(duet: Duet, x: torch.Tensor) -> torch.Tensor:
    return duet._described(x, duet.backbone)


def test_features_are_whitened_over_normal_images(duet: Duet) -> None:
    with torch.no_grad():
        rows = duet.whitening(duet._features(IMAGES, duet.backbone)).movedim(1, 3).flatten(0, 2)
    covariance = torch.cov(rows.mT)
    assert 0.5 < float(covariance.diagonal().mean()) < 1.2  # changed copies were in the whitening, and vary more
    correlation = torch.corrcoef(rows.mT) - torch.eye(rows.shape[1])
    assert float(correlation.abs().mean()) < 0.1


def test_features_have_mean_0_and_deviation_1_over_the_places_of_an_image() -> None:
    z = torch.randn(3, 5, 8, 8) + 4
    u = standardised(z)
    torch.testing.assert_close(u.mean((2, 3)), torch.zeros(3, 5), atol=1e-5, rtol=0)
    assert (u.std((2, 3)) - 1).abs().max() < 0.2
    torch.testing.assert_close(standardised(z + torch.randn(3, 5, 1, 1)), u)
    assert not standardised(torch.ones(1, 5, 8, 8)).any()  # a blank image


def test_the_density_is_the_ratio_of_two_gaussians(duet: Duet) -> None:
    with torch.no_grad():
        seen = described(duet, duet._with_copies(IMAGES)).flatten(2).double().numpy()
        images, masks = with_finding(IMAGES)
        found = described(duet, images).flatten(2).double().numpy()
        covered = (F.adaptive_avg_pool2d(masks, duet.side) > COVERED).flatten(1).numpy()
        new = described(duet, torch.from_numpy(anatomy(2, 64, seed=9)))
        ratios = duet.density(new).flatten(1).numpy()
    eye, mean = np.eye(seen.shape[1]), seen.mean(0)
    departures = (found - mean).transpose(0, 2, 1)[covered]  # (covered places, D)
    assert len(departures) > 50
    abnormal = departures.T @ departures / len(departures)
    abnormal += 0.01 * abnormal.diagonal().mean() * eye
    for place in (0, 5, 40):
        normal = np.cov(seen[:, :, place].T)
        normal += 0.01 * normal.diagonal().mean() * eye
        for i in range(2):
            at = new[i].flatten(1)[:, place].numpy()
            log = [multivariate_normal(mean[:, place], c).logpdf(at) for c in (normal, abnormal)]
            constant = np.linalg.slogdet(abnormal)[1] - np.linalg.slogdet(normal)[1]
            assert ratios[i, place] == pytest.approx(2 * (log[1] - log[0]) + constant, rel=0.02, abs=0.2)


def test_the_score_is_the_sum_of_log_mean_probability_and_mean_ratio_each_standardised(duet: Duet) -> None:
    x = torch.from_numpy(swapped(anatomy(4, 64, seed=3)))
    with torch.no_grad():
        u = described(duet, x)
        head, distance = duet.head(u).sigmoid().flatten(1).mean(1).log(), duet.density(u).flatten(1).mean(1)
        expected = (head - duet.images_mean[0]) / duet.images_deviation[0]
        expected = expected + (distance - duet.images_mean[1]) / duet.images_deviation[1]
        torch.testing.assert_close(duet(x).image, expected, rtol=1e-4, atol=1e-4)


def test_both_are_standardised_by_normals_that_the_gaussian_did_not_see(duet: Duet) -> None:
    out = left_out(IMAGES)
    assert 0 < int(out.sum()) < len(IMAGES) / 2
    assert torch.equal(left_out(IMAGES.flip(0)).flip(0), out)  # content alone decides
    new = torch.from_numpy(anatomy(60, 64, seed=11))
    with torch.no_grad():
        distance = duet.density(described(duet, duet._with_copies(new)))
        own = duet.density(described(duet, duet._with_copies(IMAGES)))
    fresh, optimistic = float(distance.mean()), float(own.mean())
    assert abs(float(duet.images_mean[1]) - fresh) < abs(optimistic - fresh)
    assert LEFT_OUT > 1


def test_the_head_finds_what_was_inserted_also_under_another_acquisition(duet: Duet) -> None:
    normal = anatomy(30, 64, seed=4)
    found = swapped(normal)
    where = torch.from_numpy(found != normal)
    changed = [acquisition.change(image[0], np.random.default_rng(i))[0] for i, image in enumerate(found)]
    for images in (found, np.stack(changed)[:, None]):
        with torch.no_grad():
            logits = F.interpolate(duet.head(described(duet, torch.from_numpy(images))), (64, 64), mode="bilinear")
        inside = (logits * where).sum((1, 2, 3)) / where.sum((1, 2, 3))
        outside = (logits * ~where).sum((1, 2, 3)) / (~where).sum((1, 2, 3))
        assert float((inside > outside).float().mean()) > 0.8


def test_fit_is_the_same_whatever_the_batches(duet: Duet) -> None:
    one, other = copy.deepcopy(duet), copy.deepcopy(duet)
    with torch.no_grad():
        one.fit(list(IMAGES.split(60)))
        other.fit(list(IMAGES.flip(0).split(7)))
    for name, value in one.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("options", [{"dropout": 1.0}, {"regularisation": 0.0}])
def test_options_that_cannot_be_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        build(DuetConfig, options)
