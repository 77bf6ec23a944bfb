"""The options of the link, and what of them is refused: who may reach it, and over what."""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
import stat
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

SECRET = "LOLIGO_PACS_CREDENTIALS"
"""Environment variable that holds credentials, in place of a file."""
_TITLE = re.compile(r"[!-\[\]-~](?:[ -\[\]-~]{0,14}[!-\[\]-~])?")  # PS3.5: no backslash, no control characters
_DIMSE = re.compile(r"(?P<title>[^@]+)@(?P<host>\[[^]]+\]|[^:@]+):(?P<port>\d+)")
_WEB = ("orthanc", "dicomweb")


@dataclass(frozen=True)
class Config:
    """Options of the link to a PACS."""

    spool: Path = Path("spool")
    """Folder for the queue and for what waits in it, patients' images among them; readable by you alone."""
    queue: str = ""
    """Database of the queue by URL, such as postgresql+psycopg://host/name; empty is SQLite in the spool."""
    listen: str = ""
    """Where to receive by C-STORE: AETITLE@HOST:PORT, such as LOLIGO@127.0.0.1:11112."""
    callers: tuple[str, ...] = ()
    """AE titles that may send; empty allows all, on loopback only."""
    source: str = ""
    """Where to fetch new images: orthanc+http://HOST:PORT or dicomweb+https://HOST/PATH."""
    backlog: bool = False
    """Fetch what the source held before the first start, too."""
    days: int = 2
    """Of dicomweb, how many days back the date of a study may lie."""
    target: str = ""
    """Where results go: AETITLE@HOST:PORT, orthanc+http://HOST:PORT or dicomweb+https://HOST/PATH."""
    commitment: bool = True
    """Ask a target that offers it for storage commitment; it answers to --listen."""
    heat_map: bool = False
    """Send heat maps, too."""
    workers: int = 1
    """Processes, each with the model in memory."""
    quiet: float = 10.0
    """Seconds without a new image after which a study is complete."""
    attempts: int = 5
    """Failures of a study after which it is dead; a peer that cannot be reached does not count."""
    study_seconds: float = 900.0
    """Longest time that a worker may take for a study."""
    decode_seconds: float = 120.0
    """Longest time that the decoder may take for a study."""
    decode_memory: int = 4096
    """MiB that the decoder may take."""
    largest: int = 512
    """MiB that an instance may take."""
    keep: float = field(default=3600.0, metadata={"least": 0})
    """Seconds that images stay in the spool when their study is done, so that late ones of a series join them."""
    metrics: int = field(default=0, metadata={"least": 0})
    """Port on 127.0.0.1 for Prometheus, at /metrics; 0 is none."""
    certificate: Path | None = None
    """PEM file of this side's TLS certificate: it makes --listen TLS, and is shown to a target."""
    private_key: Path | None = None
    """PEM file of its key."""
    authority: Path | None = None
    """PEM file of certificates that peers must have, over DIMSE and HTTPS; it makes DIMSE to the target TLS."""
    trusted_network: bool = False
    """Allow connections beyond this machine without TLS."""
    credentials: Path | None = None
    """File of mode 0600 with user:password, or Bearer TOKEN, for source and target; else $LOLIGO_PACS_CREDENTIALS."""
    device: str = "auto"
    """auto, cpu, cuda, mps, or another accelerator of PyTorch."""
    false_alarm_rate: float | None = None
    """Proportion of normal images that may be flagged, in place of the run's."""
    scope: Literal["checked", "any"] = "checked"
    """Any scores also images that show something else than the training images, or whose header says so."""

    @property
    def database(self) -> str:
        """Return the URL of the queue."""
        return self.queue or f"sqlite:///{self.spool.absolute() / 'queue.sqlite'}"

    @property
    def title(self) -> str:
        """Return this side's AE title."""
        return dimse(self.listen).title if self.listen else "LOLIGO"


class Peer(NamedTuple):
    """An application entity of DICOM."""

    title: str
    host: str
    port: int


class Web(NamedTuple):
    """A server of HTTP."""

    kind: str
    """orthanc or dicomweb."""
    url: str
    """Without a slash at its end."""


def dimse(text: str) -> Peer:
    """Read AETITLE@HOST:PORT; ValueError for another form."""
    found = _DIMSE.fullmatch(text)
    if not found or not _TITLE.fullmatch(found["title"]) or not 0 < int(found["port"]) < 65536:
        raise ValueError(f"{text!r} is no DICOM peer; give AETITLE@HOST:PORT, such as ORTHANC@127.0.0.1:4242")
    return Peer(found["title"], found["host"].strip("[]"), int(found["port"]))


