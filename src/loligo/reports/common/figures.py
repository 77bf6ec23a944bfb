"""Draw the charts of the report, as inline SVG and as files, in colours for the colour-blind too (Okabe & Ito)."""

from __future__ import annotations

import functools
import io
import itertools
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np
import numpy.typing as npt
import pandas as pd
from markupsafe import Markup

from loligo.evaluation import metrics
from loligo.files import replacing
from loligo.reports.run.evidence import NOT_LOSSES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

P = ParamSpec("P")
Floats = npt.NDArray[np.floating[Any]]

COLOURS = {
    "normal": "#0072B2",
    "abnormal": "#D55E00",
    "unlabelled": "#AA4499",
    "calibration normals": "#555555",
}
PHASES = ("#0072B2", "#D55E00", "#009E73", "#AA4499", "#555555")
STYLE = {
    "svg.fonttype": "none",  # text stays text: it can be searched and read aloud
    "svg.hashsalt": "loligo",  # the same figure gives the same bytes
    "font.family": "sans-serif",
    "font.size": 10,
    "text.parse_math": False,  # names of losses are data
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}
BINS = 25


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Have a function draw its figure in the style of the report."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        import matplotlib

        with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
            return draw(*args, **kwargs)

    return drawn


def inline(figure: Figure) -> Markup:
    """Return a figure as SVG for the body of an HTML page."""
    import matplotlib

    stream = io.StringIO()
    with matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
        figure.savefig(stream, format="svg", dpi=200, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = stream.getvalue()
    return Markup(re.sub(r'<g id="[^"]*"', "<g", text[text.index("<svg") :]))  # groups repeat ids between figures


def svg(draw: Callable[P, Figure]) -> Callable[P, Markup]:
    """Have a function that draws a figure return it as SVG, where nothing but the page needs it."""
    draw = styled(draw)

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Markup:
        return inline(draw(*args, **kwargs))

    return drawn


def save(drawn: Mapping[str, Figure | None], folder: Path) -> None:
    """Write each figure as a PNG file of its name; that of a figure which is None goes."""
    import matplotlib

    for name, figure in drawn.items():
        if figure is None:
            (folder / f"{name}.png").unlink(missing_ok=True)
            continue
        with replacing(folder / f"{name}.png") as new, matplotlib.rc_context(STYLE):  # type: ignore[arg-type]
            figure.savefig(new, format="png", dpi=150, metadata={"Software": None})


def panels(count: int, columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """Return a figure with ``count`` axes, so many a row, each of a size in inches."""
    from matplotlib.figure import Figure

    rows = math.ceil(count / columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    return figure, [figure.add_subplot(rows, columns, i + 1) for i in range(count)]


@styled
def roc(labels: Floats, scores: Floats, groups: npt.NDArray[np.int64], legend: str) -> Figure:
    """Draw the ROC curve with the band that holds 95 % of resampled curves at each false-alarm rate.

    ``labels`` (N,) are 0 and 1, both present; ``groups`` (N,) numbers what is resampled together, such as
    a patient.
    """
    grid = np.linspace(0, 1, 201)
    once, *resampled = roc_curves(labels, scores, groups, grid)
    low, high = np.percentile(resampled or [once], (2.5, 97.5), axis=0)
    figure, (axes,) = panels(1, 1, 5.4, 4.4)
    axes.fill_between(grid, low, high, color=COLOURS["normal"], alpha=0.2, linewidth=0, label="95 % band, bootstrap")
    axes.plot(np.r_[0, grid], np.r_[0, once], color=COLOURS["normal"], linewidth=1.8, label=legend)
    axes.plot((0, 1), (0, 1), color="#777777", linestyle=":", label="guessing")
    axes.set(xlabel="normal images flagged (1 − specificity)", ylabel="abnormal images flagged (sensitivity)")
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def roc_curves(labels: Floats, scores: Floats, groups: npt.NDArray[np.int64], grid: Floats) -> list[Floats]:
    """Return sensitivity at each false-alarm rate of ``grid``: of the images, then of each resample."""
    order = np.argsort(-scores, kind="stable")
    y, ends = labels[order] == 1, np.r_[np.diff(scores[order]) != 0, True]
    curves = []
    for weight in itertools.chain([np.ones_like(groups)], metrics.resamples(groups)):
        hits, alarms = (np.cumsum(weight[order] * kind)[ends] for kind in (y, ~y))  # tied scores are one step
        if hits[-1] and alarms[-1]:
            at = np.searchsorted(alarms / alarms[-1], grid, side="right")
            curves.append(np.r_[0, hits / hits[-1]][at])
    return curves


@styled
def histogram(groups: Mapping[str, Floats], threshold: float | None) -> Figure:
    """Draw raw scores of each group as shares of it; what lies farther out than the bulk stands in the outer bars."""
    edges = _edges([*groups.values()], threshold)
    figure, (axes,) = panels(1, 1, 5.4, 4.4)
    for name, scores in groups.items():
        style: dict[str, Any] = {"color": COLOURS[name], "label": f"{name} ({len(scores)})"}
        clipped, weights = scores.clip(edges[0], edges[-1]), np.full(len(scores), 100 / len(scores))
        if not name.startswith("calibration"):
            axes.hist(clipped, edges, weights=weights, alpha=0.35, color=COLOURS[name])
        axes.hist(clipped, edges, weights=weights, histtype="step", linewidth=1.4, **style)
    if threshold is not None:
        axes.axvline(threshold, color="#111111", linestyle="--", label=f"threshold {threshold:.4g}")
    axes.set(xlabel="raw score (higher is more abnormal)", ylabel="share of the group (%)")
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def _edges(groups: list[Floats], threshold: float | None) -> list[float]:
    """Return edges of bars for all but the 1 % farthest out, and what is beyond 5 times a group's middle half.

    A single image far away would else push all others into one bar.
    """
    low, high = np.percentile(np.concatenate(groups), (0.5, 99.5))
    quartiles = np.array([np.percentile(scores, (25, 75)) for scores in groups])
    width = 5 * np.maximum(np.diff(quartiles, axis=1)[:, 0], 1e-12)
    marks = quartiles[:, 0] if threshold is None else np.append(quartiles[:, 0], threshold)
    low = min(max(low, (quartiles[:, 0] - width).min()), marks.min())
    high = max(min(high, (quartiles[:, 1] + width).max()), marks.max())
    if high - low <= 1e-6 * max(abs(low), abs(high), 1e-12):  # one value: floats are too coarse for bars between
        room = max(1e-6, 0.01 * abs(low))
        low, high = low - room, high + room
    return [float(edge) for edge in np.histogram_bin_edges([low, high], BINS)]


@styled
def strip(scores: Floats, kinds: npt.NDArray[Any], threshold: float | None) -> Figure:
    """Draw the anomaly score A of every image, the lowest first, in the colour of its kind; both are (N,)."""
    from matplotlib.ticker import MaxNLocator

    figure, (axes,) = panels(1, 1, 10.8, 3.2)
    order, size = np.argsort(scores, kind="stable"), 14 if len(scores) > 200 else 60
    for kind in (name for name in COLOURS if (kinds == name).any()):
        place = np.flatnonzero(kinds[order] == kind)
        label = f"{kind} ({len(place)})"
        axes.scatter(
            place + 1, scores[order][place], s=size, marker="|", color=COLOURS[kind], label=label, rasterized=True
        )
    if threshold is not None:
        axes.axhline(threshold, color="#111111", linestyle="--", label=f"threshold {threshold:.3g}")
    axes.set(xlabel="image, by rising anomaly score", ylabel="anomaly score A", ylim=(-0.02, 1.02))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    figure.legend(loc="outside upper center", ncols=4)
    return figure


def losses_in(history: pd.DataFrame) -> list[str]:
    """Return the columns of losses that hold at least one finite value."""
    names = [str(name) for name in history if name not in NOT_LOSSES]
    return [name for name in names if np.isfinite(history[name].to_numpy(float)).any()]


@styled
def losses(history: pd.DataFrame) -> Figure:
    """Draw each loss by epoch on its own axes, a colour a phase; log scale where it spans > 2 decades."""
    names, phases = losses_in(history), list(dict.fromkeys(history["phase"]))
    figure, axes_of = panels(len(names), min(3, len(names)), 3.4, 2.4)
    for name, axes in zip(names, axes_of, strict=True):
        known = history[np.isfinite(history[name])]
        for i, phase in enumerate(phases):
            rows = known[known["phase"] == phase]
            style: Any = {"marker": "o" if len(rows) == 1 else "", "color": PHASES[i % len(PHASES)]}
            axes.plot(rows["epoch"], rows[name], label=f"phase {phase}", **style)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("epoch")
        _scale(axes, known[name].to_numpy())
    if len(phases) > 1:
        figure.legend(*axes_of[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(phases))
    return figure


def _scale(axes: Axes, values: Floats) -> None:
    """Choose a log scale where values are positive and span over two decades, and whole epochs."""
    from matplotlib.ticker import MaxNLocator, NullFormatter, StrMethodFormatter

    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    if values.min() > 0 and values.max() / values.min() > 100:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
