"""What DICOM headers say of the images of a manifest: whose they are, as a keyed hash, and how they were taken.

The hash of a patient is HMAC-SHA256 with a secret key, so that a manifest cannot be searched for a known id. The key
is random, one a user, and can be read by its owner alone: ``$LOLIGO_PATIENT_KEY``, or
``~/.config/loligo/patients.key``, where it is made when it is first needed. With one key a patient has one name in all
manifests, and one seed gives one split.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from loligo import io
from loligo.files import reason
from loligo.types import Acquisition

if TYPE_CHECKING:
    from loligo.io.dicom_kind import Kind as DicomKind

COLUMNS = ("modality", "view", "laterality", "body_part", "age", "manufacturer")
"""Columns of a manifest that DICOM headers fill, as `Acquisition` has them."""
KEY_BYTES = 16
"""Least length of a key."""


def add(rows: pd.DataFrame, every: bool = True) -> pd.DataFrame:
    """Add `COLUMNS`, and with ``every`` the patients, of the rows that are DICOM; none where no row is.

    Raises ``OSError`` or ``ValueError`` where there is no usable key and none can be made.
    """
    found = [_of(path) for path in rows["path"]]
    if not any(found):
        return rows
    taken = [one.acquisition if one and one.acquisition else Acquisition("") for one in found]
    rows = rows.assign(**{name: [getattr(one, name) for one in taken] for name in COLUMNS})
    if every:
        secret = key()
        own = pd.Series([hashed(one.patient, secret) if one else "" for one in found], rows.index)
        rows["patient"] = own.where(own != "", rows.get("patient", ""))
    return rows


def _of(path: str) -> DicomKind | None:
    """Return what the header of a file says; None where it is not DICOM, or cannot be opened by its name in a table."""
    try:
        return io.about(Path(path))
    except io.UnreadableImage:
        return None


def hashed(patient: str, secret: bytes) -> str:
    """Return the name that a manifest has for a patient: p and 16 hexadecimal digits; empty for none."""
    return f"p{hmac.new(secret, patient.encode(), hashlib.sha256).hexdigest()[:16]}" if patient else ""


def key() -> bytes:
    """Read the secret key, made where there is none yet."""
    path = Path(os.environ.get("LOLIGO_PATIENT_KEY") or Path.home() / ".config" / "loligo" / "patients.key")
    try:
        if not path.exists():
            _make(path)
        found = path.read_bytes().strip()
    except OSError as error:
        raise OSError(
            f"the key for patients' names, {path}, cannot be read or made ({reason(error)}); set LOLIGO_PATIENT_KEY to"
            " a file that can"
        ) from error
    if len(found) < KEY_BYTES:
        raise ValueError(f"{path}: its key has {len(found)} bytes; {KEY_BYTES} or more, best random ones, are allowed")
    return found


def _make(path: Path) -> None:
    """Write a random key for its owner alone, whole or not at all; one that another process made meanwhile stays."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent)  # only its owner can read it
    with os.fdopen(handle, "w") as stream:
        stream.write(secrets.token_hex(32))
    try:
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        Path(temporary).unlink()
