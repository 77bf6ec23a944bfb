"""PANDA against scikit-learn, and its adaptation by plain formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from conftest import anatomy, dataset
from loligo.config import TrainConfig
from loligo.methods.panda import Panda, PandaConfig, fisher_information, modules_after, neighbour_distance
from loligo.nn.backbones import Backbone, timm
from loligo.training.loop import fit

TINY = {"size": 64}
X = torch.from_numpy(anatomy(6, 64, seed=1))


def panda(**options: object) -> Panda:
    torch.manual_seed(0)
    model = Panda(PandaConfig(**{**TINY, **options})).eval()
    model.start()
    return model


def features(model: Panda, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.backbone(x)[0].mean((2, 3))


def test_distance_is_that_of_scikit_learns_neighbours() -> None:
    random = np.random.default_rng(0)
    bank, found = random.normal(size=(50, 7)), random.normal(size=(9, 7))
    expected = (NearestNeighbors(n_neighbors=3).fit(bank).kneighbors(found)[0] ** 2).mean(1)
    ours = neighbour_distance(torch.from_numpy(found), torch.from_numpy(bank), 3)
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-10)


def test_the_score_compares_with_the_training_images_and_the_map_with_their_mean() -> None:
    model, normals = panda(image_score="knn"), torch.from_numpy(anatomy(10, 64))
    with torch.no_grad():
        model.fit([normals[:6], normals[6:]])
        scores = model(X)
        bank = features(model, normals).numpy()
        nearest = NearestNeighbors(n_neighbors=2).fit(bank).kneighbors(features(model, X).numpy())[0]
        np.testing.assert_allclose(scores.image.numpy(), (nearest**2).mean(1), rtol=1e-3)
        assert model.bank.shape == (10, 320)
        torch.testing.assert_close(model.places, model.backbone(normals)[0].mean(0), rtol=1e-3, atol=1e-5)
        maps = panda(image_score="mean")
        maps.load_state_dict(model.state_dict())
        torch.testing.assert_close(maps(X).image, scores.map.mean((1, 2, 3)))


@pytest.mark.parametrize("adaptation", ["early", "ewc"])
def test_features_are_drawn_to_the_centre_that_was_measured_before_the_first_epoch(adaptation: str) -> None:
    model, normals = panda(adaptation=adaptation, learning_rate=1.0), anatomy(12, 64)
    before = {name: p.clone() for name, p in model.named_parameters()}
    start = features(model, data := dataset(normals).batch(range(12)))
    fit(model, dataset(normals), TrainConfig(5, batch_size=4, augment=False, precision="float32"))
    torch.testing.assert_close(model.centre, start.mean(0), rtol=1e-4, atol=1e-5)
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved
    assert all(int(name.split("blocks.")[1][0]) > 2 for name in moved)
    spread = [(f - model.centre).square().mean() for f in (start, features(model.eval(), data))]
    assert spread[1] < 0.9 * spread[0]


def test_a_step_is_as_long_as_rate_and_clipped_gradient_allow() -> None:
    model = panda()
    before = [p.detach().clone() for p in model.parameters()]
    fit(model, dataset(anatomy(4, 64)), TrainConfig(1, batch_size=4, augment=False, precision="float32"))
    length = sum(float((a - b).detach().square().sum()) for a, b in zip(before, model.parameters(), strict=True)) ** 0.5
    weights = sum(float(p.square().sum()) for p in before) ** 0.5
    assert length == pytest.approx(1e-2 * 1e-3, abs=1e-2 * 5e-5 * weights)  # and what the weight decay adds


def test_fisher_information_is_the_sum_of_squares_of_all_features_gradients() -> None:
    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3)).double()
    x, weight = torch.randn(6, 4).double(), layers[0].weight
    exact = torch.zeros_like(weight)
    for value in layers(x).flatten():
        exact += torch.autograd.grad(value, weight, retain_graph=True)[0].square()
    unused = torch.nn.Parameter(torch.zeros(2))
    found = [fisher_information(layers(x), [weight, unused]) for _ in range(4000)]
    torch.testing.assert_close(torch.stack([f[0] for f in found]).mean(0), exact, rtol=0.15, atol=0)
    assert not found[0][1].any()


def test_consolidation_holds_the_weights_back() -> None:
    model = panda(adaptation="ewc")
    with torch.no_grad():
        model.prepare([X[:4], X[4:]])
    assert model.losses(X, "compactness", {})["change"].item() == 0
    first = next(model.backbone.network.get_submodule(model.adapted[0]).parameters())
    with torch.no_grad():
        first.add_(0.1)
    losses = model.losses(X, "compactness", {})
    expected = (model.get_buffer("fisher_0") * 0.01).sum()
    assert float(expected) > 0
    torch.testing.assert_close(losses["change"], expected, rtol=1e-3, atol=0)
    torch.testing.assert_close(losses["compactness"], losses["distance"] + losses["change"])


def test_what_follows_a_stage_is_named_in_all_sorts_of_networks() -> None:
    assert modules_after(Backbone("resnet18", (4,)).network, 2) == ("layer3", "layer4")
    lite = modules_after(Backbone("tf_efficientnet_lite0", (4,)).network, 2)
    assert lite == ("blocks.3", "blocks.4", "blocks.5", "blocks.6")
    assert modules_after(Backbone("convnext_atto", (3,)).network, 2) == ("stages_3",)
    vgg = timm().create_model("vgg11_bn", features_only=True, out_indices=(4,))
    assert modules_after(vgg, 3) == ("features_22", "features_23", "features_25", "features_26")
    vit = timm().create_model("vit_tiny_patch16_224", features_only=True, out_indices=(11,))
    assert modules_after(vit, 9) == ("model.blocks.10", "model.blocks.11")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": (3, 4)}, "must be one"),
        ({"neighbours": 0}, "neighbours 0 be at least 1"),
        ({"frozen": 4}, "frozen is stage 4; of the stages"),
        ({"frozen": 7}, "frozen is stage 7; of the stages"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        panda(**options)


def test_it_needs_as_many_images_as_it_compares_with() -> None:
    with pytest.raises(ValueError, match="panda needs 5 normal images or more; it got 4"):
        panda(neighbours=5).check_count(4)
