"""Logs as lines of JSON. They name a study by its number in the queue, and hold no value of a DICOM file."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

log = logging.getLogger("loligo.pacs")
_LOUD = (
    "pynetdicom",
    "pydicom",
    "httpx",
    "httpcore",
    "sqlalchemy",
    "highdicom",
)  # they log values, names and addresses


class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        said = {"time": round(record.created, 3), "level": record.levelname.lower(), "event": record.getMessage()}
        return json.dumps(said | getattr(record, "facts", {}))


def begin() -> None:
    """Log to standard error, and keep libraries and uncaught errors from saying more than where they arose."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    log.handlers, log.propagate = [handler], False
    log.setLevel(logging.INFO)
    for name in _LOUD:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    sys.excepthook = lambda kind, error, trace: say("stopped by an error", logging.ERROR, error=place(error))
    threading.excepthook = lambda args: say("a thread ended", logging.ERROR, error=place(args.exc_value))


def say(event: str, level: int = logging.INFO, **facts: Any) -> None:
    """Log an event; facts are numbers of studies, counts, times and reasons without patient data."""
    log.log(level, event, extra={"facts": {"pid": os.getpid(), **facts}})


def place(error: BaseException | None) -> str:
    """Name an error by its type and where in the code it arose, without its message, which may hold patient data."""
    frames = traceback.extract_tb(error.__traceback__) if error else []
    places = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames]
    own = [where for where, frame in zip(places, frames, strict=True) if "loligo" in frame.filename]
    return " by ".join([f"{type(error).__name__} at {places[-1]}" if places else type(error).__name__, *own[-1:]])


def since(start: float) -> float:
    """Return the seconds since a time, as a log shows them."""
    return round(time.time() - start, 3)
