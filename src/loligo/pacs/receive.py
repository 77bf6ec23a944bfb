"""Receive instances by C-STORE, and news of storage commitment: a small DICOM server."""

from __future__ import annotations

import logging
from typing import Any

from loligo.io import UnreadableImage
from loligo.pacs.commitment import VERIFICATION, report
from loligo.pacs.config import Config, dimse, library, tls
from loligo.pacs.inbox import Full, Inbox
from loligo.pacs.journal import place, say

TAKEN, FULL, NOT_UNDERSTOOD = 0x0000, 0xA700, 0xC000
"""Status of C-STORE: PS3.4, table B.2-1."""
_PDU = 1 << 17  # bytes of a message's parts, as is announced to the peer
_AT_ONCE = 16


def start(config: Config, inbox: Inbox) -> Any:
    """Start to listen; return the server, which `stop` ends. OSError where the address is taken."""
    ae_module, net, events, sop = map(
        library, ("pynetdicom.ae", "pynetdicom", "pynetdicom.events", "pynetdicom.sop_class")
    )
    own = dimse(config.listen)
    ae = ae_module.ApplicationEntity(own.title)
    ae.require_called_aet, ae.require_calling_aet = True, list(config.callers)
    ae.maximum_pdu_size, ae.maximum_associations = _PDU, _AT_ONCE
    syntaxes = [one for one in net.ALL_TRANSFER_SYNTAXES if one != "1.2.840.10008.1.2.1.99"]  # Deflate can be a bomb
    for context in net.AllStoragePresentationContexts:
        ae.add_supported_context(context.abstract_syntax, syntaxes)
    ae.add_supported_context(VERIFICATION)
    ae.add_supported_context(sop.StorageCommitmentPushModel, scu_role=True, scp_role=True)
    handlers = [
        (events.EVT_CONN_OPEN, _bound, [config.largest << 20]),
        (events.EVT_DIMSE_RECV, _begin_anew),
        (events.EVT_C_STORE, _stored, [inbox]),
        (events.EVT_N_EVENT_REPORT, report, [inbox.store]),
    ]
    return ae.start_server(
        (own.host, own.port), block=False, evt_handlers=handlers, ssl_context=tls(config, server=True)
    )


def stop(server: Any) -> None:
    """Take no more, and end what comes in: what is not acknowledged is sent again."""
    server.shutdown()
    for one in server.ae.active_associations:
        one.abort()


def _stored(event: Any, inbox: Inbox) -> int:
    """Answer a C-STORE, once what it holds is durable."""
    try:
        inbox.take(event.encoded_dataset())
        return TAKEN
    except UnreadableImage:
        say("refused an instance that cannot be parsed", logging.WARNING)
        return NOT_UNDERSTOOD
    except (Full, MemoryError) as error:
        say("cannot keep an instance; the sender is told so", logging.ERROR, error=place(error.__cause__ or error))
        return FULL


class _Bounded:
    """Reads from a socket until a message is longer than allowed, or a part of it than was announced."""

    def __init__(self, read: Any, most: int) -> None:
        self.read, self.most, self.held = read, most, 0

    def __call__(self, count: int) -> Any:
        """Read so many bytes; OSError, which ends the connection, where they are too many."""
        self.held += count
        if count > 2 * _PDU or self.held > self.most:
            say("ended a connection whose message is too long", logging.WARNING)
            raise OSError("the message is too long")
        return self.read(count)


def _bound(event: Any, most: int) -> None:
    """Bound what a connection may make this side hold."""
    socket = event.assoc.dul.socket
    socket.recv = _Bounded(socket.recv, most)


def _begin_anew(event: Any) -> None:
    """Count from zero again, as a message is whole."""
    event.assoc.dul.socket.recv.held = 0
