"""Write the sheet of one image: one page, HTML or PDF, that a reader understands without us."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loligo.files import replacing
from loligo.reports.common import pages, pictures, text
from loligo.reports.sheet import pictures as sheet_pictures
from loligo.reports.sheet import plain
from loligo.reports.sheet.case import Case
from loligo.reports.sheet.pictures import LARGE, SMALL, Print, badges, printed
from loligo.types import Image

FORMATS = (".pdf", ".html")
REGIONS = 5
"""Regions that are outlined; the others are counted."""
NAME, SHORT = 110, 44
"""Characters of a file's name that stand in the title and under a small picture."""
SIZES = (1.0, 1.03, 1.06, 1.1, 1.15, 1.2, 1.3, 1.45)
"""Paper tried in turn, in multiples of A4: the first that takes the whole page is then shrunk to A4."""
A4 = (210, 297)
"""Width and height in mm."""
NO_PDF = (
    "a PDF sheet needs WeasyPrint and the library Pango that it prints text with ({reason}): pip install weasyprint,"
    " and where Pango is missing install it too (Debian: apt install libpango-1.0-0 libpangoft2-1.0-0"
    " libharfbuzz-subset0); or write the same page without them: -o {html}"
)


@dataclass(frozen=True)
class Normal:
    """A small picture below the facts, with its words."""

    title: str
    name: str
    """The file's own name; empty where it is no file."""
    picture: Print


def check(out: Path) -> None:
    """Raise ValueError where a sheet cannot be written as ``out``: a suffix of no format, PDF without its library."""
    if out.suffix.lower() not in FORMATS:
        raise ValueError(f"{out}: a sheet ends in {' or '.join(FORMATS)}, not {out.suffix!r}")
    if out.suffix.lower() == ".pdf":
        _weasyprint(out)


def write(case: Case, out: Path) -> Path:
    """Write the sheet of an image to ``out``, .pdf (one page, A4) or .html, which needs no other file; return it.

    Raises ValueError for what `check` refuses, and OSError where ``out`` cannot be written.
    """
    check(out)
    facts = _facts(case)
    content = _pdf(facts, out) if out.suffix.lower() == ".pdf" else render(facts).encode()
    with replacing(out) as new:
        new.write_bytes(content)
    return out


def render(facts: dict[str, Any], paper: tuple[float, float] = A4, pinned: bool = False) -> str:
    """Return the sheet as HTML for paper of (width, height) in mm; every value is escaped.

    Where ``pinned``, the notice at the end stands in the margin of the paper, which not every browser can print.
    """
    return pages.render("sheet/page.html.j2", **facts, paper=paper, pinned=pinned)


def _pdf(facts: dict[str, Any], out: Path) -> bytes:
    """Return the sheet as PDF of one page; where it is too long for A4, it is scaled down."""
    weasyprint = _weasyprint(out)
    from weasyprint.urls import URLFetcher

    fetcher = URLFetcher(allowed_protocols={"data"})
    for size in SIZES:
        page = render(facts, (size * A4[0], size * A4[1]), pinned=True)
        document = weasyprint.HTML(string=page, url_fetcher=fetcher).render()
        if len(document.pages) == 1:
            content: bytes = document.write_pdf(zoom=1 / size)
            return content
    raise ValueError(f"{out}: the sheet does not fit on one page; write it as {out.with_suffix('.html').name}")


def _weasyprint(out: Path) -> Any:
    """Import the library that prints; ValueError, which says what to install, where it is missing."""
    try:
        with redirect_stdout(io.StringIO()):  # where a library is missing, it prints a page of advice
            import weasyprint
    except (ImportError, OSError) as error:  # OSError: it is there, but a library that it loads is not
        reason = str(error).splitlines()[0]
        raise ValueError(NO_PDF.format(reason=reason, html=out.with_suffix(".html").name)) from error
    return weasyprint


def _facts(case: Case) -> dict[str, Any]:
    """Return what the template shows."""
    from loligo import __version__

    shown = case.regions[:REGIONS]
    return {
        "case": case,
        "name": text.shorten(_name(case.image), NAME),
        "version": __version__,
        "text": text,
        "plain": plain,
        "chart": sheet_pictures.chart(case.calibration, case.score),
        "image": printed(case.image.pixels, "the image", LARGE, case.image.pixels.shape[1:]),
        "heat": _heat(case, shown),
        "colour_bar": pictures.colour_bar(),
        "rows": [plain.region_row(region, case.image.spacing) for region in shown],
        "more": len(case.regions) - len(shown),
        "suggestions": plain.suggestions(case, REGIONS),
        "normals": _normals(case),
    }


def _heat(case: Case, shown: list[Any]) -> dict[str, Any] | None:
    """Return the picture of the heat map and where its numbers stand, in mm; None without a map."""
    if case.map is None:
        return None
    alt = f"heat map over the image, {len(shown)} regions outlined"
    picture = sheet_pictures.outlined(case.image.pixels, case.map, case.calibration.map_scale, shown, alt)
    return {"picture": picture, "badges": badges(shown, (picture.width, picture.height))}


def _normals(case: Case) -> list[Normal]:
    """Return what the image is compared with: its reconstruction, and the nearest normal images."""
    found = []
    if case.reconstruction is not None:
        shape = case.image.pixels.shape[1:]
        picture = printed(case.reconstruction[None], "reconstruction by the method", SMALL, shape)
        found.append(Normal("Reconstruction: the normal image that the method expects here", "", picture))
    for i, image in enumerate(case.normals, 1):
        picture = printed(image.pixels, f"normal training image {_name(image)}", SMALL, image.pixels.shape[1:])
        found.append(Normal(f"Normal image {i}", text.shorten(_name(image), SHORT), picture))
    return found


def _name(image: Image) -> str:
    """Return the name of an image's file, without its folders."""
    return image.source.name if image.source else "image without a file name"
