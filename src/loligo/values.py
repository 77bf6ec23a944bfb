"""What the value of an option may be: read from text, checked against its type, and told in words, not in Python's."""

from __future__ import annotations

import contextlib
import math
import reprlib
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from loligo.names import nearest

SHORT = reprlib.Repr()
SHORT.maxstring = SHORT.maxother = 80
SHORT.maxlevel = 2
LISTS = (tuple, list, Sequence)


class Kind(NamedTuple):
    """How a type of values is told."""

    words: str
    """What is needed, in a sentence."""
    sign: str
    """What stands for it in a line of help."""


KINDS = {
    int: Kind("a whole number", "N"),
    float: Kind("a number", "X"),
    bool: Kind("true or false", "true|false"),
    str: Kind("text", "TEXT"),
    Path: Kind("a path", "PATH"),
    dict: Kind("options, such as {name: value}", "{NAME: VALUE}"),
    type(None): Kind("nothing", ""),
}


def check(name: str, value: Any, hint: Any, least: float = -math.inf) -> Any:
    """Return a value as a type has it: lists as tuples, texts as paths and numbers where those are meant.

    ``least`` is that of whole numbers. Raises ValueError, which names the value and what is allowed, for another.
    """
    meant = _meant(value, hint)
    if allowed := choices(hint):
        if value not in allowed:
            raise ValueError(f"{name} is {SHORT.repr(value)}; {nearest(str(value), allowed)}".lstrip())
    elif not _fits(meant, hint, least):
        raise ValueError(f"{name} is {SHORT.repr(value)}; it must be {words(hint, least)}".lstrip())
    return meant


def read(text: str, hint: Any) -> Any:
    """Return what a text means, for `check`: YAML, but where the type is text; a list may lack its brackets."""
    import yaml  # here: most commands read nothing

    if choices(hint) or {str, Path} & set(_parts(hint)):
        return text
    if typing.get_origin(hint) in LISTS and not text.startswith("["):
        text = f"[{text.strip('()')}]"
    with contextlib.suppress(yaml.YAMLError, RecursionError):
        return yaml.safe_load(text)
    return text


def choices(hint: Any) -> tuple[str, ...]:
    """Return the words that a type allows; none where it allows others than those of Literals."""
    if typing.get_origin(hint) is typing.Literal:
        return typing.get_args(hint)
    parts = [choices(part) for part in _parts(hint)] if _is_union(hint) else []
    return tuple(word for part in parts for word in part) if all(parts) else ()


def words(hint: Any, least: float = -math.inf) -> str:
    """Say what a type allows."""
    if _is_union(hint):
        return " or ".join(words(part, least) for part in _parts(hint) if part is not type(None))
    if typing.get_origin(hint) in LISTS:
        return f"a list such as [1, 2], each {words(typing.get_args(hint)[0], least)}"
    said = KINDS.get(typing.get_origin(hint) or hint, KINDS[str]).words
    return f"{said} of at least {least:g}" if hint is int and math.isfinite(least) else said


def sign(hint: Any) -> str:
    """Return what stands for a value of a type in a line of help."""
    if allowed := choices(hint):
        return "|".join(allowed)
    if typing.get_origin(hint) in LISTS:
        return f"{sign(typing.get_args(hint)[0])},..."
    return next(kind.sign for part in _parts(hint) if (kind := KINDS.get(typing.get_origin(part) or part, KINDS[str])))


def _is_union(hint: Any) -> bool:
    return isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union


def _parts(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if _is_union(hint) else (hint,)


def _meant(value: Any, hint: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)  # YAML knows no other sequence, and a configuration is compared with what was read back
    parts = _parts(hint)
    if isinstance(value, str) and Path in parts:
        return Path(value)
    if isinstance(value, str) and float in parts:  # YAML takes 1e-5 for text
        with contextlib.suppress(ValueError):
            return float(value)
    return value


def _fits(value: Any, hint: Any, least: float) -> bool:
    if _is_union(hint):
        return any(_fits(value, part, least) for part in _parts(hint))
    if typing.get_origin(hint) in LISTS:
        return isinstance(value, tuple) and all(_fits(item, typing.get_args(hint)[0], least) for item in value)
    if hint in (int, float):
        known = isinstance(value, int | float if hint is float else int) and not isinstance(value, bool)
        return known and math.isfinite(value) and (hint is float or value >= least)
    kind = typing.get_origin(hint) or hint
    return not isinstance(kind, type) or isinstance(value, kind)
