"""What stands on disk of a run, whole or broken."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from loligo import api
from loligo.config import build
from loligo.runs.run import Run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = api.plan("ae", tmp_path / "run", "tiny", {}, {})
    run.save()
    run.save_model(run.new_model())
    return run


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no configuration of a run"),
        ("[1, 2]", "is no configuration of a run"),
        ("method: [", "is no configuration of a run: while parsing"),
        ("method: ae", "lacks 'method_config'"),
        ("method: ea\nmethod_config: {}\ntrain: {}", "there is no method 'ea'"),
        ("method: ae\nmethod_config: null\ntrain: {}", "is no configuration of a run"),
        ("method: ae\nmethod_config: {size: big}\ntrain: {}", "method_config has size 'big'; it must be int"),
        ("method: ae\nmethod_config: {}\ntrain: {epochs: many}", "train has epochs 'many'; it must be int"),
    ],
)
def test_a_broken_configuration_is_named(text: str, message: str, run: Run) -> None:
    (run.folder / "config.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"config\.yaml ") as found:
        Run.load(run.folder)
    assert message in str(found.value)
    assert "\n" not in str(found.value)


def test_an_older_folder_whose_configuration_names_channels_is_read(run: Run) -> None:
    values = yaml.safe_load((run.folder / "config.yaml").read_text())
    values["method_config"]["channels"] = 1
    (run.folder / "config.yaml").write_text(yaml.safe_dump(values))
    assert Run.load(run.folder).method_config == run.method_config


@pytest.mark.parametrize("share", [0, 0.5])
def test_weights_that_are_cut_are_named(share: float, run: Run) -> None:
    path = run.folder / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=r"model\.safetensors does not hold the weights of this ae"):
        run.model()


def test_a_missing_tensor_is_named_in_one_line(run: Run) -> None:
    path = run.folder / "model.safetensors"
    tensors = load_file(path)
    del tensors["out.weight"]
    save_file(tensors, path)
    with pytest.raises(ValueError, match=r"model\.safetensors does not hold .*out\.weight") as found:
        run.model()
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "ae has width 0; it must be at least 1"),
        ({"channels": 1}, "ae has no 'channels'"),
        ({"size": "64"}, "ae has size '64'; it must be int"),
        ({"size": True}, "ae has size True; it must be int"),
        ({"levels": 0}, "ae has levels 0; it must be at least 1"),
        ({"size": torch.tensor(64)}, r"ae has size tensor\(64\); it must be int"),
    ],
)
def test_a_value_that_cannot_be_is_refused(options: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        api.plan("ae", tmp_path, None, options, {})


def test_what_may_be_nothing_or_negative_is_taken(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"vae has widths \(0, 4\); each must be at least 1"):
        api.plan("vae", tmp_path, None, {"widths": [0, 4]}, {})
    assert api.plan("simsid", tmp_path, None, {"memory_levels": 0, "skips": 0}, {"seed": 0}).method_config.skips == 0
    assert api.plan("cutpaste", tmp_path, None, {"layers": [-1], "head": []}, {}).method_config.layers == (-1,)


def test_a_field_says_its_own_bound() -> None:
    @dataclass(frozen=True)
    class Config:
        warm_up: int = field(default=5, metadata={"least": 0})

    assert build(Config, {"warm_up": 0}) == Config(0)
    with pytest.raises(ValueError, match="options has warm_up -1; it must be at least 0"):
        build(Config, {"warm_up": -1})
