"""Look at the queue from outside, and take dead studies back into it."""

from __future__ import annotations

import time

from loligo.pacs.alarm import Alarm
from loligo.pacs.config import Config
from loligo.pacs.store import Store


def text(config: Config) -> str:
    """Return the number of studies in each state, how the drift alarm stands, and the dead ones with their reasons."""
    store = _store(config)
    lines = [f"{state:9} {count:7}" for state, count in store.counts().items()]
    lines.append(f"{store.not_scored()} of those done were not scored")
    lines.append(Alarm(store).update().told)
    for number, finished, reason in store.dead():
        lines.append(f"dead {number}, {time.strftime('%Y-%m-%d %H:%M', time.localtime(finished))}: {reason}")
    return "\n".join(lines)


def retry(config: Config, study: int | None) -> int:
    """Take a dead study, or all, back into the queue; return how many. ValueError for one that is not dead."""
    found = _store(config).retry(study, time.time())
    if study is not None and not found:
        raise ValueError(f"study {study} is not among the dead; loligo pacs status lists them")
    return found


def _store(config: Config) -> Store:
    """Open a queue that exists."""
    if not config.queue and not (config.spool / "queue.sqlite").is_file():
        raise ValueError(f"{config.spool} holds no queue; name the --spool of loligo pacs serve")
    return Store(config.database)
