"""The demonstration, before it trains."""

from __future__ import annotations

from pathlib import Path

import pytest

from loligo import api, demo
from loligo.data import digit_anatomy
from loligo.methods.squid import Squid


def test_other_digits_are_not_taken_for_those_asked_for(tmp_path: Path) -> None:
    (tmp_path / "digit_anatomy").mkdir()
    row = "path,split,label,source\na.png,train,0,digit_anatomy\n"
    (tmp_path / "digit_anatomy" / "manifest.csv").write_text(row)
    with pytest.raises(ValueError, match="holds a set of source digit_anatomy, not digit_anatomy_mnist"):
        demo.run(tmp_path, mnist=tmp_path)
    (tmp_path / "digit_anatomy" / "manifest.csv").write_text(row.replace(",digit_anatomy", ",digit_anatomy_mnist"))
    with pytest.raises(ValueError, match="holds a set of source digit_anatomy_mnist; give its --mnist"):
        demo.run(tmp_path)


def test_a_set_of_another_seed_is_not_taken_for_it(tmp_path: Path) -> None:
    digit_anatomy.write(tmp_path / "digit_anatomy", train=4, calibration=2, test=2, per_kind=1, validation=0, seed=3)
    with pytest.raises(ValueError, match="holds a set of seed 3, not 0"):
        demo.run(tmp_path)


def test_the_table_is_printed_and_printed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    digit_anatomy.write(tmp_path / "digit_anatomy", train=30, calibration=10, test=8, per_kind=4, validation=0)
    monkeypatch.setattr(demo, "METHODS", {"gaussian": 0.0, "squid": 1.0})
    monkeypatch.setattr(api, "report", lambda folder: folder / "report.html")  # slow, and tested by itself
    monkeypatch.setattr(Squid, "presets", {"digits": Squid.presets["tiny"] | {"train.epochs": 1}})
    demo.run(tmp_path)
    first = capsys.readouterr().out
    assert first.startswith("gaussian: principal components")
    table = first[first.index("\nDigitAnatomy, clean protocol") :]
    assert [line.split()[0] for line in table.splitlines()[2:]] == ["method", "gaussian", "squid", "report:"]
    demo.run(tmp_path)
    assert capsys.readouterr().out == table  # nothing is trained again
