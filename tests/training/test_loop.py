"""The training loop: resuming, optimisers and schedules, callbacks, and what happens when the disk is full."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from conftest import anatomy, dataset
from loligo.config import TrainConfig
from loligo.methods.configs import MethodConfig
from loligo.methods.contract import Group, Method, Phase, Step, Turn
from loligo.methods.optimisation import Clock, Cosine, sgd
from loligo.methods.squid import Squid, SquidConfig
from loligo.training.loop import fit
from loligo.training.schedule import epochs_of

CONFIG = TrainConfig(epochs=4, batch_size=8, precision="float32")
DATA = dataset(anatomy(21, 64))


def squid() -> Squid:
    torch.manual_seed(0)
    return Squid(SquidConfig(**{k: v for k, v in Squid.presets["tiny"].items()}))


class Mean(Method):
    """Keeps what it is given to learn from."""

    def __init__(self) -> None:
        super().__init__(MethodConfig())
        self.net, self.seen = nn.Linear(1, 1), []

    def phases(self) -> tuple[Phase, ...]:
        return (Phase("all", (Turn("loss", (Group(("net",), 1e-3),)),)),)

    def losses(self, x: Tensor, turn: str, step: Step) -> dict[str, Tensor]:
        self.seen.append(x)
        return {"loss": self.net(x.mean((1, 2, 3))[:, None]).square().mean()}


@pytest.mark.parametrize("augment", [True, False])
@pytest.mark.parametrize("expose", [True, False])
def test_augmentation_changes_the_image_and_not_its_position(expose: bool, augment: bool, tmp_path: Path) -> None:
    position = torch.arange(8.0)[:, None, None].expand(8, 16, 16) / 8
    image = torch.rand(8, 16, 16, generator=torch.Generator().manual_seed(0))
    data = dataset(torch.stack([image, position], 1).numpy())
    config = TrainConfig(1, batch_size=8, precision="float32", augment=augment, intensity_augmentation=expose)
    method = Mean()
    fit(method, data, config, tmp_path)
    given, expected = method.seen[0], data.batch(np.arange(8))
    order = given[:, 1, 0, 0].argsort()
    torch.testing.assert_close(given[order, 1], expected[:, 1])
    same = torch.equal(given[order, 0], expected[:, 0])
    values = set(given[:, 0].flatten().tolist()) - {0.0} <= set(expected[:, 0].flatten().tolist())
    assert (same, values) == (not (expose or augment), not expose)


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def kill_at(epoch: int) -> object:
    def watch(method: Method, now: int) -> None:
        if now == epoch:
            raise Killed

    return watch


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Tensor], pd.DataFrame]:
    method = squid()
    history = fit(method, DATA, CONFIG, tmp_path_factory.mktemp("unbroken"))
    return {k: v.clone() for k, v in method.state_dict().items()}, history


@pytest.mark.parametrize("epoch", [1, 3])
def test_a_resumed_training_ends_in_the_same_numbers(
    epoch: int, unbroken: tuple[dict[str, Tensor], pd.DataFrame], tmp_path: Path
) -> None:
    with pytest.raises(Killed):
        fit(squid(), DATA, CONFIG, tmp_path, kill_at(epoch))
    method = squid()
    (tmp_path / "checkpoint" / ".last.safetensors.abcd1234").mkdir(parents=True)  # as a kill leaves
    history = fit(method, DATA, CONFIG, tmp_path)
    state, expected = unbroken
    assert int(state["inpaint.memory.pointer"]) > 0
    for name, tensor in method.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    measured = ["seconds", "cpu_seconds", "images_per_s"]
    pd.testing.assert_frame_equal(history.drop(columns=measured), expected.drop(columns=measured))
    written = pd.read_csv(tmp_path / "history.csv")
    assert written["epoch"].tolist() == [1, 2, 3, 4]
    assert [path.name for path in (tmp_path / "checkpoint").iterdir()] == ["last.safetensors"]


def test_a_kill_between_checkpoint_and_history_loses_no_epoch(tmp_path: Path) -> None:
    fit(squid(), DATA, CONFIG, tmp_path)
    pd.read_csv(tmp_path / "history.csv")[:-1].to_csv(tmp_path / "history.csv", index=False)
    fit(squid(), DATA, CONFIG, tmp_path)
    assert pd.read_csv(tmp_path / "history.csv")["epoch"].tolist() == [1, 2, 3, 4]


def test_a_callback_changes_nothing(unbroken: tuple[dict[str, Tensor], pd.DataFrame], tmp_path: Path) -> None:
    seen: list[int] = []

    def watch(method: Method, epoch: int) -> None:
        seen.append(epoch)
        torch.rand(7)
        with torch.no_grad():
            method(DATA.batch([0, 1]))

    method = squid()
    fit(method, DATA, CONFIG, tmp_path, watch)
    assert seen == [1, 2, 3, 4]
    assert all(torch.equal(v, unbroken[0][k]) for k, v in method.state_dict().items())


@contextmanager
def small_disk(limit: int) -> Iterator[None]:
    """Let no file grow beyond ``limit`` bytes, as a full disk would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_one_clear_line_and_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        fit(squid(), DATA, CONFIG, tmp_path, kill_at(2))
    checkpoint = tmp_path / "checkpoint" / "last.safetensors"
    before = checkpoint.read_bytes()
    with small_disk(10_000), pytest.raises(OSError, match=r"cannot write .*last\.safetensors: .*the previous one"):
        fit(squid(), DATA, CONFIG, tmp_path)
    assert checkpoint.read_bytes() == before
    assert [p.name for p in checkpoint.parent.iterdir()] == [checkpoint.name]
    assert len(fit(squid(), DATA, CONFIG, tmp_path)) == 4


