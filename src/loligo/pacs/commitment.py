"""Storage commitment: ask a peer whether it keeps what it was sent, and take its answer (PS3.4, annex J)."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

from pydicom.dataset import Dataset

from loligo.pacs.journal import say
from loligo.pacs.store import Store

VERIFICATION = "1.2.840.10008.1.1"
"""The SOP class of C-ECHO."""
PUSH_MODEL, INSTANCE = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
"""SOP class of storage commitment, and the instance of it that all peers have."""
_SUCCESS = 1  # event type; 2 is that some are not kept


def ask(association: Any, transaction: str, instances: Sequence[tuple[str, str]]) -> None:
    """Ask a peer to keep instances, pairs of class and instance UIDs; OSError where it does not take the request."""
    request = Dataset()
    request.TransactionUID = transaction
    request.ReferencedSOPSequence = [_reference(*one) for one in instances]
    status, _ = association.send_n_action(request, 1, PUSH_MODEL, INSTANCE)
    if (found := status.get("Status")) != 0:
        raise ConnectionError(
            "the target refused the request for storage commitment"
            f" ({'no answer' if found is None else f'status 0x{found:04X}'}); make this AE title known to it, or set"
            " --commitment false"
        )


def report(event: Any, store: Store) -> tuple[int, None]:
    """Take an answer: a study whose results are all kept is done, one of which any is not is sent anew."""
    try:
        said = event.event_information
        kept = len(said.get("ReferencedSOPSequence", []))
        lost = len(said.get("FailedSOPSequence", []))
        count = kept if event.event_type == _SUCCESS and not lost else 0
        known = store.committed(str(said.get("TransactionUID", "")), count, time.time())
    except Exception as error:  # whatever a peer sends; it is asked again
        say("cannot take an answer on storage commitment", logging.WARNING, error=type(error).__name__)
        return 0x0110, None
    if not count:
        say("the target does not keep all results", logging.WARNING, known=known, kept=kept, lost=lost)
    return 0x0000, None


def _reference(kind: str, instance: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = kind, instance
    return item
