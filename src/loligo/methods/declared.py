"""What a method's file declares of its options, read without importing it: importing a method imports torch.

A method is one file. Its Config, presets and defaults depend on few of the statements there: these alone are executed.
"""

from __future__ import annotations
import __future__

import ast
import contextlib
import copy
import functools
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any, ClassVar

from loligo import methods
from loligo.config import replaced
from loligo.methods.configs import BackboneConfig, DiffusionConfig, MethodConfig
from loligo.names import nearest

NAMES = ("Config", "presets", "training_defaults")
Options = dict[str, Any]


class Declared:
    """What stands for `Method` where a class is read: what is declared where its file says nothing."""

    Config: ClassVar[type[MethodConfig]] = MethodConfig
    presets: ClassVar[dict[str, Options]] = {}
    training_defaults: ClassVar[Options] = {}


def read(name: str) -> type[Declared]:
    """Return a class that declares what a method does, with the same Config; ValueError as `methods.get`.

    Another package's method is imported where its file cannot be read by itself.
    """
    found: Any = None
    with contextlib.nullcontext() if name in methods.METHODS else contextlib.suppress(Exception):
        found = _read(name)
    return found or methods.get(name)  # type: ignore[return-value]


def extra(name: str) -> str:
    """Return the extra of the package that a method needs: that of networks from timm or MONAI, or none."""
    extras = {BackboneConfig: "features", DiffusionConfig: "diffusion"}
    return next((extra for kind, extra in extras.items() if issubclass(read(name).Config, kind)), "")


def one_pass(kind: type) -> bool:
    """Say whether a method learns in one pass, without epochs: it, or what `read` returned of it, has no phases."""
    return not any("phases" in vars(base) for base in kind.__mro__ if base.__name__ != "Method")


def defaults(kind: Any, preset: str | None, where: str) -> tuple[Options, Options]:
    """Return the options of a method and of its training that its own defaults and a preset set.

    Raises ValueError, with the nearest name, where it has no such preset.
    """
    if preset is not None and preset not in kind.presets:
        raise ValueError(f"{where} has no preset {preset!r}; {nearest(preset, kind.presets)}")
    given = kind.presets.get(preset or "", {})
    options = {key: value for key, value in given.items() if not key.startswith("train.")}
    train = {key.removeprefix("train."): value for key, value in given.items() if key.startswith("train.")}
    return options, replaced(kind.training_defaults, train)


@functools.cache
def _read(name: str) -> type[Declared] | None:
    """Execute what of a method's file its class needs; in a module of its own, where `inspect` finds the source."""
    source, kind = methods.source(name)
    if source is None:
        return None
    module = ModuleType(f"{__name__}.{name}")
    module.__dict__.update(__file__=str(source), Method=Declared)
    sys.modules[module.__name__] = module
    tree = ast.Module(_needed(ast.parse(source.read_bytes()), kind), [])
    code = compile(tree, str(source), "exec", __future__.annotations.compiler_flag)
    exec(code, module.__dict__)
    found: type[Declared] = module.__dict__[kind]
    return found


def _needed(tree: ast.Module, kind: str) -> list[ast.stmt]:
    """Return the statements that define a class, and what they name in turn, in the order of the file."""
    defined = {name: statement for node in tree.body for name, statement in _definitions(node)}
    defined.pop("Method", None)
    found: list[ast.stmt] = []
    names = [kind]
    while names:
        statement = defined.pop(names.pop(), None)
        if statement is not None:
            found.append(statement)
            names += [node.id for node in ast.walk(statement) if isinstance(node, ast.Name)]
    return sorted(found, key=lambda statement: statement.lineno)


def _definitions(node: ast.stmt) -> Iterator[tuple[str, ast.stmt]]:
    """Yield each name that a statement defines, with as much of the statement as defines it."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        for alias in node.names:
            yield alias.asname or alias.name, _import(node, alias)
    elif isinstance(node, ast.ClassDef):
        yield node.name, _declaring(node)
    elif isinstance(node, ast.FunctionDef):
        yield node.name, node
    else:
        yield from ((target, node) for target in _targets(node))


def _targets(node: ast.stmt) -> list[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _import(node: ast.Import | ast.ImportFrom, alias: ast.alias) -> ast.stmt:
    """Return the import of one name; from another method, it is what that one declares."""
    one = copy.copy(node)
    one.names = [alias]
    if isinstance(one, ast.ImportFrom):
        package, _, name = str(one.module).rpartition(".")
        if package == methods.__name__ and name in methods.METHODS:
            _read(name)
            one.module = f"{__name__}.{name}"
    return one


def _declaring(node: ast.ClassDef) -> ast.ClassDef:
    """Return a dataclass as it is; of a method what it declares, and a mark where it has phases."""
    if node.decorator_list:
        return node
    kept = [part for part in node.body if set(_targets(part)) & set(NAMES)]
    phases = any(isinstance(part, ast.FunctionDef) and part.name == "phases" for part in node.body)
    one = copy.copy(node)
    one.body = kept + ast.parse("phases = True" if phases else "pass").body
    return one
