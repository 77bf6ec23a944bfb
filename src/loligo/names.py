"""Answer a misspelt name with the nearest allowed one, and list names in messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Return a hint that names the allowed spelling nearest to ``name``, else all of them."""
    names = sorted(allowed)
    close = difflib.get_close_matches(name, names, 1)
    return f"did you mean {close[0]!r}?" if close else "allowed: " + ", ".join(names)


def some(things: Iterable[object], most: int = 10) -> str:
    """List the first ``most`` things, and say how many more there are."""
    names = [str(thing) for thing in things]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
