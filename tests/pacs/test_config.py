"""What of the options is refused, by message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from loligo.cli import main
from loligo.pacs import config as configs
from loligo.pacs.config import Config, check, credentials, dimse, is_loopback, web

LOCAL = {"listen": "LOLIGO@127.0.0.1:11112", "target": "orthanc+http://127.0.0.1:8042"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": ""}, "results need a --target"),
        ({"listen": ""}, "images need a --listen or a --source"),
        ({"listen": "127.0.0.1:11112"}, "is no DICOM peer; give AETITLE@HOST:PORT"),
        ({"listen": "A\\B@127.0.0.1:104"}, "is no DICOM peer"),
        ({"listen": "LOLIGO@127.0.0.1:99999"}, "is no DICOM peer"),
        ({"listen": "LOLIGO@0.0.0.0:104"}, "is open to others; name the AE titles"),
        ({"listen": "LOLIGO@0.0.0.0:104", "callers": ("MODALITY",)}, "0.0.0.0 is reached without TLS"),
        ({"listen": "LOLIGO@[::]:104", "callers": ("MODALITY",)}, ":: is reached without TLS"),
        ({"target": "PACS@pacs.hospital:104"}, "pacs.hospital is reached without TLS"),
        ({"target": "orthanc+http://pacs:8042"}, "pacs is reached without TLS"),
        ({"source": "dicomweb+http://pacs/dicom-web"}, "pacs is reached without TLS"),
        ({"source": "http://127.0.0.1"}, "begins no server's address"),
        ({"source": "dicomweb+https://me:secret@pacs/"}, "holds credentials; give them by --credentials"),
        ({"queue": "postgresql+psycopg://me:secret@db/q"}, "holds a password, which others can see"),
        ({"callers": ("SEVENTEEN_LETTERS",)}, "is no AE title"),
        ({"certificate": Path("cert.pem")}, "--certificate needs --private_key"),
        ({"quiet": 0.0}, "quiet is 0; more than 0 seconds"),
    ],
)
def test_what_is_unsafe_or_contradicts_itself_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("[", r"\[")) as stop:
        check(Config(**(LOCAL | options)))
    assert "secret" not in str(stop.value)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"listen": "LOLIGO@[::1]:104"},
        {"listen": "LOLIGO@0.0.0.0:104", "callers": ("MODALITY",), "trusted_network": True},
        {"listen": "L@10.0.0.1:104", "callers": ("M",), "certificate": Path("c"), "private_key": Path("k")},
        {"target": "dicomweb+https://pacs/dicom-web"},
        {"target": "PACS@pacs:104", "authority": Path("ca.pem")},
    ],
)
def test_what_is_safe_passes(options: dict[str, Any]) -> None:
    check(Config(**(LOCAL | options)))


def test_addresses() -> None:
    assert dimse("LOLIGO@[::1]:104") == ("LOLIGO", "::1", 104)
    assert web("dicomweb+https://pacs/dicom-web/") == ("dicomweb", "https://pacs/dicom-web")
    assert is_loopback("127.0.0.9") and is_loopback("localhost") and not is_loopback("localhost.evil.org")


def test_credentials_come_from_a_file_of_ones_own_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "secret"
    path.write_text("me:a:b\n")
    path.chmod(0o644)
    with pytest.raises(ValueError, match="can be read by others; chmod 600"):
        credentials(Config(credentials=path))
    path.chmod(0o600)
    assert credentials(Config(credentials=path)) == ("me", "a:b")
    monkeypatch.setenv(configs.SECRET, "Bearer abc:def")
    assert credentials(Config()) == ("", "abc:def")
    monkeypatch.setenv(configs.SECRET, "secret")
    with pytest.raises(ValueError, match="neither user:password nor Bearer") as stop:
        credentials(Config())
    assert "secret" not in str(stop.value)


def test_the_command_line_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for argv, said in (
        (["pacs", "serv"], "there is no verb 'serv'; did you mean 'serve'?"),
        (["pacs", "serve", str(tmp_path)], "results need a --target"),
        (["pacs", "status", "--spool", str(tmp_path / "none")], "holds no queue"),
        (["pacs", "retry"], "needs the number of a study, or --all"),
    ):
        with pytest.raises(SystemExit):
            main(argv)
        assert said in capsys.readouterr().err


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ImportError, match=r"loligo pacs needs nosuch: pip install 'loligo\[pacs\]'"):
        configs.library("nosuch.part")
