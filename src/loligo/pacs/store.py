"""The durable queue: each change of a study's state is one transaction.

received -> waiting (complete) -> working (leased to a worker) -> sending (results on disk) -> done, or dead

A new instance takes a study back to received from any state. Every such change, and every lease, raises the study's
version, and a worker's change counts only where the version is still the one that it was given: a worker that was
thought dead, or whose study was reopened, changes nothing. UIDs stand there as keyed hashes alone.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from typing import Any, NamedTuple

import sqlalchemy as sql

from loligo.pacs.schema import FACTS, INSTANCES, MEASURES, STATES, STUDIES, opened

_OF = STUDIES.c
_FREE: dict[str, Any] = {"worker": "", "lease": 0}
_NEW: dict[str, Any] = {"attempts": 0, "put_off": 0, "reason": "", "finished": 0}


class Study(NamedTuple):
    """A study that is leased to a worker."""

    id: int
    key: str
    state: str
    version: int
    attempts: int
    put_off: int
    results: str
    commitment: str
    arrived: float
    files: tuple[str, ...]
    """Names of its instances' files."""


class Store:
    """The queue in a database by URL."""

    def __init__(self, url: str) -> None:
        self.engine = opened(url)
        self._secret = self._own_secret().encode()

    def _own_secret(self) -> str:
        """Return the key of this queue's hashes, made at first."""
        if not self.fact("secret"):
            self.remember("secret", secrets.token_hex(32), again=False)
        return self.fact("secret")

    def key(self, uid: str) -> str:
        """Return what stands for a UID here: 40 hexadecimal digits of a keyed hash."""
        return hmac.new(self._secret, uid.encode(), hashlib.sha256).hexdigest()[:40]

    def fact(self, name: str) -> str:
        """Return what was remembered, empty where nothing was."""
        with self.engine.begin() as connection:
            return connection.scalar(sql.select(FACTS.c.value).where(FACTS.c.name == name)) or ""

    def remember(self, name: str, value: str, again: bool = True) -> None:
        """Remember a text, such as how far a change log was read; unless ``again``, only where there is none."""
        with self.engine.begin() as connection:
            found = connection.scalar(sql.select(FACTS.c.value).where(FACTS.c.name == name))
            if found is None:
                connection.execute(FACTS.insert().values(name=name, value=value))
            elif again:
                connection.execute(FACTS.update().where(FACTS.c.name == name).values(value=value))

    def receive(self, study: str, instance: str, digest: str, now: float, quiet: float) -> str:
        """Take an instance whose file is durable, and open its study until ``quiet`` seconds have passed.

        ``digest`` is the name of its file, empty for what cannot be scored, which opens no study that is known. An
        instance that is known changes nothing. Returns the name of the file that it replaces.
        """
        with self.engine.begin() as connection:
            row = connection.execute(sql.select(_OF.id).where(_OF.key == study).with_for_update()).first()
            fresh = {"state": "received", "due": now + quiet, "arrived": now}
            if row is None:
                values = {"key": study, **fresh}
                number = connection.execute(STUDIES.insert().values(**values).returning(_OF.id)).scalar_one()
            elif not digest:
                return ""
            else:
                number = row.id
            known = sql.and_(INSTANCES.c.study == number, INSTANCES.c.key == instance)
            before: str | None = connection.scalar(sql.select(INSTANCES.c.digest).where(known))
            if before == digest or not digest:
                return ""
            if before is None:
                connection.execute(INSTANCES.insert().values(study=number, key=instance, digest=digest))
            else:
                connection.execute(INSTANCES.update().where(known).values(digest=digest))
            self._change(connection, _OF.id == number, **fresh, **_FREE, **_NEW, kept=True)
            return before or ""

    def claim(self, worker: str, now: float, seconds: float) -> Study | None:
        """Lease the study that has been due for longest to a worker for so many ``seconds``; None where none is due."""
        with self.engine.begin() as connection:
            complete = sql.and_(_OF.state == "received", _OF.due <= now)
            if connection.scalar(sql.select(_OF.id).where(complete).limit(1)):
                connection.execute(STUDIES.update().where(complete).values(state="waiting"))
            due = sql.select(STUDIES).where(_OF.state.in_(("waiting", "sending")), _OF.due <= now, _OF.worker == "")
            row = connection.execute(due.order_by(_OF.due, _OF.id).limit(1).with_for_update(skip_locked=True)).first()
            if row is None:
                return None
            state = "working" if row.state == "waiting" else row.state
            self._change(connection, _OF.id == row.id, state=state, worker=worker, lease=now + seconds)
            files = connection.scalars(sql.select(INSTANCES.c.digest).where(INSTANCES.c.study == row.id)).all()
            own = {name: getattr(row, name) for name in Study._fields if name not in ("state", "version", "files")}
            return Study(state=state, version=row.version + 1, files=tuple(sorted(files)), **own)

    def advance(self, study: Study, measured: tuple[str, str] | None = None, **values: Any) -> Study | None:
        """Change a leased study; None, and no change, where the lease is no longer the worker's.

        Of ``measured``, a model and what was measured with it, a study that is measured already keeps the first.
        """
        with self.engine.begin() as connection:
            mine = sql.and_(_OF.id == study.id, _OF.version == study.version)
            if not self._change(connection, mine, **values):
                return None
            if measured:
                self._measure(connection, study.id, *measured)
        own = {name: value for name, value in values.items() if name in Study._fields}
        return study._replace(version=study.version + 1, **own)

    def give_back(self, worker: str = "", expired: float | None = None, blame: bool = True) -> list[str]:
        """End the leases of a worker, of all, or those ``expired`` at a time; return whose they were.

        It counts as a failed attempt, unless nobody is to ``blame``: what kills a worker once may do so again.
        """
        which = [_OF.worker != ""] + ([_OF.worker == worker] if worker else [])
        which += [] if expired is None else [_OF.lease < expired]
        with self.engine.begin() as connection:
            found = list(connection.scalars(sql.select(_OF.worker).where(*which)))
            if found:
                back = sql.case((_OF.state == "working", "waiting"), else_=_OF.state)
                self._change(connection, sql.and_(*which), state=back, attempts=_OF.attempts + int(blame), **_FREE)
        return found

    def committed(self, transaction: str, count: int, now: float) -> bool:
        """Take the news that a peer keeps ``count`` results, none where it does not; tell whether it was awaited.

        Where it does not, they are sent anew.
        """
        if not transaction:
            return False
        with self.engine.begin() as connection:
            mine = sql.and_(_OF.commitment == transaction, _OF.state == "sending")
            values = {"state": "done", "finished": now} if count else {"due": now, "attempts": _OF.attempts + 1}
            return bool(self._change(connection, mine, commitment="", **values, **_FREE))

    def retry(self, number: int | None, now: float) -> int:
        """Take a dead study, or all where no ``number`` is given, back into the queue; return how many."""
        dead = sql.and_(_OF.state == "dead", *([] if number is None else [_OF.id == number]))
        with self.engine.begin() as connection:
            state = sql.case((_OF.results != "", "sending"), else_="waiting")
            return self._change(connection, dead, state=state, due=now, **_NEW)

    def settled(self, before: float) -> list[tuple[int, str]]:
        """Return number and key of studies that were done ``before`` a time and have files yet."""
        done = sql.and_(_OF.state == "done", _OF.kept, _OF.finished <= before)
        with self.engine.begin() as connection:
            return [(row.id, row.key) for row in connection.execute(sql.select(_OF.id, _OF.key).where(done))]

    def forget(self, number: int) -> bool:
        """Drop the instances of a study that is done, before its files go; tell whether it still is."""
        with self.engine.begin() as connection:
            done = sql.and_(_OF.id == number, _OF.state == "done")
            if gone := bool(self._change(connection, done, kept=False, results="")):
                connection.execute(INSTANCES.delete().where(INSTANCES.c.study == number))
            return gone

    def files(self) -> dict[str, set[str]]:
        """Return the names of the files of each study that has any, and of its folder of results, by its key."""
        found: dict[str, set[str]] = {}
        with self.engine.begin() as connection:
            for key, results in connection.execute(sql.select(_OF.key, _OF.results).where(_OF.kept)):
                found[key] = {results} - {""}
            both = sql.select(_OF.key, INSTANCES.c.digest).join(INSTANCES, INSTANCES.c.study == _OF.id)
            for key, digest in connection.execute(both):
                found.setdefault(key, set()).add(digest)
        return found

    def knows(self, study: str, instance: str) -> bool:
        """Tell whether an instance was taken."""
        both = sql.select(INSTANCES.c.key).join(STUDIES, _OF.id == INSTANCES.c.study)
        with self.engine.begin() as connection:
            return connection.scalar(both.where(_OF.key == study, INSTANCES.c.key == instance)) is not None

    def counts(self) -> dict[str, int]:
        """Return the number of studies in each state."""
        with self.engine.begin() as connection:
            found = connection.execute(sql.select(_OF.state, sql.func.count()).group_by(_OF.state)).all()
        return dict.fromkeys(STATES, 0) | {state: count for state, count in found}

    def dead(self) -> list[tuple[int, float, str]]:
        """Return number, time and reason of the dead studies."""
        chosen = sql.select(_OF.id, _OF.finished, _OF.reason).where(_OF.state == "dead").order_by(_OF.id)
        with self.engine.begin() as connection:
            return [(row.id, row.finished, row.reason) for row in connection.execute(chosen)]

    def not_scored(self) -> int:
        """Return how many studies are done without a result."""
        chosen = sql.select(sql.func.count()).where(_OF.state == "done", _OF.reason != "")
        with self.engine.begin() as connection:
            return connection.scalar(chosen) or 0

    def seconds(self, bounds: Sequence[float]) -> tuple[list[int], float]:
        """Return how many studies were done within each bound in seconds of their last instance, and the sum of all."""
        took = _OF.finished - _OF.arrived
        within = [sql.func.sum(sql.case((took <= bound, 1), else_=0)) for bound in bounds]
        with self.engine.begin() as connection:
            row = connection.execute(sql.select(*within, sql.func.sum(took)).where(_OF.state == "done")).one()
        return [int(count or 0) for count in row[:-1]], float(row[-1] or 0)

    def measured(self, after: int) -> list[tuple[int, str, str]]:
        """Return number, model and measures of the studies that were measured after a number, in order."""
        chosen = sql.select(MEASURES).where(MEASURES.c.number > after).order_by(MEASURES.c.number)
        with self.engine.begin() as connection:
            return [(row.number, row.model, row.measured) for row in connection.execute(chosen)]

    @staticmethod
    def _measure(connection: sql.Connection, study: int, model: str, measured: str) -> None:
        """Keep what was measured of a study, one after another whatever worker it is, so that no number is late."""
        connection.execute(sql.select(FACTS).where(FACTS.c.name == "secret").with_for_update())
        if connection.scalar(sql.select(MEASURES.c.number).where(MEASURES.c.study == study)) is None:
            number = (connection.scalar(sql.select(sql.func.max(MEASURES.c.number))) or 0) + 1
            values = {"number": number, "study": study, "model": model, "measured": measured}
            connection.execute(MEASURES.insert().values(**values))

    @staticmethod
    def _change(connection: sql.Connection, which: Any, **values: Any) -> int:
        """Change studies and raise their versions; return how many."""
        return connection.execute(STUDIES.update().where(which).values(version=_OF.version + 1, **values)).rowcount
