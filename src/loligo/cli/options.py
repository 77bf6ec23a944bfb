"""What commands share: parsers that answer a misspelt option with the nearest one, and options of a training."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from loligo.names import nearest

Command = Callable[[list[str]], None]
"""A subcommand; the first line of its docstring is its help."""


def fail(message: str) -> NoReturn:
    """Say what is wrong and end with status 2."""
    print(f"loligo: {message}", file=sys.stderr)
    raise SystemExit(2)


def leading(command: Command, argv: list[str], what: str, allowed: list[str], place: str = "first") -> str:
    """Return the first argument, which must be one of ``allowed``: the others depend on it."""
    if argv[:1] in (["-h"], ["--help"]):
        print(f"{command.__doc__}\n\n{what}: one of {', '.join(allowed)}; --help after it shows its options")
        raise SystemExit(0)
    if not argv or argv[0].startswith("-"):
        fail(f"the {place} argument is {what}: one of {', '.join(allowed)}")
    if argv[0] not in allowed:
        fail(f"there is no {what.lower()} {argv[0]!r}; {nearest(argv[0], allowed)}")
    return argv[0]


def new_parser(command: Command, use: str) -> Any:
    """Return a parser of a command's options."""
    import jsonargparse

    jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
    doc = (command.__doc__ or "").split(":")[0]
    return jsonargparse.ArgumentParser(
        prog=" ".join(use.split()[:2]),
        usage=use,
        description=doc,
        exit_on_error=False,
        print_config=None,  # it knows no presets, and would undo them where it is read back
    )


def parse(parser: Any, argv: list[str]) -> Any:
    """Parse; an unknown option is answered with the nearest known one."""
    known = [option for option in parser._option_string_actions if option.startswith("--")]
    plain = [option.removeprefix("--") for option in known]
    for word in argv:
        option = word.split("=")[0]
        if option.startswith("--") and option not in known:
            fail(f"{parser.prog} has no option {option}; {nearest(option, known)}")
    try:
        return parser.parse_args(argv)
    except (argparse.ArgumentError, TypeError) as error:
        said = " ".join(str(error).split())
        if wrong := re.search(r"(?:Group '(.+)' does not accept o|O)ption '(.+?)'", said):  # of a YAML file
            said += "; " + nearest(".".join(filter(None, wrong.groups())), plain)
        fail(said)


def add_device(parser: Any) -> None:
    """Add the option of the device."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps, or another accelerator of PyTorch")


def add_rate(parser: Any, default: float | None = None) -> None:
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
    return {name: given[name] for name in ("normal", "abnormal", "masks", "patient")}


def data_of(paths: list[str]) -> str | list[str]:
    """Return one path as it is, several as a list."""
    return paths[0] if len(paths) == 1 else paths


def parse_training(parser: Any, method: str, argv: list[str], skip: set[str] | None = None) -> Any:
    """Add the options of a method and of its training, but for those of the latter in ``skip``, and parse all."""
    from loligo import methods
    from loligo.config import PreprocessingConfig, TrainConfig
    from loligo.runs.settings import FALSE_ALARM_RATE, defaults

    kind = methods.get(method)
    parser.add_argument("--config", action="config", help="YAML file with any of these options")
    parser.add_argument(
        "--preset", type=str, help=f"named set of options, others on top: {', '.join(sorted(kind.presets))}"
    )
    add_rate(parser, FALSE_ALARM_RATE)
    parser.add_class_arguments(kind.Config, "method")
    parser.add_class_arguments(TrainConfig, "train", skip=skip or set())
    parser.add_class_arguments(PreprocessingConfig, "preprocessing")
    options, training = defaults(kind, _named_preset(kind, argv))
    own = {f"method.{key}": value for key, value in options.items()}
    own |= {f"train.{key}": value for key, value in training.items() if key not in (skip or ())}
    parser.set_defaults(own)
    return parse(parser, argv)


def _named_preset(kind: Any, argv: list[str]) -> str | None:
    """Return the preset that the arguments, or a file of options among them, name: its values are the defaults."""
    found = None
    for word, following in zip(argv, [*argv[1:], ""], strict=True):
        option, _, value = word.partition("=")
        if option == "--config":
            found = _check_options(Path(value or following)).get("preset", found)
        elif option == "--preset":
            found = value or following
    if found and found not in kind.presets:
        fail(f"{kind.__name__.lower()} has no preset {found!r}; {nearest(found, kind.presets)}")
    return found


def _check_options(path: Path) -> dict[str, Any]:
    """Read a file of options; say what is wrong with it as a whole, of single options the parser does."""
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, yaml.YAMLError):
        values = None
    example = "write a YAML file such as 'train: {epochs: 3}'"
    if not isinstance(values, dict):
        fail(f"{path} holds no options; {example}")
    if "method_config" in values:
        fail(f"{path} is the record of a run; copy its method_config as method:, its preset and its train: to a file")
    for key, kind in {"method": dict, "train": dict, "preprocessing": dict, "index": dict, "preset": str}.items():
        if not isinstance(values.get(key, kind()), kind):
            fail(f"{path} has {key} {values[key]!r}; it must be {'a name' if kind is str else 'options'}: {example}")
    return values


def training_arguments(given: Any) -> dict[str, Any]:
    """Return what was given of the options that `parse_training` adds, as arguments of the verbs."""
    return {
        "preset": given.preset,
        "options": vars(given["method"].clone()),
        "train": vars(given["train"].clone()),
        "preprocessing": vars(given["preprocessing"].clone()),
        "false_alarm_rate": given.false_alarm_rate,
    }
