"""The command line: what it prints, how it fails, and that its help is quick."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from conftest import anatomy, write_images
from loligo.cli import main
from loligo.runs.run import Run


def test_help_imports_no_torch_and_is_quick() -> None:
    code = "import sys; from loligo.cli import main; main(['--help']); print(sorted(sys.modules))"
    start = time.perf_counter()
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert time.perf_counter() - start < 1.5
    assert "'torch'" not in out
    assert "'numpy'" not in out
    assert "not a medical device" in out


def test_the_help_of_each_command_imports_no_torch_and_names_what_it_takes() -> None:
    code = """
import sys
from loligo.cli import COMMANDS, main
for command in COMMANDS:
    try:
        main([command, "--help"])
    except SystemExit as stop:
        assert stop.code == 0, command
    assert "torch" not in sys.modules, command
try:
    main(["train", "sqiud"])
except SystemExit as stop:
    assert stop.code == 2
assert "torch" not in sys.modules
"""
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert "SOURCE: one of chexpert, covidx, folder" in out
    assert "METHOD: one of ae, anatpaste" in out
    assert "DATASET: one of chexpert" in out


def fails(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["trian"], "did you mean 'train'"),
        (["train", "squib"], "did you mean 'squid'"),
        (["train", "squid", "--method.slotz", "4"], "did you mean '--method.slots'"),
        (["train", "squid", "--train.epoch", "4"], "did you mean '--train.epochs'"),
        (["train"], "one of ae, anatpaste"),
        (["index", "zanglab", "x"], "did you mean 'zhanglab'"),
        (["train", "squid", "--data", "nowhere", "--out", "x"], "nowhere"),
        (["train", "squid", "--data", ".", "--out", "x", "--method.slots", "many"], "slots"),
        (["train", "squid", "--data", ".", "--out", "x", "--train.epochs", "0"], "must be at least 1"),
        (["train", "squid", "--data", ".", "--out", "x", "--train.seed", "9" * 20], "it must lie in 0 to 4294967295"),
        (["train", "gaussian", "--data", ".", "--out", "x", "--method.components", "-1"], "it must be at least 1"),
        (
            ["train", "squid", "--data", ".", "--normal", ".", "--out", "x", "--method.size", "1" + "0" * 9],
            "cannot be made with these",
        ),
        (["train", "squid", "--data", "", "--out", "x"], "a path is empty"),
        (["train", "squid", "--data", ".", "--out", ""], "the run folder's name is empty"),
        (["score", ""], "the run folder's name is empty"),
        (["train", "squid", "--print_config"], "has no option --print_config"),
        (["train", "ae", "--data", ".", "--out", "x", "--preset", "tinny"], "did you mean 'tiny'"),
        (["demo", "--preset", "digits_ful"], "did you mean 'digits_full'"),
        (["score", "x", "--splits", "test", "validaton"], "did you mean 'validation'"),
        (["score", "no-such-run"], "not a run folder"),
        (["evaluate", "no-such-run"], "no scores.csv"),
    ],
)
def test_wrong_input_is_one_line(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    error = fails(argv, capsys)
    assert message in error
    assert len(error.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("method: 3", "has method 3; it must be options"),
        ("preset: 3", "has preset 3; it must be a name"),
        ("train: 4", "has train 4; it must be options"),
        ("", "holds no options"),
        ("[", "holds no options"),
        ("method: gaussian\nmethod_config: {}", "is the record of a run; copy its method_config as method:"),
    ],
)
def test_a_wrong_file_of_options_is_named(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.yaml").write_text(text)
    for option in (["--config", str(tmp_path / "c.yaml")], [f"--config={tmp_path / 'c.yaml'}"]):
        error = fails(["train", "gaussian", *option, "--data", ".", "--out", "x"], capsys)
        assert f"{tmp_path / 'c.yaml'} {message}" in error and len(error.strip().splitlines()) == 1


def test_without_timm_a_line_says_how_to_get_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "normals", anatomy(40, 64))
    monkeypatch.setitem(sys.modules, "timm", None)
    argv = ["train", "padim", "--data", str(tmp_path / "normals"), "--out", str(tmp_path / "run"), "--preset", "tiny"]
    error = fails(argv, capsys)
    assert "this method needs timm; install it with: pip install 'loligo[features]'" in error
    assert "Traceback" not in error


def test_the_two_commands_that_a_user_must_know(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_images(tmp_path / "normals", anatomy(40, 64))
    write_images(tmp_path / "new", anatomy(3, 64, seed=1))
    run = str(tmp_path / "runs" / "a")
    options = ["--preset", "tiny", "--method.levels", "2", "--train.epochs", "2"]
    main(["train", "ae", "--data", str(tmp_path / "normals"), "--out", run, *options])
    main(["score", run, str(tmp_path / "new")])
    assert "3 images" in capsys.readouterr().out
    table = pd.read_csv(Path(run) / "scores.csv")
    assert {"path", "score", "anomaly_score", "p_value", "flag", "map"} <= set(table.columns)
    main(["report", run])
    assert Path(capsys.readouterr().out.strip()).is_file()


def test_options_come_from_a_file_and_the_command_overrides_it(tmp_path: Path) -> None:
    write_images(tmp_path / "normals", anatomy(40, 64))
    (tmp_path / "c.yaml").write_text("method:\n  size: 64\n  side: 8\n  components: 5\n")
    run = str(tmp_path / "run")
    argv = ["train", "gaussian", "--config", str(tmp_path / "c.yaml"), "--method.components", "4"]
    main([*argv, "--data", str(tmp_path / "normals"), "--out", run])
    text = (tmp_path / "run" / "config.yaml").read_text()
    assert "side: 8" in text
    assert "components: 4" in text


def test_a_preset_named_in_a_file_gives_its_options_as_one_on_the_command_line_does(tmp_path: Path) -> None:
    write_images(tmp_path / "normals", anatomy(40, 64))
    (tmp_path / "c.yaml").write_text("preset: tiny\nmethod:\n  components: 5\n")
    argv = ["train", "gaussian", "--data", str(tmp_path / "normals"), "--out"]
    main([*argv, str(tmp_path / "a"), "--config", str(tmp_path / "c.yaml")])
    main([*argv, str(tmp_path / "b"), "--preset", "tiny", "--method.components", "5"])
    run = Run.load(tmp_path / "a")
    assert (run.preset, run.method_config) == ("tiny", Run.load(tmp_path / "b").method_config)
    assert (run.method_config.size, run.method_config.components) == (64, 5)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("method:\n  widht: 4\n", "did you mean 'method.width'"),
        ("methd:\n  width: 4\n", "did you mean 'method.width'"),
        ("presett: tiny\n", "did you mean 'preset'"),
    ],
)
def test_a_typo_in_a_file_is_answered_with_the_nearest(
    text: str, hint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.yaml").write_text(text)
    assert hint in fails(["train", "ae", "--config", str(tmp_path / "c.yaml"), "--data", ".", "--out", "x"], capsys)


def test_index_writes_a_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split, kind in (("train", "NORMAL"), ("test", "NORMAL"), ("test", "PNEUMONIA")):
        write_images(tmp_path / "data" / split / kind, anatomy(12, 16, seed=len(split + kind)))
    main(["index", "folder", str(tmp_path / "data"), "-o", str(tmp_path / "m.csv")])
    assert "36 images" in capsys.readouterr().out
    assert len(pd.read_csv(tmp_path / "m.csv")) == 36
    argv = ["train", "gaussian", "--preset", "tiny", "--method.size", "64"]
    main([*argv, "--data", str(tmp_path / "m.csv"), "--out", str(tmp_path / "run")])
    assert "trained on 11 normal images; 1 held out" in capsys.readouterr().out


def test_methods_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    main(["methods"])
    assert {"squid", "ae", "gaussian"} <= set(capsys.readouterr().out.split())
