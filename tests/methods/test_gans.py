"""GANomaly, AnoGAN and f-AnoGAN: losses and scores by plain formulas, and the search for a code."""

from __future__ import annotations

import functools

import pytest
import torch
import torch.nn.functional as F
from torch.optim.swa_utils import update_bn

from conftest import anatomy, dataset, ready
from loligo import methods
from loligo.config import TrainConfig, build
from loligo.methods.anogan import Anogan
from loligo.methods.contract import Method, Step
from loligo.methods.fanogan import Fanogan
from loligo.methods.ganomaly import Ganomaly
from loligo.training.loop import fit

X = torch.from_numpy(anatomy(4, 64, seed=1))


def tiny(name: str, **options: object) -> Method:
    torch.manual_seed(0)
    kind = methods.get(name)
    return kind(build(kind.Config, {**kind.presets["tiny"], **options})).eval()


def ganomaly(**options: object) -> Ganomaly:
    return tiny("ganomaly", **options)  # type: ignore[return-value]


def fanogan(**options: object) -> Fanogan:
    return tiny("fanogan", **options)  # type: ignore[return-value]


def anogan(**options: object) -> Anogan:
    """Return one with a generator whose batch norms have the statistics of its noise, and images with contrast."""
    model: Anogan = tiny("anogan", **options)  # type: ignore[assignment]
    update_bn([2 * torch.rand(64, model.config.latent) - 1], model.generator)
    update_bn([(2 * X - 1)], model.discriminator)
    with torch.no_grad():
        model.generator.layers[-2].weight.mul_(10)
    return model.eval()


def test_ganomaly_weighs_the_papers_three_losses() -> None:
    model, step = ganomaly(adversarial_weight=2.0, encoder_weight=3.0), Step()
    with torch.no_grad():
        losses = model.losses(X, "generator", step)
        x = 2 * X - 1
        z = model.encoder(x)[1]
        fake = model.decoder(z)
        again = model.second(fake)[1]
        features, matched = model.discriminator(x)[0], model.discriminator(fake)[0]
        expected = 2 * F.mse_loss(matched, features) + 50 * F.l1_loss(fake, x) + 3 * F.mse_loss(again, z)
        torch.testing.assert_close(losses["generator"], expected)
        logits = torch.cat([model.discriminator(x)[1], model.discriminator(fake)[1]])
        real = torch.tensor([1.0] * 4 + [0.0] * 4)[:, None]
        entropy = 2 * F.binary_cross_entropy_with_logits(logits, real)  # a mean of each half in place of one of all
        torch.testing.assert_close(model.losses(X, "discriminator", step)["discriminator"], entropy)
        torch.testing.assert_close(model.losses(X, "discriminator", {})["discriminator"], entropy)  # alone
        scores = model(X)
        torch.testing.assert_close(scores.image, F.l1_loss(z, again, reduction="none").mean(1))
        torch.testing.assert_close(scores.map, (X - scores.reconstruction).abs())


def test_ganomaly_has_the_papers_defaults() -> None:
    model = methods.get("ganomaly")(methods.get("ganomaly").Config())
    c = model.config
    assert (c.size, c.latent, c.contextual_weight, c.adversarial_weight, c.encoder_weight) == (32, 100, 50, 1, 1)
    assert model.discriminator(torch.rand(2, 1, 32, 32))[0].shape == (2, 256, 4, 4)


def test_fanogan_learns_by_the_wasserstein_distance_and_a_penalty_then_by_images_and_features() -> None:
    model = fanogan(feature_weight=0.5, penalty_weight=10.0)
    x = 2 * X - 1
    torch.manual_seed(1)
    losses = model.losses(X, "critic", {})
    torch.manual_seed(1)
    fake = model.generator(torch.randn(4, 16))
    between = torch.lerp(fake, x, torch.rand(4, 1, 1, 1)).detach().requires_grad_()
    (slope,) = torch.autograd.grad(model.critic(between)[1].sum(), between)
    penalty = 10 * (slope.flatten(1).norm(dim=1) - 1).square().mean()
    expected = model.critic(fake)[1].mean() - model.critic(x)[1].mean() + penalty
    torch.testing.assert_close(losses["critic"], expected)
    torch.manual_seed(1)
    torch.testing.assert_close(model.losses(X, "generator", {})["generator"], -model.critic(fake)[1].mean())
    fake = model.generator(model.encoder(x)[1])
    features = [model.critic(image)[0] for image in (x, fake)]
    expected = F.mse_loss(fake, x) + 0.5 * F.mse_loss(*features)
    torch.testing.assert_close(model.losses(X, "encoder", {})["encoder"], expected)
    with torch.no_grad():
        torch.testing.assert_close(model(X).image.mean(), expected.detach())


def test_fanogan_takes_five_critics_to_a_generator_and_leaves_both_alone_in_the_second_phase() -> None:
    first, second = Fanogan(Fanogan.Config()).phases()
    assert [(turn.loss, turn.every) for turn in first.turns] == [("critic", 1), ("generator", 5)]
    assert [turn.loss for turn in second.turns] == ["encoder"]
    model, kept = fanogan(), {}

    def callback(finished: Method, epoch: int) -> None:
        kept[epoch] = {k: v.clone() for k, v in finished.state_dict().items()}

    options = TrainConfig(3, batch_size=8, augment=False, precision="float32", device="cpu")
    fit(model, dataset(anatomy(16, 64)), options, callback=callback, progress=False)
    moved = [{k.split(".")[0] for k in kept[1] if not torch.equal(kept[a][k], kept[b][k])} for a, b in ((1, 2), (2, 3))]
    assert moved == [{"critic", "generator"}, {"encoder"}]


