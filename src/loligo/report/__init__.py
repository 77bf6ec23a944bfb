"""Pages that need nothing else, no network and no other file: a run's report, an image's sheet, a benchmark's page.

`write` writes the report.
"""

from __future__ import annotations

from loligo.report.embedding import Embedding
from loligo.report.html import write
from loligo.report.insight import Example, Insight

__all__ = ["Embedding", "Example", "Insight", "write"]
