"""Style the charts of all pages (colours of Okabe & Ito, for the colour-blind too); write them as SVG and as files."""

from __future__ import annotations

import functools
import io
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from loligo.files import replacing

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
