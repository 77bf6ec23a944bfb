"""Draw the charts of a benchmark: AUC against cost, critical differences, false-alarm rates, robustness curves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from loligo.methods import marked
from loligo.reports.common import figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKS = "osD^vP*X"
TITLES = {
    "contamination": "abnormal images in training (%)",
    "sizes": "normal images in training",
    "noise": "noise (severity)",
    "blur": "blur (severity)",
    "contrast": "loss of contrast (severity)",
    "rotation": "rotation (severity)",
    "jpeg": "JPEG (severity)",
    "zoom": "zoom (severity)",
    "shift": "shift (severity)",
    "field": "uneven field (severity)",
    "gamma": "gamma (severity)",
    "sharpen": "sharpening (severity)",
    "resample": "loss of resolution (severity)",
    "collimation": "collimation (severity)",
}


def style(methods: list[str]) -> dict[str, dict[str, Any]]:
    """Return colour and mark of each method: no two alike, for as many as forty."""
    count = len(figures.PHASES)
    return {m: {"color": figures.PHASES[i % count], "marker": MARKS[i // count]} for i, m in enumerate(sorted(methods))}


def pareto(cost: pd.Series[float], auc: pd.Series[float]) -> list[int]:
    """Return the positions of the points that no other beats in both, cheapest first."""
    order = np.lexsort((-auc.to_numpy(float), cost.to_numpy(float)))
    best, front = -np.inf, []
    for i in order:
        if auc.iloc[i] > best:
            best = float(auc.iloc[i])
            front.append(int(i))
    return front


@figures.styled
def cost(summary: pd.DataFrame) -> Figure:
    """Draw the AUC against CPU seconds to train and milliseconds to score an image, a row a data set, with fronts."""
    sets, marks = sorted(set(summary["dataset"])), style(list(summary["method"].unique()))
    figure, panels = figures.panels(2 * len(sets), 2, 4.6, 3.4)
    for i, name in enumerate(sets):
        rows = summary[summary["dataset"] == name].reset_index(drop=True)
        prices = rows["train_cpu_seconds"].clip(lower=0.01), 1000 / rows["score_images_per_s"]
        for axes, price, title in zip(panels[2 * i :], prices, ("training (s of CPU)", "scoring an image (ms)")):  # noqa: B905
            _fronted(axes, price, rows, marks)
            axes.set(title=name, xlabel=title, ylabel="AUC (clean)")
            _logarithmic(axes)
    figure.legend(*_named(marks), loc="outside upper center", ncols=5)
    return figure


def _fronted(axes: Axes, price: pd.Series[float], rows: pd.DataFrame, marks: Mapping[str, dict[str, Any]]) -> None:
    spans = [(rows["auc"] - rows["auc_low"]).clip(lower=0), (rows["auc_high"] - rows["auc"]).clip(lower=0)]
    for i, method in enumerate(rows["method"]):
        span = [[spans[0][i]], [spans[1][i]]]
        axes.errorbar([price[i]], [rows["auc"][i]], span, linestyle="", markersize=7, **marks[method])
    front = pareto(price, rows["auc"])
    x, y = [*price.iloc[front], price.max()], [*rows["auc"].iloc[front], rows["auc"].iloc[front[-1]]]
    axes.step(x, y, where="post", color="#777777", linestyle="--", zorder=0)


def _named(marks: Mapping[str, dict[str, Any]]) -> tuple[list[Any], list[str]]:
    """Return handles and labels of a legend of methods."""
    from matplotlib.lines import Line2D

    return [Line2D([], [], linestyle="", markersize=7, **mark) for mark in marks.values()], [
        marked(name) for name in marks
    ]


def _logarithmic(axes: Axes) -> None:
    """Scale the horizontal axis by logarithms, with plain numbers at 1, 2, 5, 10 and so on."""
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 200 * low else (1.0,)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))


@figures.styled
def critical_difference(ranks: Mapping[str, float], critical: float) -> Figure:
    """Draw average ranks, best on the left; bars join methods that are closer than the critical difference."""
    names, places = list(ranks), list(ranks.values())
    groups, count = cliques(places, critical), len(names)
    depth, margin, half = 0.5 + 0.28 * len(groups), 0.5 * (count - 1), (count + 1) // 2
    bottom, top = depth + 0.5 * (half - 1) + 0.4, -1.9
    figure, (axes,) = figures.panels(1, 1, 8.4, 0.42 * (bottom - top) + 0.3)
    for i, (name, place) in enumerate(ranks.items()):
        left = i < half
        row, end = depth + 0.5 * (i if left else count - 1 - i), 1 - 0.1 * margin if left else count + 0.1 * margin
        axes.plot([place, place, end], [0, row, row], color="#1a1a1a", linewidth=0.9)
        axes.text(end, row, f" {marked(name)} ({place:.2f}) ", ha="right" if left else "left", va="center")
    for i, (first, last) in enumerate(groups):
        axes.plot([places[first], places[last]], [0.35 + 0.28 * i] * 2, color="#D55E00", linewidth=4)
    axes.plot([1, min(1 + critical, count + margin)], [-1, -1], color="#1a1a1a", linewidth=2)
    axes.text(1, -1.2, f"critical difference {critical:.2f}", va="bottom")
    axes.plot([1, count], [0, 0], color="#1a1a1a", linewidth=0.9)
    for tick in range(1, count + 1):
        axes.plot([tick, tick], [0, -0.1], color="#1a1a1a", linewidth=0.9)
        axes.text(tick, -0.15, str(tick), ha="center", va="bottom")
    axes.set(xlim=(1 - margin, count + margin), ylim=(bottom, top))
    axes.set_axis_off()
    return figure


def cliques(places: list[float], critical: float) -> list[tuple[int, int]]:
    """Return (first, last) of each largest group of sorted ranks that span no more than the critical difference."""
    spans = [(i, max(j for j, q in enumerate(places) if q - p <= critical)) for i, p in enumerate(places)]
    return [(i, j) for i, j in spans if j > i and not any(a < i and j <= b for a, b in spans)]


@figures.styled
def false_alarms(table: pd.DataFrame) -> Figure:
    """Draw the observed against the nominal false-alarm rate, a panel a data set, with the span that chance allows."""
    from matplotlib.ticker import FixedLocator, StrMethodFormatter

    sets, marks = sorted(set(table["dataset"])), style(list(table["method"].unique()))
    figure, panels = figures.panels(len(sets), min(2, len(sets)), 4.6, 4.0)
    for axes, name in zip(panels, sets, strict=True):
        rows = table[table["dataset"] == name]
        band = rows.groupby("nominal")[["low", "high"]].agg({"low": "min", "high": "max"})
        axes.fill_between(100 * band.index, 100 * band["low"], 100 * band["high"], color="#555555", alpha=0.15)
        axes.plot(100 * band.index, 100 * band.index, color="#777777", linestyle=":")
        for method, part in rows.groupby("method"):
            means = part.groupby("nominal")["observed"].mean()
            axes.plot(100 * means.index, 100 * means, **marks[str(method)])
        axes.set(title=name, xlabel="nominal false-alarm rate (%)", ylabel="test normals flagged (%)")
        _logarithmic(axes)
        axes.set_yscale("symlog", linthresh=1)  # none flagged is on it, too
        axes.yaxis.set_major_locator(FixedLocator([0, 1, 2, 5, 10, 20, 50, 100]))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.set_ylim(0)
    figure.legend(*_named(marks), loc="outside upper center", ncols=5)
    return figure


@figures.styled
def robustness(table: pd.DataFrame, curves: list[str], quantity: str, title: str) -> Figure:
    """Draw a quantity along each of ``curves``, at most six a row, set after set: a line a method, its seeds' mean.

    A band about an AUC is the 95 % interval over the test's cases, in the mean of the seeds, where it is known: not of
    corrupted images.
    """
    sets, marks = sorted(set(table["dataset"])), style(list(table["method"].unique()))
    columns = min(len(curves), 6)
    figure, panels = figures.panels(len(sets) * len(curves), columns, 2.4 if len(curves) > 1 else 5.0, 2.6)
    low, high = table["auc_low" if quantity == "auc" else quantity].min(), table[quantity].max()
    span = (min(0.45, low - 0.02), 1.01) if quantity == "auc" else (-0.01, max(0.2, 1.05 * high))
    for axes, (name, curve) in zip(panels, ((s, c) for s in sets for c in curves), strict=True):
        rows = table[(table["dataset"] == name) & (table["curve"] == curve)]
        for method, part in rows.groupby("method"):
            means = part.groupby("level")[quantity].mean()
            x = 100 * means.index if curve == "contamination" else means.index
            axes.plot(x, means, markersize=4, **marks[str(method)])
            if quantity == "auc":
                band = part.groupby("level")[["auc_low", "auc_high"]].mean()
                colour = marks[str(method)]["color"]
                axes.fill_between(x, band["auc_low"], band["auc_high"], color=colour, alpha=0.15, linewidth=0)
        axes.set(title=name, xlabel=TITLES[curve], ylabel="" if curves.index(curve) % columns else title, ylim=span)
        if curve == "sizes":
            _logarithmic(axes)
    figure.legend(*_named(marks), loc="outside upper center", ncols=5)
    return figure
