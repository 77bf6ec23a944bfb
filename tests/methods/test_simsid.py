"""SimSID against the description of its paper."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from loligo.methods.contract import Step
from loligo.methods.simsid import Simsid, SimsidConfig, SpaceMemory
from loligo.methods.squid import Squid, SquidConfig
from loligo.nn.memory import MemoryMatrix, MemoryQueue
from loligo.nn.patches import cut

TINY = dict(Simsid.presets["tiny"])
X = torch.rand(3, 1, 64, 64, generator=torch.Generator().manual_seed(0))


def simsid(**options: object) -> Simsid:
    torch.manual_seed(0)
    return Simsid(SimsidConfig(**{**TINY, **options}))


def test_memories_lie_at_three_levels_on_finer_and_finer_grids() -> None:
    memories = Simsid(SimsidConfig()).student.memories
    assert [m.grid for m in memories] == [2, 4, 8]
    slots = [m.inpaint.memory.slots for m in memories]
    assert [tuple(s.shape) for s in slots] == [(4, 200, 1024), (16, 200, 1024), (64, 200, 512)]
    assert all(isinstance(s, nn.Parameter) for s in slots)
    assert [m.inpaint.attention is not None for m in memories] == [True, False, False]
    assert memories[0].inpaint.attention.mask_outside
    widths = [m.out_channels for m in Simsid(SimsidConfig()).ensemble.current[0].modules() if isinstance(m, nn.Conv2d)]
    assert widths == [16, 32, 64, 128, 256]


def test_it_does_less_than_half_the_work_of_squid() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    work = []
    for model in (Simsid(SimsidConfig()), Squid(SquidConfig())):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model.eval()(torch.rand(1, 1, 128, 128))
        work.append(counter.get_total_flops())
    assert work[0] < 0.5 * work[1]


def test_a_block_is_reconstructed_from_the_memory_of_its_own_place() -> None:
    torch.manual_seed(0)
    memory = SpaceMemory(8, 8, 4, False, SimsidConfig(**TINY)).eval()
    x, y = torch.rand(2, 1, 8, 8, 8)
    y[:, :, 2:4, 4:6] = x[:, :, 2:4, 4:6]  # the same block at row 1, column 2
    same = (memory(x)[0] == memory(y)[0]).all((0, 1))
    assert same[2:4, 4:6].all()
    assert not same[0:2, 0:2].any()
    before = memory(x)[0]
    with torch.no_grad():
        memory.inpaint.memory.slots[6] += 1  # 1 * 4 + 2
    changed = (memory(x)[0] != before).any(1)[0]
    assert changed[2:4, 4:6].any()
    changed[2:4, 4:6] = False
    assert not changed.any()


def test_a_memory_reads_the_mean_of_its_best_slots() -> None:
    torch.manual_seed(0)
    memory = SpaceMemory(8, 8, 4, False, SimsidConfig(**TINY, k=2)).eval()
    x = torch.rand(1, 8, 8, 8)
    own = torch.relu(memory.inpaint.squeeze(cut(x, 4)))  # (16, 2, 2, 2)
    slots, rows = memory.inpaint.memory.slots, []
    for place in range(16):
        weights = (slots[place] @ own[place].flatten()).softmax(0)
        best = weights.topk(2).indices
        rows.append((weights[best, None] * slots[place][best]).sum(0) / weights[best].sum())
    torch.testing.assert_close(memory.inspect(x)[1][0], torch.stack(rows), rtol=1e-4, atol=1e-6)


def test_encoding_a_patch_knows_nothing_of_its_neighbours() -> None:
    model = simsid().eval()
    y = X.clone()
    y[:, :, 32:] = 0
    (a, skips_a), (b, skips_b) = model.encoder(2 * X - 1), model.encoder(2 * y - 1)
    assert torch.equal(a[:, :, :8], b[:, :, :8])
    assert not torch.equal(a[:, :, 8:], b[:, :, 8:])
    assert all(
        torch.equal(s[:, :, : s.shape[2] // 2], t[:, :, : t.shape[2] // 2])
        for s, t in zip(skips_a, skips_b, strict=True)
    )


def test_one_forward_pass_serves_both_turns() -> None:
    model, calls = simsid().train(), []
    model.student.register_forward_hook(lambda *_: calls.append(1))
    step: Step = {}
    losses = model.losses(X, "generator", step)
    assert set(model.losses(X, "discriminator", step)) == {"discriminator"}
    assert len(calls) == 1
    assert set(losses) == {"generator", "reconstruction", "adversarial", "teacher", "distillation"}
    parts = [v for k, v in losses.items() if k != "generator"]
    torch.testing.assert_close(losses["generator"], torch.stack(parts).sum())
    assert set(model.losses(X, "discriminator", {})) == {"discriminator"}  # alone it makes its images itself
    assert len(calls) == 2


def test_the_loss_is_that_of_images_from_minus_one_to_one() -> None:
    model, step = simsid().train(), {}
    losses = model.losses(X, "generator", step)
    expected = 10 * (2 * step["fake"] - 1 - (2 * X - 1)).square().mean()
    torch.testing.assert_close(losses["reconstruction"], expected)


def test_discriminators_see_images_from_zero_to_one() -> None:
    model, seen = simsid().train(), []
    model.ensemble.register_forward_hook(lambda _, args, __: seen.append(args[0]))
    step: Step = {}
    model.losses(X, "generator", step)
    fake = step["fake"]
    model.losses(X, "discriminator", step)
    assert all(torch.equal(a, b) for a, b in zip(seen, (fake, X, fake), strict=True))
    assert 0 <= float(fake.min()) < float(fake.max()) <= 1
    torch.testing.assert_close(model.eval().reconstruct(X), model(X).reconstruction)


def test_the_teacher_sends_no_gradient_to_the_encoder_and_has_no_memory() -> None:
    model = simsid().train()
    assert len(model.teacher.memories) == 0
    teacher = model.losses(X, "generator", {})["teacher"]
    grads = torch.autograd.grad(teacher, list(model.encoder.parameters()), allow_unused=True)
    assert all(g is None for g in grads)


def test_queues_take_the_batch_up_after_the_generators_step_at_every_level() -> None:
    model = simsid(memory="queue").train()
    memories: list[MemoryQueue] = [m.inpaint.memory for m in model.student.memories]
    step: Step = {}
    model.losses(X, "generator", step)
    assert [int(m.pointer) for m in memories] == [0, 0]
    model.after_step("generator", step)
    assert [int(m.pointer) for m in memories] == [3, 3]
    model.losses(X, "discriminator", step)
    model.after_step("discriminator", step)
    assert [int(m.pointer) for m in memories] == [3, 3]


def test_a_higher_score_is_what_the_discriminators_call_less_real() -> None:
    for score in ("pair", "discriminator"):
        model = simsid(score=score).eval()
        with torch.no_grad():
            before, logit = model(X).image, model.ensemble.current(model.reconstruct(X)).mean(0)
            if score == "pair":
                logit = (logit + model.ensemble.current(X).mean(0)) / 2
            torch.testing.assert_close(before, -logit)
            for member in model.ensemble.current:
                member.logit.bias += 10
            torch.testing.assert_close(model(X).image, before - 10)


OPTIONS: dict[str, list[object]] = {
    "memory": ["matrix", "queue", "none"],
    "memory_levels": [0, 1, 2],
    "space_aware": [False],
    "shrinkage": ["hard", "soft", "none"],
    "k": [1, 16],
    "inpainting": [False],
    "shortcut_ratio": [0.95],
    "skips": [0, 1],
    "distillation": [False],
    "discriminator_statistics": ["running"],
    "snapshots": [1],
    "discriminators": [3],
    "score": ["pair", "discriminator", "reconstruction", "local"],
    "grid": [1, 4],
}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, values in OPTIONS.items() for v in values])
def test_every_option_trains_and_scores(name: str, value: object) -> None:
    model = simsid(**{name: value}).train()
    step: Step = {}
    model.losses(X, "generator", step)["generator"].backward()
    model.after_step("generator", step)
    model.losses(X, "discriminator", step)["discriminator"].backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    scores = model.eval()(X)
    assert torch.isfinite(scores.image).all()
    image = scores.reconstruction.detach()
    assert isinstance(image, Tensor)
    assert 0 <= float(image.min()) <= float(image.max()) <= 1
    torch.testing.assert_close(model.inspect(X).reconstructions["student"], image)


def test_inspection_shows_patches_before_and_after_in_painting_and_their_memory() -> None:
    model = simsid().eval()
    seen = model.inspect(X)
    assert seen.features.shape == seen.inpainted.shape == (3, 4, seen.memory.shape[2])
    assert isinstance(model.student.memories[0].inpaint.memory, MemoryMatrix)
    assert seen.memory.shape[:2] == (4, 16)
    assert set(seen.reconstructions) == {"teacher", "student"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 60}, "size 60 must be a multiple of grid"),
        ({"memory_levels": 3}, "memory_levels is 3; it may be 0 to levels = 2"),
        ({"skips": 3}, "skips is 3; 0 to levels = 2"),
        ({"snapshots": 0}, "needs at least 1 discriminator"),
        ({"k": 0}, "k is 0; at least 1"),
        ({"size": 32}, "size 32 leaves the discriminator a single pixel"),
        (
            {"discriminator_widths": (4,) * 6},
            "a single pixel to normalise; its 6 layers",
        ),
        ({"discriminator_widths": ()}, "discriminator_widths is empty"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        simsid(**options)
