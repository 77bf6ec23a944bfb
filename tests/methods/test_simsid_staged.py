"""Staged SimSID's parts against the report: sizes, memory against its plain loops, stages, sign of the score."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conftest import anatomy, dataset, ready
from loligo.config import TrainConfig
from loligo.methods.contract import Method
from loligo.methods.simsid_staged import (
    Generator,
    HierarchicalMemory,
    PatchBasedCNN,
    SimsidStaged,
    SimsidStagedConfig,
    SpaceAwareMemory,
)
from loligo.nn.patches import cut
from loligo.training.loop import fit

TINY = SimsidStaged.presets["tiny"]
X = torch.from_numpy(anatomy(6, 64))


def staged(**options: object) -> SimsidStaged:
    torch.manual_seed(0)
    return SimsidStaged(SimsidStagedConfig(**{**TINY, **options}))


def filled(**options: object) -> SimsidStaged:
    """Return a tiny model whose statistics are measured, whose memory has seen X and whose images are not grey."""
    model, step = staged(**options), {}
    for generator in (model.teacher, model.student):
        generator.out.reset_parameters()
    model.prepare([X])
    enter(model, "student").losses(X, "student", step)
    model.after_step("student", step)
    return model


def enter(model: SimsidStaged, name: str) -> SimsidStaged:
    """Put it in the modes of a phase, as the loop does."""
    model.train()
    for frozen in next(phase for phase in model.phases() if phase.name == name).frozen:
        model.get_submodule(frozen).eval()
    return model


def levels(memory: HierarchicalMemory) -> list[SpaceAwareMemory]:
    return [memory.patches, memory.blocks, memory.image]


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_the_patch_cnn_has_the_reports_sizes() -> None:
    cnn = PatchBasedCNN(1, 32, 16, 64)
    pairs = list(itertools.pairwise((1, 32, 64, 128, 256)))
    assert parameters(cnn) == sum(9 * a * b + b + 2 * b for a, b in pairs) + 256 * 64 + 64
    assert cnn(torch.zeros(2, 1, 16, 16)).shape == (2, 64)


def test_the_generator_has_the_reports_sizes() -> None:
    with torch.device("meta"):
        generator = Generator(4096, 128, 32, 1)
    image, between = Generator(64, 128, 32, 1)(torch.zeros(2, 64, 1))
    widths = (256, 128, 64, 32)
    deconvs = sum(16 * a * b + b + 2 * b for a, b in itertools.pairwise(widths)) + 16 * 32 + 1
    assert parameters(generator) == 4096 * 256 * 64 + 256 * 64 + deconvs
    assert image.shape == (2, 1, 128, 128)
    shapes = [(2, 128, 16, 16), (2, 64, 32, 32), (2, 32, 64, 64), (2, 1, 128, 128)]
    assert [tuple(x.shape) for x in between] == shapes  # the image among them


def test_an_image_of_128_pixels_has_4096_features() -> None:
    config = SimsidStagedConfig()
    cnn = PatchBasedCNN(1, config.width, config.size // config.grid, config.features)
    assert cnn(cut(torch.zeros(1, 1, 128, 128), config.grid)).numel() == 4096


def test_statistics_are_those_of_the_first_batch_and_stay() -> None:
    model = staged()
    model.prepare([X, 1 - X])
    first = model.patch_cnn.blocks[0]
    patches = first.conv(cut(X, 4))
    torch.testing.assert_close(first.norm.running_mean, patches.mean((0, 2, 3)))
    torch.testing.assert_close(first.norm.running_var, patches.var((0, 2, 3)))
    with torch.no_grad():
        features = model._encode(X).flatten(0, 1)
    torch.testing.assert_close(features.mean(0), torch.zeros(16), rtol=0, atol=0.05)
    kept = torch.linalg.eigvalsh(features.T.cov())  # batch norm's own variance is biased: a little from 1
    assert ((kept > 0.9) & (kept < 1.1)).sum() >= 8
    assert kept.max() < 1.1
    before = {k: v.clone() for k, v in model.patch_cnn.state_dict().items()}
    enter(model, "teacher").losses(X * 0.5, "teacher", {})
    assert all(torch.equal(v, before[k]) for k, v in model.patch_cnn.state_dict().items())


def plain_write(memory: Tensor, features: Tensor, locations: list[int], threshold: float) -> None:
    """Algorithm 4.4, patch by patch."""
    for feature, location in zip(features, locations, strict=True):
        existing = memory[location]
        similarity = feature @ existing / max(float(feature.norm() * existing.norm()), 1e-8)
        if similarity < threshold:
            memory[location] = feature


@pytest.mark.parametrize("threshold", [0.1, 0.5, 1.0])
def test_memory_is_written_as_by_the_plain_loop(threshold: float) -> None:
    torch.manual_seed(1)
    features = torch.randn(20, 6, 4)
    memory, plain = SpaceAwareMemory(6, 4, threshold, 2), torch.zeros(6, 4)
    for batch in features.split(7):  # the last is shorter
        memory.write(batch, torch.arange(6))
        plain_write(plain, batch.flatten(0, 1), list(range(6)) * len(batch), threshold)
    assert torch.equal(memory.slots, plain)
    assert not torch.equal(plain, features[0])
    assert torch.equal(plain, features[-1]) == (threshold == 1.0)


def test_all_levels_are_written_as_by_plain_loops() -> None:
    torch.manual_seed(1)
    features = torch.randn(5, 16, 8)
    memory = HierarchicalMemory(SimsidStagedConfig(grid=4, features=8, block=2, threshold=0.5))
    memory.write(features, torch.arange(16))
    plain = [torch.zeros(16, 8), torch.zeros(4, 8), torch.zeros(1, 8)]
    for image in features:
        grid = image.view(4, 4, 8)
        blocks = torch.stack([grid[i : i + 2, j : j + 2].mean((0, 1)) for i in (0, 2) for j in (0, 2)])
        for level, found in zip(plain, (image, blocks, image.amax(0, keepdim=True)), strict=True):
            plain_write(level, found, list(range(len(found))), 0.5)
    for level, expected in zip(levels(memory), plain, strict=True):
        torch.testing.assert_close(level.slots, expected)


def test_memory_is_read_as_by_the_plain_loop() -> None:
    torch.manual_seed(1)
    memory = SpaceAwareMemory(9, 4, 0.9, 3).eval()
    memory.write(torch.randn(1, 9, 4), torch.arange(9))
    query = torch.randn(2, 9, 4)
    plain = torch.zeros_like(query)
    for n, p in itertools.product(range(2), range(9)):
        probabilities = (memory.slots @ query[n, p] / 0.7).softmax(0)  # any temperature
        plain[n, p] = memory.slots[probabilities.argsort(descending=True)[:3]].sum(0)
    torch.testing.assert_close(memory.read(query), plain)


def test_gumbel_noise_is_of_training_alone_and_has_its_distribution() -> None:
    torch.manual_seed(1)
    memory = SpaceAwareMemory(4, 2, 0.9, 1)
    memory.write(torch.tensor([[[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]]]), torch.arange(4))
    query = torch.tensor([1.0, 0.5]).expand(50_000, 1, 2)
    assert len(memory.eval().read(query).unique(dim=0)) == 1
    read = memory.train().read(query)[:, 0]
    rates = torch.stack([(read == slot).all(1).float().mean() for slot in memory.slots])
    torch.testing.assert_close(rates, (memory.slots @ query[0, 0]).softmax(0), rtol=0, atol=0.01)


def test_memory_grows_to_new_positions_and_is_loaded_as_it_grew() -> None:
    config = SimsidStagedConfig(grid=4, features=8)
    memory = HierarchicalMemory(config).eval()
    query = torch.rand(2, 16, 8)
    assert [int(level.grown) for level in levels(memory)] == [0, 0, 0]
    assert memory.read(query).count_nonzero() == 0
    memory.write(torch.rand(3, 3, 8), torch.tensor([0, 1, 4]))
    assert [int(level.grown) for level in levels(memory)] == [5, 1, 1]
    torch.testing.assert_close(memory.blocks.slots[0], memory.blocks.slots[:1].mean(0))
    memory.write(torch.rand(3, 2, 8), torch.tensor([9, 2]))
    assert [int(level.grown) for level in levels(memory)] == [10, 3, 1]
    again = HierarchicalMemory(config).eval()
    again.load_state_dict(memory.state_dict())
    assert torch.equal(again.read(query), memory.read(query))
    for level in levels(again):
        level.freeze()
    assert torch.equal(again.read(query), memory.read(query))


def test_patches_at_the_border_keep_their_features() -> None:
    model = filled().eval()
    with torch.no_grad():
        seen = model.inspect(X)
    border = torch.ones(4, 4, dtype=torch.bool)
    border[1:-1, 1:-1] = False
    assert torch.equal(seen.inpainted[:, border.flatten()], seen.features[:, border.flatten()])
    assert (seen.inpainted != seen.features)[:, ~border.flatten()].any(-1).all()


def test_an_inner_patch_is_inpainted_from_its_neighbours_memory_and_itself_alone() -> None:
    model = staged(grid=4).eval()
    features, read = torch.rand(1, 16, 16), torch.rand(1, 16, 48)
    with torch.no_grad():
        before = model.inpaint(features, read)[:, 5]
        for patch, (changed, kind) in itertools.product(range(16), [(features, "own"), (read, "read")]):
            other = changed.clone()
            other[:, patch] += 1
            after = model.inpaint(*((other, read) if kind == "own" else (features, other)))[:, 5]
            counts = patch == 5 if kind == "own" else patch in {0, 1, 2, 4, 6, 8, 9, 10}
            assert torch.allclose(after, before) != counts


def test_each_stage_moves_its_own_modules_only(tmp_path: Path) -> None:
    states = []

    def callback(seen: Method, _: int) -> None:
        states.append({k: v.clone() for k, v in seen.state_dict().items()})

    settings = TrainConfig(6, batch_size=8, precision="float32")
    model = staged(teacher_fraction=2, student_fraction=2, discriminator_fraction=2)
    callback(model, 0)
    fit(model, dataset(anatomy(16, 64)), settings, tmp_path, callback)
    moved = [{k.split(".")[0] for k in a if not torch.equal(a[k], b[k])} for a, b in itertools.pairwise(states)]
    assert moved[0] == {"patch_cnn", "teacher"}  # of the patch CNN the statistics
    assert moved[1] == {"teacher"}
    assert moved[2] == {"memory", "inpaint", "student"}
    assert moved[3] <= {"memory", "inpaint", "student"}
    assert moved[4] == moved[5] == {"discriminator"}


def test_no_gradient_reaches_what_is_frozen() -> None:
    model = filled()
    frozen = {"teacher": ("patch_cnn",), "student": ("patch_cnn", "teacher"), "discriminator": ("patch_cnn", "student")}
    for turn, names in frozen.items():
        model.zero_grad()
        enter(model, turn).losses(X, turn, {})[turn].backward()
        for name in names:
            assert all(p.grad is None for p in model.get_submodule(name).parameters())
        phase = next(phase for phase in model.phases() if phase.name == turn)
        moved = [p for name in phase.turns[0].groups[0].modules for p in model.get_submodule(name).parameters()]
        assert all(p.grad is not None for p in moved)


def test_the_students_loss_is_reconstruction_and_weighted_distillation() -> None:
    model = filled(distillation_weight=0.3)
    losses = enter(model, "student").losses(X, "student", {})
    torch.testing.assert_close(losses["student"], losses["reconstruction"] + 0.3 * losses["distillation"])
    assert not model.teacher.training
    with torch.no_grad():
        for ours, theirs in zip(model.student.parameters(), model.teacher.parameters(), strict=True):
            ours.copy_(theirs)
        model.student.load_state_dict(model.teacher.state_dict())
        model.student.eval()
        model.inpaint.inner = model.inpaint.inner[:0]  # nothing is in-painted: the student is the teacher
        model.inpaint.around = model.inpaint.around[:0]
        assert float(model.losses(X, "student", {})["distillation"]) == 0


def test_what_looks_real_to_the_discriminator_scores_low() -> None:
    model = filled(score="discriminator").eval()
    with torch.no_grad():
        before, _, image = model(X)
        torch.testing.assert_close(before, -model.discriminator(image))
        model.discriminator.logit.bias += 1  # all images look more real
        assert (model(X).image < before).all()


def test_the_discriminators_loss_is_the_cross_entropy_of_real_images_and_reconstructions() -> None:
    model = enter(filled(), "discriminator")
    loss = model.losses(X, "discriminator", {})["discriminator"]
    with torch.no_grad():
        real, fake = model.discriminator(X).sigmoid(), model.discriminator(model.reconstruct(X)).sigmoid()
    torch.testing.assert_close(loss, -(real.log().mean() + (1 - fake).log().mean()))
    assert not model.student.training
    assert not model.memory.patches.training


def test_scoring_writes_no_memory_and_is_the_same_twice() -> None:
    model = filled(score="discriminator")
    before = [level.slots.clone() for level in levels(model.memory)]
    scorer = ready(model, "float32")
    assert torch.equal(scorer(1 - X).image, scorer(1 - X).image)
    for level, slots in zip(levels(scorer.method.memory), before, strict=True):
        assert torch.equal(level.slots, slots)


def test_images_are_bounded_and_the_map_is_their_squared_error() -> None:
    model = filled(score="reconstruction").eval()
    with torch.no_grad():
        model.student.out.bias += 5
        scores = model(X)
    assert float(scores.reconstruction.max()) == 1
    torch.testing.assert_close(scores.map, (X - scores.reconstruction).square())
    torch.testing.assert_close(scores.image, F.mse_loss(scores.reconstruction, X, reduction="none").mean((1, 2, 3)))


def test_inspect_shows_teacher_student_features_and_memory() -> None:
    seen = filled().eval().inspect(X)
    assert set(seen.reconstructions) == {"teacher", "student"}
    assert seen.features.shape == seen.inpainted.shape == (6, 16, 16)
    assert seen.memory.shape == (16, 1, 16)


def test_the_last_layer_is_in_float32_under_autocast() -> None:
    model = filled().eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        image = model.teacher(model._encode(X))[0]
    assert image.dtype == torch.float32
    assert (image.bfloat16().float() != image).any()


def test_generators_begin_at_mid_grey() -> None:
    image = staged().eval().inspect(X).reconstructions
    assert all((each == 0.5).all() for each in image.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 100}, r"size 100 must be a multiple of grid \* 16 = 64"),
        ({"size": 32, "grid": 2}, "grid at least 3"),
        ({"block": 3}, "cannot be cut into blocks of 3"),
        ({"heads": 3}, "cannot be shared among 3 heads"),
        ({"threshold": 0.0}, "threshold 0.0"),
        ({"k": 0}, "k 0"),
    ],
)
def test_options_that_do_not_fit_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        staged(**options)
