"""What stands on disk of a run, whole or broken."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from loligo.config import build
from loligo.runs.run import Run
from loligo.runs.settings import Settings


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run.new(tmp_path / "run", Settings.of("ae", "tiny"))
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
        ("method: ae\nmethod_config: {size: big}\ntrain: {}", "method_config.size is 'big'; it must be a whole number"),
        ("method: ae\nmethod_config: {}\ntrain: {epochs: many}", "train.epochs is 'many'; it must be a whole number"),
    ],
)
def test_a_broken_configuration_is_named(text: str, message: str, run: Run) -> None:
    (run.folder / "config.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"config\.yaml ") as found:
        Run.load(run.folder)
    assert message in str(found.value)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("part", [0, 0.5])
def test_weights_that_are_cut_are_named(part: float, run: Run) -> None:
    path = run.folder / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(ValueError, match=r"model\.safetensors does not hold the weights of this ae"):
        Run.load(run.folder).model()


def test_a_missing_tensor_is_named_in_one_line(run: Run) -> None:
    path = run.folder / "model.safetensors"
    tensors = load_file(path)
    del tensors["out.weight"]
    save_file(tensors, path)
    with pytest.raises(ValueError, match=r"model\.safetensors does not hold .*out\.weight") as found:
        Run.load(run.folder).model()
    assert "\n" not in str(found.value)


def test_weights_that_were_changed_are_refused_by_their_digest(run: Run) -> None:
    run.save()  # the fixture's configuration is from before the weights: one without a digest
    path = run.folder / "model.safetensors"
    Run.load(run.folder).model()
    whole = bytearray(path.read_bytes())
    whole[-1] ^= 1
    path.write_bytes(whole)
    with pytest.raises(ValueError, match=r"model\.safetensors is not the file that the training wrote: its SHA-256"):
        Run.load(run.folder).model()


def test_weights_that_are_not_finite_are_neither_loaded_nor_saved(run: Run) -> None:
    path, before = run.folder / "model.safetensors", Run.load(run.folder)
    tensors = load_file(path)
    tensors["out.bias"][0] = torch.nan
    save_file(tensors, path)
    with pytest.raises(ValueError, match=r"does not hold the weights of this ae: out\.bias is not finite"):
        before.model()
    model = run.new_model()
    model.load_state_dict(tensors)
    path.unlink()
    with pytest.raises(FloatingPointError, match=r"ae was not saved: .* not finite \(out\.bias\)"):
        run.save_model(model)
    assert not path.exists()


def test_a_training_is_not_resumed_on_other_pixels_of_the_same_names(run: Run) -> None:
    run.remember(["b" * 64, "a" * 64])
    run.save()
    again = Run.new(run.folder, run)
    again.remember(["a" * 64, "b" * 64])  # in any order
    with pytest.raises(ValueError, match="begun on training images of the same names with other contents"):
        again.remember(["a" * 64, "c" * 64])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "ae.width is 0; it must be a whole number of at least 1"),
        ({"channels": 1}, "ae has no 'channels'"),
        ({"size": "64"}, "ae.size is '64'; it must be a whole number of at least 1"),
        ({"size": True}, "ae.size is True; it must be a whole number"),
        ({"levels": 0}, "ae.levels is 0; it must be a whole number"),
        ({"size": torch.tensor(64)}, r"ae.size is tensor\(64\); it must be a whole number"),
    ],
)
def test_a_value_that_cannot_be_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings.of("ae", options=options)


def test_what_may_be_nothing_or_negative_is_taken() -> None:
    with pytest.raises(
        ValueError,
        match=r"vae.widths is \[0, 4\]; it must be a list .*, each a whole number of at least 1",
    ):
        Settings.of("vae", options={"widths": [0, 4]})
    assert Settings.of("simsid", None, {"memory_levels": 0, "skips": 0}, {"seed": 0}).method_config.skips == 0
    assert Settings.of("cutpaste", options={"layers": [-1], "head": []}).method_config.layers == (-1,)


def test_a_field_says_its_own_bound() -> None:
    @dataclass(frozen=True)
    class Config:
        warm_up: int = field(default=5, metadata={"least": 0})

    assert build(Config, {"warm_up": 0}) == Config(0)
    with pytest.raises(ValueError, match=r"options\.warm_up is -1; it must be a whole number of at least 0"):
        build(Config, {"warm_up": -1})


def test_a_methods_own_defaults_lie_below_its_presets_and_what_is_given() -> None:
    assert Settings.of("squid").train.epochs == 200  # the paper's
    ensemble = Settings.of("squid", "ensemble")
    assert (ensemble.train.epochs, ensemble.train.intensity_augmentation) == (60, True)
    assert Settings.of("squid", "ensemble", train={"epochs": 3}).train.epochs == 3
    with pytest.raises(ValueError, match="squid has no preset 'ensembel'; did you mean 'ensemble'"):
        Settings.of("squid", "ensembel")
    with pytest.raises(ValueError, match="false_alarm_rate is 0"):
        Settings.of("ae", false_alarm_rate=0)


def test_a_run_keeps_the_precision_that_auto_meant(run: Run) -> None:
    run.about["precision"] = "bf16"
    run.save()
    assert Run.load(run.folder).precision == "bf16"
    again = Run.new(run.folder, Settings.of("ae", "tiny"))  # on another machine, say
    assert (again.train.precision, again.precision) == ("auto", "bf16")
