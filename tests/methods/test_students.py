"""M-KD, reverse distillation, EDC and Dinomaly: what is theirs alone, beside the contract."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import AdamW

from conftest import anatomy
from loligo import methods
from loligo.config import build
from loligo.methods.contract import ALONE, Method, Step
from loligo.methods.dinomaly import EASY, LinearAttention, mined
from loligo.methods.optimisation import Clock
from loligo.nn.cosine import place_distance, whole_distance
from loligo.training.optimisers import TurnOptimiser

X = torch.from_numpy(anatomy(3, 64))


def tiny(name: str, **options: object) -> Method:
    torch.manual_seed(0)
    kind = methods.get(name)
    preset = {key: value for key, value in kind.presets["tiny"].items() if not key.startswith("train.")}
    return kind(build(kind.Config, {**preset, "weights": "random", **options}))


def train(method: Method, steps: int = 1) -> None:
    """Take steps of the only turn, as the loop does."""
    phase = method.phases()[0]
    method.train()
    for name in phase.frozen:
        method.get_submodule(name).eval()
    optimiser = TurnOptimiser(method, turn := phase.turns[0])
    for i in range(steps):
        step: Step = {}
        method.losses(X, turn.loss, step)[turn.loss].backward()
        optimiser.step(Clock(i, steps, i, steps), ALONE)
        method.after_step(turn.loss, step)


def loss(method: Method) -> Tensor:
    turn = method.phases()[0].turns[0].loss
    return method.losses(X, turn, {})[turn]


@pytest.mark.parametrize("name", ["mkd", "reverse_distillation", "dinomaly"])
def test_a_step_moves_the_student_and_not_the_teacher(name: str) -> None:
    method = tiny(name, **({"warmup": 0} if name == "dinomaly" else {}))
    groups = method.phases()[0].turns[0].groups
    before = {k: v.clone() for k, v in method.backbone.state_dict().items()}  # type: ignore[union-attr]
    learnt = [p for group in groups for part in group.modules for p in method.get_submodule(part).parameters()]
    old = [p.detach().clone() for p in learnt]
    train(method)
    after = method.backbone.state_dict()  # type: ignore[union-attr]
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert sum(not torch.equal(a, b) for a, b in zip(old, learnt, strict=True)) > 0.8 * len(old)
    assert len(learnt) + len(list(method.backbone.parameters())) == len(list(method.parameters()))  # type: ignore[union-attr]


@torch.no_grad()
def test_mkd_scores_by_the_loss_of_each_image_and_maps_where_it_lies() -> None:
    method = tiny("mkd", direction=0.5, sigma=0.0).eval()
    method.prepare([X])
    scores = method(X)
    for i, x in enumerate(X):
        taught = [t.double().numpy()[0] for t in method.backbone(x[None])]
        learnt = [t.double().numpy()[0] for t in method.student(x[None])]
        total = 0.0
        for t, s, scale in zip(taught, learnt, method.scale.tolist(), strict=True):
            a, b = t.ravel(), s.ravel()
            total += ((a - b) ** 2).mean() / scale + 0.5 * (1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b))
        assert float(scores.image[i]) == pytest.approx(total, rel=1e-4)
        alone = method.losses(x[None], "distillation", {})
        assert float(alone["distillation"]) == pytest.approx(total, rel=1e-3)
    mapped = tiny("mkd", image_score="mean", direction=0.0, sigma=0.0).eval()
    mapped.load_state_dict(method.state_dict())
    found = mapped(X)
    torch.testing.assert_close(found.image, found.map.mean((1, 2, 3)))


@torch.no_grad()
def test_mkd_measures_the_teacher_on_all_images_so_that_both_terms_begin_at_one_scale() -> None:
    method = tiny("mkd").eval()
    method.prepare([X[:1], X[1:]])
    for own, maps in zip(method.scale, method.backbone(X), strict=True):
        assert float(own) == pytest.approx(float(maps.square().mean()), rel=1e-3)
    losses = method.train().losses(X, "distillation", {})
    assert 0.3 < float(losses["value"] / losses["direction"]) < 3


@torch.no_grad()
def test_reverse_distillations_map_is_the_sum_of_stages_and_its_loss_of_places_or_whole_maps() -> None:
    method = tiny("reverse_distillation", sigma=0.0).eval()
    maps = method.backbone(X)
    pairs = list(zip(maps, method.decoder(method.bottleneck(maps)), strict=True))
    places = [place_distance(a, b) for a, b in pairs]
    assert float(loss(method)) == pytest.approx(sum(float(d.mean()) for d in places), rel=1e-3)
    large = sum(nn.functional.interpolate(d, (64, 64), mode="bilinear") for d in places)
    torch.testing.assert_close(method(X).map, large)
    whole = tiny("reverse_distillation", loss="whole").eval()
    expected = sum(float(whole_distance(a, b).mean()) for a, b in pairs)
    assert float(loss(whole)) == pytest.approx(expected, rel=1e-3)


def test_edc_learns_as_one_adamw_with_two_rates_and_a_clipped_gradient() -> None:
    ours, theirs = (tiny("edc", encoder_rate=2e-4, learning_rate=1e-3, clip=0.1) for _ in range(2))
    train(ours, 3)
    theirs.train()
    theirs.encoder.eval()
    groups = [{"params": theirs.encoder.parameters(), "lr": 2e-4}, {"params": theirs.decoder.parameters()}]
    adam = AdamW(groups, 1e-3, weight_decay=1e-4)
    for _ in range(3):
        loss(theirs).backward()
        assert float(nn.utils.clip_grad_norm_(theirs.parameters(), 0.1)) > 0.1
        adam.step()
        adam.zero_grad()
    for (name, a), b, start in zip(ours.named_parameters(), theirs.parameters(), tiny("edc").parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
        limit = 2e-3 if name.startswith("encoder") else 1e-2
        assert float((a - start).detach().abs().max()) < limit


def test_edc_reconstructs_features_that_do_not_move_towards_it() -> None:
    method = tiny("edc").eval()
    loss(method).backward()
    found = {n: p.grad.clone() for n, p in method.encoder.named_parameters() if p.grad is not None}
    method.zero_grad()
    *maps, last = method.encoder(X)
    targets = [m.detach().clone() for m in maps]
    sum(whole_distance(a, b).mean() for a, b in zip(targets, method.decoder(last), strict=True)).backward()
    for name, parameter in method.encoder.named_parameters():
        if name in found:
            torch.testing.assert_close(found[name], parameter.grad)
    assert any(float(gradient.abs().max()) > 0 for gradient in found.values())


@pytest.mark.parametrize(("statistics", "moves"), [("pretrained", False), ("moving", True)])
def test_edc_keeps_or_moves_the_statistics_of_the_encoder(statistics: str, moves: bool) -> None:
    method = tiny("edc", statistics=statistics)
    norm = next(m for m in method.encoder.modules() if isinstance(m, nn.BatchNorm2d))
    before = norm.running_mean.clone()
    train(method)
    assert torch.equal(norm.running_mean, before) is not moves
    assert norm.momentum == 0.01
    assert method.decoder.training


@pytest.mark.parametrize("statistics", ["pretrained", "moving"])
def test_edc_scores_by_statistics_of_the_training_images(statistics: str) -> None:
    method = tiny("edc", statistics=statistics)
    train(method, 8)
    with torch.no_grad():
        trained = float(loss(method))
        stale = float(loss(method.eval()))
        before = {k: v.clone() for k, v in method.encoder.state_dict().items()}
        method.fit([X])
        scored = float(loss(method))
    assert scored == pytest.approx(trained, rel=0.25) and stale > 1.1 * scored
    kept = all(torch.equal(v, before[k]) for k, v in method.encoder.state_dict().items())
    assert kept is (statistics == "pretrained") and not any(part.training for part in method.modules())


def test_networks_that_round_sides_down_are_known() -> None:
    assert tiny("mkd", backbone="vgg11", layers=(1, 2)).backbone.sides(100) == [50, 25]
    assert tiny("mkd", backbone="resnet18", layers=(2, 3)).backbone.sides(100) == [13, 7]
    with pytest.raises(ValueError, match=r"maps of vgg11 have sides \[25, 12\], a student's \[25, 13\]"):
        tiny("mkd", backbone="vgg11", layers=(2, 3), size=100)
    x = torch.from_numpy(anatomy(3, 100))
    for name in ("panda", "cutpaste"):
        method = tiny(name, backbone="vgg11", layers=(3,), size=100).eval()
        with torch.no_grad():
            method.fit([x])
            assert method(x).map.shape == (3, 1, 100, 100)


def plain_attention(method: LinearAttention, x: Tensor) -> Tensor:
    """Attend patch by patch with the kernel elu + 1."""
    out = torch.zeros_like(x)
    q, k, v = method.qkv(x).chunk(3, -1)
    d = x.shape[-1] // method.heads
    for n in range(len(x)):
        for h in range(method.heads):
            part = slice(h * d, (h + 1) * d)
            for i in range(x.shape[1]):
                weights = [float(((nn.functional.elu(q[n, i, part]) + 1) * (nn.functional.elu(row) + 1)).sum())
                           for row in k[n, :, part]]  # fmt: skip
                out[n, i, part] = sum(w * row for w, row in zip(weights, v[n, :, part], strict=True)) / sum(weights)
    return method.out(out)


@torch.no_grad()
def test_linear_attention_is_attention_with_the_kernel_elu_plus_one() -> None:
    torch.manual_seed(0)
    attention, x = LinearAttention(12, 3), torch.randn(2, 5, 12)
    torch.testing.assert_close(attention(x), plain_attention(attention, x), rtol=1e-4, atol=1e-5)


def test_mining_leaves_the_value_and_weakens_the_gradient_of_the_easiest_places() -> None:
    torch.manual_seed(0)
    target, found = torch.randn(2, 6, 5, 5), torch.randn(2, 6, 5, 5, requires_grad=True)
    whole_distance(target, found).sum().backward()
    full, found.grad = found.grad.clone(), None
    weak = mined(target, found, 0.8)
    assert torch.equal(weak, found)
    whole_distance(target, weak).sum().backward()
    order = place_distance(target, found.detach()).flatten().argsort()
    factor = torch.ones(50)
    factor[order[:40]] = EASY
    torch.testing.assert_close(found.grad, full * factor.view(2, 1, 5, 5))
    assert torch.equal(mined(target, found, 0.0), found)


def test_dinomaly_mines_harder_step_by_step_and_remembers_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    monkeypatch.setattr("loligo.methods.dinomaly.mined", lambda a, b, easy: (seen.append(easy), b)[1])
    method = tiny("dinomaly", mining=0.8, mining_steps=4, groups=1)
    train(method, 6)
    np.testing.assert_allclose(seen, [0, 0.2, 0.4, 0.6, 0.8, 0.8], atol=1e-6)
    assert int(method.state_dict()["steps"]) == 6


@torch.no_grad()
def test_dinomaly_compares_the_first_blocks_with_the_last_of_the_decoder() -> None:
    method = tiny("dinomaly").eval()
    maps = method.backbone(X)
    x, found = method.bottleneck(torch.stack(maps).mean(0).flatten(2).mT), []
    for block in method.decoder:
        x = block(x)
        found.append(x.mT.unflatten(2, (4, 4)))
    for (a, b), (i, j) in zip(method._groups(maps), ((0, 1), (2, 3)), strict=True):
        torch.testing.assert_close(a, (maps[i] + maps[j]) / 2)
        torch.testing.assert_close(b, (found[3 - i] + found[3 - j]) / 2)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("reverse_distillation", {"size": 80}, "size 80 must be a multiple of twice the deepest stage's stride, 32"),
        ("edc", {"size": 48}, "size 48 must be a multiple of the last stage's stride, 32"),
        ("mkd", {"layers": (1, 1)}, r"layers \(1, 1\) names a stage twice"),
        ("edc", {"layers": (3, 4)}, r"has no stages \(3, 4, 5\)"),
        ("mkd", {"layers": (3, 1)}, "stride 4 is not one of stride 16 halved some times; choose stages"),
        ("dinomaly", {"backbone": "resnet18", "layers": (1, 2)}, "needs a vision transformer; the stages of resnet18"),
        ("dinomaly", {"size": 70}, "size 70 must be a multiple of the patches of vit_tiny_patch16_224, 16"),
        ("dinomaly", {"heads": 5}, "heads is 5; it must divide the transformer's width, 192"),
        ("dinomaly", {"groups": 3}, "groups is 3; it must divide the number of layers, 4"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit_are_refused(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(name, **options)


@torch.no_grad()
def test_mkd_takes_a_vision_transformer_whose_patches_are_a_power_of_two() -> None:
    method = tiny("mkd", backbone="vit_tiny_patch16_224", layers=(1, 2), size=64).eval()
    assert method(X).map.shape == (3, 1, 64, 64)


@torch.no_grad()
def test_dinomaly_drops_what_enters_the_bottleneck_what_is_hidden_and_what_leaves() -> None:
    method, dropped = tiny("dinomaly", dropout=0.25), []
    for layer in method.bottleneck:
        if isinstance(layer, nn.Linear):
            layer.register_forward_pre_hook(lambda _, x: dropped.append(float((x[0] == 0).float().mean())))
    x = torch.randn(8, 16, 192)
    out = method.bottleneck(x)
    assert [*dropped, float((out == 0).float().mean())] == pytest.approx([0.25] * 3, abs=0.02)
    dropped.clear()
    method.eval().bottleneck(x)
    assert dropped == [0, 0]


@pytest.mark.parametrize("backbone", ["resnet18", "convnext_atto", "vgg11_bn"])
@pytest.mark.parametrize("name", ["mkd", "reverse_distillation", "edc"])
@torch.no_grad()
def test_any_convolutional_backbone_will_do(name: str, backbone: str) -> None:
    method = tiny(name, backbone=backbone, layers=(1, 2)).eval()
    scores = method(X)
    assert scores.map.shape == (3, 1, 64, 64)
    assert torch.isfinite(scores.map).all()
