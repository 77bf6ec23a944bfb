"""Write the report of a run folder as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from loligo.files import replacing
from loligo.report import embedding as embeddings
from loligo.report import evidence as evidences
from loligo.report import figures, gallery, pictures, words
from loligo.report.embedding import Embedding
from loligo.report.evidence import Evidence

TOP = 10
"""Rows of the table of the most abnormal images."""


def write(folder: Path, out: Path | None = None, embedding: Embedding | None = None) -> Path:
    """Write the report of a run folder to ``out``, or to report.html in the folder; return where it is.

    Only scores.csv must be there; a section whose file is missing says what makes it, and an image that
    cannot be read says so in its place. Raises ValueError, naming the file, where scores.csv is missing or a
    file is not what it should be, and OSError where ``out`` cannot be written.
    """
    out = out or folder / "report.html"
    page = render(evidences.read(folder), embedding)
    with replacing(out) as new:
        new.write_text(page, encoding="utf-8")
    return out


def render(evidence: Evidence, embedding: Embedding | None = None) -> str:
    """Return the report as HTML; every value is escaped."""
    import jinja2

    from loligo import __version__

    loader = jinja2.PackageLoader("loligo", "report")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    scale = gallery.heat_scale(evidence)
    return environment.get_template("page.html.j2").render(
        evidence=evidence,
        version=(evidence.config or {}).get("loligo", __version__),
        words=words,
        figures=_figures(evidence, embedding),
        top=[] if evidence.scores["label"].notna().any() else _top(evidence),
        groups=gallery.groups(evidence, scale or 1.0),
        scale=scale,
        calibrated=bool((evidence.calibration or {}).get("map_scale")),
        colour_bar=pictures.colour_bar(),
        rejected=_rejected(evidence),
    )


def _figures(evidence: Evidence, embedding: Embedding | None) -> dict[str, Markup | None]:
    """Draw the charts for which there is something to draw."""
    history = evidence.history
    return {
        "roc": _roc(evidence),
        "histogram": _histogram(evidence),
        "losses": figures.losses(history) if history is not None and figures.losses_in(history) else None,
        "embedding": embeddings.draw(embedding) if embedding else None,
    }


def _roc(evidence: Evidence) -> Markup | None:
    rows = evidence.scores[evidence.scores["label"].notna()]
    if rows["label"].nunique() < 2:
        return None
    known = (rows["patient"] != "").all()
    groups = pd.factorize(rows["patient"])[0] if known else np.arange(len(rows))
    clean = (evidence.metrics or {}).get("clean", {})
    legend = f"AUC {words.auc(clean)}" if "auc" in clean else f"{len(rows)} images"
    return figures.roc(rows["label"].to_numpy(), rows["score"].to_numpy(), groups, legend)


def _histogram(evidence: Evidence) -> Markup:
    groups = {kind: evidence.with_label(label)["score"].to_numpy() for label, kind in words.KINDS.items()}
    calibration: dict[str, Any] = evidence.calibration or {}
    groups["calibration normals"] = np.asarray(calibration.get("scores", []), dtype=float)
    return figures.histogram({kind: x for kind, x in groups.items() if len(x)}, calibration.get("threshold"))


def _top(evidence: Evidence) -> words.Rows:
    """Return (name, row of scores.csv, anomaly score, p-value, flagged) of the most abnormal images."""
    rows = evidence.scores.sort_values("score", ascending=False, kind="stable").head(TOP)
    return [
        (
            Path(row["path"]).name,
            str(words.row_number(row)),
            words.number(float(row["anomaly_score"])),
            words.p_value(float(row["p_value"])),
            "yes" if row["flag"] == 1 else "no",
        )
        for _, row in rows.iterrows()
    ]


def _rejected(evidence: Evidence) -> words.Rows | None:
    """Return (name, reason) without folders, whose names may tell of a patient."""
    if evidence.rejected is None:
        return None
    pairs = zip(evidence.rejected["path"], evidence.rejected["reason"], strict=True)
    return [(Path(path).name, reason.replace(path, Path(path).name)) for path, reason in pairs]
