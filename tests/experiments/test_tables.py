"""The pages of results and of methods are what their commands write; benchmarks in YAML can be planned."""

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


def test_the_committed_pages_of_methods_are_what_the_command_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    from experiments import method_pages

    pages = {name: method_pages.write_page(name) for name in methods.METHODS}
    assert {path.stem: path.read_text(encoding="utf-8") for path in method_pages.FOLDER.glob("*.md")} == pages, (
        "run python -m experiments.method_pages"
    )
    assert all(path.stat().st_size <= method_pages.LIMIT for path in method_pages.FOLDER.glob("*.jpg"))
    padim = pages["padim"]
    assert (
        "a Gaussian of features at every place (Defard et al. 2020, [2011.08785](https://arxiv.org/abs/2011.08785))"
        in padim
    )
    assert "## Departures and choices\n\nDepartures: EfficientNet-Lite0 rather than ResNet-18" in padim
    assert "| `regularisation` | `0.01` | Added to the diagonal of each covariance, so that it has an inverse" in padim
    assert "| `digits` | `size=96` |" in padim and "`tiny`" not in padim
    assert "| zhanglab | radiograph | 3 | 0 | 0.873 ± 0.000 (0.841–0.900) | 0.714 |" in padim
    assert "0.778 on zhanglab" in pages["memae"] or "| zhanglab |" in pages["memae"]


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
