"""Servers and a trained run for the tests of the PACS link."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from experiments.pacs_servers import Orthanc

from experiments import pacs_servers as servers
from loligo.detector import Detector
from loligo.pacs import work
from loligo.pacs.config import Config
from loligo.pacs.inbox import Inbox
from loligo.pacs.store import Store


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("pacs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOLIGO_CACHE", str(place / "cache"))
        patch.setenv("LOLIGO_PATIENT_KEY", str(place / "patients.key"))
        return servers.trained(place)


@pytest.fixture(scope="session")
def detector(run: Path) -> Detector:
    return Detector.load(run, "cpu")


@pytest.fixture(scope="session")
def port() -> int:
    """Where loligo listens, which Orthanc must know to answer on storage commitment."""
    return servers.free_port()


@pytest.fixture(scope="session")
def orthanc(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[Orthanc]:
    if absent := servers.missing():
        pytest.skip(f"{absent} not installed: apt-get install orthanc orthanc-dicomweb dcmtk")
    server = Orthanc(tmp_path_factory.mktemp("orthanc") / "server", port)
    yield server
    server.end()


class Here:
    """The parts of the link in this process, which a test moves by hand."""

    def __init__(self, config: Config, detector: Detector, make: work.MakeResults) -> None:
        config.spool.mkdir()
        self.config, self.store = config, Store(config.database)
        self.inbox = Inbox(config.spool, self.store, config.quiet)
        self.worker = work.Worker("test", detector, config, make)

    def work(self) -> None:
        """Do all that is due."""
        while self.worker.one():
            pass

    def dead(self) -> list[str]:
        return [reason for _, _, reason in self.store.dead()]


@pytest.fixture
def link(tmp_path: Path, detector: Detector, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Here]]:
    monkeypatch.setattr(work, "delay", lambda times: 0.0)
    made: list[Here] = []

    def make(target: str, make: work.MakeResults = work.objects, **options: Any) -> Here:
        options = {"spool": tmp_path / f"spool{len(made)}", "quiet": 0.0, "device": "cpu"} | options
        made.append(Here(Config(target=target, **options), detector, make))
        return made[-1]

    yield make
    for one in made:
        one.worker.decoder.close()