def web(text: str) -> Web:
    """Read KIND+http://HOST:PORT/PATH; ValueError for another form, and for one that holds a password."""
    kind, _, url = text.partition("+")
    parts = urlsplit(url)
    if kind not in _WEB or parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{kind!r} begins no server's address; give orthanc+http://HOST:PORT or dicomweb+https://HOST")
    if "@" in parts.netloc:
        raise ValueError(f"the address of {parts.hostname} holds credentials; give them by --credentials FILE")
    return Web(kind, url.rstrip("/"))


def check(config: Config) -> None:
    """Raise ValueError for what contradicts itself, and for what is open to a network that is not said to be trusted.

    Beyond loopback, listening needs ``callers``, and every connection needs TLS unless ``trusted_network``.
    """
    if not config.target:
        raise ValueError("results need a --target, such as orthanc+http://127.0.0.1:8042")
    if not (config.listen or config.source):
        raise ValueError("images need a --listen or a --source, such as LOLIGO@127.0.0.1:11112")
    for name in ("quiet", "study_seconds", "decode_seconds"):
        if getattr(config, name) <= 0:
            raise ValueError(f"{name} is {getattr(config, name):g}; more than 0 seconds are needed")
    if urlsplit(config.queue).password:
        raise ValueError("--queue holds a password, which others can see; set PGPASSWORD, or write it to ~/.pgpass")
    if config.certificate and not config.private_key:
        raise ValueError("--certificate needs --private_key")
    for title in config.callers:
        if not _TITLE.fullmatch(title):
            raise ValueError(f"{title!r} is no AE title; 1 to 16 characters without a backslash are allowed")
    if config.listen:
        _check_listening(config)
    for text in filter(None, (config.source, config.target)):
        if "://" in text or config.source == text:
            parts = urlsplit(web(text).url)
            _check_way(config, parts.hostname or "", parts.scheme == "https")
        else:
            _check_way(config, dimse(text).host, bool(config.authority))
    credentials(config)


def _check_listening(config: Config) -> None:
    host = dimse(config.listen).host
    if not is_loopback(host) and not config.callers:
        raise ValueError(f"--listen on {host} is open to others; name the AE titles that may send: --callers TITLE")
    _check_way(config, host, bool(config.certificate))


def _check_way(config: Config, host: str, encrypted: bool) -> None:
    """Raise for patients' data that leave this machine in clear."""
    if not (is_loopback(host) or encrypted or config.trusted_network):
        raise ValueError(
            f"{host} is reached without TLS, beyond this machine; give --certificate (to listen), --authority (to send"
            " by DIMSE) or https, or say --trusted_network"
        )


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine; other names are not looked up."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def credentials(config: Config) -> tuple[str, str]:
    """Return user and password, an empty user and a token, or two empty texts.

    Raises ValueError for a file that others can read and for what is neither.
    """
    text = os.environ.get(SECRET, "")
    if path := config.credentials:
        if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise ValueError(f"{path} can be read by others; chmod 600 it")
        text = path.read_text(encoding="utf-8").strip()
    if not text:
        return "", ""
    first, _, rest = text.partition(" " if text[:7].lower() == "bearer " else ":")
    if not rest:
        raise ValueError("the credentials are neither user:password nor Bearer TOKEN")
    return ("", rest.strip()) if text[:7].lower() == "bearer " else (first, rest)


def tls(config: Config, server: bool) -> ssl.SSLContext | None:
    """Return TLS for DIMSE as a server or a client; None where it is not used."""
    if not (config.certificate if server else config.authority):
        return None
    purpose = ssl.Purpose.CLIENT_AUTH if server else ssl.Purpose.SERVER_AUTH
    context = ssl.create_default_context(purpose, cafile=config.authority and str(config.authority))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if config.certificate:
        context.load_cert_chain(config.certificate, config.private_key)
    if server and config.authority:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def need(config: Config) -> None:
    """Raise ImportError, which says how to install it, where a library that these options need is missing."""
    to = [text for text in (config.source, config.target) if text]
    if config.listen or not all("://" in text for text in to):
        library("pynetdicom")
    for name in ("sqlalchemy", *(["httpx"] if any("://" in text for text in to) else [])):
        library(name)
    if config.metrics:
        library("prometheus_client")


def library(name: str) -> Any:
    """Import a library of the extra ``pacs``; ImportError says how to install it."""
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(f"loligo pacs needs {name.partition('.')[0]}: pip install 'loligo[pacs]'") from error
