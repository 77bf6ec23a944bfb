"""Keep what comes in: an instance is taken when its file and its row in the queue are durable, and not before.

The folder of a study and the file of an instance are named by keyed hash and by SHA-256, never by a value of the file.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

from sqlalchemy.exc import OperationalError

from loligo.io import UnreadableImage, dicom_header, dicom_kind
from loligo.pacs.journal import say
from loligo.pacs.store import Store

INSTANCES, INCOMING = "in", "incoming"
"""Folders: of a study's instances in its own, and of what is not taken yet in the spool."""
WORK = "work-"
"""How the name of a folder begins that holds what is decoded."""


class Full(OSError):
    """What comes in cannot be kept now: the disk is full, or the queue cannot be written."""


class Inbox:
    """Takes instances into a spool and its queue."""

    def __init__(self, spool: Path, store: Store, quiet: float) -> None:
        self.spool, self.store, self.quiet = spool, store, quiet
        self._placing = threading.Lock()  # no study is forgotten while one of its files is between folder and queue
        for folder in (spool, spool / INCOMING, spool / "studies"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)

    def folder(self, key: str) -> Path:
        """Return the folder of a study."""
        return folder_of(self.spool, key)

    def take(self, content: bytes) -> None:
        """Keep an instance, a whole DICOM file; a repeat changes nothing.

        Raises ``UnreadableImage`` for what cannot be parsed or lacks its UIDs, and `Full`; nothing is kept then.
        """
        try:
            temporary = self._written(content)
            try:
                self._enter(temporary, hashlib.sha256(content).hexdigest()[:40])
            finally:
                temporary.unlink(missing_ok=True)
        except UnreadableImage:
            raise
        except (OSError, OperationalError) as error:
            raise Full(f"an instance cannot be kept: {type(error).__name__}") from error

    def _written(self, content: bytes) -> Path:
        """Write a file that only its owner can read, and force it to the disk."""
        handle, name = tempfile.mkstemp(dir=self.spool / INCOMING)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        return Path(name)

    def _enter(self, temporary: Path, digest: str) -> None:
        """Move a file into its study's folder, and enter it in the queue."""
        header = dicom_header.load(temporary)
        uids = [header.text(word) for word in ("StudyInstanceUID", "SOPInstanceUID")]
        if not all(uids):
            raise UnreadableImage(temporary, "has no Study or SOP Instance UID")
        study, instance = map(self.store.key, uids)
        try:
            dicom_kind.classify(header)
        except UnreadableImage:  # a report, a localizer, our own results
            digest = ""
        with self._placing:
            if digest:
                self._place(temporary, study, digest)
            if before := self.store.receive(study, instance, digest, time.time(), self.quiet):
                (self.folder(study) / INSTANCES / before).unlink(missing_ok=True)

    def _place(self, temporary: Path, study: str, digest: str) -> None:
        folder = self.folder(study) / INSTANCES
        new = not folder.exists()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary.replace(folder / digest)
        for changed in (folder, *((folder.parent, folder.parent.parent) if new else ())):
            synced(changed)

    def tidy(self, keep: float) -> None:
        """Remove the files of studies that are done for ``keep`` seconds."""
        for number, key in self.store.settled(time.time() - keep):
            with self._placing:
                if self.store.forget(number):
                    shutil.rmtree(self.folder(key), ignore_errors=True)

    def sweep(self) -> None:
        """Remove what a kill left: files that no row names. For the start, when nothing else uses the spool."""
        for left in (self.spool / INCOMING).iterdir():
            left.unlink()
        known, count = self.store.files(), 0
        for folder in (self.spool / "studies").iterdir():
            names = known.get(folder.name)
            if names is None:
                shutil.rmtree(folder)
                count += 1
                continue
            for left in (*folder.iterdir(), *(folder / INSTANCES).glob("*")):
                if left.name not in names | {INSTANCES}:
                    shutil.rmtree(left) if left.is_dir() else left.unlink()
                    count += 1
        if count:
            say("removed what no row names", logging.WARNING, files=count)


def folder_of(spool: Path, key: str) -> Path:
    """Return the folder of a study by its key."""
    return spool / "studies" / key


def synced(folder: Path) -> None:
    """Force the names in a folder to the disk, where the system can do that."""
    with suppress(PermissionError):  # Windows opens no folders
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
