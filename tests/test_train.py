"""The training loop: resuming, averaging, watching, and what happens when the disk is full."""

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
from loligo.methods.contract import Method, Phase, Turn
from loligo.methods.squid import Squid, SquidConfig
from loligo.training.loop import epochs_of, fit

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
        return (Phase("all", (Turn("loss", ("net",)),)),)

    def losses(self, x: Tensor, turn: str) -> dict[str, Tensor]:
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


def test_watching_changes_nothing(unbroken: tuple[dict[str, Tensor], pd.DataFrame], tmp_path: Path) -> None:
    seen: list[int] = []

    def watch(method: Method, epoch: int) -> None:
        seen.append(epoch)
        torch.rand(7)
        with torch.no_grad():
            method.score(DATA.batch([0, 1]))

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

    def phases(self) -> tuple[Phase, ...]:
        """Train a at every second step and b at each; then b alone."""
        turns = (Turn("a", ("a",), every=2), Turn("b", ("b",)))
        return Phase("both", turns, share=2), Phase("last", (Turn("b", ("b",), learning_rate=1e-2),), share=1)

    def losses(self, x: Tensor, turn: str) -> dict[str, Tensor]:
        """Touch both modules, of which only one may move."""
        needs = [p.requires_grad for p in (self.a.weight, self.b.weight)]
        assert needs == [turn == "a", turn == "b"]
        self.calls.append(turn)
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


@pytest.mark.parametrize(("shares", "epochs", "expected"), [((1,), 7, [7]), ((2, 1), 9, [6, 3]), ((5, 1), 2, [2, 1])])
def test_epochs_are_shared_out(shares: tuple[float, ...], epochs: int, expected: list[int]) -> None:
    assert epochs_of(tuple(Phase("", (), share) for share in shares), epochs) == expected


def test_who_watches_sees_the_method_as_it_would_be_finished(tmp_path: Path) -> None:
    seen: list[dict[str, Tensor]] = []
    torch.manual_seed(0)
    method = Squid(SquidConfig(**Squid.presets["tiny"] | {"score": "both"}))  # the score that measures a spread
    fit(method, DATA, CONFIG, tmp_path, lambda now, _: seen.append({k: v.clone() for k, v in now.state_dict().items()}))
    assert len(seen) == CONFIG.epochs
    assert not torch.equal(seen[0]["spread"], torch.ones(2))
    for name, tensor in method.state_dict().items():
        assert torch.equal(seen[-1][name], tensor), name


@pytest.mark.parametrize("share", [0, 0.5])
def test_a_checkpoint_that_is_cut_is_named(share: float, tmp_path: Path) -> None:
    fit(squid(), DATA, TrainConfig(1, 8, precision="float32"), tmp_path)
    path = tmp_path / "checkpoint" / "last.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=r"last\.safetensors is no checkpoint of this training"):
        fit(squid(), DATA, TrainConfig(1, 8, precision="float32"), tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"train\.device is 'cuda': .*not available"):
        fit(squid(), DATA, TrainConfig(1, 8, device="cuda"), tmp_path)
