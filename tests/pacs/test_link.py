"""The link against real servers: Orthanc, its DICOMweb, and storescu."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from experiments.pacs_servers import ROOT, Orthanc, radiograph, send, wait
from pacs_fixtures import detector, link, orthanc, port, run
from pydicom import uid

from experiments import pacs_servers as servers
from loligo.detector import Detector
from loligo.pacs import fetch, receive, work
from loligo.pacs.config import Config, web
from loligo.pacs.schema import STUDIES
from loligo.pacs.web import Server

numbers = iter(range(100, 10_000))


@pytest.fixture
def number() -> str:
    """Return the end of UIDs that no other test has."""
    return f"7.{next(numbers)}"


def results(orthanc: Orthanc, number: str) -> Counter[str]:
    """Count the objects of a study in Orthanc by modality, but for the radiographs."""
    own = [one for one in orthanc.instances() if one["StudyInstanceUID"] == f"{ROOT}1.{number}"]
    assert len({one["SOPInstanceUID"] for one in own}) == len(own)
    return Counter(one["Modality"] for one in own if one["Modality"] != "CR")


def local(orthanc: Orthanc, kind: str) -> str:
    """Return the address of one of Orthanc's interfaces."""
    return {
        "rest": f"orthanc+{orthanc.url}",
        "web": f"dicomweb+{orthanc.url}/dicom-web",
        "dimse": f"ORTHANC@127.0.0.1:{orthanc.dicom}",
    }[kind]


@pytest.fixture
def listening(link: Callable[..., Any], orthanc: Orthanc, port: int) -> Iterator[Any]:
    """Return a link that listens, and sends by C-STORE with storage commitment."""
    one = link(local(orthanc, "dimse"), listen=f"LOLIGO@127.0.0.1:{port}", callers=("SENDER", "ORTHANC"), largest=1)
    server = receive.start(one.config, one.inbox)
    yield one
    receive.stop(server)


@pytest.mark.parametrize("kind", ["rest", "web", "dimse"])
def test_results_go_back_once_however_often_they_are_sent(
    link: Callable[..., Any], orthanc: Orthanc, tmp_path: Path, number: str, kind: str
) -> None:
    here = link(local(orthanc, kind), keep=0.0)
    content = radiograph(tmp_path / "a", number).read_bytes()
    here.inbox.take(content)
    here.work()
    first = results(orthanc, number)
    assert here.dead() == [] and here.store.counts()["done"] == 1 and first["SR"] == 1
    here.inbox.tidy(0)
    here.inbox.take(content)  # after a crash that forgot all of it
    here.work()
    assert here.store.counts()["done"] == 1 and results(orthanc, number) == first


def test_heat_maps_are_sent_only_where_asked_for(
    link: Callable[..., Any], orthanc: Orthanc, tmp_path: Path, number: str
) -> None:
    content = radiograph(tmp_path / "a", number).read_bytes()
    for heat_map in (False, True):
        here = link(local(orthanc, "rest"), heat_map=heat_map)
        here.inbox.take(content)
        here.work()
        kinds = Counter(one["Modality"] for one in orthanc.instances() if one["StudyInstanceUID"].endswith(number))
        assert (sum(kinds.values()) > sum(results(orthanc, number)[kind] for kind in ("SR", "SEG", "KO"))) == heat_map


def test_storage_commitment_ends_a_study(
    listening: Any, orthanc: Orthanc, tmp_path: Path, number: str, port: int
) -> None:
    assert send(radiograph(tmp_path / "a", number), "LOLIGO", port)
    listening.work()
    assert listening.dead() == []
    wait(lambda: listening.store.counts()["done"] == 1)  # by Orthanc's answer alone
    assert results(orthanc, number)["SR"] == 1


