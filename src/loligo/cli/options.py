"""What commands share: the method as first argument, options of a training, paths, and files of options."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import os
from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from typing import Any

from loligo.cli.parser import Command, Parser, complete, fail, parse
from loligo.files import reason
from loligo.names import nearest

EXAMPLE = "write a YAML file such as 'train: {epochs: 3}'"
RECORD = {"method_config": "method", "train": "train", "preprocessing": "preprocessing", "preset": "preset"}
"""What of the record of a run, its config.yaml, is an option, and of which name."""
CALIBRATION = ("false_alarm_rate", "held_out", "folds")
"""What it says of its calibration."""


def leading(
    command: Command, argv: list[str], what: str, allowed: list[str], place: str = "first", default: str = ""
) -> str:
    """Return the first argument, which must be one of ``allowed``: the others depend on it.

    Where there is a ``default``, it is put in front of options that begin without.
    """
    complete(argv, allowed)
    if argv[:1] in (["-h"], ["--help"]):
        print(f"{command.__doc__}\n\n{what}: one of {', '.join(allowed)}; --help after it shows its options")
        raise SystemExit(0)
    if default and argv and argv[0].startswith("-"):
        argv.insert(0, default)
    if not argv or argv[0].startswith("-"):
        fail(f"the {place} argument is {what}: one of {', '.join(allowed)}")
    if argv[0] not in allowed:
        fail(f"there is no {what.lower()} {argv[0]!r}; {nearest(argv[0], allowed)}")
    return argv[0]


def new_parser(command: Command, use: str) -> Parser:
    """Return a parser of a command's options."""
    return Parser(command, use)


def add_device(parser: Parser) -> None:
    """Add the option of the device."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps, or another accelerator of PyTorch")


def add_rate(parser: Parser, default: float | None = None) -> None:
    """Add the option of the false-alarm rate, in place of a run's own where it has no default."""
    meaning = "proportion of normal images that may be flagged" + ("" if default else ", in place of the run's")
    parser.add_argument("--false_alarm_rate", type=float, default=default, help=meaning)


def add_layout(parser: Any) -> None:
    """Add what says of sub-folders what their names do not."""
    parser.add_argument("--normal", nargs="+", default=[], metavar="DIR", help="sub-folders of normal images")
    parser.add_argument("--abnormal", nargs="+", default=[], metavar="DIR", help="sub-folders of abnormal images")
    parser.add_argument("--masks", nargs="+", default=[], metavar="DIR", help="sub-folders of masks")
    meaning = "'folder' where each sub-folder is a patient, or a pattern whose first group in a file's name is one"
    parser.add_argument("--patient", type=str, default="", help=meaning)


def layout_arguments(given: Any) -> dict[str, Any]:
    """Return what was given of the options that `add_layout` adds."""
    return {name: getattr(given, name) for name in ("normal", "abnormal", "masks", "patient")}


def data_of(paths: list[str]) -> str | list[str]:
    """Return one path as it is, several as a list."""
    return paths[0] if len(paths) == 1 else paths


def check_paths(paths: Sequence[str | Path]) -> None:
    """End where a path does not exist, with the name nearest to it beside it: before anything slow is imported."""
    if "" in paths:
        fail("a path is empty; give a manifest, a folder or image files")
    for path in map(Path, paths):
        if not os.path.lexists(path):
            beside = os.listdir(path.parent) if path.parent.is_dir() else []  # noqa: PTH208
            close = nearest(path.name, beside) if beside else ""
            fail(f"{path}: no such file or folder" + (f"; {close}" if close.startswith("did") else ""))


def check_new(folder: str) -> None:
    """End where a run folder cannot be written, or holds a finished training."""
    if not folder:
        fail("the run folder's name is empty; name one, such as --out runs/a")
    path = Path(folder)
    if path.is_file():
        fail(f"--out {path} is a file; name a folder")
    if all((path / name).is_file() for name in ("model.safetensors", "calibration.json")):
        fail(
            f"{path} holds a finished training, which more epochs cannot extend: its schedule ended with the last one. "
            "Choose another --out, or remove the folder"
        )


def check_methods(names: list[str], preset: str | None, variants: Container[str]) -> None:
    """End where there is no such METHOD, METHOD:VARIANT or preset of any of them."""
    from loligo.methods import declared

    presets: dict[str, Any] = {}
    for name, _, variant in (name.partition(":") for name in names):
        kind = declared.read(name)
        presets |= kind.presets
        if variant and variant not in variants:
            declared.defaults(kind, variant, name)
    if preset and preset not in presets:
        fail(f"no method here has a preset {preset!r}; {nearest(preset, presets)}")


def check_settings(settings: list[str]) -> None:
    """End where the name of a setting such as ``epochs=3`` lacks whose it is."""
    from loligo.config import PreprocessingConfig, TrainConfig

    for title, kind in {"train": TrainConfig, "preprocessing": PreprocessingConfig}.items():
        known = [field.name for field in dataclasses.fields(kind)]
        if found := next((word for word in settings if word.partition("=")[0] in known), None):
            fail(f"the setting {found} lacks whose it is; did you mean {title}.{found}?")


