"""A worker: a process with the model in memory, which takes studies from the queue, scores them and sends results."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from sqlalchemy.exc import OperationalError

from loligo import monitoring
from loligo.data import cache
from loligo.data.dataset import Dataset as Images
from loligo.detector import Detector
from loligo.io import UnreadableImage
from loligo.pacs import alarm, journal
from loligo.pacs.config import Config
from loligo.pacs.decode import Decoder, Hostile
from loligo.pacs.inbox import INSTANCES, WORK, folder_of, synced
from loligo.pacs.journal import place, say, since
from loligo.pacs.send import Refused, target
from loligo.pacs.store import Store, Study
from loligo.pacs.web import Declined
from loligo.types import Prediction

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Scored = tuple[Prediction, Path]
Results = Callable[[Sequence[Scored]], "list[Dataset]"]
"""Makes the objects of a study of what was scored in it. The same images must give the same UIDs."""
MakeResults = Callable[[Detector, Config], Results]
_POLL = 0.25  # seconds between looks at an empty queue
_LONGEST = 300.0  # seconds between attempts
_ANSWER = 60.0  # seconds in which storage commitment is answered


class Found(NamedTuple):
    """What a worker makes of a study."""

    scored: list[Scored]
    """What the detector says of each image or series, and its path."""
    measured: dict[str, float]
    """`monitoring.MEASURES` in the mean over these, for the drift alarm."""
    reasons: Sequence[str]
    """Why others are left out."""


class GivenUp(ValueError):
    """A study failed too often."""


def main(name: str, run: str, config: Config, make: MakeResults) -> None:
    """Work until SIGTERM, and then to the end of the study at hand."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    journal.begin()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    worker = Worker(name, Detector.load(run, config.device, config.false_alarm_rate), config, make)
    say("worker ready", worker=name)
    worker.work(stop)


def _end_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


class Worker:
    """Takes one study after another."""

    def __init__(self, name: str, detector: Detector, config: Config, make: MakeResults) -> None:
        self.name, self.detector, self.config = name, detector, config
        self.results, self.target, self.store = make(detector, config), target(config), Store(config.database)
        self.model = alarm.model(detector)
        self.decoder = Decoder(detector.preprocessing, config.decode_seconds, config.decode_memory)

    def work(self, stop: threading.Event) -> None:
        """Take studies until told to ``stop``; where the queue cannot be written, wait until it can."""
        failed = False
        while not stop.is_set():
            try:
                if failed:
                    self.store.give_back(self.name, blame=False)
                failed = False
                if not self.one():
                    stop.wait(_POLL)
            except OperationalError as error:
                failed = True
                say("the queue cannot be changed", logging.ERROR, error=place(error))
                stop.wait(1)
        self.decoder.close()

    def one(self) -> bool:
        """Take the next study that is due, if any, as far as it goes; tell whether there was one."""
        study = self.store.claim(self.name, time.time(), self.config.study_seconds)
        if study is None:
            return False
        held = _Held(self.store, study)
        try:
            if study.attempts >= self.config.attempts:
                raise GivenUp(_why(study))
            if study.state == "working":
                self._score(held)
            if held.ours and held.study.state == "sending":
                self._send(held)
        except OperationalError:
            raise
        except Exception as error:  # whatever a study causes, the worker goes on
            self._fail(held, error)
        return True

    def _score(self, held: _Held) -> None:
        """Score a study and keep its results, or end it where there are none."""
        study = held.study
        found = self._found(study) if study.files else Found([], {}, ["it has no image that is read"])
        if not found.scored:
            self._finish(held, f"not scored: {found.reasons[0].removeprefix('not scored: ')}")
            return
        name = f"out-{study.version}"
        out = folder_of(self.config.spool, study.key) / name
        _written(self.results(found.scored), out)
        measured = (self.model, json.dumps(found.measured))
        held.change(state="sending", results=name, attempts=0, put_off=0, measured=measured)
        flagged = sum(prediction.flag for prediction, _ in found.scored)
        say("scored", study=study.id, images=len(found.scored), flagged=flagged, left_out=len(found.reasons))

    def _found(self, study: Study) -> Found:
        """Decode and score a study."""
        folder = folder_of(self.config.spool, study.key)
        work = folder / f"{WORK}{study.version}"
        try:
            found = self.decoder([folder / INSTANCES / name for name in study.files], work)
            if not found.paths:
                return Found([], {}, found.reasons)
            rows = pd.DataFrame({"path": list(found.paths)})
            data = cache.load(rows, self.detector.preprocessing, folder=work, progress=False)
            return self._of(self.detector.checked(data), found.reasons)
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def _of(self, data: Images, unread: Sequence[str]) -> Found:
        """Score the images of a study that are in scope, and measure them."""
        predictions = list(self.detector.predictions(data))
        out = ("",) * len(predictions) if self.config.scope == "any" else data.not_scored
        kept = [row for row, why in enumerate(out) if not why]
        measures = monitoring.measured(data, np.array([one.score for one in predictions]))
        return Found(
            [(predictions[row], Path(data.rows["path"][row])) for row in kept],
            {name: float(values[kept].mean()) for name, values in measures.items()} if kept else {},
            [*unread, *filter(None, out)],
        )

    def _send(self, held: _Held) -> None:
        """Send results, and end the study, or wait for storage commitment."""
        files = sorted((folder_of(self.config.spool, held.study.key) / held.study.results).glob("*.dcm"))
        if self.target.send(files, lambda transaction: held.change(commitment=transaction)):
            self._finish(held, "")
        else:
            attempts = held.study.attempts
            held.change(due=time.time() + _ANSWER * 2**attempts, attempts=attempts + 1, worker="", lease=0)

    def _finish(self, held: _Held, reason: str) -> None:
        """End a study."""
        if held.change(state="done", finished=time.time(), reason=reason, worker="", lease=0):
            say("done", study=held.study.id, seconds=since(held.study.arrived), reason=reason)

    def _fail(self, held: _Held, error: Exception) -> None:
        """Put a study off, or to the dead; what lies at the disk or the network puts it off alone."""
        study, why, own = held.study, _reason(error), not isinstance(error, OSError)
        attempts = study.attempts + own
        if dead := own and attempts >= self.config.attempts:
            values: dict[str, Any] = {"state": "dead", "reason": why, "finished": time.time()}
        else:
            state = "waiting" if study.state == "working" else study.state
            values = {"state": state, "due": time.time() + delay(study.put_off), "put_off": study.put_off + 1}
        if held.change(worker="", lease=0, attempts=attempts, **values):
            say("dead" if dead else "put off", logging.ERROR, study=study.id, reason=why, error=place(error))


