"""Write sheets: a page on each image or volume, HTML or PDF, that a reader understands without us."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loligo.files import replacing
from loligo.io.overlay import MEANING, REGIONS
from loligo.reports.common import pages, pictures, text
from loligo.reports.sheet import pictures as sheet_pictures
from loligo.reports.sheet import plain, volume
from loligo.reports.sheet.case import Case
from loligo.reports.sheet.pictures import SMALL, Print, large, printed
from loligo.types import Image

FORMATS = (".pdf", ".html")
NAME, SHORT = 110, 44
"""Characters of a file's name that stand in the title and under a small picture."""
SIZES = (1.0, 1.02, 1.04, 1.06, 1.08, 1.1, 1.13, 1.17, 1.21, 1.3, 1.45, 1.7)
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


def write(cases: Iterable[Case], out: Path) -> Path:
    """Write the sheets of images to ``out``, .pdf (A4, a page each) or .html, which needs no other file; return it.

    Raises ValueError for what `check` refuses and for no case at all, and OSError where ``out`` cannot be written.
    """
    check(out)
    every = (_facts(case) for case in cases)
    content = _pdf(every, out) if out.suffix.lower() == ".pdf" else render(list(every)).encode()
    with replacing(out) as new:
        new.write_bytes(content)
    return out


def pdf(case: Case) -> bytes:
    """Return the sheet of one image as PDF; raises ValueError where the library that prints it is missing."""
    return _page(_facts(case), Path("sheet.pdf"))


def render(sheets: list[dict[str, Any]], paper: tuple[float, float] = A4, pinned: bool = False) -> str:
    """Return sheets as HTML for paper of (width, height) in mm; every value is escaped.

    Where ``pinned``, the notice at the end stands in the margin of the paper, which not every browser can print.
    """
    from loligo import __version__

    shared = {"version": __version__, "text": text, "plain": plain, "meaning": MEANING}
    return pages.render("sheet/page.html.j2", sheets=sheets, paper=paper, pinned=pinned, **shared)


def _pdf(every: Iterable[dict[str, Any]], out: Path) -> bytes:
    """Return the sheets as one PDF."""
    found = [_page(facts, out) for facts in every]
    if len(found) == 1:
        return found[0]
    from pypdf import PdfWriter

    joined, content = PdfWriter(), io.BytesIO()
    for page in found:
        joined.append(io.BytesIO(page))
    joined.add_metadata({"/Title": f"{len(found)} anomaly sheets"})
    joined.write(content)
    return content.getvalue()


def _page(facts: dict[str, Any], out: Path) -> bytes:
    """Return a sheet as PDF of one page; where it is too long for A4, it is scaled down."""
    weasyprint = _weasyprint(out)
    from weasyprint.urls import URLFetcher

    fetcher = URLFetcher(allowed_protocols={"data"})
    for size in SIZES:
        page = render([facts], (size * A4[0], size * A4[1]), pinned=True)
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
    logging.getLogger("weasyprint").setLevel(logging.ERROR)  # it warns of each style that is for screens
    return weasyprint


def _facts(case: Case) -> dict[str, Any]:
    """Return what the template shows of a case."""
    shared = {
        "case": case,
        "name": text.shorten(case.name, NAME),
        "size": " × ".join(map(str, _size(case))),
        "chart": sheet_pictures.chart(case.calibration, case.score, case.noun),
        "colour_bar": pictures.colour_bar(),
        "where": plain.where(case),
        "suggestions": plain.suggestions(case),
    }
    return shared | (_of_image(case, case.image) if isinstance(case.image, Image) else _of_volume(case))


def _size(case: Case) -> tuple[int, ...]:
    return case.image.pixels.shape[:0:-1] if isinstance(case.image, Image) else case.image.shape


def _of_image(case: Case, image: Image) -> dict[str, Any]:
    """Return the pictures of an image and the table of its regions."""
    shape = image.pixels.shape[1:]
    shown = case.hot.regions[:REGIONS] if case.hot else ()
    heat = None
    if case.heat is not None and case.hot:
        alt = f"heat map over the image, {len(shown)} regions outlined, its hottest place marked"
        heat = sheet_pictures.heated(image.pixels, case.heat, case.hot, alt)
    return {
        "stacked": large(shape) == sheet_pictures.WHOLE,
        "image": printed(image.pixels, "the image", large(shape), shape),
        "heat": heat,
        "rows": [plain.region_row(region, image) for region in shown],
        "more": len(case.hot.regions) - len(shown) if case.hot else 0,
        "normals": _normals(case),
    }


def _of_volume(case: Case) -> dict[str, Any]:
    """Return the planes of a volume, bare and with heat, and the table of its hot places."""
    shown = volume.shown(case)
    spots = [] if case.heat is None else volume.spots(case.heat, case.image.spacing)  # type: ignore[arg-type]
    longest = max(max(plane.grey.shape) for plane in shown)
    planes = [(p.title, sheet_pictures.plane(p.bare, p.title, longest)) for p in shown]
    heated = [(p.title, sheet_pictures.plane(p.marked, f"heat over {p.title}", longest)) for p in shown]
    return {
        "planes": planes,
        "heat": heated if case.heat is not None else None,
        "rows": [volume.row(spot) for spot in spots[:REGIONS]],
        "more": max(0, len(spots) - REGIONS),
        "normals": [],
    }


def _normals(case: Case) -> list[Normal]:
    """Return what the image is compared with: its reconstruction, and the nearest normal images."""
    found = []
    if case.reconstruction is not None:
        picture = printed(case.reconstruction[None], "reconstruction by the method", SMALL, case.reconstruction.shape)
        found.append(Normal("Reconstruction: the normal image that the method expects here", "", picture))
    for i, image in enumerate(case.normals, 1):
        name = image.source.name if image.source else ""
        picture = printed(image.pixels, f"normal training image {name}", SMALL, image.pixels.shape[1:])
        found.append(Normal(f"Normal image {i}", text.shorten(name, SHORT), picture))
    return found
