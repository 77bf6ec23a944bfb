"""Write numbers, rates and names as the pages show them."""

from __future__ import annotations

import math
from typing import Any


def number(value: Any) -> str:
    """Write a measured number to three significant digits, a count in full; – where unknown."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if not isinstance(value, float):
        return str(value)
    return f"{value:#.3g}".rstrip(".") if 1e-3 <= abs(value) < 1e3 else f"{value:.4g}"


def percent(rate: float) -> str:
    """Write a rate in [0, 1] as a percentage of three digits at most."""
    return f"{100 * rate:.3g} %"


def p_value(p: float) -> str:
    """Write a p-value to three digits."""
    return "–" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def duration(seconds: float) -> str:
    """Write seconds as people say them."""
    minutes = round(seconds / 60)
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def shorten(name: str, most: int) -> str:
    """Return a name of at most ``most`` characters, shortened in its middle, so that its end stays."""
    half = (most - 1) // 2
    return name if len(name) <= most else f"{name[: most - 1 - half]}…{name[-half:]}"
