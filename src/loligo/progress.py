"""Progress of what takes long: a bar on a terminal, a plain line now and then in a log; and times in words."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

FIRST, EVERY = 5.0, 30.0
"""Seconds after which a log has its first line, and from one line to the next."""
WARM = 2
"""Steps that are not timed, as the first are slower."""
TIMED = 3.0
"""Seconds of steps from which the time of an epoch is estimated."""
SHORT, LONG = 60.0, 1800.0
"""Seconds of a training below which nothing is estimated, and above which fewer epochs are named."""


class Lines(tqdm):  # type: ignore[type-arg]  # it is generic for mypy alone
    """A bar as lines of text: what is done, of how many, and the time that is left."""

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Print one."""
        about = self.format_dict
        done, rate = about["n"], about["rate"]
        rate = rate or (done - about["initial"]) / max(about["elapsed"], 1e-9)
        left = f", about {span((self.total - done) / rate)} left" if rate and done < self.total else ""
        more = f" ({self.postfix})" if self.postfix else ""
        print(f"{self.desc}: {done:,} of {self.total:,} {self.unit}s{left}{more}", file=sys.stderr, flush=True)
        self.mininterval = EVERY

    def close(self) -> None:
        """Print the last line where there was one before."""
        if not self.disable and self.mininterval == EVERY:
            self.display()
        self.disable = True


def bar(
    items: Iterable[Any] | None = None, *, total: int, desc: str, unit: str, initial: int = 0, show: bool = True
) -> Any:
    """Return tqdm's bar over ``items``, or one to be updated: on a terminal a bar, else lines; none unless ``show``."""
    about: dict[str, Any] = {"total": total, "desc": desc, "unit": unit, "initial": initial, "disable": not show}
    if sys.stderr.isatty():
        return tqdm(items, **about)
    return Lines(items, **about, miniters=1, mininterval=FIRST, delay=FIRST)


def say(text: str) -> None:
    """Print a line of its own, above any bar."""
    if sys.stderr.isatty():
        tqdm.write(text, file=sys.stderr)
    else:
        print(text, file=sys.stderr, flush=True)


def span(seconds: float) -> str:
    """Return a time in words, such as 40 s, 2 min or 1 h 40 min."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 1 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    hours = f"{minutes // 60} h" if minutes >= 60 else ""
    return f"{hours} {minutes % 60} min".strip() if minutes % 60 or not hours else hours


class Estimate:
    """Say once, after the first steps of a training, how long it is going to take."""

    def __init__(self, steps: int, epochs: int, show: bool) -> None:
        self.steps, self.epochs, self.count = steps, epochs, 0
        self.due = show

    def step(self) -> None:
        """Count a step."""
        self.count += 1
        if self.count == WARM:
            self.begun = time.monotonic()
        elif self.due and self.count > WARM and (passed := time.monotonic() - self.begun) >= TIMED:
            self.due = False
            if said := estimated(passed / (self.count - WARM) * self.steps, self.epochs):
                say(said)


def estimated(epoch: float, epochs: int) -> str:
    """Say how long ``epochs`` of so many seconds take, and what fewer would; nothing where that is short."""
    if epoch * epochs < SHORT:
        return ""
    said = f"an epoch takes {span(epoch)}: {epochs} epochs about {span(epoch * epochs)}"
    fewer = max(1, epochs // 6)
    if epoch * epochs < LONG or fewer == epochs:
        return said
    return f"{said}; --train.epochs {fewer} would take {span(epoch * fewer)}"
