"""The page of results is what its command writes; benchmarks in YAML can be planned."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from loligo import methods
from loligo.benchmark import parse
from loligo.benchmark.cells import own_settings
from loligo.runs.settings import Settings

ROOT = Path(__file__).parents[2]
WORDS = {"out": "out", "seeds": 1, "preset": None, "only": None, "workers": None, "budget": None, "set": []}


def test_the_committed_page_is_what_the_command_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    from experiments import tables

    assert (ROOT / "docs" / "results.md").read_text(encoding="utf-8") == tables.results(), (
        "run python -m experiments.tables --out docs/results.md"
    )


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_method_of_a_benchmark_in_yaml_can_be_planned(path: Path) -> None:
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    asked = parse(**(WORDS | {"robustness": [], "variants": {}, "config": str(path)} | values))
    planned = set()
    for name in asked.methods:
        method = name.partition(":")[0]
        preset, settings = asked.chosen(name)
        options, train, preprocessing = own_settings(method, settings)
        known = preset if preset in methods.get(method).presets else None
        planned.add(Settings.of(method, known, options, train, preprocessing))
    assert len(planned) == len(asked.methods)  # no two rows are of one configuration
