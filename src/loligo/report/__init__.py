"""Write what a run found as one HTML file that needs nothing else: no network, no script, no other file."""

from __future__ import annotations

from loligo.report.embedding import Embedding
from loligo.report.html import write
from loligo.report.insight import Example, Insight

__all__ = ["Embedding", "Example", "Insight", "write"]
