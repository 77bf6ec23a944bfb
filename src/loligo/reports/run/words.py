"""Say what a run found in sentences and tables of text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from loligo.data.checks import WARNINGS
from loligo.evaluation.metrics import against_guessing
from loligo.reports.common.text import duration, number, percent, shorten
from loligo.reports.run.evidence import Evidence

Rows = list[tuple[str, ...]]

KINDS = {1: "abnormal", 0: "normal", None: "unlabelled"}
MEANINGS = {
    "clean": "The headline. No labelled image is used by this run: none to train, none to choose an epoch, and "
    "the threshold comes from held-out normal images.",
    "paper": "Only to compare with published tables. Labelled validation images pick the epoch, and the "
    "threshold is the one that is best on the test labels themselves, so these numbers are optimistic.",
}
METRICS = {
    "auc": "AUC (95 % interval)",
    "ap": "Average precision",
    "accuracy": "Accuracy",
    "f1": "F1",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "threshold": "Threshold (raw score)",
    "epoch": "Epoch",
    "n_normal": "Normal images",
    "n_abnormal": "Abnormal images",
}
PIXEL = {"auroc": "Pixel AUC", "ap": "Pixel average precision", "best_dice": "Best Dice", "images": "Images"}
COST = {
    "train_seconds": "training time",
    "train_cpu_seconds": "training time, of processors",
    "images_per_s": "images per second in training",
    "peak_memory_bytes": "peak memory",
}


def headline(evidence: Evidence) -> list[str]:
    """Return the result in plain sentences: who is flagged, at what rate, and how well images are ranked."""
    noun = evidence.noun
    counts = [_flagged(evidence.with_label(label), kind, noun) for label, kind in KINDS.items()]
    if not evidence.labelled:
        counts = [_flagged(evidence.scores, "", noun)]
    rate = evidence.calibration.false_alarm_rate if evidence.calibration else None
    at = "" if rate is None else f", at a false-alarm rate set to {percent(rate)} on held-out normal {noun}"
    said = [f"{evidence.method or 'The method'} flags {' and '.join(filter(None, counts))}{at}."]
    if rate is not None and not evidence.labelled:
        chance = f"about {rate * len(evidence.scores):.0f} would be flagged by chance"
        said.append(f"If all were normal and like those held out, {chance}.")
    if evidence.calibration:
        said.append(f"The threshold {evidence.calibration.told}.")
    clean = (evidence.metrics or {}).get("clean", {})
    if "auc" in clean:
        said.append(
            f"One that is abnormal scores above a normal one in {percent(clean['auc'])} of all pairs "
            f"(AUC {auc(clean, '95 % interval ')}, clean protocol)."
        )
        said += filter(None, [against_guessing(clean["auc_low"], clean["auc_high"])])
    return said


def warnings(evidence: Evidence) -> list[str]:
    """Say what a reader must know before the pictures."""
    if not evidence.gone:
        return []
    return [f"{gone_files(evidence)}: their pictures are missing below. Put them back and write the report again."]


def gone_files(evidence: Evidence) -> str:
    """Count the files that have moved away since they were scored."""
    return f"{evidence.gone} of {len(evidence.scores)} {evidence.noun} are no longer where they were scored"


def _flagged(rows: pd.DataFrame, kind: str, noun: str) -> str:
    """Count the flagged rows of a kind; empty where there are none of it."""
    count = int((rows["flag"] == 1).sum())
    what = f"{kind} {noun}".strip()
    return f"{count} of {len(rows)} {what} ({percent(count / len(rows))})" if len(rows) else ""


def label(row: pd.Series[Any], most: int = 40) -> str:
    """Write the label of an image, with the kind of an abnormal one."""
    known = None if pd.isna(row["label"]) else int(row["label"])
    return f"{KINDS[known]} ({shorten(row['kind'], most)})" if row["kind"] and known == 1 else KINDS[known]


def standing(evidence: Evidence, row: pd.Series[Any]) -> str:
    """Say how far a score lies from those of held-out normals; where they are missing, its anomaly score."""
    if evidence.calibration is None:
        return f"A {number(float(row['anomaly_score']))}"
    apart = (row["score"] - evidence.calibration.mean) / evidence.calibration.std
    return f"{number(float(abs(apart)))} deviations {'above' if apart >= 0 else 'below'} normals"


def odd(row: pd.Series[Any], noun: str) -> tuple[str, ...]:
    """Return in a sentence each what is odd about the input of a row."""
    names = filter(None, str(row.get("warnings") or "").split("; "))
    return tuple(WARNINGS[name].replace("image", noun[:-1], 1) for name in names if name in WARNINGS)


def row_number(row: pd.Series[Any]) -> int:
    """Return the row of scores.csv that a row of Evidence.scores was, the header being row 1."""
    return int(str(row.name)) + 2


def rejected_rows(evidence: Evidence) -> Rows | None:
    """Return (name, reason) without folders, whose names may identify a patient."""
    if evidence.rejected is None:
        return None
    rows = evidence.rejected[["path", "reason"]].itertuples(index=False)
    return [(Path(path).name, reason.replace(path, Path(path).name)) for path, reason in rows]


def auc(metrics: Mapping[str, Any], what: str = "") -> str:
    """Write an AUC with its 95 % interval, said to be ``what``."""
    value, low, high = (number(metrics.get(key)) for key in ("auc", "auc_low", "auc_high"))
    return f"{value}, {what}{low} to {high}" if what else f"{value} ({low} to {high})"


def metric_rows(metrics: Mapping[str, Any]) -> Rows:
    """Return (name, clean, paper), a row for each metric that either protocol has."""
    sides = [metrics.get(protocol, {}) for protocol in MEANINGS]
    rows = [(name, *(_metric(key, side) for side in sides)) for key, name in METRICS.items()]
    return [row for row in rows if set(row[1:]) != {"–"}]


def _metric(key: str, side: Mapping[str, Any]) -> str:
    return auc(side) if key == "auc" and "auc" in side else number(side.get(key))


def other_rows(metrics: Mapping[str, Any]) -> dict[str, Rows]:
    """Return (name, value) rows of what is measured by pixel and by kind of abnormality, by title."""
    pixel, kinds = metrics.get("pixel") or {}, metrics.get("kinds") or {}
    tables: dict[str, Rows] = {
        "Heat maps against masks": [(PIXEL.get(key, key), number(value)) for key, value in pixel.items()],
        "AUC by kind of abnormality": [(str(kind), number(value)) for kind, value in kinds.items()],
    }
    return {title: rows for title, rows in tables.items() if rows}


def error_rows(summary: pd.DataFrame) -> Rows:
    """Return (group, images, generator, MSE, KL divergence) of an `Insight.summary`."""
    return [
        (str(group), str(images), str(generator), number(float(mse)), number(float(kl)))
        for group, generator, images, mse, kl in summary.itertuples(index=False)
    ]


def similarities(means: Mapping[str, float]) -> str:
    """Say how similar features are before and after in-painting, by group."""
    return ", ".join(f"{group} {mean:.3f}" for group, mean in means.items())


def config_rows(config: Mapping[str, Any]) -> dict[str, Rows]:
    """Return (name, value) rows of the configuration and the cost, by title."""
    parts = {
        "Method": "method_config", "Training": "train", "Preprocessing": "preprocessing", "Data": "data", "Cost": "cost"
    }  # fmt: skip
    tables = {title: _flat(config.get(part) or {}) for title, part in parts.items()}
    return {title: rows for title, rows in tables.items() if rows}


def _flat(values: Mapping[str, Any], prefix: str = "") -> Rows:
    """Write a mapping as (name, value) rows; names of nested ones are joined by dots."""
    rows: Rows = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{key}.")
        else:
            rows.append((prefix + COST.get(key, str(key)), _quantity(str(key), value)))
    return rows


def _quantity(key: str, value: Any) -> str:
    """Write a value in the unit that its key ends in."""
    if key.endswith("_seconds") and isinstance(value, int | float):
        return duration(value)
    if key.endswith("_bytes") and isinstance(value, int | float):
        return f"{value / 2**30:.2f} GiB"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return f"{value:.4g}" if isinstance(value, float) else "–" if value is None else str(value)