def test_a_peer_that_keeps_nothing_is_sent_to_again(listening: Any, tmp_path: Path, number: str, port: int) -> None:
    listening.inbox.take(radiograph(tmp_path / "a", number).read_bytes())
    study = listening.store.claim("w", 2e9, 2e9)
    study = listening.store.advance(study, state="sending", commitment="2.25.77")
    answer = pydicom.Dataset()
    answer.TransactionUID, answer.FailedSOPSequence = "2.25.77", [pydicom.Dataset()]
    listening.store.advance(study, commitment="2.25.77")
    import pynetdicom as net

    ae = net.AE("ORTHANC")
    ae.add_requested_context("1.2.840.10008.1.20.1")
    role = net.build_role("1.2.840.10008.1.20.1", scp_role=True)
    association = ae.associate("127.0.0.1", port, ae_title="LOLIGO", ext_neg=[role])
    status, _ = association.send_n_event_report(answer, 2, "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1")
    association.release()
    assert status.Status == 0
    assert listening.store.claim("w", 2e9, 60).attempts == 1


def test_who_may_send_and_how_much(listening: Any, tmp_path: Path, number: str, port: int) -> None:
    assert not send(radiograph(tmp_path / "a", number), "OTHER", port)  # not the title that is called
    stranger = servers.subprocess.run(
        ["storescu", "-aet", "STRANGER", "-aec", "LOLIGO", "127.0.0.1", str(port), str(tmp_path / "a")],
        capture_output=True,
    )
    assert stranger.returncode != 0
    assert not send(radiograph(tmp_path / "b", number, 1024), "LOLIGO", port)  # 2 MiB, and 1 is allowed
    assert sum(listening.store.counts().values()) == 0
    assert send(tmp_path / "a", "LOLIGO", port)


