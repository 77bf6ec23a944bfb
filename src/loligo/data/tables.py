"""Read a table as people save it: CSV with commas, semicolons or tabs, from Excel or not, and Parquet."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Collection, Iterable
from io import StringIO
from pathlib import Path

import pandas as pd

from loligo import io


def read(path: Path, text: Collection[str]) -> pd.DataFrame:
    """Read a table; the columns ``text`` are found in any case and stay text: 007 is not 7, and NA a name.

    Raises ``ValueError`` for what is no such table, two columns of one name, and a row longer than the header.
    """
    if path.suffix.lower() == ".parquet":
        io.opened(path).close()  # tells what is no regular file
        frame = pd.read_parquet(path)
        return frame.set_axis(_names(frame.columns, text), axis=1)
    head, *rows = _rows(_decoded(path))
    names, stream = _names(head, text), StringIO()
    csv.writer(stream).writerows(rows)
    stream.seek(0)
    types = dict.fromkeys(text, str)
    return pd.read_csv(stream, names=names, index_col=False, dtype=types, keep_default_na=False, na_values=[""])


def _decoded(path: Path) -> str:
    """Return the text of a file in UTF-8, or in UTF-16 where it says so, as Excel does."""
    with io.opened(path) as stream:
        content = stream.read()
    coding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        return content.decode(coding)
    except UnicodeDecodeError as error:
        raise ValueError("it is no text in UTF-8; save it as CSV UTF-8") from error


def _rows(text: str) -> list[list[str]]:
    """Split a text into rows as long as the first, without empty ones and without what is empty at the ends."""
    head = next((line for line in text.splitlines() if line.strip()), "")
    separator = max(",;\t", key=head.count)
    try:
        every = csv.reader(StringIO(text, newline=""), delimiter=separator, strict=True)
        rows = [row for row in every if "".join(row).strip()]
    except csv.Error as error:
        raise ValueError(f"it is no CSV table ({error})") from error
    if not rows:
        raise ValueError("it has no rows; the first must name the columns, such as path,split,label,patient")
    width = max(place for place, name in enumerate(rows[0], 1) if name.strip())
    for row in rows:
        if any(cell.strip() for cell in row[width:]):
            at = f"row {rows.index(row) + 1} ({row[0]}, ...)"
            raise ValueError(f"{at} has {len(row)} fields, the header {width}; quote what has a {separator!r} in it")
    return [[*row[:width], *[""] * (width - len(row))] for row in rows]


def _names(columns: Iterable[object], known: Collection[str]) -> list[str]:
    """Strip the names of columns, and write those that are ``known`` as they are known."""
    plain = [str(name).strip() for name in columns]
    names = [name.lower() if name.lower() in known else name for name in plain]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"column {', '.join(sorted(twice))} stands more than once")
    return names
