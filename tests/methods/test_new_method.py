"""The method that docs/new_method.md shows: it works as it is printed."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from conftest import anatomy, blob, write_images
from loligo import api, methods

PAGE = Path(__file__).parents[2] / "docs" / "new_method.md"


def test_the_method_of_the_page_trains_and_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    module = types.ModuleType("loligo.methods.mean_image")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(code, "mean_image.py", "exec"), module.__dict__)
    monkeypatch.setitem(methods.METHODS, "mean_image", ("MeanImage", "distance from the mean image"))
    normal = anatomy(40, 64)
    write_images(tmp_path / "normals", normal)
    write_images(tmp_path / "new", np.concatenate([anatomy(10, 64, seed=1), blob(anatomy(10, 64, seed=1))]))
    run = api.train("mean_image", tmp_path / "normals", tmp_path / "run", preset="tiny")
    scores = api.score(run, tmp_path / "new")["score"].to_numpy()
    assert (scores[10:] > scores[:10]).all()
    trained = run.manifest().query("split == 'train'")["path"]
    kept = [int(Path(path).stem) for path in trained]
    np.testing.assert_allclose(run.model().mean, normal[kept].mean(0), atol=3e-3)  # files hold 8 bits