class _Held:
    """A study while it is leased to this worker."""

    def __init__(self, store: Store, study: Study) -> None:
        self.store, self.study, self.ours = store, study, True

    def change(self, **values: Any) -> bool:
        """Change it, and tell whether it is ours yet; where not, it stays as others have made it."""
        changed = self.store.advance(self.study, **values) if self.ours else None
        self.study, self.ours = changed or self.study, changed is not None
        return self.ours


def delay(times: int) -> float:
    """Return the seconds until the next attempt: twice as long each time, and never the same."""
    return min(_LONGEST, 2.0 ** min(times + 1, 10)) * random.uniform(0.5, 1.5)


def _why(study: Study) -> str:
    if study.commitment:
        return "storage commitment was not answered; make this AE title and its address known to the target"
    return "its worker ended, or took too long, each time"


def _reason(error: Exception) -> str:
    """Say why a study failed; the messages of others may hold values of its files."""
    if isinstance(error, UnreadableImage):
        return str(error).partition(": ")[2]
    if isinstance(error, Hostile | Refused | Declined | GivenUp | ConnectionError):
        return str(error)
    return (error.strerror if isinstance(error, OSError) else None) or place(error)


def _written(datasets: Sequence[Dataset], out: Path) -> None:
    """Write results into a new folder, durably; nothing is left of it where that fails."""
    out.mkdir(mode=0o700)
    try:
        for number, one in enumerate(datasets):
            with (out / f"{number:04d}.dcm").open("wb") as stream:
                one.save_as(stream, enforce_file_format=True)
                stream.flush()
                os.fsync(stream.fileno())
        synced(out)
        synced(out.parent)
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise


def objects(detector: Detector, config: Config) -> Results:
    """Return what makes reports, segmentations and key objects, and heat maps where they are asked for."""
    from loligo.dicom import About, key_objects, objects

    about = About.of(detector)
    kinds = ("sr", "seg", *(("pm",) if config.heat_map else ()))

    def made(scored: Sequence[Scored]) -> list[Dataset]:
        each = [one for pair in scored for one in objects(*pair, about, kinds)]
        flagged = [pair for pair in scored if pair[0].flag]
        return each + ([key_objects(flagged, about)] if flagged else [])

    return made
