from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.spatial.distance import mahalanobis

from conftest import anatomy, dataset, swapped
from loligo.config import TrainConfig, build
from loligo.data import acquisition
from loligo.methods.duet import LEFT_OUT, Duet, DuetConfig, apart, left_out
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
def whitened(duet: Duet, x: torch.Tensor) -> torch.Tensor:
    return duet._whitened(x, duet.backbone)


def test_features_are_whitened_over_normal_images(duet: Duet) -> None:
    rows = whitened(duet, IMAGES).movedim(1, 3).flatten(0, 2)
    covariance = torch.cov(rows.mT)
    assert 0.5 < float(covariance.diagonal().mean()) < 1.2  # changed copies were in the whitening, and vary more
    correlation = torch.corrcoef(rows.mT) - torch.eye(rows.shape[1])
    assert float(correlation.abs().mean()) < 0.1


def test_a_shift_of_all_places_alike_changes_nothing_that_the_density_sees(duet: Duet) -> None:
    z = whitened(duet, IMAGES[:3])
    shifted = z + torch.randn(3, z.shape[1], 1, 1)
    torch.testing.assert_close(duet.density(apart(shifted)), duet.density(apart(z)), rtol=1e-3, atol=1e-3)
    assert float((duet.density(shifted) - duet.density(z)).abs().mean()) > 0.1


def test_the_density_is_the_mahalanobis_distance_from_normals_and_their_changed_copies(duet: Duet) -> None:
    with torch.no_grad():
        seen = apart(whitened(duet, duet._with_copies(IMAGES))).flatten(2).double().numpy()
        new = apart(whitened(duet, torch.from_numpy(anatomy(2, 64, seed=9))))
        found = duet.density(new).flatten(1).numpy()
    for place in (0, 5, 40):
        covariance = np.cov(seen[:, :, place].T)
        covariance += 0.01 * covariance.diagonal().mean() * np.eye(len(covariance))
        inverse, mean = np.linalg.inv(covariance), seen[:, :, place].mean(0)
        for i in range(2):
            expected = mahalanobis(new[i].flatten(1)[:, place].numpy(), mean, inverse)
            assert found[i, place] == pytest.approx(expected, rel=0.02)


def test_the_score_is_the_mean_of_the_highest_places_of_both_voices_sum(duet: Duet) -> None:
    x = torch.from_numpy(swapped(anatomy(4, 64, seed=3)))
    with torch.no_grad():
        z = whitened(duet, x)
        head, distance = duet.head(z).flatten(1), duet.density(apart(z)).flatten(1)
        both = (head - duet.mean[0]) / duet.deviation[0]
        both = both + duet.body.flatten() * (distance - duet.mean[1]) / duet.deviation[1]
        count = int(np.ceil(duet.config.top * both.shape[1]))
        torch.testing.assert_close(duet(x).image, both.sort(1).values[:, -count:].mean(1))


def test_voices_are_standardised_by_normals_that_the_gaussian_did_not_see(duet: Duet) -> None:
    out = left_out(IMAGES)
    assert 0 < int(out.sum()) < len(IMAGES) / 2
    assert torch.equal(left_out(IMAGES.flip(0)).flip(0), out)  # content alone decides
    new = torch.from_numpy(anatomy(60, 64, seed=11))
    with torch.no_grad():
        distance = duet.density(apart(whitened(duet, duet._with_copies(new))))
        own = duet.density(apart(whitened(duet, duet._with_copies(IMAGES))))
    fresh, optimistic = float(distance.mean()), float(own.mean())
    assert abs(float(duet.mean[1]) - fresh) < abs(optimistic - fresh)
    assert LEFT_OUT > 1


def test_the_head_finds_what_was_inserted_also_under_another_acquisition(duet: Duet) -> None:
    normal = anatomy(30, 64, seed=4)
    found = swapped(normal)
    where = torch.from_numpy(found != normal)
    changed = [acquisition.change(image[0], np.random.default_rng(i))[0] for i, image in enumerate(found)]
    for images in (found, np.stack(changed)[:, None]):
        with torch.no_grad():
            logits = F.interpolate(duet.head(whitened(duet, torch.from_numpy(images))), (64, 64), mode="bilinear")
        inside = (logits * where).sum((1, 2, 3)) / where.sum((1, 2, 3))
        outside = (logits * ~where).sum((1, 2, 3)) / (~where).sum((1, 2, 3))
        assert float((inside > outside).float().mean()) > 0.8


def test_what_surrounds_the_body_does_not_count_in_the_density(duet: Duet) -> None:
    framed = F.pad(IMAGES[:, :, 16:48, 16:48], [16] * 4)
    other = copy.deepcopy(duet)
    with torch.no_grad():
        other.fit(list(framed.split(20)))
    assert float(other.body[0].max()) < 0.2 < 0.8 < float(other.body[7:9, 7:9].min())
    assert 0 <= float(duet.body.min()) <= float(duet.body.max()) <= 1


def test_fit_is_the_same_whatever_the_batches(duet: Duet) -> None:
    one, other = copy.deepcopy(duet), copy.deepcopy(duet)
    with torch.no_grad():
        one.fit(list(IMAGES.split(60)))
        other.fit(list(IMAGES.flip(0).split(7)))
    for name, value in one.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("options", [{"top": 0.0}, {"top": 1.5}, {"dropout": 1.0}, {"regularisation": 0.0}])
def test_options_that_cannot_be_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        build(DuetConfig, options)
