"""The command line: what it prints, how it fails, and that its help is quick."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from conftest import anatomy, write_images
from loligo import cli, methods
from loligo.cli import main
from loligo.cli.options import new_parser
from loligo.cli.parser import parse
from loligo.runs.run import Run


def test_help_imports_no_torch_and_is_quick() -> None:
    code = "import sys; from loligo.cli import main; main(['--help']); print(sorted(sys.modules))"
    start = time.perf_counter()
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert time.perf_counter() - start < 1.5
    assert "'torch'" not in out
    assert "'numpy'" not in out
    assert "not a medical device" in out


def test_help_and_wrong_arguments_import_no_torch(tmp_path: Path) -> None:
    code = """
import sys
from loligo.cli import COMMANDS, main
for command in COMMANDS:
    try:
        main([command, "--help"])
    except SystemExit as stop:
        assert stop.code == 0, command
    assert "torch" not in sys.modules, command
wrong = [
    "train sqiud", "train padim --help", "train padim --nosuch 1", "train ae --train.epochs five", "train ae normals",
    "train ae --data nosuch --out x", "train ae --data . --out DONE", "train ae --data . --out x --preset radiograph",
    "train padim --data . --out x --train.epochs 3", "train padim --data . --out x --method.layers []",
    "train ae --data . --out x --config nosuch.yaml", "contaminate ae --data . --abnormal nosuch --out x",
    "experiment folder padim --data nosuch --out x", "benchmark --methods padmi --datasets x --out y",
    "benchmark --methods ae:tinny --datasets x --out y", "benchmark --methods ae --datasets x --out y --set epochs=3",
    "synthesize nosuch -o x", "index folder nosuch -o m.csv", "score", "sheet x --devise cpu", "demo --seconds soon",
]
for words in wrong:
    try:
        main(words.replace("DONE", sys.argv[1]).split())
    except SystemExit as stop:
        assert stop.code == (0 if "--help" in words else 2), words
    assert "torch" not in sys.modules, words
