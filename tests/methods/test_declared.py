"""What is read of a method's file without importing it is what importing it gives."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import typing
from pathlib import Path

import pytest

from loligo import methods
from loligo.methods import declared
from loligo.methods.configs import BackboneConfig, DiffusionConfig

PLUGIN = """
from dataclasses import dataclass
from loligo.methods.configs import MethodConfig
from loligo.methods.contract import Method
{line}

@dataclass(frozen=True)
class OwnConfig(MethodConfig):
    power: float = {power}

class Own(Method):
    Config = OwnConfig
    presets = {{"tiny": {{"size": 64}}}}

    def phases(self):
        return ()
"""


@pytest.fixture(params=sorted(methods.METHODS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_what_is_declared_is_what_the_class_has(name: str) -> None:
    real, light = methods.get(name), declared.read(name)
    assert light is not real
    assert (light.presets, light.training_defaults) == (real.presets, real.training_defaults)
    a, b = (
        [(field.name, field.default, field.metadata, str(field.type)) for field in dataclasses.fields(kind.Config)]
        for kind in (real, light)
    )
    assert a == b
    assert typing.get_type_hints(light.Config) == typing.get_type_hints(real.Config)
    assert light.Config.__doc__ == real.Config.__doc__
    assert declared.one_pass(light) == declared.one_pass(real)
    kinds = {BackboneConfig: "features", DiffusionConfig: "diffusion"}
    assert [declared.extra(name)] == ([extra for kind, extra in kinds.items() if issubclass(real.Config, kind)] or [""])


def test_a_method_of_one_pass_is_one_without_phases() -> None:
    found = {name for name in methods.METHODS if declared.one_pass(declared.read(name))}
    for name in found:
        kind = methods.get(name)
        assert kind.phases(kind.__new__(kind)) == ()
    assert found == {"gaussian", "padim", "patchcore"}


def test_no_torch_is_imported() -> None:
    code = (
        "import sys; from loligo.methods import METHODS, declared; [declared.read(n) for n in METHODS];"
        "print({'torch', 'numpy', 'pandas', 'timm'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "set()\n"


@pytest.mark.parametrize(
    ("line", "power", "read"), [("", "2.0", True), ("import math", "-math.nan", True), ("", "f(2)", False)]
)
def test_another_packages_file_is_read_or_else_imported(
    line: str, power: str, read: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "own.py"
    path.write_text(PLUGIN.format(line=line, power=power))
    monkeypatch.setattr(methods, "source", lambda name: (path, "Own"))
    monkeypatch.setattr(methods, "get", lambda name: "imported")
    declared._read.cache_clear()
    found = declared.read("own")
    declared._read.cache_clear()
    assert (found != "imported") == read
    if read:
        assert found.Config().size == 128 and not declared.one_pass(found)
