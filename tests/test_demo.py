"""The demonstration, before it trains."""

from __future__ import annotations

from pathlib import Path

import pytest

from loligo import demo


def test_other_digits_are_not_taken_for_those_asked_for(tmp_path: Path) -> None:
    (tmp_path / "digit_anatomy").mkdir()
    row = "path,split,label,source\na.png,train,0,digit_anatomy\n"
    (tmp_path / "digit_anatomy" / "manifest.csv").write_text(row)
    with pytest.raises(ValueError, match="holds digit_anatomy, not digit_anatomy_mnist; choose another --out"):
        demo.run(tmp_path, mnist=tmp_path)
