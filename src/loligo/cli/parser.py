"""A parser of arguments that answers in sentences: the value found, what is allowed, the nearest name."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import itertools
import json
import math
import re
import shutil
import sys
import textwrap
import typing
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from loligo import values
from loligo.names import nearest

Command = Callable[[list[str]], None]
"""A subcommand; the first line of its docstring is its help."""
COMPLETE = "--complete"
"""The last argument where a shell asks what may come next."""


def fail(message: str) -> NoReturn:
    """Say what is wrong and end with status 2."""
    print(f"loligo: {message}", file=sys.stderr)
    raise SystemExit(2)


def complete(argv: list[str], allowed: Iterable[str]) -> None:
    """Print what may come next, and end, where a shell asks for it."""
    if argv == [COMPLETE]:
        print(*allowed, sep="\n")
        raise SystemExit(0)


class Help(argparse.HelpFormatter):
    """Lines of up to 100 characters, in which a % is a %."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32, width=min(100, shutil.get_terminal_size().columns))

    def _expand_help(self, action: argparse.Action) -> str:
        return action.help or ""


class Parser(argparse.ArgumentParser):
    """The arguments of a command."""

    def __init__(self, command: Command, use: str) -> None:
        doc = (command.__doc__ or "").split(":")[0]
        self.needed: list[str] = []
        self.ignored: dict[str, str] = {}
        """Options that are not taken here, with the reason."""
        super().__init__(use.split()[1], use, doc, formatter_class=Help, allow_abbrev=False)

    def refuse(self, option: str, file: Path | None = None) -> NoReturn:
        """Say that an option is unknown, with the nearest that is known, or why it is not taken; files lack the --."""
        marks = 2 if file else 0
        if option in self.ignored:
            fail(f"{file or self.prog}: {option[marks:]} is not taken: {self.ignored[option]}")
        known = [name[marks:] for name in self.options()]
        fail(f"{file or self.prog} has no option {option[marks:]}; {nearest(option[marks:], known)}")

    def add_argument(self, *names: str, **about: Any) -> argparse.Action:
        """Add an argument; its type says how it is shown and checked; help says its default or that it is required."""
        required = about.pop("required", False)
        told = "required" if required else f"default: {default}" if (default := _told(about.get("default"))) else ""
        about["help"] = " ".join(filter(None, (about.get("help"), f"({told})" if told else "")))
        if (kind := about.get("type")) and not inspect.isfunction(kind):
            about |= {"type": typed(kind), "metavar": about.get("metavar", values.sign(kind))}
        action = super().add_argument(*names, **about)
        self.needed += [action.dest] if required else []
        return action

    def add_fields(self, kind: Any, title: str, own: dict[str, Any], hidden: Iterable[str] = ()) -> None:
        """Add the fields of a configuration as ``--title.name``, but for ``hidden``; ``own`` are its defaults.

        Without a title they are ``--name``.
        """
        hints, meanings = typing.get_type_hints(kind), meanings_of(kind)
        group = self.add_argument_group((inspect.getdoc(kind) or "").rstrip("."))
        for field in dataclasses.fields(kind):
            if field.name not in hidden:
                default, least = own.get(field.name, field.default), field.metadata.get("least", 1)
                option = f"--{title}.{field.name}" if title else f"--{field.name}"
                _add(group, option, hints[field.name], default, meanings[field.name], least)

    def add_function_arguments(self, function: Callable[..., Any], nested: str = "", skip: Iterable[str] = ()) -> None:
        """Add the arguments of a function, whose docstring explains them, as ``--name`` or ``--nested.name``."""
        hints, meanings = typing.get_type_hints(function), _explained(function)
        for name, parameter in inspect.signature(function).parameters.items():
            if name not in skip:
                option = f"--{nested}.{name}" if nested else f"--{name}"
                _add(self, option, hints[name], parameter.default, meanings.get(name, ""))

    def options(self) -> list[str]:
        """Return the long options."""
        return [option for option in self._option_string_actions if option.startswith("--")]

    def words_of(self, path: Path, entries: dict[str, Any]) -> list[str]:
        """Return the arguments that say what a file says; end with its name for an unknown option or a wrong value."""
        said: list[str] = []
        for key, value in self._flat(entries):
            if f"--{key}" not in self.options():
                self.refuse(f"--{key}", path)
            action = self._option_string_actions[f"--{key}"]
            several = value if isinstance(value, list) and action.nargs else [value]
            try:
                words = [] if action.nargs == 0 else [_text(item) for item in several]
                said += [f"--{key}", *words] if value is not False or words else []
                [self._get_value(action, word) for word in words]
            except argparse.ArgumentError as error:
                fail(f"{path}: {key} {error.message}")
        return said

    def _flat(self, entries: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
        """Yield options by dotted name; what is empty is not given."""
        for key, value in entries.items():
            name = f"{above}{key}"
            if isinstance(value, dict) and f"--{name}" not in self.options():
                yield from self._flat(value, f"{name}.")
            elif value is not None:
                yield name, value

    def error(self, message: str) -> NoReturn:
        """Say in a sentence what is wrong with an argument."""
        message = re.sub(r"^argument (?:-\w/)?(\S+?): ", r"\1 ", message)
        message = re.sub(r"expected (?:one|at least one) argument$", "needs a value", message)
        if missing := re.match(r"the following arguments are required: (.*)", message):
            message = f"{self.prog} needs {missing[1]}; use: {self.usage}"
        fail(message)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(action, f"is {value!r}; {nearest(value, action.choices)}")


def parse(parser: Parser, argv: list[str]) -> argparse.Namespace:
    """Parse; what is unknown is answered with the nearest that is known."""
    known = parser.options()
    complete(argv[-1:], known)
    for word in itertools.takewhile(lambda word: word != "--", argv):
        option = word.split("=")[0]
        if option.startswith("--") and option not in known:
            parser.refuse(option)
    given, rest = parser.parse_known_intermixed_args(argv)
    if rest:
        hint = "; name it with --data" if "--data" in known and not rest[0].startswith("-") else ""
        fail(f"{parser.prog} takes no argument {rest[0]!r}{hint}; use: {parser.usage}")
    if missing := [f"--{name}" for name in parser.needed if getattr(given, name) is None]:
        fail(f"{parser.prog} needs {' and '.join(missing)}; use: {parser.usage}")
    return given


def typed(kind: Any, least: float = -math.inf) -> Callable[[str], Any]:
    """Return a function that reads a value of a type from text, as argparse wants it."""

    def value(text: str) -> Any:
        try:
            return values.check("", values.read(text, kind), kind, least)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return value


def _add(group: Any, option: str, hint: Any, default: Any, meaning: str, least: float = -math.inf) -> None:
    """Add an option that is only in the result where it is given."""
    told = f" (default: {_told(default)})" if _told(default) else ""
    about = {"default": argparse.SUPPRESS, "help": meaning + told}
    if typing.get_origin(hint) in values.LISTS and (item := typing.get_args(hint)[0]) in (str, Path):
        group.add_argument(option, nargs="+", type=typed(item), metavar=values.sign(item), **about)
    else:
        group.add_argument(option, type=typed(hint, least), metavar=values.sign(hint), **about)


def _told(default: Any) -> str:
    """Return a default as it is given, empty where there is none."""
    if default in (None, argparse.SUPPRESS, inspect.Parameter.empty):
        return ""
    if isinstance(default, tuple | list):
        return ",".join(map(str, default))
    return str(default).lower() if isinstance(default, bool) else str(default)


def _text(value: Any) -> str:
    """Return a value of a YAML file as text of which YAML makes the same value."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def meanings_of(kind: type) -> dict[str, str]:
    """Return the text below each field of a dataclass and of those that it derives from."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__[:-1]):
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        for a, b in itertools.pairwise(getattr(tree, "body", [])):
            if isinstance(a, ast.AnnAssign) and isinstance(a.target, ast.Name) and isinstance(b, ast.Expr):
                found[a.target.id] = " ".join(str(ast.literal_eval(b.value)).split())
    return found


def _explained(function: Callable[..., Any]) -> dict[str, str]:
    """Return what the docstring of a function says of its arguments, beneath ``Args:``."""
    _, _, told = (inspect.getdoc(function) or "").partition("\nArgs:\n")
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", told, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}