def test_a_checkpoint_is_no_pickle(tmp_path: Path) -> None:
    fit(squid(), DATA, TrainConfig(1, 8, precision="float32"), tmp_path)
    kinds = {name.split(".")[0] for name in load_file(tmp_path / "checkpoint" / "last.safetensors")}
    assert kinds == {"method", "optimiser"}


class Count(Method):
    """Two phases; counts which turn moves what."""

    def __init__(self, broken: bool = False) -> None:
        super().__init__(MethodConfig())
        self.a, self.b, self.broken = nn.Linear(1, 1), nn.Linear(1, 1), broken
        self.calls: list[str] = []
        self.alone = False

    def phases(self) -> tuple[Phase, ...]:
        """Train a at every second step and b at each; then b alone."""
        a, b = Group(("a",), 1e-3), Group(("b",), 1e-3)
        turns = (Turn("a", (a,), every=2), Turn("b", (b,)))
        return Phase("both", turns, fraction=2), Phase("last", (Turn("b", (Group(("b",), 1e-2),)),), frozen=("a",))

    def losses(self, x: Tensor, turn: str, step: Step) -> dict[str, Tensor]:
        """Touch both modules, of which only one may move."""
        needs = [p.requires_grad for p in (self.a.weight, self.b.weight)]
        assert needs == [turn == "a", turn == "b"]
        self.calls.append(turn)
        assert (self.a.training, self.b.training) == (not self.alone, True)
        self.alone = self.alone or len(self.calls) == 10
        loss = (self.a(x.mean((1, 2, 3))[:, None]) - self.b(x.mean((1, 2, 3))[:, None]) - 1).square().mean()
        return {turn: loss / 0 if self.broken else loss}


def test_turns_are_taken_in_order_and_as_often_as_they_say(tmp_path: Path) -> None:
    method = Count()
    history = fit(method, DATA, TrainConfig(3, 8, precision="float32"), tmp_path)
    assert method.calls == ["a", "b", "b", "a", "b"] * 2 + ["b"] * 3
    assert history["phase"].tolist() == ["both", "both", "last"]
    assert history["a"].isna().tolist() == [False, False, True]


def test_a_loss_that_is_not_finite_stops_the_training(tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match="a loss is not finite in epoch 1"):
        fit(Count(broken=True), DATA, TrainConfig(1, 8, precision="float32"), tmp_path)


@pytest.mark.parametrize(
    ("fractions", "epochs", "expected"), [((1,), 7, [7]), ((2, 1), 9, [6, 3]), ((5, 1), 2, [2, 1])]
)
def test_epochs_are_divided(fractions: tuple[float, ...], epochs: int, expected: list[int]) -> None:
    assert epochs_of(tuple(Phase("", (), fraction) for fraction in fractions), epochs) == expected


def test_a_callback_is_given_the_method_as_it_would_be_finished(tmp_path: Path) -> None:
    seen: list[dict[str, Tensor]] = []
    torch.manual_seed(0)
    method = Squid(SquidConfig(**Squid.presets["tiny"] | {"score": "both"}))  # the score that measures a spread
    fit(method, DATA, CONFIG, tmp_path, lambda now, _: seen.append({k: v.clone() for k, v in now.state_dict().items()}))
    assert len(seen) == CONFIG.epochs
    assert not torch.equal(seen[0]["spread"], torch.ones(2))
    for name, tensor in method.state_dict().items():
        assert torch.equal(seen[-1][name], tensor), name


@pytest.mark.parametrize("part", [0, 0.5])
def test_a_checkpoint_that_is_cut_is_named(part: float, tmp_path: Path) -> None:
    fit(squid(), DATA, TrainConfig(1, 8, precision="float32"), tmp_path)
    path = tmp_path / "checkpoint" / "last.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(ValueError, match=r"last\.safetensors is no checkpoint of this training"):
        fit(squid(), DATA, TrainConfig(1, 8, precision="float32"), tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="device is 'cuda'; this machine has cpu"):
        fit(squid(), DATA, TrainConfig(1, 8, device="cuda"), tmp_path)


