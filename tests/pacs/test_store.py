"""The queue: whatever dies and whenever, each instance that was taken ends in the results of its study."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from experiments.pacs_servers import free_port, wait

from loligo.pacs.store import STATES, Store

POSTGRES = Path("/usr/lib/postgresql/15/bin")


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """Start PostgreSQL, which refuses to run as root, as its own user."""
    if not (POSTGRES / "postgres").exists() or not shutil.which("runuser"):
        pytest.skip("PostgreSQL 15 is not installed")
    pytest.importorskip("psycopg")
    folder, port = Path(tempfile.mkdtemp(prefix="loligo-postgres-")), free_port()
    shutil.chown(folder, "postgres", "postgres")
    as_user = ["runuser", "-u", "postgres", "--"]
    data = ["-D", folder / "db"]
    subprocess.run([*as_user, POSTGRES / "initdb", *data, "-A", "trust"], check=True, capture_output=True)
    address = ["-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={folder}", "-p", str(port)]
    process = subprocess.Popen([*as_user, POSTGRES / "postgres", *data, *address], stderr=subprocess.DEVNULL)
    ready = [POSTGRES / "pg_isready", "-h", "127.0.0.1", "-p", str(port)]
    try:
        wait(lambda: subprocess.run(ready, capture_output=True).returncode == 0)
        yield f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([*as_user, POSTGRES / "pg_ctl", *data, "-m", "immediate", "stop"], capture_output=True)
        process.wait(30)
        shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "sqlite":
        return Store(f"sqlite:///{tmp_path}/queue.sqlite")
    found = Store(request.getfixturevalue("postgres"))
    from loligo.pacs.schema import META

    META.drop_all(found.engine)
    return Store(request.getfixturevalue("postgres"))


def test_a_study_passes_through_all_states(store: Store) -> None:
    assert store.receive("s", "a", "file", now=100, quiet=10) == ""
    assert store.counts()["received"] == 1
    assert store.claim("w", now=109, seconds=60) is None  # not complete yet
    study = store.claim("w", now=110, seconds=60)
    assert study and study.state == "working" and study.files == ("file",)
    assert store.claim("v", now=111, seconds=60) is None  # nobody else gets it
    study = store.advance(study, state="sending", results="out")
    assert study and store.counts()["sending"] == 1
    assert store.advance(study, state="done", finished=112.0, worker="")
    assert store.counts() == dict.fromkeys(STATES, 0) | {"done": 1}
    assert store.seconds((5, 12, 20)) == ([0, 1, 1], 12.0)


def test_a_repeat_changes_nothing_and_more_reopens(store: Store) -> None:
    store.receive("s", "a", "1", 0, 1)
    study = store.claim("w", 5, 60)
    assert study
    assert store.receive("s", "a", "1", 6, 1) == ""
    assert store.counts()["working"] == 1
    store.receive("s", "report", "", 6, 1)  # what cannot be scored opens no study that is known: our own results
    assert store.counts()["working"] == 1
    store.receive("s", "b", "2", 6, 1)
    assert store.counts()["received"] == 1
    assert store.advance(study, state="done") is None  # it was of one instance
    study = store.claim("w", 8, 60)
    assert study and study.files == ("1", "2")
    assert store.receive("s", "a", "3", 9, 1) == "1"  # the same UID with another content
    assert store.knows("s", "a") and not store.knows("s", "c")


def test_a_study_is_measured_once_and_only_by_whose_it_is(store: Store) -> None:
    store.receive("s", "a", "1", 0, 1)
    first = store.claim("w", 5, 60)
    assert store.give_back("w") == ["w"]
    second = store.claim("v", 6, 60)
    assert first and second
    assert store.advance(first, state="sending", measured=("m", "of one that was thought dead")) is None
    assert store.measured(0) == []
    assert store.advance(second, state="sending", measured=("m", "{1}"))
    store.receive("s", "b", "2", 7, 1)  # reopened
    again = store.claim("w", 9, 60)
    assert again and store.advance(again, state="sending", measured=("n", "{2}"))
    store.receive("t", "a", "1", 10, 1)
    other = store.claim("w", 12, 60)
    assert other and store.advance(other, state="sending", measured=("m", "{3}"))
    assert store.measured(0) == [(1, "m", "{1}"), (2, "m", "{3}")] and store.measured(1) == [(2, "m", "{3}")]


def test_a_lease_ends_and_counts_as_an_attempt(store: Store) -> None:
    store.receive("s", "a", "1", 0, 1)
    first = store.claim("w", 5, seconds=60)
    assert store.give_back(expired=64) == []
    assert store.give_back(expired=66) == ["w"]
    second = store.claim("v", 67, 60)
    assert first and second and second.attempts == 1
    assert store.advance(first, state="done") is None
    assert store.advance(second, state="done")


def test_the_dead_return_where_they_left_off(store: Store) -> None:
    for number, results in enumerate(("", "out")):
        store.receive(f"s{number}", "a", "1", 0, 1)
        study = store.claim("w", 5, 60)
        assert study and store.advance(study, state="dead", reason="why", results=results, worker="", finished=7.0)
    assert [(reason, when) for _, when, reason in store.dead()] == [("why", 7.0)] * 2
    assert store.retry(store.dead()[0][0], now=8) == 1
    assert store.retry(None, now=9) == 1
    assert {study.state for study in (store.claim("w", 10, 60), store.claim("w", 10, 60)) if study} == {
        "working",
        "sending",
    }


def test_commitment_is_taken_once(store: Store) -> None:
    store.receive("s", "a", "1", 0, 1)
    study = store.claim("w", 5, 60)
    assert study
    study = store.advance(study, state="sending", results="out", commitment="2.25.1")
    assert study and not store.committed("", 1, 6) and not store.committed("2.25.9", 1, 6)
    assert store.committed("2.25.1", 0, 7)  # not kept: sent anew, with a transaction of its own
    assert not store.committed("2.25.1", 1, 8)
    assert store.advance(study, state="done") is None
    again = store.claim("w", 8, 60)
    assert again and again.state == "sending" and again.attempts == 1
    assert store.advance(again, commitment="2.25.2")
    assert store.committed("2.25.2", 1, 9)
    assert store.counts()["done"] == 1


def test_files_are_forgotten_only_of_what_is_done(store: Store) -> None:
    store.receive("s", "a", "1", 0, 1)
    study = store.claim("w", 5, 60)
    assert study and store.advance(study, state="done", finished=6.0, worker="")
    assert store.settled(5) == [] and store.settled(6) == [(study.id, "s")]
    store.receive("s", "b", "2", 7, 1)  # in between
    assert not store.forget(study.id)
    assert store.files() == {"s": {"1", "2"}}


def test_uids_are_hashed_by_a_key_that_stays(store: Store) -> None:
    uid = "1.2.3.4"
    again = Store(store.engine.url.render_as_string(hide_password=False))
    assert store.key(uid) == again.key(uid) != uid
    assert len(store.key("../../etc/passwd")) == 40 and store.key("../../etc/passwd").isalnum()


@pytest.mark.parametrize("seed", range(8))
def test_nothing_is_lost_whatever_dies(tmp_path: Path, seed: int) -> None:
    """Let workers do steps in random order, die at any of them, and instances come at any time."""
    store, random = Store(f"sqlite:///{tmp_path}/queue.sqlite"), np.random.default_rng(seed)
    sent: dict[str, set[str]] = {}
    delivered: dict[int, tuple[str, ...]] = {}
    held: dict[str, object] = {}
    now = 0.0
    for step in range(400):
        now += float(random.exponential(1))
        worker = f"w{random.integers(3)}"
        match random.choice(["receive", "step", "die", "expire", "slow"], p=[0.25, 0.6, 0.05, 0.05, 0.05]):
            case "receive" if step < 250:
                study, name = f"s{random.integers(12)}", f"{random.integers(6)}"
                store.receive(study, name, name, now, quiet=2)
                sent.setdefault(study, set()).add(name)
            case "step":
                _step(store, held, delivered, worker, now)
            case "die":
                held.pop(worker, None)
                store.give_back(worker)
            case "expire":  # it lives on, and finds that its study is no longer its own
                store.give_back(expired=now)
            case _:
                held.pop(worker, None)  # it died unseen; its lease ends by itself
    for worker in ("w0", "w1", "w2"):
        store.give_back(worker)
    held.clear()
    for _ in range(200):
        now += 10
        _step(store, held, delivered, "w0", now)
    assert store.counts()["done"] == len(sent) == sum(store.counts().values())
    measured = store.measured(0)
    assert [number for number, _, _ in measured] == [*range(1, len(sent) + 1)]  # each study once, without gaps
    assert sorted(delivered.values()) == sorted(tuple(sorted(names)) for names in sent.values())


def _step(store: Store, held: dict, delivered: dict, worker: str, now: float) -> None:
    """Let a worker do what comes next; what is delivered last counts, as results replace each other by UID."""
    study = held.pop(worker, None) or store.claim(worker, now, seconds=5)
    if study is None:
        return
    if study.state == "working":
        measured = ("model", str(study.files))
        held[worker] = store.advance(study, state="sending", results="out", measured=measured)
    else:
        delivered[study.id] = study.files
        store.advance(study, state="done", finished=now, worker="", lease=0)