def test_a_full_disk_is_told_by_status(
    listening: Any, tmp_path: Path, number: str, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = radiograph(tmp_path / "a", number)
    said = ["storescu", "-v", "-aet", "SENDER", "-aec", "LOLIGO", "127.0.0.1", str(port), str(path)]
    with monkeypatch.context() as patch:
        patch.setattr("loligo.pacs.inbox.os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "full")))
        told = servers.subprocess.run(said, capture_output=True, text=True)
    assert "Refused: OutOfResources" in told.stderr
    assert sum(listening.store.counts().values()) == 0
    assert servers.subprocess.run(said, capture_output=True).returncode == 0


def test_orthancs_changes_are_followed_by_number(
    link: Callable[..., Any], orthanc: Orthanc, tmp_path: Path, number: str
) -> None:
    assert send(radiograph(tmp_path / "before", f"{number}.0"), "ORTHANC", orthanc.dicom)
    here = link(local(orthanc, "rest"), source=local(orthanc, "rest"))

    def follow() -> None:
        feed = fetch.Changes(here.config, Server(here.config, web(here.config.source)), here.inbox)
        while feed.once():
            pass

    follow()  # what was there before the first start is not taken
    assert sum(here.store.counts().values()) == 0
    assert send(radiograph(tmp_path / "a", number), "ORTHANC", orthanc.dicom)
    follow()
    here.work()
    follow()  # our own results come by, and open nothing
    assert here.store.counts()["done"] == 1 == sum(here.store.counts().values())
    assert results(orthanc, number)["SR"] == 1
    here.store.remember(fetch.LAST, "999999")  # the log of another Orthanc: all is read, and known
    follow()
    here.work()
    assert results(orthanc, f"{number}.0")["SR"] == 1 and results(orthanc, number)["SR"] == 1


def test_dicomweb_is_searched(link: Callable[..., Any], orthanc: Orthanc, tmp_path: Path, number: str) -> None:
    assert send(radiograph(tmp_path / "before", f"{number}.0"), "ORTHANC", orthanc.dicom)
    here = link(local(orthanc, "web"), source=local(orthanc, "web"))
    feed = fetch.Search(here.config, Server(here.config, web(here.config.source)), here.inbox)
    feed.once()
    assert sum(here.store.counts().values()) == 0
    assert send(radiograph(tmp_path / "a", number), "ORTHANC", orthanc.dicom)
    feed.once()
    here.work()
    fetch.Search(here.config, Server(here.config, web(here.config.source)), here.inbox).once()
    assert here.store.counts()["done"] == 1 == sum(here.store.counts().values())
    assert results(orthanc, number)["SR"] == 1


def test_what_cannot_be_scored_is_done_with_a_reason(
    link: Callable[..., Any], orthanc: Orthanc, tmp_path: Path, number: str
) -> None:
    here = link(local(orthanc, "rest"))
    mammogram = {"SOPClassUID": uid.DigitalMammographyXRayImageStorageForPresentation, "Modality": "MG"}
    here.inbox.take(radiograph(tmp_path / "a", number, **mammogram).read_bytes())
    report = {"SOPClassUID": uid.ComprehensiveSRStorage, "Modality": "SR"}
    here.inbox.take(radiograph(tmp_path / "b", f"{number}.1", **report).read_bytes())
    here.work()
    assert here.store.counts()["done"] == 2 == here.store.not_scored()
    assert not results(orthanc, number)


@pytest.mark.parametrize("kind", ["header", "content"])
def test_what_is_out_of_scope_is_done_with_a_reason_unless_any_is_to_be_scored(
    link: Callable[..., Any], orthanc: Orthanc, tmp_path: Path, number: str, kind: str
) -> None:
    noise = np.random.default_rng(0).integers(0, 4096, (256, 256)).astype("<u2").tobytes()
    odd = {"ViewPosition": "LL"} if kind == "header" else {"PixelData": noise}
    content = radiograph(tmp_path / "a", number, **odd).read_bytes()
    here = link(local(orthanc, "rest"))
    here.inbox.take(content)
    here.work()
    with here.store.engine.begin() as connection:
        (row,) = connection.execute(STUDIES.select()).all()
    said = {
        "header": "not scored: lateral view: its View Position (0018,5101) is LL; PA is allowed, as of the training",
        "content": "not scored: it shows something else than the training images",
    }
    assert row.state == "done" and row.reason.startswith(said[kind])
    assert not results(orthanc, number) and here.store.measured(0) == []
    every = link(local(orthanc, "rest"), scope="any")
    every.inbox.take(content)
    every.work()
    assert results(orthanc, number)["SR"] == 1 and len(every.store.measured(0)) == 1


def test_late_images_reopen_a_study(link: Callable[..., Any], orthanc: Orthanc, tmp_path: Path, number: str) -> None:
    here = link(local(orthanc, "rest"))
    here.inbox.take(radiograph(tmp_path / "a", number).read_bytes())
    here.work()
    here.inbox.take(radiograph(tmp_path / "b", f"{number}.5", study=number).read_bytes())
    here.work()
    assert here.store.counts()["done"] == 1 and results(orthanc, number)["SR"] == 2


def test_a_target_that_is_down_puts_off_and_one_that_refuses_kills(
    link: Callable[..., Any], tmp_path: Path, number: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    down = link(f"orthanc+http://127.0.0.1:{servers.free_port()}", attempts=2)
    down.inbox.take(radiograph(tmp_path / "a", number).read_bytes())
    for _ in range(5):
        assert down.worker.one()
    assert down.store.counts()["sending"] == 1 and down.dead() == []

    class Refusing:
        def send(self, files: Sequence[Path], note: Callable[[str], bool]) -> bool:
            raise work.Refused("the target refused a result with status 0x0122")

    down.worker.target = Refusing()
    down.work()
    assert down.dead() == ["the target refused a result with status 0x0122"]
    assert down.store.retry(None, 0) == 1 and down.store.counts()["sending"] == 1


def test_a_refusal_of_commitment_keeps_no_lease(
    listening: Any, tmp_path: Path, number: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise ConnectionError("the target refused the request for storage commitment")

    monkeypatch.setattr("loligo.pacs.commitment.ask", refuse)
    listening.inbox.take(radiograph(tmp_path / "a", number).read_bytes())
    for _ in range(3):
        assert listening.worker.one()  # put off, and due again
    assert listening.store.counts()["sending"] == 1 and listening.store.give_back() == []


def test_results_that_do_not_fit_on_the_disk_leave_nothing(
    link: Callable[..., Any], orthanc: Orthanc, tmp_path: Path, number: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = link(local(orthanc, "rest"))
    here.inbox.take(radiograph(tmp_path / "a", number).read_bytes())
    with monkeypatch.context() as patch:
        patch.setattr("loligo.pacs.work.os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "full")))
        assert here.worker.one()
    assert here.store.counts()["waiting"] == 1
    assert {path.name for path in (here.config.spool / "studies").glob("*/*")} == {"in"}
    here.work()
    assert here.store.counts()["done"] == 1 and results(orthanc, number)["SR"] == 1


def test_reasons_hold_nothing_of_the_patient(link: Callable[..., Any], tmp_path: Path, number: str) -> None:
    def faulty(detector: Detector, config: Config) -> work.Results:
        def made(scored: Sequence[work.Scored]) -> Any:
            raise ValueError(f"{servers.NAME} has {ROOT}")

        return made

    here = link("orthanc+http://127.0.0.1:1", make=faulty, attempts=2)
    here.inbox.take(radiograph(tmp_path / "a", number).read_bytes())
    here.work()
    (reason,) = here.dead()
    assert reason.startswith("ValueError at test_link.py:") and servers.NAME not in reason and ROOT not in reason


def test_a_study_that_kills_its_workers_dies(link: Callable[..., Any], tmp_path: Path, number: str) -> None:
    here = link("orthanc+http://127.0.0.1:1", attempts=2)
    here.inbox.take(radiograph(tmp_path / "a", number).read_bytes())
    for _ in range(2):
        assert here.store.claim("w", 2e9, 60)
        here.store.give_back("w")
    here.work()
    assert here.dead() == ["its worker ended, or took too long, each time"]


def test_bearer_and_basic_credentials_are_sent_and_never_shown(tmp_path: Path) -> None:
    from http.server import BaseHTTPRequestHandler, HTTPServer

    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers.get("Authorization", ""))
            self.send_response(401 if "long" not in self.path else 200)
            self.end_headers()
            self.wfile.write(b"x" * (3 << 20) if "long" in self.path else b"")

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    path = tmp_path / "secret"
    to = web(f"orthanc+http://127.0.0.1:{server.server_port}")
    for secret, header in (("Bearer abc", "Bearer abc"), ("me:pass", "Basic bWU6cGFzcw==")):
        path.write_text(secret)
        path.chmod(0o600)
        one = Server(Config(credentials=path, largest=1), to)
        with pytest.raises(ValueError, match="the server answered with status 401") as stop:
            one.ask("GET", "/x")
        assert seen[-1] == header and secret not in str(stop.value)
        with pytest.raises(ValueError, match="413"):
            one.ask("GET", "/long")
    server.shutdown()


def test_dimse_over_tls(link: Callable[..., Any], tmp_path: Path, number: str) -> None:
    if servers.shutil.which("openssl") is None or servers.missing():
        pytest.skip("openssl or dcmtk is not installed")
    key, certificate, port = tmp_path / "key.pem", tmp_path / "certificate.pem", servers.free_port()
    words = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=x"]
    words += ["-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", *words, "-keyout", str(key), "-out", str(certificate)]
    servers.subprocess.run(command, check=True, capture_output=True)
    own = {"certificate": certificate, "private_key": key, "authority": certificate}
    to = f"LOLIGO@127.0.0.1:{port}"
    there, here = link(to, listen=to, **own), link(to, **own)
    server = receive.start(there.config, there.inbox)
    try:
        path = radiograph(tmp_path / "a", number)
        assert not send(path, "LOLIGO", port)  # in clear
        here.inbox.take(path.read_bytes())
        here.work()
        assert here.store.counts()["done"] == 1 and there.store.counts()["received"] == 1
        unknown = link(to, authority=certificate)  # it shows no certificate
        unknown.inbox.take(path.read_bytes())
        assert unknown.worker.one() and unknown.store.counts()["sending"] == 1
    finally:
        receive.stop(server)


def test_attempts_come_ever_later() -> None:
    for times, (least, most) in enumerate([(1, 3), (2, 6), (4, 12)]):
        assert all(least <= work.delay(times) <= most for _ in range(50))
    assert work.delay(10_000) <= 450
