"""Fill the templates of the pages."""

from __future__ import annotations

from typing import Any

from loligo import NOTICE


def render(template: str, **facts: Any) -> str:
    """Return a page as HTML from a template, such as ``run/page.html.j2``, and what it shows.

    Every value is escaped, and none may be missing.
    """
    import jinja2

    loader = jinja2.PackageLoader("loligo.reports", "")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(template).render(facts, notice=NOTICE)
