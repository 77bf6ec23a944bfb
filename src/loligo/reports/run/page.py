"""Write the report of a run folder as one HTML file."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from loligo.calibration import Calibration
from loligo.files import write_csv, write_text
from loligo.io.overlay import MEANING
from loligo.reports.common import figures, pages, pictures, text
from loligo.reports.run import charts, gallery, generators, words
from loligo.reports.run import embedding as embeddings
from loligo.reports.run import evidence as evidences
from loligo.reports.run.evidence import Evidence
from loligo.reports.run.insight import Insight
from loligo.runs.scores import ScoreFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)


def write(folder: ScoreFolder, out: Path | None = None, insight: Insight | None = None) -> Path:
    """Write the report of a scoring to ``out``, or to report.html in the folder; return where it is.

    Every chart of it is written to ``figures/`` of the folder too, as PNG, and the errors of the generators as
    ``generators.csv`` there. Only scores.csv must be there; a section whose file is missing says what makes it, and an
    image that cannot be read says so in its place. Raises ValueError, naming the file, where scores.csv is missing or a
    file is not what it should be, and OSError where ``out`` cannot be written. Images that have moved away since they
    were scored are counted in a warning.
    """
    evidence = evidences.read(folder)
    out, drawn = out or evidence.folder.report, draw(evidence, insight)
    if evidence.gone:
        log.warning("%s: the report does without their pictures", words.gone_files(evidence))
    write_text(render(evidence, drawn, out, insight), out)
    figures.save(drawn, evidence.folder.figures)
    measured = evidence.folder.figures / "generators.csv"
    if insight:
        write_csv(insight.summary(), measured)
    else:
        measured.unlink(missing_ok=True)
    return out


def render(evidence: Evidence, drawn: Mapping[str, Figure | None], out: Path, insight: Insight | None = None) -> str:
    """Return the report with the charts of `draw` as HTML that is to lie at ``out``; every value is escaped."""
    from loligo import __version__

    colours = gallery.colours(evidence)
    return pages.render(
        "run/page.html.j2",
        evidence=evidence,
        version=(evidence.config or {}).get("loligo", __version__),
        words=words,
        text=text,
        figures={name: figure and figures.inline(figure) for name, figure in drawn.items()},
        insight=insight,
        groups=gallery.groups(evidence, colours or Calibration.fit([0.0]), out.absolute()),
        colours=colours,
        colour_bar=pictures.colour_bar(),
        meaning=MEANING,
        rejected=words.rejected_rows(evidence),
    )


def draw(evidence: Evidence, insight: Insight | None = None) -> dict[str, Figure | None]:
    """Draw the charts by name; None where there is nothing to draw."""
    history, examples = evidence.history, insight.examples if insight else ()
    reconstructed = all(len(example.images) > 1 for example in examples)
    patched = all(example.features is not None and example.inpainted is not None for example in examples)
    return {
        **charts.scores(evidence),
        "losses": charts.losses(history) if history is not None and charts.losses_in(history) else None,
        "reconstructions": generators.reconstructions(examples) if examples and reconstructed else None,
        "patches": generators.patches(examples) if examples and reconstructed and patched else None,
        "embedding": embeddings.draw(insight.embedding) if insight and insight.embedding else None,
    }
