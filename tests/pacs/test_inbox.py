"""What comes in: durable before it is taken, refused whole where it cannot be, and never a path of its own choice."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from experiments.pacs_servers import NAME, PATIENT, ROOT, radiograph
from pydicom import uid

from loligo.io import UnreadableImage
from loligo.pacs.inbox import Full, Inbox
from loligo.pacs.store import Store


@pytest.fixture
def inbox(tmp_path: Path) -> Inbox:
    spool = tmp_path / "spool"
    spool.mkdir()
    return Inbox(spool, Store(f"sqlite:///{spool}/queue.sqlite"), quiet=0)


def files(inbox: Inbox) -> list[Path]:
    return [path for path in inbox.spool.rglob("*") if path.is_file() and "queue" not in path.name]


def test_an_instance_is_taken_once(inbox: Inbox, tmp_path: Path) -> None:
    content = radiograph(tmp_path / "a", "0.1", 32).read_bytes()
    inbox.take(content)
    inbox.take(content)
    (path,) = files(inbox)
    assert path.read_bytes() == content and path.stat().st_mode & 0o077 == 0
    study = inbox.store.claim("w", 2e9, 60)
    assert study and study.files == (path.name,)
    changed = radiograph(tmp_path / "b", "0.1", 32, ViewPosition="AP").read_bytes()
    inbox.take(changed)
    assert [one.read_bytes() for one in files(inbox)] == [changed]


def test_names_of_files_and_the_queue_hold_no_value_of_a_message(inbox: Inbox, tmp_path: Path) -> None:
    path = radiograph(tmp_path / "a", "0.1", 32, StudyInstanceUID="../../../evil", SOPInstanceUID="/tmp/evil")
    inbox.take(path.read_bytes())
    (kept,) = files(inbox)
    assert kept.is_relative_to(inbox.spool / "studies") and "evil" not in str(kept)
    inbox.store.engine.dispose()
    queue = b"".join(path.read_bytes() for path in inbox.spool.glob("queue.sqlite*"))
    assert b"studies" in queue
    for secret in (NAME, PATIENT, ROOT, "evil"):
        assert secret.encode() not in queue


@pytest.mark.parametrize("where", ["write", "rename", "queue"])
def test_a_full_disk_keeps_nothing_and_says_so(
    inbox: Inbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    content = radiograph(tmp_path / "a", "0.1", 32).read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def locked(*_: object) -> None:
        from sqlalchemy.exc import OperationalError

        raise OperationalError("INSERT", {}, Exception("database or disk is full"))

    with monkeypatch.context() as patch:
        match where:
            case "write":
                patch.setattr(os, "fsync", full)
            case "rename":
                patch.setattr(Path, "replace", full)
            case _:
                patch.setattr(inbox.store, "receive", locked)
        with pytest.raises(Full):
            inbox.take(content)
    assert inbox.store.counts()["received"] == 0
    inbox.take(content)
    assert len(files(inbox)) == 1 and inbox.store.counts()["received"] == 1


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\0" * 128 + b"DICM" + b"\xff" * 100], ids=len)
def test_what_cannot_be_parsed_is_refused(inbox: Inbox, content: bytes) -> None:
    with pytest.raises(UnreadableImage):
        inbox.take(content)
    assert not files(inbox) and not sum(inbox.store.counts().values())


def test_what_is_no_image_is_not_kept_but_counted(inbox: Inbox, tmp_path: Path) -> None:
    report = radiograph(tmp_path / "a", "0.1", 32, SOPClassUID=uid.ComprehensiveSRStorage, Modality="SR")
    inbox.take(report.read_bytes())
    assert not files(inbox) and inbox.store.counts()["received"] == 1
    study = inbox.store.claim("w", 2e9, 60)
    assert study and study.files == () and inbox.store.advance(study, state="done", worker="")
    inbox.take(report.read_bytes())  # as our own results come back by the change log
    assert inbox.store.counts()["done"] == 1


def test_remains_of_a_kill_go_and_what_is_known_stays(inbox: Inbox, tmp_path: Path) -> None:
    inbox.take(radiograph(tmp_path / "a", "0.1", 32).read_bytes())
    (kept,) = files(inbox)
    (inbox.spool / "incoming" / "half").write_bytes(b"half")
    (kept.parent / "moved").write_bytes(b"before its row was written")
    (kept.parent.parent / "work-3").mkdir()
    (inbox.spool / "studies" / "unknown").mkdir()
    inbox.sweep()
    assert files(inbox) == [kept] and not (kept.parent.parent / "work-3").exists()
    assert not (inbox.spool / "studies" / "unknown").exists()


def test_files_go_when_their_study_is_done_for_long_enough(inbox: Inbox, tmp_path: Path) -> None:
    inbox.take(radiograph(tmp_path / "a", "0.1", 32).read_bytes())
    inbox.tidy(keep=0)
    assert len(files(inbox)) == 1
    study = inbox.store.claim("w", 2e9, 60)
    assert study and inbox.store.advance(study, state="done", finished=1.0, worker="")
    inbox.tidy(keep=0)
    assert not files(inbox) and inbox.store.counts()["done"] == 1
    inbox.take(radiograph(tmp_path / "b", "0.2", 32, study="0.1").read_bytes())
    inbox.sweep()
    assert len(files(inbox)) == 1 and inbox.store.counts()["received"] == 1
