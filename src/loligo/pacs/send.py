"""Return results to a PACS, and make sure that it has them. To send the same UIDs again doubles nothing there."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import pydicom

from loligo.pacs import commitment
from loligo.pacs.config import Config, Peer, dimse, library, tls, web
from loligo.pacs.web import Server, multipart

_STORED = (0x0000, 0xB000, 0xB006, 0xB007)  # success, and warnings of what was stored all the same: PS3.4, B.2.3
_BUSY = range(0xA700, 0xA800)  # out of resources


class Refused(ValueError):
    """A target does not take a result; the message holds no UID."""


class Target(Protocol):
    """Where results go."""

    def send(self, files: Sequence[Path], note: Callable[[str], bool]) -> bool:
        """Store files; tell whether the target is known to keep them, or will say so later.

        Of the latter, ``note`` is told the Transaction UID before it is asked for, and says whether to ask. Raises
        `Refused`, and ``OSError`` where the target cannot be reached or is busy.
        """


def target(config: Config) -> Target:
    """Return the target of a configuration."""
    if "://" not in config.target:
        return _Dimse(config, dimse(config.target))
    to = web(config.target)
    return (_Orthanc if to.kind == "orthanc" else _Dicomweb)(Server(config, to))


class _Dimse:
    """C-STORE, then storage commitment where the peer offers it; else its status counts."""

    def __init__(self, config: Config, peer: Peer) -> None:
        self.config, self.peer = config, peer

    def send(self, files: Sequence[Path], note: Callable[[str], bool]) -> bool:
        datasets = [pydicom.dcmread(path) for path in files]
        association = self._associated(datasets)
        try:
            for one in datasets:
                _check(association.send_c_store(one).get("Status"))
            if not (self.config.commitment and self.config.listen and _accepts(association, commitment.PUSH_MODEL)):
                return True
            transaction = f"2.25.{uuid.uuid4().int}"
            if note(transaction):
                commitment.ask(association, transaction, [(one.SOPClassUID, one.SOPInstanceUID) for one in datasets])
            return False
        except (RuntimeError, ValueError) as error:  # of pynetdicom: the association ended, a context was not accepted
            if isinstance(error, Refused):
                raise
            if isinstance(error, ValueError):
                raise Refused("the target takes no objects of a class that results have") from error
            raise ConnectionError("the association with the target ended") from error
        finally:
            with suppress(Exception):
                association.release()

    def _associated(self, datasets: Sequence[Any]) -> Any:
        ae = library("pynetdicom").AE(self.config.title)
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 60
        ae.connection_timeout = 10
        for kind in {one.SOPClassUID: one.file_meta.TransferSyntaxUID for one in datasets}.items():
            ae.add_requested_context(*kind)
        ae.add_requested_context(commitment.PUSH_MODEL)
        context = tls(self.config, server=False)
        found = ae.associate(
            self.peer.host,
            self.peer.port,
            ae_title=self.peer.title,
            tls_args=(context, self.peer.host) if context else None,
        )
        if not found.is_established:
            raise ConnectionError("the target takes no association: is it up, and does it know this AE title?")
        return found


def _check(status: int | None) -> None:
    if status is None or status in _BUSY:
        raise ConnectionError("the target gave no answer, or has no room")
    if status not in _STORED:
        raise Refused(f"the target refused a result with status 0x{status:04X}")


def _accepts(association: Any, kind: str) -> bool:
    return any(context.abstract_syntax == kind for context in association.accepted_contexts)


class _Orthanc:
    """Orthanc's own interface: POST, then each instance is looked for."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def send(self, files: Sequence[Path], note: Callable[[str], bool]) -> bool:
        for path in files:
            answer = self.server.ask("POST", "/instances", content=path.read_bytes()).json()
            found = self.server.ask("GET", f"/instances/{answer['ID']}").json()
            if (
                found["MainDicomTags"]["SOPInstanceUID"]
                != pydicom.dcmread(path, specific_tags=["SOPInstanceUID"]).SOPInstanceUID
            ):
                raise Refused("the target has another instance in the place of a result")
        return True


class _Dicomweb:
    """STOW-RS, then each instance is looked for by QIDO-RS."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def send(self, files: Sequence[Path], note: Callable[[str], bool]) -> bool:
        for path in files:
            one = pydicom.dcmread(path, specific_tags=["StudyInstanceUID", "SOPInstanceUID"])
            boundary = secrets.token_hex(16)
            kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
            headers = {"Content-Type": kind, "Accept": "application/dicom+json"}
            self.server.ask("POST", "/studies", content=multipart(path.read_bytes(), boundary), headers=headers)
            where = f"/studies/{one.StudyInstanceUID}/instances"
            if len(self.server.query(where, {"SOPInstanceUID": one.SOPInstanceUID})) != 1:
                raise ConnectionError("the target does not list a result that it took")
        return True
