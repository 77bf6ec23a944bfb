"""Write the report of a run folder as one HTML file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from loligo.calibration import Calibration
from loligo.evaluation.protocols import patients
from loligo.files import write_csv, write_text
from loligo.reports.common import figures, pages, pictures, words
from loligo.reports.run import embedding as embeddings
from loligo.reports.run import evidence as evidences
from loligo.reports.run import gallery, generators
from loligo.reports.run.evidence import Evidence
from loligo.reports.run.insight import Insight

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TOP = 10
"""Rows of the table of the most abnormal images."""


def write(folder: Path, out: Path | None = None, insight: Insight | None = None) -> Path:
    """Write the report of a run folder to ``out``, or to report.html in the folder; return where it is.

    Every chart of it is written to ``figures/`` of the folder too, as PNG, and the errors of the generators as
    ``generators.csv`` there. Only scores.csv must be there; a section whose file is missing says what makes it, and an
    image that cannot be read says so in its place. Raises ValueError, naming the file, where scores.csv is missing or a
    file is not what it should be, and OSError where ``out`` cannot be written.
    """
    out, evidence = out or folder / "report.html", evidences.read(folder)
    drawn = draw(evidence, insight)
    page = render(evidence, drawn, insight)
    write_text(page, out)
    figures.save(drawn, folder / "figures")
    measured = folder / "figures" / "generators.csv"
    if insight:
        write_csv(insight.summary(), measured)
    else:
        measured.unlink(missing_ok=True)
    return out


def render(evidence: Evidence, drawn: Mapping[str, Figure | None], insight: Insight | None = None) -> str:
    """Return the report with the charts of `draw` as HTML; every value is escaped."""
    from loligo import __version__

    scale = gallery.heat_scale(evidence)
    return pages.render(
        "page.html.j2",
        evidence=evidence,
        version=(evidence.config or {}).get("loligo", __version__),
        words=words,
        figures={name: figure and figures.inline(figure) for name, figure in drawn.items()},
        insight=insight,
        top=[] if evidence.scores["label"].notna().any() else _top(evidence),
        groups=gallery.groups(evidence, scale or 1.0),
        scale=scale,
        calibrated=bool((evidence.calibration or {}).get("map_scale")),
        colour_bar=pictures.colour_bar(),
        rejected=_rejected(evidence),
    )


def draw(evidence: Evidence, insight: Insight | None = None) -> dict[str, Figure | None]:
    """Draw the charts by name; None where there is nothing to draw."""
    history, examples = evidence.history, insight.examples if insight else ()
    rebuilt = all(len(example.images) > 1 for example in examples)
    patched = all(example.features is not None and example.inpainted is not None for example in examples)
    return {
        "roc": _roc(evidence),
        "histogram": _histogram(evidence),
        "scores": _strip(evidence),
        "losses": figures.losses(history) if history is not None and figures.losses_in(history) else None,
        "reconstructions": generators.reconstructions(examples) if examples and rebuilt else None,
        "patches": generators.patches(examples) if examples and rebuilt and patched else None,
        "embedding": embeddings.draw(insight.embedding) if insight and insight.embedding else None,
    }


def _roc(evidence: Evidence) -> Figure | None:
    rows = evidence.scores[evidence.scores["label"].notna()]
    if rows["label"].nunique() < 2:
        return None
    owners = patients(rows)
    groups = np.arange(len(rows)) if owners is None else pd.factorize(owners)[0]
    clean = (evidence.metrics or {}).get("clean", {})
    legend = f"AUC {words.auc(clean)}" if "auc" in clean else f"{len(rows)} images"
    return figures.roc(rows["label"].to_numpy(), rows["score"].to_numpy(), groups, legend)


def _histogram(evidence: Evidence) -> Figure:
    groups = {kind: evidence.with_label(label)["score"].to_numpy() for label, kind in words.KINDS.items()}
    calibration: dict[str, Any] = evidence.calibration or {}
    groups["calibration normals"] = np.asarray(calibration.get("scores", []), dtype=float)
    return figures.histogram({kind: x for kind, x in groups.items() if len(x)}, calibration.get("threshold"))


def _strip(evidence: Evidence) -> Figure:
    known: dict[str, Any] = evidence.calibration or {}
    kinds = evidence.scores["label"].map({0.0: "normal", 1.0: "abnormal"}).fillna("unlabelled").to_numpy()
    threshold = None
    if known.get("scores") and "threshold" in known:
        normals = Calibration(np.sort(np.asarray(known["scores"], dtype=float)), float(known["false_alarm_rate"]))
        threshold = float(normals.anomaly_score(known["threshold"]))
    return figures.strip(evidence.scores["anomaly_score"].to_numpy(), kinds, threshold)


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
    """Return (name, reason, during) without folders, whose names may tell of a patient."""
    if evidence.rejected is None:
        return None
    rows = evidence.rejected[["path", "reason", "during"]].itertuples(index=False)
    return [(Path(path).name, reason.replace(path, Path(path).name), during) for path, reason, during in rows]
