"""Pages that need nothing else, no network and no other file: a run's report, an image's sheet, a benchmark's page.

`write` writes the report.
"""

from __future__ import annotations

from loligo.reports.run.embedding import Embedding
from loligo.reports.run.html import write
from loligo.reports.run.insight import Example, Insight

__all__ = ["Embedding", "Example", "Insight", "write"]
