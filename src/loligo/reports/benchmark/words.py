"""Write the results of a benchmark in sentences, and as Markdown and LaTeX tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from loligo import NOTICE
from loligo.methods import marked

Rows = list[dict[Any, Any]]


def spread(row: Any, name: str) -> str:
    """Write a mean over seeds with its spread: 0.876 ± 0.015."""
    value, deviation = row[name], row.get(f"{name}_sd", np.nan)
    if pd.isna(value):
        return "–"
    return f"{value:.3f}" + ("" if pd.isna(deviation) else f" ± {deviation:.3f}")


def method(row: Any) -> str:
    """Name a method with the preset of its options, where that is not in its name: squid (ensemble)."""
    name, preset = row["method"], row.get("preset")
    known = not preset or pd.isna(preset) or name.endswith(f":{preset}")
    return marked(name) if known else marked(name).replace(name, f"{name} ({preset})", 1)


def published(row: Any) -> str:
    """Name a method as its paper does, and say in what ours is another."""
    return f"{row['name']} (ours: {row['ours']})" if row["ours"] else str(row["name"])


def interval(row: Any, name: str) -> str:
    """Write the 95 % interval of a metric: 0.85–0.90."""
    return f"{row[f'{name}_low']:.3f}–{row[f'{name}_high']:.3f}"


def short(value: Any, unit: float = 1.0) -> str:
    """Write a number of any size with three digits; a dash for none."""
    return (
        "–" if pd.isna(value) else f"{float(value) / unit:,.3g}" if abs(value / unit) < 1000 else f"{value / unit:,.0f}"
    )


HEAD = ("Method", "AUC", "95 % interval", "AP", "Acc", "F1", "Sens. at 95 % spec.", "Paper AUC", "Gap", "CPU s")
PUBLISHED_HEAD = ("Method", "AUC", "Acc", "F1", "Source")
DETAILS = "AUC by kind of anomaly, each against all normal images, and of heat maps by pixel."


def _table(summary: pd.DataFrame, name: str) -> list[tuple[str, ...]]:
    """Return the rows of a data set as text, in the order of `HEAD`, best first."""
    rows = summary[summary["dataset"] == name].sort_values("auc", ascending=False)
    return [
        (
            method(row),
            spread(row, "auc"),
            interval(row, "auc"),
            *(spread(row, key) for key in ("ap", "accuracy", "f1")),
            f"{spread(row, 'sensitivity_at_95')} ({interval(row, 'sensitivity_at_95')})",
            spread(row, "paper_auc"),
            f"{row['gap']:+.3f}",
            short(row["train_cpu_seconds"]),
        )
        for row in rows.to_dict("records")
    ]


def details(summary: pd.DataFrame, name: str) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return head and rows of a data set's AUC by kind of anomaly and of its pixels, best first; no rows without."""
    rows = summary[summary["dataset"] == name].sort_values("auc", ascending=False).dropna(axis=1, how="all")
    kinds = [c for c in map(str, rows) if c.startswith("kind_") and not c.endswith("_sd")]
    pixels = {"pixel_auroc": "Pixel AUROC", "pixel_ap": "Pixel AP", "pixel_best_dice": "Best Dice"}
    known = {c: c.removeprefix("kind_").capitalize() for c in kinds} | {c: t for c, t in pixels.items() if c in rows}
    if not known:
        return (), []
    texts = [(method(row), *(spread(row, c) for c in known)) for row in rows.to_dict("records")]
    return ("Method", *known.values()), texts


def _published_table(rows: Rows) -> list[tuple[str, ...]]:
    cells = ("auc", "accuracy", "f1")
    return [(published(r), *(spread(r | {"auc_sd": r["auc_spread"]}, c) for c in cells), r["source"]) for r in rows]


def markdown(about: dict[str, Any], summary: pd.DataFrame, best: Rows, published: Mapping[str, Rows]) -> str:
    """Return the summary as Markdown tables, published figures in tables of their own."""
    lines = [f"# Benchmark\n\n{NOTICE}\n\n{conditions(about)}\n"]
    for answer in best:
        lines += [f"## {answer['dataset']}\n", said(answer, summary) + "\n"]
        lines += [markdown_table(HEAD, _table(summary, answer["dataset"]))]
        head, rows = details(summary, answer["dataset"])
        if rows:
            lines += [DETAILS + "\n", markdown_table(head, rows)]
        if papers := published.get(answer["dataset"]):
            lines += ["Published, not measured here:\n", markdown_table(PUBLISHED_HEAD, _published_table(papers))]
    return "\n".join(lines)


def markdown_table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a table as Markdown."""
    text = [[cell.replace("|", "\\|") for cell in row] for row in (head, tuple("---" for _ in head), *rows)]
    return "\n".join("| " + " | ".join(row) + " |" for row in text) + "\n"


def conditions(about: dict[str, Any]) -> str:
    """Say under what conditions a benchmark ran."""
    budget = "epochs as configured"
    if about["budget_seconds"]:
        budget = f"a budget of {about['budget_seconds']:g} s, turned into epochs by timing a few batches of each phase"
    preset = f"preset {about['preset']}" if about["preset"] else "no preset"
    code = f"loligo {about['loligo']} {about['commit']}"
    return f"{about['seeds']} seed(s), {budget}, {preset}; {about['machine']}; {code}."


def said(answer: dict[str, Any], summary: pd.DataFrame) -> str:
    """Say which method is best on a data set, and which of the quick ones."""
    rows = summary[summary["dataset"] == answer["dataset"]].set_index("method")
    best = rows.loc[answer["best"]]
    text = f"Best by AUC: {marked(answer['best'])}, {spread(best, 'auc')} (95 % interval {interval(best, 'auc')})."
    rate = f" Clean threshold: {short(100 * best['false_alarm_rate'])} % false alarms among held-out normals."
    if not answer["best_quick"]:
        return text + " No method trained in under 5 minutes of CPU." + rate
    quick = rows.loc[answer["best_quick"]]
    return text + (
        f" Best under 5 minutes of CPU: {answer['best_quick']}, {spread(quick, 'auc')}, "
        f"in {short(quick['train_cpu_seconds'])} s.{rate}"
    )


def latex(about: dict[str, Any], summary: pd.DataFrame, best: Rows, published: Mapping[str, Rows]) -> str:
    """Return the summary as LaTeX tables (booktabs), published figures in tables of their own."""
    parts = [f"% {NOTICE}\n% {conditions(about)}"]
    for answer in best:
        parts.append(_latex(answer["dataset"] + ", measured", HEAD, _table(summary, answer["dataset"])))
        head, rows = details(summary, answer["dataset"])
        if rows:
            parts.append(_latex(f"{answer['dataset']}. {DETAILS}", head, rows))
        if papers := published.get(answer["dataset"]):
            caption = answer["dataset"] + ", published, not measured here"
            parts.append(_latex(caption, PUBLISHED_HEAD, _published_table(papers)))
    return "\n\n".join(parts) + "\n"


def _latex(caption: str, head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    body = [" & ".join(_escaped(cell) for cell in row) + r" \\" for row in rows]
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{_escaped(caption)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
            r"\toprule",
            " & ".join(_escaped(cell) for cell in head) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    )


def _escaped(text: str) -> str:
    for sign in "&%_#$":
        text = text.replace(sign, "\\" + sign)
    return text.replace("±", r"$\pm$").replace("–", "--")
