"""Run the link: one process that receives, fetches and looks after its workers."""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from filelock import FileLock, Timeout
from sqlalchemy.exc import OperationalError

from loligo import NOTICE
from loligo.pacs import fetch, journal, metrics, receive, work
from loligo.pacs.alarm import Alarm
from loligo.pacs.config import Config, check
from loligo.pacs.inbox import Inbox
from loligo.pacs.journal import place, say
from loligo.pacs.store import Store
from loligo.runs.run import Run

_TICK, _TIDY = 0.5, 5.0
_AGAIN = 2.0
"""Seconds after a worker ended, so that one that cannot start does not keep the machine busy."""
_GRACE = 60.0
"""Seconds that workers may take to finish their studies at the end."""


def serve(run: str, config: Config, make: work.MakeResults = work.objects) -> None:
    """Link a run to a PACS until SIGTERM or SIGINT.

    ``make`` returns what makes the results of a study. Raises ValueError for options that contradict each other or are
    unsafe, and for a run that is not trained; OSError where the spool is used by another, or an address is taken.
    """
    check(config)
    trained = Run.load(run)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    journal.begin()
    os.umask(0o077)
    config.spool.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _alone(config):
        store = Store(config.database)
        inbox, alarm = Inbox(config.spool, store, config.quiet), Alarm(store)
        store.give_back()
        inbox.sweep()
        with _open(config, inbox, alarm, stop):
            known = {"images": trained.about["data"].get("train"), "headers": trained.headers.told}
            say("begins", notice=NOTICE, trained_on=known)
            _tend(Workers(run, config, make), inbox, alarm, config, stop)
    say("ended")


@contextmanager
def _alone(config: Config) -> Iterator[None]:
    """Hold the spool, which one process at a time may use."""
    lock = FileLock(config.spool / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise OSError(f"{config.spool} is used by another loligo pacs serve; name another --spool") from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _open(config: Config, inbox: Inbox, alarm: Alarm, stop: threading.Event) -> Iterator[None]:
    """Receive, fetch and tell metrics, as far as asked for."""
    server = receive.start(config, inbox) if config.listen else None
    told = metrics.start(inbox.store, alarm, config.metrics) if config.metrics else None
    fetcher = threading.Thread(target=fetch.run, args=(config, inbox, stop), daemon=True)
    if config.source:
        fetcher.start()
    try:
        yield
    finally:
        stop.set()
        if server:
            receive.stop(server)
        if told:
            told.shutdown()
        if fetcher.is_alive():
            fetcher.join(_GRACE)


def _tend(workers: Workers, inbox: Inbox, alarm: Alarm, config: Config, stop: threading.Event) -> None:
    """Keep workers alive, end those that take too long, remove what is done, tell of drift; until told to ``stop``."""
    store, tidied, changed = inbox.store, 0.0, dict[str, str]()
    try:
        while not stop.wait(_TICK):
            try:
                ended = workers.renew()
                for name in ended:
                    store.give_back(name)
                for name in store.give_back(expired=time.time()):
                    say("a worker took too long for a study", logging.ERROR, worker=name)
                    workers.kill(name)
                if time.time() - tidied > _TIDY:
                    inbox.tidy(config.keep)
                    changed = _tell(alarm, changed)
                    tidied = time.time()
                stop.wait(_AGAIN if ended else 0)
            except (OperationalError, OSError) as error:
                say("the queue cannot be changed", logging.ERROR, error=place(error))
    finally:
        workers.end()


def _tell(alarm: Alarm, before: dict[str, str]) -> dict[str, str]:
    """Log what has changed of the department's studies where that is news; return it."""
    drift = alarm.update().drift
    if (now := drift.alarms if drift else {}) != before and drift and now:
        say(drift.told, logging.ERROR, studies=alarm.studies)
    return now


class Workers:
    """The worker processes."""

    def __init__(self, run: str, config: Config, make: work.MakeResults) -> None:
        self._arguments, self._count = (run, config, make), config.workers
        self._context = multiprocessing.get_context("spawn")
        self._numbers = itertools.count(1)
        self._alive: dict[str, Any] = {}

    def renew(self) -> list[str]:
        """Start as many as are missing; return the names of those that ended."""
        ended = [name for name, process in self._alive.items() if not process.is_alive()]
        for name in ended:
            say("a worker ended", logging.ERROR, worker=name, status=self._alive.pop(name).exitcode)
        while len(self._alive) < self._count:
            name = f"{os.getpid()}-{next(self._numbers)}"
            process = self._context.Process(target=work.main, args=(name, *self._arguments))
            process.start()
            self._alive[name] = process
        return ended

    def kill(self, name: str) -> None:
        """End a worker at once."""
        if process := self._alive.get(name):
            process.kill()

    def end(self) -> None:
        """Let all finish their studies, and kill those that do not in time."""
        for process in self._alive.values():
            process.terminate()
        last = time.time() + _GRACE
        for process in self._alive.values():
            process.join(max(0.0, last - time.time()))
            process.kill()
            process.join()
