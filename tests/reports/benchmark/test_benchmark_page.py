"""The page of a benchmark: what it answers, that it is whole in itself, and that its tables say the same."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest

from loligo.reports.benchmark import figures as charts
from loligo.reports.benchmark import page as module
from loligo.reports.benchmark import words
from loligo.reports.benchmark.page import Benchmark

METRICS = ("auc", "ap", "accuracy", "f1", "sensitivity", "specificity", "sensitivity_at_95")
ABOUT = {"seeds": 2, "budget_seconds": 1800.0, "preset": None, "machine": "m", "loligo": "0", "commit": "c"}


def row(dataset: str, method: str, auc: float, seconds: float, gap: float = 0.02) -> dict[str, object]:
    values: dict[str, object] = {
        "dataset": dataset,
        "method": method,
        "seeds": 2,
        "failed": 0,
        "preset": "",
        "gap": gap,
    }
    for prefix in ("", "paper_"):
        for name in METRICS:
            known = auc + (gap if prefix else 0)
            values |= {f"{prefix}{name}": known, f"{prefix}{name}_sd": 0.01}
            values |= {f"{prefix}{name}_low": known - 0.05, f"{prefix}{name}_high": known + 0.04}
    costs = {"images_per_s": 9.0, "peak_memory_bytes": 5e8, "score_images_per_s": 1e6 / seconds, "parameters": 1e6}
    costs |= {"train_cpu_seconds": seconds, "false_alarm_rate": 0.05, "flops_per_image": 2e9, "model_bytes": 4e6}
    return values | costs | {"epochs": 3}


@pytest.fixture
def found() -> Benchmark:
    summary = pd.DataFrame(
        [
            row("zhanglab", "squid", 0.9, 4000, 0.034),
            row("zhanglab", "padim", 0.8, 200),
            row("zhanglab", "ae", 0.6, 100),
            row("mine", "squid", 0.7, 900),
            row("mine", "padim", 0.75, 20, -0.01),
            row("mine", "ae", 0.5, 100),
        ]
    )
    done = summary.assign(
        cell=summary["dataset"] + "/" + summary["method"] + "/seed_0", protocol="clean", status="done", reason="",
        seed=0, curve="", folder="cells/x", command="loligo benchmark --only 'a'", level=0.0,
    )  # fmt: skip
    lost = {
        "cell": "mine/<b>/seed_0",
        "dataset": "mine",
        "status": "failed",
        "protocol": "clean",
        "reason": "<i>no</i>",
    }
    cells = pd.concat([done, pd.DataFrame([lost])], ignore_index=True)
    pairs = pd.DataFrame(
        [{"dataset": "mine", "seed": s, "a": "ae", "b": "padim", "images": 9, "auc_a": 0.5, "auc_b": 0.75,
          "difference": -0.25 - s / 10, "low": -0.4, "high": -0.1, "z": -3.0, "p": p, "p_holm": 3 * p}
         for s, p in ((0, 0.001), (1, 0.01))]
    )  # fmt: skip
    alarms = pd.DataFrame(
        [{"dataset": "mine", "method": m, "nominal": r, "attainable": r, "observed": 2 * r, "low": 0, "high": r}
         for m in ("ae", "squid") for r in (0.05, 0.1)]
    )  # fmt: skip
    robustness = pd.DataFrame(
        [{"dataset": "mine", "method": "ae", "seed": 0, "curve": c, "level": v, "auc": 0.5, "auc_low": 0.42,
          "auc_high": 0.58, "false_alarms": 0.1}
         for c in ("contamination", "sizes", "noise", "jpeg") for v in (1.0, 2.0)]
    )  # fmt: skip
    return Benchmark(
        ABOUT, cells, summary, pairs, alarms, robustness, {"squid": 1.5, "padim": 1.5, "ae": 3.0}, 2.3, 0.2
    )


class Page(HTMLParser):
    """Collect what a page refers to and the text of its tables."""

    VOID: ClassVar = {"meta", "link", "br", "img", "hr", "input"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.refers: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.refers += [str(value) for name, value in attrs if name in ("src", "href", "action")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.refers += [str(value) for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_answers_first(found: Benchmark, tmp_path: Path) -> None:
    page = module.write(found, tmp_path).read_text()
    head = re.sub(r"\s+", " ", re.sub("<[^>]+>", "", page[page.index("<header") : page.index("</header")]))
    assert "Research use only: not a medical device." in head
    assert "zhanglab: Best by AUC: squid, 0.900 ± 0.010 (95 % interval 0.850–0.940)." in head
    assert "Best under 5 minutes of CPU: padim, 0.800 ± 0.010, in 200 s." in head
    assert "mine: Best by AUC: padim, 0.750" in head
    assert "squid 1.50, padim 1.50, ae 3.00 (average rank)" in head
    assert "a budget of 1800 s, turned into epochs" in head and "1 cell failed" in head
    assert "Clean threshold: 5 % false alarms among held-out normals." in head
    table = page[page.index('id="summary"') : page.index('id="cost"')]
    both = table[: table.index("</table>")]  # one screen: all methods on all data sets
    assert re.findall(r'<th scope="row">(\w+)', both) == ["squid", "padim", "ae"]
    assert both.count("+0.034") == both.count("-0.010") == 1  # the gap of each
    assert "0.850–0.940" in table[table.index("</table>") :]  # intervals of each metric


def test_the_page_is_whole_in_itself_and_escapes(found: Benchmark, tmp_path: Path) -> None:
    text = module.write(found, tmp_path).read_text()
    page = Page(text)
    assert not page.open
    assert all(value.startswith(("#", "cells/")) for value in page.refers), page.refers
    assert "<i>no</i>" not in text and "&lt;i&gt;no&lt;/i&gt;" in text
    assert text.count("<svg") == 7 and "nan" not in re.sub("<[^>]+>", "", text[text.index("<body") :]).lower().split()
    assert text.count("aria-sort") and "addEventListener" in text


def test_published_figures_stand_apart_with_their_source(found: Benchmark, tmp_path: Path) -> None:
    text = module.write(found, tmp_path).read_text()
    apart = text[text.index('id="published"') : text.index('id="failed"')]
    assert "not measured here" in apart and "arXiv 2111.13495" in apart and "0.876 ± 0.015" in apart
    assert "0.934 ± 0.010" in apart  # ours, by the paper protocol, in a column of its own
    measured = pd.read_csv(tmp_path / "summary.csv")
    assert 0.876 not in measured.select_dtypes("number").to_numpy()
    known = module.published()
    assert "from the abstract, adversarial losses in our own form" in apart
    assert known["source"].notna().all() and known["auc"].between(0.5, 1).all()
    assert len(known[known["dataset"] == "zhanglab"]) == 17


def test_markdown_and_latex_say_the_same(found: Benchmark, tmp_path: Path) -> None:
    module.write(found, tmp_path)
    text = (tmp_path / "benchmark.md").read_text()
    assert "| squid | 0.900 ± 0.010 | 0.850–0.940 |" in text and "Published, not measured here:" in text
    assert text.index("| squid | 0.900") < text.index("| padim | 0.800") < text.index("| ae | 0.600")
    tex = (tmp_path / "benchmark.tex").read_text()
    assert r"squid & 0.900 $\pm$ 0.010 & 0.850--0.940 &" in tex
    assert tex.count(r"\begin{tabular}") == tex.count(r"\end{tabular}") == 3
    assert not re.search(r"(?<!\\)[%_#]", "\n".join(line for line in tex.splitlines() if not line.startswith("%")))
    assert "not a medical device" in text and "not a medical device" in tex


def test_the_json_holds_every_row(found: Benchmark, tmp_path: Path) -> None:
    module.write(found, tmp_path)
    values = json.loads((tmp_path / "benchmark.json").read_text())
    assert len(values["cells"]) == 7 and len(values["summary"]) == 6
    assert values["cells"][6]["auc"] is None and values["critical_difference"] == 2.3
    assert values["answers"][0] == {"dataset": "mine", "best": "padim", "best_quick": "padim"}


def test_where_nothing_is_finished_the_page_says_so(found: Benchmark, tmp_path: Path) -> None:
    lost = found.cells[found.cells["status"] == "failed"].drop(columns=["auc"])
    text = module.write(Benchmark(ABOUT, lost, pd.DataFrame()), tmp_path).read_text()
    assert "No cell is finished." in text and "&lt;i&gt;no" in text


def test_of_several_seeds_the_one_that_speaks_least_for_a_difference_is_shown(found: Benchmark) -> None:
    (row,) = module._worst(found.pairs)
    shown = found.pairs.sort_values("p_holm").iloc[-1]
    assert (row["p"], row["seeds"], row["difference"]) == (0.01, 2, shown["difference"])
    against = found.pairs.assign(difference=[0.1, -0.1])
    assert module._worst(against)[0]["p_holm"] == 1


def test_the_front_is_drawn_where_one_method_beats_all() -> None:
    from matplotlib.figure import Figure

    rows = pd.DataFrame({"method": ["a", "b"], "auc": [0.9, 0.8], "auc_low": [0.8, 0.7], "auc_high": [0.95, 0.9]})
    axes = Figure().add_subplot()
    charts._fronted(axes, pd.Series([1.0, 5.0]), rows, {"a": {}, "b": {}})
    (line,) = [line for line in axes.lines if line.get_linestyle() == "--"]
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([1.0, 5.0], [0.9, 0.9])


def test_the_pareto_front_by_plain_search() -> None:
    random = np.random.default_rng(0)
    for _ in range(20):
        cost, auc = (pd.Series(np.round(random.uniform(size=9), 1)) for _ in range(2))
        front = charts.pareto(cost, auc)
        beaten = [any((cost[j] <= cost[i] and auc[j] > auc[i]) or (cost[j] < cost[i] and auc[j] >= auc[i])
                      for j in range(9)) for i in range(9)]  # fmt: skip
        assert {(cost[i], auc[i]) for i in front} == {(cost[i], auc[i]) for i in range(9) if not beaten[i]}


def test_cliques_join_what_is_closer_than_the_critical_difference() -> None:
    assert charts.cliques([1.0, 1.5, 2.4, 4.0], 1.0) == [(0, 1), (1, 2)]
    assert charts.cliques([1.0, 1.5, 1.9, 4.0], 1.0) == [(0, 2)]
    assert charts.cliques([1.0, 3.0], 1.0) == []


def test_forty_methods_look_different() -> None:
    marks = charts.style([f"m{i}" for i in range(40)])
    assert len({tuple(sorted(mark.items())) for mark in marks.values()}) == 40


def test_a_preset_stands_beside_its_method() -> None:
    rows = [{"method": "squid", "preset": ""}, {"method": "squid", "preset": "a"}, {"method": "squid:a", "preset": "a"}]
    assert [words.method(row) for row in rows] == ["squid", "squid (a)", "squid:a"]


def test_a_weakly_supervised_method_is_marked_as_one() -> None:
    rows = [
        {"method": "ddpm_guided", "preset": ""},
        {"method": "ddpm_guided", "preset": "a"},
        {"method": "syndiff:a", "preset": "a"},
    ]
    assert [words.method(row) for row in rows] == [
        "ddpm_guided (weakly supervised)",
        "ddpm_guided (a) (weakly supervised)",
        "syndiff:a (weakly supervised)",
    ]
    assert charts._named(charts.style(["ae", "syndiff"]))[1] == ["ae", "syndiff (weakly supervised)"]


def test_numbers_as_text() -> None:
    values = [words.short(value) for value in (0.5052, 12.34, 123456.0, float("nan"))]
    assert values == ["0.505", "12.3", "123,456", "–"]
    assert words.spread({"auc": 0.5, "auc_sd": float("nan")}, "auc") == "0.500"
