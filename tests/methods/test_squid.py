"""SQUID's parts against the paper's description and the reference's behaviour, and every ablation."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import nn

from conftest import ready
from loligo.methods.contract import Reduce, Step
from loligo.methods.squid import Decoder, DecoderMemory, Squid, SquidConfig, blank
from loligo.nn.discriminator import Discriminator, Ensemble
from loligo.nn.memory import shrink

TINY = {"size": 64, "width": 4, "levels": 2, "slots": 16}
X = torch.rand(3, 1, 64, 64, generator=torch.Generator().manual_seed(0))


def squid(**options: object) -> Squid:
    torch.manual_seed(0)
    return Squid(SquidConfig(**{**TINY, **options}))


def test_the_network_has_the_papers_sizes() -> None:
    model = Squid(SquidConfig())
    z, skips = model.encoder(torch.zeros(4, 1, 64, 64))
    assert z.shape == (4, 512, 4, 4)
    assert [s.shape[1] for s in skips] == [32, 64, 128, 256]
    assert model.inpaint.memory.slots.shape == (4, 200, 2048)
    assert model.inpaint.attention.heads == 8
    assert model.inpaint.attention.feed[0].out_features == 512
    assert [m.memory.slots.shape for m in model.student.memories] == [(4, 200, 256 * 16), (4, 200, 128 * 64)]
    assert len(model.teacher.memories) == 0
    assert len(model.ensemble.current) == 1
    convs = [m for m in model.ensemble.current[0].modules() if isinstance(m, nn.Conv2d)]
    assert [(c.out_channels, c.kernel_size, c.stride) for c in convs] == [
        (width, (5, 5), (2, 2)) for width in (16, 32, 64, 128, 128)
    ]


def test_decoder_stitches_before_its_third_level_and_takes_two_skips() -> None:
    config = SquidConfig()
    decoder = Decoder(config, with_memory=False)
    assert [u.first.conv.in_channels for u in decoder.units] == [512 + 256, 256 + 128, 128, 64]
    z, skips = torch.rand(4, 512, 4, 4), [torch.rand(4, 32 << i, 64 >> i, 64 >> i) for i in range(4)]
    image, features = decoder(z, skips)
    assert image.shape == (1, 1, 128, 128)
    assert [tuple(f.shape) for f in features] == [(4, 256, 8, 8), (4, 128, 16, 16), (1, 64, 64, 64), (1, 32, 128, 128)]


@pytest.mark.parametrize("where", ["quadrant", "image"])
def test_decoder_memory_agrees_with_a_plain_loop(where: str) -> None:
    config = SquidConfig(slots=10, decoder_memory=where)
    module = DecoderMemory(3, 8, config).eval()
    x = torch.randn(8, 3, 8, 8)
    plain = torch.zeros_like(x)
    for patch in range(8):
        if where == "image":
            slots = module.memory.slots[patch % 4]
            query = x[patch].permute(1, 2, 0).reshape(-1)
            read = shrink(query @ slots.T, "gumbel", 5, strict=True) @ slots
            plain[patch] = read.view(8, 8, 3).permute(2, 0, 1)
            continue
        for i, j in itertools.product(range(2), range(2)):
            part = x[patch, :, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4]
            slots = module.memory.slots[2 * i + j]
            read = shrink(part.permute(1, 2, 0).reshape(-1) @ slots.T, "gumbel", 5, strict=True) @ slots
            plain[patch, :, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4] = read.view(4, 4, 3).permute(2, 0, 1)
    torch.testing.assert_close(module(x), plain, rtol=1e-4, atol=1e-5)


def test_image_statistics_are_those_of_a_discriminator_in_training_mode_on_one_image() -> None:
    torch.manual_seed(0)
    discriminator = Discriminator(64, 1, statistics="image")
    x = torch.rand(4, 1, 64, 64)
    with torch.no_grad():
        for _ in range(3):
            discriminator(torch.rand(8, 1, 64, 64))
        together = discriminator.eval()(x)
        alone = torch.cat([discriminator.train()(x[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_running_statistics_differ_from_the_images_own() -> None:
    model = squid().eval()
    image = model.ensemble.current(X)
    for module in model.ensemble.current.modules():
        if hasattr(module, "statistics"):
            module.statistics = "running"
    assert not torch.allclose(model.ensemble.current(X), image)


def test_generator_leaves_its_images_to_the_discriminator_of_the_same_step() -> None:
    model, calls = squid().train(), []
    model.student.register_forward_hook(lambda *_: calls.append(1))
    step: Step = {}
    model.losses(X, "generator", step)
    assert not step["fake"].requires_grad
    assert {"discriminator"} == set(model.losses(X, "discriminator", step))
    assert len(calls) == 1
    assert {"discriminator"} == set(model.losses(X, "discriminator", {}))  # alone it makes them itself
    assert len(calls) == 2


def test_losses_are_weighted_as_in_the_paper() -> None:
    model, step = squid().train(), {}
    losses = model.losses(X, "generator", step)
    assert set(losses) == {"generator", "reconstruction", "adversarial", "teacher", "distillation"}
    total = sum(losses[k] for k in ("reconstruction", "adversarial", "teacher", "distillation"))
    torch.testing.assert_close(losses["generator"], total)
    c = model.config
    weights = (c.reconstruction_weight, c.teacher_weight, c.distillation_weight, c.adversarial_weight)
    assert weights == (10, 0.01, 0.001, 0.005)
    expected = 10 * nn.functional.mse_loss(step["fake"], X)
    torch.testing.assert_close(losses["reconstruction"], expected)


def test_the_teacher_sends_no_gradient_to_the_encoder() -> None:
    model = squid().train()
    losses = model.losses(X, "generator", {})
    grads = torch.autograd.grad(losses["teacher"], list(model.encoder.parameters()), allow_unused=True)
    assert all(g is None for g in grads)


def test_the_queue_takes_the_batch_up_after_the_generators_step_only() -> None:
    model, step = squid().train(), {}
    model.losses(X, "discriminator", step)
    model.after_step("discriminator", step)
    assert int(model.inpaint.memory.pointer) == 0
    model.losses(X, "generator", step)
    assert int(model.inpaint.memory.pointer) == 0
    model.after_step("generator", step)
    assert int(model.inpaint.memory.pointer) == 3
    torch.testing.assert_close(model.inpaint.memory.slots[:, :3], step["squeezed"].transpose(0, 1))


def test_processes_write_one_queue() -> None:
    class Two(Reduce):
        """Another process, whose features are those of this one plus one."""

        def gather(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([x, x + 1])

    model, step = squid().train(), {}
    model.losses(X, "generator", step)
    model.after_step("generator", step, Two())
    assert int(model.inpaint.memory.pointer) == 6
    torch.testing.assert_close(model.inpaint.memory.slots[:, 3:6], step["squeezed"].transpose(0, 1) + 1)


def by_hand(x: torch.Tensor, way: int) -> torch.Tensor:
    """Shift images of 64 pixels by 2 along a diagonal, and blacken what they leave."""
    down, right = [(2, 2), (2, -2), (-2, 2), (-2, -2)][way]
    x = x.roll((down, right), (2, 3))
    x[:, :, slice(0, 2) if down > 0 else slice(-2, None)] = 0
    x[:, :, :, slice(0, 2) if right > 0 else slice(-2, None)] = 0
    return x


def test_score_is_the_mean_of_discriminators_evenly_spaced_that_see_the_image_shifted() -> None:
    model = squid(snapshots=2, discriminators=2, score="discriminator").eval()
    with torch.no_grad():
        fake, kept = model.reconstruct(X), []
        for epoch in range(5):
            for p in model.ensemble.current.parameters():
                p.add_(torch.randn_like(p) * 0.1)
            model.after_epoch((epoch + 1) / 5)
            kept.append(copy.deepcopy(model.ensemble.current))
            who = {0: [0], 1: [1], 2: [2], 3: [2, 3], 4: [2, 4]}[epoch]  # an evaluated epoch's own count as well
            views = [fake] if len(who) == 1 else [by_hand(fake, i) for i in range(2)]  # one alone: as it is
            seen = torch.stack([kept[i](view) for i, view in zip(who, views, strict=True)]).mean((0, 1))
            torch.testing.assert_close(model(X).image, -seen, rtol=1e-4, atol=5e-5)
            torch.testing.assert_close(copy.deepcopy(model).freeze()(X).image, -seen, rtol=1e-4, atol=5e-5)
        pair = squid(snapshots=2, discriminators=2, score="pair").eval()
        pair.load_state_dict(model.state_dict())
        on_images = torch.stack([kept[i](by_hand(X, way)) for way, i in enumerate((2, 4))]).mean((0, 1))
        torch.testing.assert_close(pair(X).image, -(seen + on_images) / 2, rtol=1e-4, atol=5e-5)


def test_discriminators_of_an_ensemble_are_trained_independently() -> None:
    torch.manual_seed(0)
    ensemble, one = Ensemble(1, 64, 1, "image", discriminators=3), Ensemble(1, 64, 1, "image")
    logits = ensemble(X)
    assert logits.shape == (3, 3)
    assert not torch.allclose(logits[0], logits[1])
    fake, losses = torch.rand_like(X), []
    for member in ensemble.current:
        one.current.load_state_dict({f"0.{name}": value for name, value in member.state_dict().items()})
        losses.append((one.loss(X, fake), one.generator_loss(fake)))
    means = (ensemble.loss(X, fake), ensemble.generator_loss(fake))
    for loss, alone in zip(means, zip(*losses, strict=True), strict=True):
        torch.testing.assert_close(loss, torch.stack(alone).mean())
    ensemble.loss(X, fake).backward()
    alone = torch.autograd.grad(losses[2][0], list(one.current.parameters()))
    for p, grad in zip(ensemble.current[2].parameters(), alone, strict=True):
        torch.testing.assert_close(3 * p.grad, grad)


def test_snapshots_take_four_ways_to_shift_an_image_in_turn() -> None:
    ensemble, seen = Ensemble(5, 64, 1, "image"), []
    ensemble.kept.fill_(5)
    ensemble.copied.fill_(True)
    for past in ensemble.past:
        past.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        ensemble.eval().mean(X)
    for view, way in zip(seen, (0, 1, 2, 3, 0), strict=True):
        assert torch.equal(view, by_hand(X, way))


OPTIONS = {
    "memory": ["queue", "matrix", "none"],
    "space_aware": [True, False],
    "shrinkage": ["gumbel", "hard", "soft", "none"],
    "k": [1, 16],
    "strict_top_k": [True, False],
    "inpainting": ["feature", "pixel", "none"],
    "mask_neighbours": [True, False],
    "shortcut_ratio": [0.5, 1.0],
    "decoder_memory": ["quadrant", "image", "none"],
    "skips": [0, 1, 2],
    "distillation": [True, False],
    "discriminator_statistics": ["image", "running"],
    "score": ["pair", "discriminator", "reconstruction", "both", "local"],
    "grid": [1, 2, 4],
    "snapshots": [1, 3],
    "discriminators": [3],
    "generator_every": [1, 2],
    "levels": [2, 3],
}


@pytest.mark.parametrize(("option", "value"), [(o, v) for o, values in OPTIONS.items() for v in values])
def test_every_ablation_trains_and_scores(option: str, value: object) -> None:
    extra = {"decoder_memory": "image"} if (option, value) in {("grid", 4), ("levels", 3)} else {}
    extra |= {"strict_top_k": False} if option == "k" else {}
    model = squid(**{**extra, option: value}).train()
    step: Step = {}
    losses = model.losses(X, "generator", step)
    losses["generator"].backward()
    model.after_step("generator", step)
    assert all(torch.isfinite(v) for v in losses.values())
    moved = [p for n in model.phases()[0].turns[0].groups[0].modules for p in model.get_submodule(n).parameters()]
    assert sum(p.grad is not None for p in moved) > 0.9 * len(moved)
    model.eval()
    with torch.no_grad():
        model.fit([X, X.flip(0)])
        scores = model(X)
    assert scores.image.shape == (3,)
    assert torch.isfinite(scores.image).all()


def test_pixel_inpainting_reconstructs_every_patch_without_seeing_it() -> None:
    model = squid(inpainting="pixel", levels=3, decoder_memory="image").eval()
    changed = X.clone()
    changed[:, :, :32, :32] = torch.rand(3, 1, 32, 32)
    with torch.no_grad():
        a, b = model.reconstruct(X), model.reconstruct(changed)
    assert torch.equal(a[:, :, :32, :32], b[:, :, :32, :32])
    assert not torch.equal(a[:, :, 32:], b[:, :, 32:])


def test_blank_clears_one_patch_of_each_image() -> None:
    x = blank(torch.ones(2, 1, 4, 4), torch.tensor([0, 3]), 2)
    assert x[0, 0].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]]
    assert x[1, 0].tolist() == [[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 100}, "must be a multiple of grid"),
        ({"size": 32}, "single pixel"),
        ({"grid": 4, "levels": 4, "decoder_memory": "quadrant"}, "cannot be cut into 4x4 quadrants"),
        ({"skips": 3}, "skips is 3"),
        ({"snapshots": 0}, "snapshots is 0"),
        ({"discriminators": 0}, "discriminators is 0"),
        ({"k": 1}, "k is 1; strict_top_k keeps k - 1 slots"),
        ({"k": 0, "strict_top_k": False}, "k is 0; at least 1"),
    ],
)
def test_sizes_that_do_not_fit_are_named(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        squid(**options)


def test_scores_under_autocast_are_not_rounded_to_bfloat16() -> None:
    model = squid(score="discriminator").eval()
    with torch.no_grad():
        model.ensemble.current[0].logit.bias += 10
        scores = ready(model, "bf16")(torch.rand(40, 1, 64, 64)).image
        plain = model(X).image
    assert len(scores.unique()) == 40
    torch.testing.assert_close(ready(model, "bf16")(X).image, plain, rtol=0, atol=0.06)
