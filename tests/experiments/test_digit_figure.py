"""The picture of methods on DigitAnatomy, from two small runs."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

import loligo
from loligo.data import digit_anatomy


@pytest.fixture
def figure(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    from experiments import digit_figure

    return digit_figure


def run(folder: Path, seed: int) -> Path:
    rows = digit_anatomy.write(folder / "set", train=30, calibration=10, test=4, per_kind=2, validation=0, seed=seed)
    loligo.train("gaussian", rows, folder / "run", options={"size": 48})
    return folder / "run"


def test_a_row_a_kind_and_a_column_a_run(figure: ModuleType, tmp_path: Path) -> None:
    one, other = run(tmp_path / "a", 0), run(tmp_path / "b", 1)
    rows = figure.chosen([one, one])
    assert list(rows.index) == ["normal", "novel", "disorder", "missing", "flipped"]
    assert [Path(path).name for path in rows["path"]] == [f"{kind}_00000.png" for kind in rows.index]
    figure.draw([one, one], tmp_path / "picture.png")
    pixels = np.asarray(Image.open(tmp_path / "picture.png").convert("RGB")).astype(int)
    parts = np.array_split(pixels[:-80, 70:], 3, axis=1)  # without the names of kinds and the colour bar
    coloured = [(np.ptp(part, axis=2) > 20).mean() for part in parts]
    assert coloured[1] == pytest.approx(coloured[2], rel=0.2)  # one run twice
    assert min(coloured) > 0  # outlines, then heat
    with pytest.raises(ValueError, match="are on different images"):
        figure.chosen([one, other])