def test_the_search_follows_the_gradient_of_the_paper_by_adam() -> None:
    model = anogan().double()
    x = 2 * X.double() - 1
    z = torch.zeros(4, 16, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([z], lr=1.0)
    features = model.discriminator.layers(x).detach()
    for t in range(model.config.steps):
        optimiser.param_groups[0]["lr"] = model.config.step_size * (1 - t / model.config.steps)
        fake = model.generator.layers(z[:, :, None, None])
        residual, seen = (x - fake).abs().sum(), (features - model.discriminator.layers(fake)).abs().sum()
        optimiser.zero_grad()
        (0.9 * residual + 0.1 * seen).backward()
        if t == 0:
            with torch.inference_mode():
                torch.testing.assert_close(model.gradient(0 * z.detach(), x, features), z.grad)
        optimiser.step()
    with torch.inference_mode():
        found = model.search(x)
    torch.testing.assert_close(found, z.detach(), rtol=1e-3, atol=1e-4)
    assert found.abs().max() > 0.1


def test_the_search_finds_what_the_generator_makes() -> None:
    model = anogan(steps=100)
    with torch.inference_mode():
        codes = 2 * torch.rand(5, 16) - 1
        images = model.generator(codes)
        start, found = (model.differences(images, model.generator(z)) for z in (0 * codes, model.search(images)))
    assert (found < 0.3 * start).all()


def test_a_batch_of_24_is_searched_as_one_by_one() -> None:
    detector, images = ready(anogan()), torch.from_numpy(anatomy(24, 64, seed=4))
    alone = torch.cat([detector(images[i : i + 1]).image for i in range(24)])
    torch.testing.assert_close(detector(images).image, alone, rtol=1e-4, atol=0)
    assert alone.std() > 1e-2 * alone.mean()


@pytest.mark.parametrize("score", ["residual", "local", "typicality"])
def test_the_search_is_in_float32_also_where_training_is_in_bfloat16(score: str) -> None:
    model, normals = anogan(score=score), torch.from_numpy(anatomy(12, 64))
    with torch.no_grad():
        model.fit([normals])
        plain = model(X).image
        with torch.autocast("cpu", torch.bfloat16):
            model.fit([normals])
            found = model(X).image
    torch.testing.assert_close(found, plain)


def test_anogan_scores_by_the_papers_two_sums() -> None:
    model = anogan(feature_weight=0.25)
    with torch.no_grad():
        scores = model(X)
        x, fake = 2 * X - 1, 2 * scores.reconstruction - 1
        features = [model.discriminator(image)[0] for image in (x, fake)]
        expected = 0.75 * (x - fake).abs().sum((1, 2, 3)) + 0.25 * (features[0] - features[1]).abs().sum((1, 2, 3))
        torch.testing.assert_close(scores.image, expected)


@pytest.mark.parametrize("name", ["ganomaly", "anogan", "fanogan"])
def test_a_local_score_is_that_of_its_places(name: str) -> None:
    model = tiny(name, score="local")
    with torch.no_grad():
        model.fit([X[:3], X[3:]])  # type: ignore[operator]
        scores = model(X)
        deviations = (model.places(X, scores.reconstruction) - model.places.mean) / model.places.std
    torch.testing.assert_close(scores.image, deviations.amax((1, 2, 3)))
    assert scores.map.shape == X.shape


@pytest.mark.parametrize("name", ["ganomaly", "anogan", "fanogan"])
def test_typicality_is_by_errors_of_pixels_and_of_the_discriminators_features(name: str) -> None:
    make, normals = anogan if name == "anogan" else functools.partial(tiny, name), torch.from_numpy(anatomy(12, 64))
    model = make(score="typicality")
    network = model.critic if name == "fanogan" else model.discriminator
    with torch.no_grad():
        model.fit([normals[:8], normals[8:]])  # type: ignore[operator]
        scores = model(X)
        x, fake = 2 * X - 1, 2 * scores.reconstruction - 1
        features = (network(x)[0] - network(fake)[0]).square().mean(1, keepdim=True)
        torch.testing.assert_close(scores.image, model.typicality.score(X, scores.reconstruction, features).image)
        smooth = model(torch.full_like(X, 0.5))
    assert scores.map.shape == X.shape
    assert (smooth.image > 2 * scores.image.max()).all()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ganomaly", {"size": 40}, r"size 40 must be a multiple of 2\*\*\(number of widths\) = 16"),
        ("anogan", {"widths": ()}, "widths one or more"),
        ("anogan", {"feature_weight": 1.5}, r"feature_weight is 1.5; it must lie in \[0, 1\]"),
        ("fanogan", {"size": 40}, "size 40 must be a multiple of 16"),
        ("fanogan", {"encoder_fraction": 0.0}, "encoder_fraction is 0.0; it must be more than 0"),
    ],
)
def test_options_that_do_not_fit_are_refused(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(name, **options)