class Line(Method):
    """Two weights, each with a gradient of 3, moved by a turn that a test makes."""

    def __init__(self, **turn: object) -> None:
        super().__init__(MethodConfig())
        self.a, self.b, self.turn = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False), turn
        for part in (self.a, self.b):
            nn.init.zeros_(part.weight)

    def phases(self) -> tuple[Phase, ...]:
        """Move a ten times as fast as b."""
        groups = (Group(("a",), 1.0), Group(("b",), 0.1))
        return (Phase("all", (Turn("loss", groups, optimiser=sgd(), **self.turn),)),)  # type: ignore[arg-type]

    def losses(self, x: Tensor, turn: str, step: Step) -> dict[str, Tensor]:
        """Return a loss whose gradient is 3 by each weight."""
        return {"loss": 3 * (self.a.weight + self.b.weight).sum()}


@pytest.mark.parametrize(
    ("turn", "a", "b"),
    [
        ({}, -12.0, -1.2),  # four steps of 3
        ({"clip": 0.5}, -4 * 0.5 / 2**0.5, -0.4 * 0.5 / 2**0.5),  # of the norm of both
        (
            {"schedule": lambda clock: 0.1 if 2 * clock.step >= clock.steps else 1.0},
            -6.6,
            -0.66,
        ),  # two steps of 3, two of 0.3
        ({"schedule": Cosine(1.0, by_step=True, warmup=2)}, -10.5, -1.05),  # half a step, then whole ones
        ({"ema": 0.5}, -9.1875, -0.91875),  # of -3, -6, -9, -12, from 0
    ],
)
def test_a_turn_has_groups_a_schedule_a_clip_and_an_average(turn: dict[str, object], a: float, b: float) -> None:
    method = Line(**turn)
    fit(method, dataset(anatomy(8, 8)), TrainConfig(2, 4, precision="float32"))
    assert [part.weight.item() for part in (method.a, method.b)] == pytest.approx([a, b], rel=1e-5)


def test_an_average_survives_a_resumed_training(tmp_path: Path) -> None:
    data, config = dataset(anatomy(8, 8)), TrainConfig(4, 4, precision="float32")
    unbroken, resumed = Line(ema=0.9), Line(ema=0.9)
    fit(unbroken, data, config)
    with pytest.raises(Killed):
        fit(Line(ema=0.9), data, config, tmp_path, kill_at(2))
    fit(resumed, data, config, tmp_path)
    assert torch.equal(resumed.a.weight, unbroken.a.weight)


def test_a_cosine_by_epoch_is_that_of_torch() -> None:
    parameter = torch.nn.Parameter(torch.zeros(()))
    optimiser = torch.optim.SGD([parameter], 1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 5, eta_min=0.1)
    for epoch in range(5):
        assert Cosine(0.1)(Clock(epoch * 7, 35, epoch, 5)) == pytest.approx(optimiser.param_groups[0]["lr"])
        optimiser.step()
        theirs.step()


class Weak(Mean):
    """Keeps what it is given of abnormal images, too."""

    weakly_supervised = True

    def losses(self, x: Tensor, turn: str, step: Step) -> dict[str, Tensor]:
        assert len(step["abnormal"]) == len(x)
        self.seen.append(step["abnormal"])
        return {"loss": self.net(x.mean((1, 2, 3))[:, None]).square().mean()}


@pytest.mark.parametrize("count", [5, 30])
def test_each_step_has_as_many_abnormal_images_as_normal_ones(count: int) -> None:
    abnormal = torch.arange(1, count + 1).view(-1, 1, 1, 1).expand(-1, 1, 16, 16) / 100
    config = TrainConfig(2, batch_size=8, precision="float32", augment=False, device="cpu")
    method, again = Weak(), Weak()
    for one in (method, again):
        fit(one, dataset(np.zeros((21, 1, 16, 16))), config, progress=False, abnormal=dataset(abnormal.numpy()))
    assert [len(x) for x in method.seen] == [7] * 6
    first, second = (torch.cat(part)[:, 0, 0, 0] for part in (method.seen[:3], method.seen[3:]))
    assert not torch.equal(first, second)
    assert torch.equal(torch.cat(method.seen), torch.cat(again.seen))
    times = (first[:, None] - abnormal[:, 0, 0, 0]).abs().lt(1e-3).sum(0)
    assert int(times.sum()) == 21
    assert int(times.max()) - int(times.min()) == 1  # evenly, or some not at all


def test_abnormal_images_change_nothing_for_methods_without_them() -> None:
    with pytest.raises(ValueError, match="test_loop learns from normal images alone; it got 5 abnormal ones: leave"):
        fit(Mean(), DATA, CONFIG, progress=False, abnormal=DATA.subset(range(5)))
    with pytest.raises(ValueError, match=r"test_loop is weakly supervised: .* got no abnormal image to train on"):
        fit(Weak(), DATA, CONFIG, progress=False)
