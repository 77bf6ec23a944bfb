"""Index known data sets as manifests: one module a source, one line here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from loligo.data.sources import chexpert, covidx, dicom, folder, mood, zhanglab
from loligo.names import nearest

SOURCES: dict[str, Callable[[Path], pd.DataFrame]] = {
    "folder": folder.index,
    "dicom": dicom.index,
    "zhanglab": zhanglab.index,
    "chexpert": chexpert.index,
    "covidx": covidx.index,
    "mood": mood.index,
}
"""Each source's ``index``; call that function itself to set the options of its own."""


def index(source: str, root: Path) -> pd.DataFrame:
    """List the images of a known ``source`` below ``root`` as a checked manifest, with the source's defaults.

    Raises ``ValueError`` for an unknown source, ``FileNotFoundError`` where ``root`` is laid out otherwise.
    """
    if source not in SOURCES:
        raise ValueError(f"source {source!r} is not one of {', '.join(SOURCES)}; {nearest(source, SOURCES)}")
    return SOURCES[source](root)
