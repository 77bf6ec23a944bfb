"""HTTP as the link speaks it: bounded answers, credentials, no redirects, and errors without addresses."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from loligo.pacs.config import Config, Web, credentials, library

_SECONDS = 60.0
_BUSY = (408, 425, 429)  # as all above 499: try again later


class Declined(ValueError):
    """A server answers that it will not do what it is asked; the message holds no address."""

    def __init__(self, code: int) -> None:
        super().__init__(f"the server answered with status {code}")
        self.code = code


class Answer(NamedTuple):
    """What a server answers."""

    content: bytes
    kind: str
    """Its Content-Type."""

    def json(self) -> Any:
        """Return what the content says as JSON; None where it is empty."""
        return json.loads(self.content) if self.content else None


class Server:
    """A server of Orthanc or DICOMweb."""

    def __init__(self, config: Config, to: Web) -> None:
        httpx = library("httpx")
        user, secret = credentials(config)
        verify = library("ssl").create_default_context(cafile=str(config.authority)) if config.authority else True
        self._errors, self._url, self._most = httpx.TransportError, to.url, config.largest << 20
        self._client = httpx.Client(
            auth=(user, secret) if user else None,
            headers={"Authorization": f"Bearer {secret}"} if secret and not user else None,
            verify=verify,
            timeout=_SECONDS,
            trust_env=False,  # no proxy, and no password of a .netrc
        )

    def ask(self, verb: str, path: str, **about: Any) -> Answer:
        """Return the answer of the server; ConnectionError where there is none, `Declined` for a refusal."""
        try:
            with self._client.stream(verb, f"{self._url}{path}", **about) as answer:
                content = self._read(answer)
        except self._errors as error:
            raise ConnectionError(f"the server cannot be reached ({type(error).__name__})") from None
        if answer.status_code >= 500 or answer.status_code in _BUSY:
            raise ConnectionError(f"the server answered with status {answer.status_code}")
        if answer.status_code >= 300:
            raise Declined(answer.status_code)
        return Answer(content, answer.headers.get("content-type", ""))

    def _read(self, answer: Any) -> bytes:
        """Read an answer as far as it is allowed to be long."""
        held = bytearray()
        for chunk in answer.iter_bytes():
            held += chunk
            if len(held) > self._most:
                raise Declined(413)
        return bytes(held)

    def query(self, path: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
        """Search by QIDO-RS; return the matches in DICOM JSON, none where the server has nothing to say."""
        answer = self.ask("GET", path, params=parameters, headers={"Accept": "application/dicom+json"})
        return answer.json() or []


def multipart(content: bytes, boundary: str) -> bytes:
    """Return a file as the one part of a multipart/related message."""
    head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    return head + content + f"\r\n--{boundary}--\r\n".encode()


def parts(content: bytes, kind: str) -> list[bytes]:
    """Return the parts of a multipart message whose Content-Type is ``kind``; ValueError where it is none."""
    found = re.search(r'boundary="?([^";,\s]+)', kind)
    if not found:
        raise ValueError("the server's answer is not multipart")
    pieces = (b"\r\n" + content).split(b"\r\n--" + found[1].encode())
    return [piece.partition(b"\r\n\r\n")[2] for piece in pieces[1:] if not piece.startswith(b"--")]
