"""Draw the charts of a run's scores and of its training."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from loligo.evaluation import metrics
from loligo.evaluation.protocols import patients
from loligo.reports.common.figures import COLOURS, PHASES, Floats, panels, styled
from loligo.reports.run import words
from loligo.reports.run.evidence import Evidence

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BINS = 25
NOT_LOSSES = ("epoch", "phase", "seconds", "cpu_seconds", "images_per_s")
"""Columns of history.csv that hold no loss."""


def scores(evidence: Evidence) -> dict[str, Figure | None]:
    """Draw the charts of a run's scores by name; the ROC curve is None without labels of both kinds."""
    known, rows = evidence.calibration, evidence.scores
    labelled = rows[rows["label"].notna()]
    groups = {kind: evidence.with_label(label)["score"].to_numpy() for label, kind in words.KINDS.items()}
    groups["calibration normals"] = np.empty(0) if known is None else known.scores
    kinds = rows["label"].map({0: "normal", 1: "abnormal"}).fillna("unlabelled").to_numpy()
    threshold = known.threshold if known else None
    level = float(known.anomaly_score(known.threshold)) if known else None
    return {
        "roc": _roc(labelled, (evidence.metrics or {}).get("clean", {})) if labelled["label"].nunique() == 2 else None,
        "histogram": histogram({kind: x for kind, x in groups.items() if len(x)}, threshold),
        "scores": strip(rows["anomaly_score"].to_numpy(), kinds, level),
    }


def _roc(rows: pd.DataFrame, clean: Mapping[str, Any]) -> Figure:
    owners = patients(rows)
    groups = np.arange(len(rows)) if owners is None else pd.factorize(owners)[0]
    legend = f"AUC {words.auc(clean)}" if "auc" in clean else f"{len(rows)} images"
    return roc(rows["label"].to_numpy(float), rows["score"].to_numpy(), groups, legend)


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
    axes.plot((0, 1), (0, 1), color="#777777", linestyle=":", label="chance")
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
    """Draw raw scores of each group in percent of it; what lies farther out than the bulk stands in the outer bars."""
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
    axes.set(xlabel="raw score (higher is more abnormal)", ylabel="images of the group (%)")
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