def parse_training(parser: Parser, method: str, argv: list[str], skip: Sequence[str] = ()) -> argparse.Namespace:
    """Add the options of a method and of its training, but for those of the latter in ``skip``, and parse all.

    Options that a method of one pass ignores are not among them.
    """
    from loligo import methods
    from loligo.config import FALSE_ALARM_RATE, OF_EPOCHS, PreprocessingConfig, TrainConfig, build
    from loligo.methods import declared

    kind = declared.read(method)
    parser.description = methods.told(method)
    if declared.one_pass(kind):
        parser.ignored = dict.fromkeys((f"--train.{name}" for name in OF_EPOCHS), f"{method} learns in one pass")
    hidden = [*skip, *(OF_EPOCHS if declared.one_pass(kind) else ())]
    parser.add_argument("--config", type=Path, help="YAML file with any of these options, or config.yaml of a run")
    parser.add_argument("--preset", metavar="NAME", help=f"set of options: {', '.join(kind.presets)}; others on top")
    add_rate(parser, FALSE_ALARM_RATE)
    file = value_of("--config", argv)
    entries = read_options(Path(file), method, hidden, parser.options()) if file else {}
    preset = value_of("--preset", argv) or entries.get("preset")
    options, train = declared.defaults(kind, preset, method)
    parser.add_fields(kind.Config, "method", options)
    parser.add_fields(TrainConfig, "train", train, hidden)
    parser.add_fields(PreprocessingConfig, "preprocessing", {})
    given = parse(parser, [*(parser.words_of(Path(file), entries) if file else []), *argv])
    build(kind.Config, options | part(given, "method"), "method")
    build(TrainConfig, train | part(given, "train"), "train")
    return given


def training_arguments(given: argparse.Namespace) -> dict[str, Any]:
    """Return what was given of the options that `parse_training` adds, as arguments of the verbs."""
    parts = {"options": "method", "train": "train", "preprocessing": "preprocessing"}
    own = {key: part(given, name) for key, name in parts.items()}
    return {"preset": given.preset, "false_alarm_rate": given.false_alarm_rate, **own}


def part(given: argparse.Namespace, title: str) -> dict[str, Any]:
    """Return the options of a dotted title."""
    return {key.removeprefix(f"{title}."): value for key, value in vars(given).items() if key.startswith(f"{title}.")}


def value_of(option: str, argv: list[str]) -> str | None:
    """Return the last value of an option; None where it is not given."""
    found = [word.partition("=")[2] for word in argv if word.startswith(f"{option}=")]
    found += [value for word, value in itertools.pairwise(argv) if word == option]
    return found[-1] if found else None


def with_file(parser: Parser, argv: list[str]) -> list[str]:
    """Return arguments with those of the file that --config among them names before them."""
    file = value_of("--config", argv)
    return [*(parser.words_of(Path(file), read_options(Path(file))) if file else []), *argv]


def read_options(path: Path, method: str = "", hidden: Iterable[str] = (), known: Iterable[str] = ()) -> dict[str, Any]:
    """Read a file of options, or the record of a run of the method.

    Of a record, what is in ``hidden`` is left out of its training, and what it says of the calibration is taken as far
    as it is ``known``.
    """
    values = _yaml(path)
    if "method_config" in values:
        if values.get("method") != method:
            fail(f"{path} is the record of a run of {values.get('method')}; it holds no options of {method}")
        calibration = {key: key for key in CALIBRATION if f"--{key}" in known}
        values = {
            option: values[key] for key, option in (RECORD | calibration).items() if values.get(key) not in (None, "")
        }
        values["train"] = {key: value for key, value in dict(values.get("train", {})).items() if key not in hidden}
    for key, kind in {"method": dict, "train": dict, "preprocessing": dict, "index": dict, "preset": str}.items():
        if not isinstance(values.get(key, kind()), kind):
            fail(f"{path} has {key} {values[key]!r}; it must be {'a name' if kind is str else 'options'}: {EXAMPLE}")
    return values


def _yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file of options; what is wrong is said with its line."""
    import yaml

    if not path.is_file():
        fail(f"--config {path}: {'it is no file' if path.exists() else 'no such file'}; {EXAMPLE}")
    values = None
    try:
        text = path.read_text(encoding="utf-8")
        values = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line if error.problem_mark else 0
        tab = "\t" in "".join(text.splitlines()[line : line + 1])
        fail(f"{path}, line {line + 1}: {'a tab; indent with spaces' if tab else error.problem}; {EXAMPLE}")
    except OSError as error:
        fail(f"{path} cannot be read: {reason(error)}")
    except (UnicodeDecodeError, yaml.YAMLError, RecursionError):
        fail(f"{path} is no text in YAML; {EXAMPLE}")
    if not isinstance(values, dict):
        fail(f"{path} holds no options; {EXAMPLE}")
    return values