"""
    for name in ("model.safetensors", "calibration.json"):
        (tmp_path / name).touch()
    argv = [sys.executable, "-c", code, str(tmp_path)]
    out = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    assert "SOURCE: one of chexpert, covidx, dicom, folder" in out
    assert "METHOD: one of ae, anatpaste" in out
    assert "DATASET: one of chexpert" in out


def test_the_help_of_a_training_takes_less_than_a_second_and_shows_no_python() -> None:
    before = os.times()
    argv = [sys.executable, "-m", "loligo", "train", "padim", "--help"]
    out = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    after = os.times()
    assert after.children_user + after.children_system - before.children_user - before.children_system < 1
    for sign in ("<class", "Literal", "tuple[", "null", "--method CONFIG", "type:"):
        assert sign not in out
    assert "--method.layers N,..." in out and "(default: 1,2,3)" in out and "good at: START HERE" in out
    assert "--train.seed" in out and "--train.epochs" not in out  # it learns in one pass


def test_the_help_of_a_preset_shows_its_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "squid", "--preset", "ensemble", "--help"])
    out = " ".join(capsys.readouterr().out.split())
    assert "shift" in out.lower() and "(default: 60)" in out and "(default: 4)" in out


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
        (
            ["train", "squid", "--data", ".", "--out", "x", "--train.epochs", "0"],
            "--train.epochs is 0; it must be a whole number of at least 1",
        ),
        (["train", "squid", "--data", ".", "--out", "x", "--train.seed", "9" * 20], "it must lie in 0 to 4294967295"),
        (["train", "gaussian", "--data", ".", "--out", "x", "--method.components", "-1"], "whole number of at least 1"),
        (["train", "squid", "--data", "", "--out", "x"], "a path is empty"),
        (["train", "squid", "--data", ".", "--out", ""], "the run folder's name is empty"),
        (["score", ""], "the run folder's name is empty"),
        (["train", "squid", "--print_config"], "has no option --print_config"),
        (["train", "ae", "--data", ".", "--out", "x", "--preset", "tinny"], "did you mean 'tiny'"),
        (["demo", "--preset", "digits_ful"], "did you mean 'digits_full'"),
        (["score", "x", "--splits", "test", "validaton"], "did you mean 'validation'"),
        (["score", "no-such-run"], "not a run folder"),
        (["evaluate", "no-such-run"], "neither a run folder nor one of a scoring"),
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
        ("method: [", ", line 1: "),
        ("train:\n\tepochs: 3", ", line 2: a tab; indent with spaces"),
        ("train: {epochs: 3}", "is not taken: gaussian learns in one pass"),
        ("method: {side: big}", "method.side is 'big'; it must be a whole number of at least 1"),
        ("method: ae\nmethod_config: {}", "is the record of a run of ae; it holds no options of gaussian"),
    ],
)
def test_a_wrong_file_of_options_is_named(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.yaml").write_text(text)
    for option in (["--config", str(tmp_path / "c.yaml")], [f"--config={tmp_path / 'c.yaml'}"]):
        error = fails(["train", "gaussian", *option, "--data", ".", "--out", "x"], capsys)
        assert str(tmp_path / "c.yaml") in error and message in error and len(error.strip().splitlines()) == 1


def test_the_record_of_a_run_repeats_it(tmp_path: Path) -> None:
    write_images(tmp_path / "normals", anatomy(40, 64))
    data = ["--data", str(tmp_path / "normals"), "--out"]
    main(["train", "gaussian", *data, str(tmp_path / "a"), "--preset", "tiny", "--method.components", "5"])
    main(["train", "gaussian", *data, str(tmp_path / "b"), "--config", str(tmp_path / "a" / "config.yaml")])
    a, b = (Run.load(tmp_path / name) for name in "ab")
    assert a.difference(b) == "" and b.method_config.components == 5  # type: ignore[attr-defined]


def test_the_version_and_help_have_several_names(capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (["version"], ["-V"], ["--version"]):
        main(argv)
    assert len(set(capsys.readouterr().out.split("\n")[:3])) == 1
    main(["help"])
    assert "loligo COMMAND --help" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main(["help", "score"])
    assert stop.value.code == 0 and "usage: loligo score RUN" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "found"),
    [([], "contaminate"), (["train"], "padim"), (["train", "ae"], "--train.epochs"), (["completion"], "fish")],
)
def test_a_shell_is_told_what_may_come_next(words: list[str], found: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*words, "--complete"])
    assert stop.value.code == 0 and found in capsys.readouterr().out.split()


def test_bash_completes(capsys: pytest.CaptureFixture[str]) -> None:
    main(["completion", "bash"])
    script = capsys.readouterr().out
    ask = (
        f'{script}\nloligo() {{ {sys.executable} -m loligo "$@"; }}\nCOMP_WORDS=(loligo train pa) COMP_CWORD=2\n_loligo'
    )
    done = subprocess.run(
        ["bash", "-c", f'{ask}; echo "${{COMPREPLY[@]}}"'], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["padim", "panda", "patchcore"]


def test_a_file_whose_name_begins_with_a_dash_comes_after_two(capsys: pytest.CaptureFixture[str]) -> None:
    assert "not a run folder" in fails(["score", "no-such-run", "--", "-odd.png"], capsys)
    assert "takes no argument '-odd.png'" in fails(["score", "no-such-run", "-odd.png"], capsys)


def test_paths_may_stand_on_both_sides_of_options() -> None:
    parser = new_parser(cli.score, "loligo score RUN [PATH ...]")
    parser.add_argument("run")
    parser.add_argument("paths", nargs="*")
    parser.add_argument("--device")
    found = parse(parser, ["runs/a", "x.png", "--device", "cpu", "y.png", "--", "-z.png"])
    assert (found.run, found.paths) == ("runs/a", ["x.png", "y.png", "-z.png"])


@pytest.mark.parametrize(
    ("argv", "files", "said"),
    [
        (["train", "ae", "--out", "RUN"], [], "before anything was kept; the same command begins anew"),
        (["train", "ae", "--out=RUN"], ["checkpoint/last.safetensors"], "the same command resumes RUN"),
        (["score", "RUN", "new"], [], "score interrupted; the same command begins anew"),
        (["benchmark"], [], "the same command keeps what is finished"),
    ],
)
def test_an_interruption_says_what_was_kept(
    argv: list[str],
    files: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()

    def stop(_: list[str]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(cli.COMMANDS, argv[0], stop)
    error = fails([word.replace("RUN", str(tmp_path)) for word in argv], capsys)
    assert said.replace("RUN", str(tmp_path)) in error


def test_a_training_says_at_once_what_begins_and_which_preset_is_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop() -> None:
        raise ValueError("torch would be imported here")

    monkeypatch.setattr(cli, "_api", stop)
    argv = ["train", "padim", "--data", str(tmp_path), "--out", str(tmp_path / "run")]
    assert "training padim: 1,133 radiographs took 1 min on one core with --preset radiograph" in fails(argv, capsys)
    assert "--preset" not in fails([*argv, "--preset", "radiograph"], capsys)
    assert not (tmp_path / "run").exists()


def test_without_timm_a_line_says_how_to_get_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "normals", anatomy(40, 64))
    monkeypatch.setitem(sys.modules, "timm", None)
    argv = ["train", "padim", "--data", str(tmp_path / "normals"), "--out", str(tmp_path / "run"), "--preset", "tiny"]
    error = fails(argv, capsys)
    assert "this method needs timm; install it with: pip install timm" in error
    assert "Traceback" not in error


def test_the_two_commands_that_a_user_must_know(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_images(tmp_path / "normals", anatomy(40, 64))
    write_images(tmp_path / "new", anatomy(3, 64, seed=1))
    run = str(tmp_path / "runs" / "a")
    options = ["--preset", "tiny", "--method.levels", "2", "--train.epochs", "2"]
    main(["train", "ae", "--data", str(tmp_path / "normals"), "--out", run, *options])
    main(["score", run, str(tmp_path / "new")])
    assert "3 images" in capsys.readouterr().out
    table = pd.read_csv(Path(run) / "scores" / "new" / "scores.csv")
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


def test_where_no_method_is_named_it_is_our_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named: list[str] = []

    def train(method: str, *_: object, **__: object) -> None:
        named.append(method)
        raise ValueError("enough")

    monkeypatch.setattr("loligo.api.train", train)
    write_images(tmp_path, anatomy(2, 16))
    for first in ([], ["padim"]):
        with pytest.raises(SystemExit):
            cli.main(["train", *first, "--data", str(tmp_path), "--out", str(tmp_path / "run")])
    assert named == [methods.DEFAULT, "padim"]
