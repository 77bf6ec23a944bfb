"""Two processes train as one does with the joined batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from conftest import anatomy, dataset, write_images
from loligo import api, methods
from loligo.config import TrainConfig
from loligo.methods.contract import Reduce
from loligo.runs.run import Run
from loligo.runs.settings import Settings
from loligo.training import processes
from loligo.training.loop import fit

TRAIN: dict[str, Any] = {"epochs": 3, "batch_size": 8, "precision": "float32"}
OPTIONS: dict[str, dict[str, Any]] = {
    "ae": {},
    "padim": {"weights": "random"},
    "squid": {"shortcut_ratio": 1.0, "learning_rate": 1e-4},  # without places at random, which each process draws
}


def train(name: str, devices: int, folder: Path) -> None:
    """Train on images that lie in the folder."""
    kept = {key: value for key, value in TRAIN.items() if key != "epochs" or name != "padim"} | {"devices": devices}
    out = folder / f"{name}_{devices}"
    api.train(name, folder / "normals", out, preset="tiny", options=OPTIONS[name], train=kept)


def train_all(folder: Path) -> None:
    """Train each method as one of two processes, which meet once for all."""
    with processes.joined(torch.device("cpu")):
        for name in OPTIONS:
            train(name, 2, folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with runs of two processes."""
    folder = tmp_path_factory.mktemp("processes")
    write_images(folder / "normals", anatomy(36, 64))
    processes.spawn(train_all, 2, folder)
    return folder


@pytest.mark.parametrize("name", list(OPTIONS))
def test_two_processes_give_the_numbers_of_one(name: str, folder: Path) -> None:
    train(name, 1, folder)
    one, two = (Run.load(folder / f"{name}_{count}") for count in (1, 2))
    if methods.get(name)(one.method_config).phases():
        a, b = (pd.read_csv(run.files.history) for run in (one, two))
        losses = a.columns.difference(["epoch", "phase", "seconds", "cpu_seconds", "images_per_s"])
        np.testing.assert_allclose(b[losses][:1], a[losses][:1], rtol=2e-3, atol=1e-5)
        np.testing.assert_allclose(b[losses], a[losses], rtol=5e-2, atol=1e-4)  # rounding grows from step to step
    a, b = (load_file(run.files.model) for run in (one, two))
    if name == "padim":
        for key in (key for key in a if key.startswith("levels.")):
            torch.testing.assert_close(b[key], a[key], rtol=1e-3, atol=1e-4)
    if name == "squid":  # one queue, in one order; Adam's first steps amplify the rounding of small gradients
        assert b["inpaint.memory.pointer"] == a["inpaint.memory.pointer"]
        distances = torch.cdist(b["inpaint.memory.slots"], a["inpaint.memory.slots"])
        assert (distances.argmin(-1) == torch.arange(distances.shape[-1])).all()
    new = anatomy(6, 64, seed=3)[:, 0]
    scores = [[p.score for p in api.load(run).predict(new)] for run in (one, two)]
    np.testing.assert_allclose(scores[1], scores[0], rtol=2e-2, atol=1e-4)


def test_what_is_learnt_after_each_epoch_is_agreed_on(tmp_path: Path) -> None:
    rows = [(str(path), "train") for path in write_images(tmp_path, anatomy(16, 64))]
    rows += [(str(path), "calibration") for path in write_images(tmp_path, anatomy(4, 64, seed=1), "c")]
    rows += [(str(path), "test") for path in write_images(tmp_path, anatomy(4, 64, seed=2), "t")]
    train = TRAIN | {"epochs": 2, "devices": 2, "evaluate_every_epoch": True}
    table = pd.DataFrame(rows, columns=["path", "split"])
    run = api.train("cutpaste", table, tmp_path / "run", preset="tiny", train=train)
    epochs = run.files.read_epochs()
    assert epochs is not None and epochs["epoch"].tolist() == [1] * 4 + [2] * 4
    np.testing.assert_allclose(sorted(epochs["score"][4:]), sorted(api.score(run)["score"]), rtol=1e-4)


def test_more_processes_than_images_in_a_batch_are_refused() -> None:
    many = Reduce()
    many.size = 4
    with pytest.raises(ValueError, match="6 images in batches of 2 are too few for 4 processes"):
        fit(Settings.of("ae", "tiny").new_model(), dataset(anatomy(6, 64)), TrainConfig(batch_size=2), reduce=many)


def test_a_batch_norm_over_processes_is_that_of_torch_with_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes.dist, "all_reduce", lambda x: None)
    x = torch.randn(6, 3, 5, 5, requires_grad=True)
    ours, theirs = torch.nn.BatchNorm2d(3), torch.nn.BatchNorm2d(3)
    weight = torch.randn(6, 3, 5, 5)
    with processes._SyncedNorms():
        y = ours(x)
    (gradient,) = torch.autograd.grad((y * weight).sum(), x)
    expected = theirs(x)
    (wanted,) = torch.autograd.grad((expected * weight).sum(), x)
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    assert F.batch_norm is torch.nn.functional.batch_norm


def refuse() -> None:
    raise ValueError("the loss is too odd")


def test_what_a_process_refuses_is_one_line_here() -> None:
    with pytest.raises(ValueError, match=r"^the loss is too odd$"):
        processes.spawn(refuse, 1)
