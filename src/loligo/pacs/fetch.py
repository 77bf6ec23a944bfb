"""Fetch new instances: of Orthanc by its change log, elsewhere by searching studies of the last days (DICOMweb).

How far was read is remembered after all of it is durable in the inbox, so that each instance comes at least once.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

from loligo.io import UnreadableImage
from loligo.pacs.config import Config, web
from loligo.pacs.inbox import Inbox
from loligo.pacs.journal import place, say
from loligo.pacs.web import Declined, Server, parts

LAST = "last change"
"""Name of the fact that holds the sequence number of the last change that was read."""
SEARCHED = "searched"
"""Name of the fact that says that a search was made."""
_PAGE, _POLL, _LONGEST = 100, {"orthanc": 1.0, "dicomweb": 5.0}, 60.0
_UNREADABLE = 5  # times that an instance may fail by itself before it is left out


def run(config: Config, inbox: Inbox, stop: threading.Event) -> None:
    """Fetch until told to ``stop``; where that fails, try again ever later, up to a minute."""
    source = web(config.source)
    feed = (Changes if source.kind == "orthanc" else Search)(config, Server(config, source), inbox)
    failures = 0
    while not stop.is_set():
        try:
            more = feed.once()
            failures = 0
        except Exception as error:  # whatever it is, the feed must go on
            say("cannot fetch", logging.WARNING, error=place(error), why=_plain(error))
            more, failures = False, failures + 1
        if not more:
            stop.wait(min(_LONGEST, _POLL[source.kind] * 2**failures))


def _plain(error: Exception) -> str:
    """Return the message of an error of our own; others may hold addresses."""
    return str(error) if isinstance(error, ConnectionError | Declined) else ""


class Changes:
    """Orthanc's log of changes, by sequence number."""

    def __init__(self, config: Config, server: Server, inbox: Inbox) -> None:
        self.server, self.inbox, self.backlog = server, inbox, config.backlog
        self.failed: Counter[int] = Counter()

    def once(self) -> bool:
        """Take the next page of changes; tell whether there are more."""
        since = self._since()
        page = self.server.ask("GET", "/changes", params={"since": since, "limit": _PAGE}).json()
        for change in page["Changes"]:
            if change["ChangeType"] == "NewInstance":
                self._take(int(change["Seq"]), str(change["ID"]))
        if (last := int(page["Last"])) > since:
            self.inbox.store.remember(LAST, str(last))
        return not page["Done"]

    def _since(self) -> int:
        """Return the number of the last change that was read; at first 0 for the backlog, else that of the newest."""
        known = self.inbox.store.fact(LAST)
        if known and self._newest() >= int(known):
            return int(known)
        if known:
            say("the change log of the source begins anew; all of it is read", logging.WARNING)
        found = 0 if known or self.backlog else self._newest()
        self.inbox.store.remember(LAST, str(found))
        return found

    def _newest(self) -> int:
        return int(self.server.ask("GET", "/changes?last").json()["Last"])

    def _take(self, number: int, identifier: str) -> None:
        """Take the instance of a change; one that is gone, or that always fails by itself, is left out."""
        try:
            _received(self.inbox, self.server.ask("GET", f"/instances/{identifier}/file").content)
        except Declined as error:
            if error.code != 404:
                self._count(number, error)
        except ConnectionError as error:
            self._count(number, error)

    def _count(self, number: int, error: Exception) -> None:
        """Raise an error until it came too often."""
        self.server.ask("GET", "/system")  # where this fails too, it is not the instance
        self.failed[number] += 1
        if self.failed[number] < _UNREADABLE:
            raise error
        say("an instance cannot be fetched and is left out", logging.ERROR, change=number, why=_plain(error))


class Search:
    """Studies of the last days by QIDO-RS, and their new instances by WADO-RS.

    How many instances each study had is remembered when all of them were taken.
    """

    def __init__(self, config: Config, server: Server, inbox: Inbox) -> None:
        self.server, self.inbox, self.days = server, inbox, config.days
        self.first = not (config.backlog or inbox.store.fact(SEARCHED))

    def once(self) -> bool:
        """Take the new instances of all studies; of those that were there before the first start, none."""
        store = self.inbox.store
        for study, count in self._studies():
            fact = f"count {store.key(study)}"
            if store.fact(fact) != str(count):
                if not self.first:
                    self._take(study)
                store.remember(fact, str(count))
        if self.first:
            store.remember(SEARCHED, "1")
            self.first = False
        return False

    def _studies(self) -> Iterator[tuple[str, int]]:
        """Yield the UID of each study of the last days, and how many instances it has."""
        first = (date.today() - timedelta(days=self.days)).strftime("%Y%m%d")
        return self._pages("/studies", "0020000D", "00201208", {"StudyDate": f"{first}-"})

    def _pages(self, path: str, uid: str, other: str, query: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        offset = 0
        while found := self.server.query(path, query | {"includefield": other, "limit": _PAGE, "offset": offset}):
            yield from ((_first(one, uid), _first(one, other)) for one in found)
            offset += len(found)

    def _take(self, study: str) -> None:
        """Take the instances of a study that are not known."""
        where, key = f"/studies/{study}", self.inbox.store.key
        for instance, series in self._pages(f"{where}/instances", "00080018", "0020000E", {}):
            if not self.inbox.store.knows(key(study), key(instance)):
                accept = {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}
                answer = self.server.ask("GET", f"{where}/series/{series}/instances/{instance}", headers=accept)
                for content in parts(answer.content, answer.kind):
                    _received(self.inbox, content)


def _first(match: dict[str, Any], tag: str) -> Any:
    """Return the first value of an element in DICOM JSON, empty where there is none."""
    return next(iter(match.get(tag, {}).get("Value", [])), "")


def _received(inbox: Inbox, content: bytes) -> None:
    """Take an instance; what cannot be parsed is left out."""
    try:
        inbox.take(content)
    except UnreadableImage:
        say("left out an instance that cannot be parsed", logging.WARNING)
