"""The drift alarm of the link: from the queue alone, each study once, the same however often and by whom it is read."""

from __future__ import annotations

import json
import math
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from experiments.pacs_servers import free_port, radiograph
from pacs_fixtures import detector, link, run

from loligo import monitoring
from loligo.data.arrays import from_images
from loligo.detector import Detector
from loligo.drift import Drift
from loligo.pacs import alarm, metrics, status
from loligo.pacs.alarm import WINDOW, Alarm
from loligo.pacs.config import Config
from loligo.pacs.schema import STUDIES
from loligo.pacs.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(f"sqlite:///{tmp_path}/queue.sqlite")


def add(store: Store, values: Sequence[float], model: str = "m") -> None:
    """Let studies of one measure each be done, in one transaction: hundreds of them take long on a busy disk."""
    before = sum(store.counts().values())
    with store.engine.begin() as connection:
        for number, value in enumerate(values, before):
            new = STUDIES.insert().values(key=f"s{number}", state="done").returning(STUDIES.c.id)
            store._measure(connection, connection.execute(new).scalar_one(), model, json.dumps({"score": value}))


def test_the_state_is_that_of_the_studies_one_by_one(store: Store) -> None:
    values = np.concatenate([np.random.default_rng(0).normal(size=WINDOW + 50), np.full(40, 9.0)])
    follower = Alarm(store)
    for start in range(0, len(values), 19):  # as a process that looks again and again
        add(store, values[start : start + 19])
        follower.update()
    expected = Drift.begin({"score": values[:WINDOW]}, "m")
    for value in values[WINDOW:]:
        expected.add({"score": value})
    assert follower.drift == Alarm(store).update().drift == expected
    assert expected.alarms == {"score": "higher"} and follower.studies == len(values)
    assert follower.told.startswith(f"{len(values)} studies; drift: score has become higher")


def test_another_model_begins_anew(store: Store) -> None:
    add(store, range(WINDOW), "m")
    assert Alarm(store).update().told.startswith(f"{WINDOW} studies; no drift")
    add(store, range(3), "n")
    assert (
        Alarm(store).update().told == f"drift: 3 of the first {WINDOW} studies, with which the others will be compared"
    )


def test_weights_and_calibration_make_the_model(detector: Detector) -> None:
    name, calibration = alarm.model(detector), detector.calibration
    assert name == alarm.model(detector.with_calibration(calibration.at(0.2)))  # another threshold, the same scores
    other = replace(calibration, scores=calibration.scores + 1)
    assert name != alarm.model(detector.with_calibration(other)) and len(name) == 64


def test_status_and_metrics_show_it(tmp_path: Path) -> None:
    config = Config(spool=tmp_path)
    store = Store(config.database)
    assert "drift: 0 of the first 100 studies" in status.text(config)
    add(store, [*np.random.default_rng(0).normal(size=WINDOW), *[9.0] * 30])
    assert f"{WINDOW + 30} studies; drift: score has become higher" in status.text(config)
    server = metrics.start(store, Alarm(store), port := free_port())
    try:
        page = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
    finally:
        server.shutdown()
    assert "loligo_drift_studies 130.0" in page and 'loligo_drift_alarm{measure="score"} 1.0' in page
    (line,) = [one for one in page.splitlines() if one.startswith("loligo_drift_log_capital{")]
    assert float(line.split()[-1]) > math.log(100)


def test_a_worker_measures_a_study_in_the_mean_once_however_often_it_fails(
    link: Callable[..., Any], detector: Detector, tmp_path: Path
) -> None:
    here = link(f"orthanc+http://127.0.0.1:{free_port()}")  # nobody listens there
    paths = [radiograph(tmp_path / name, f"5.{name}", study="5.0") for name in ("1", "2")]
    odd = radiograph(tmp_path / "odd", "5.3", study="5.0", ViewPosition="LL")
    for path in (*paths, odd):
        here.inbox.take(path.read_bytes())
    made = here.worker.results

    def full(*_: object) -> Any:
        raise OSError(28, "No space left on device")

    here.worker.results = full
    assert here.worker.one() and here.store.measured(0) == []
    here.worker.results = made
    for _ in range(3):
        assert here.worker.one()  # scored once, then sent in vain
    here.inbox.take(radiograph(tmp_path / "late", "5.4", study="5.0").read_bytes())
    assert here.worker.one()
    ((_, name, text),) = here.store.measured(0)
    expected = monitoring.measure(detector, from_images(paths, detector.preprocessing))
    assert name == alarm.model(detector)
    assert json.loads(text) == pytest.approx({key: values.mean() for key, values in expected.items()})
