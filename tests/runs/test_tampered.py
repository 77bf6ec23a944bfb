"""Run folders that somebody changed: each works, or is refused in one line that names the file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor

from conftest import anatomy, write_images
from loligo import api
from loligo.detector import Detector
from loligo.runs.folder import RunFolder
from loligo.runs.run import Run
from loligo.runs.settings import Settings

BOMB = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
TEXTS = ["", "[1]", "3", "x", "\0", "\t- x", "a: [", "[" * 50_000, '{"scores": ' + "[" * 50_000, "a: " + "9" * 5000]
WRONG = [None, True, "x", -1, 0, 3, 1e308, float("nan"), float("inf"), 10**400, [], ["x"], [[1], [2, 3]], {}, {"a": 1}]
Change = Callable[[Path], object]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run that scored, with images to score beside it."""
    folder = tmp_path_factory.mktemp("tampered")
    write_images(folder / "normals", anatomy(30, 64))
    write_images(folder / "new" / "normal", anatomy(4, 64, seed=1))
    write_images(folder / "new" / "abnormal", anatomy(4, 64, seed=2))
    run = api.train("gaussian", folder / "normals", folder / "run", preset="tiny", folds=0)
    api.score(run, folder / "new", maps="none")
    return folder / "run"


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


def survives(work: Callable[[], object], file: Path) -> str:
    """Do the work, or be refused in one short line that names the file; return that line."""
    try:
        work()
    except (ValueError, OSError) as error:
        said = str(error)
        assert "\n" not in said
        assert len(said.replace(str(file.parent), "")) <= 300
        assert file.name in said or file.parent.name in said
        return said
    return ""


def each_value(file: Path, values: dict[str, Any], write: Callable[[dict[str, Any]], object]) -> None:
    """Load a run whose file has a wrong value, or none, at each of its names."""
    for name in values:
        write({key: value for key, value in values.items() if key != name})
        survives(lambda: Detector.load(file.parent), file)
        for wrong in WRONG:
            write(values | {name: wrong})
            survives(lambda: Detector.load(file.parent), file)


def test_a_configuration_with_wrong_values_is_refused_in_words(run: Path) -> None:
    file = RunFolder(run).config
    values = yaml.safe_load(file.read_text())
    each_value(file, values, lambda changed: file.write_text(yaml.safe_dump(changed)))
    for part in ("method_config", "data", "preprocessing"):
        each_value(
            file,
            values[part] | {"spacing": 3},
            lambda new, own=part: file.write_text(yaml.safe_dump(values | {own: new})),
        )


def test_a_calibration_with_wrong_values_is_refused_in_words(run: Path) -> None:
    file = RunFolder(run).calibration
    values = json.loads(file.read_text())
    each_value(file, values, lambda changed: file.write_text(json.dumps(changed)))


@pytest.mark.parametrize(
    "name", ["config.yaml", "calibration.json", "scores/new/scoring.json", "scores/new/metrics.json"]
)
def test_a_text_that_is_no_record_is_refused(name: str, run: Path) -> None:
    file = run / name
    for text in TEXTS:
        file.write_text(text)
        survives(lambda: api.evaluate(run), file)
        if file.parent == run:
            assert survives(lambda: Detector.load(run), file)


def test_aliases_that_stand_for_gigabytes_are_refused(run: Path) -> None:
    file = RunFolder(run).config
    file.write_text(file.read_text() + BOMB)
    with pytest.raises(ValueError, match=r"config\.yaml is no configuration of a run: has an alias \(\*a\) in line"):
        Run.load(run)


def test_a_spacing_that_is_none_is_refused(run: Path) -> None:
    file = RunFolder(run).config
    file.write_text(file.read_text().replace("data:\n", "data:\n  spacing: 3\n"))
    with pytest.raises(ValueError, match=r"data\.spacing is 3; it must be 3 distances in mm"):
        Run.load(run)


TENSORS: dict[str, Callable[[dict[str, Tensor]], dict[str, Tensor]]] = {
    "none": lambda tensors: {},
    "one less": lambda tensors: dict(list(tensors.items())[1:]),
    "one more": lambda tensors: tensors | {"x": torch.zeros(1)},
    "no rows": lambda tensors: {name: value[:0] if value.ndim else value for name, value in tensors.items()},
    "flat": lambda tensors: {name: value.flatten() for name, value in tensors.items()},
    "not numbers": lambda tensors: {name: value * torch.nan for name, value in tensors.items()},
    "whole numbers": lambda tensors: {name: value.to(torch.int64) for name, value in tensors.items()},
}


@pytest.mark.parametrize("name", ["model.safetensors", "reference.safetensors"])
def test_tensors_of_another_kind_are_refused(name: str, run: Path) -> None:
    file, config = run / name, RunFolder(run).config
    config.write_text("".join(line for line in config.open() if not line.startswith("weights_sha256")))
    tensors = load_file(file)
    for change in TENSORS.values():
        save_file({key: value.contiguous() for key, value in change(dict(tensors)).items()}, file)
        survives(lambda: Detector.load(run), file)
    for cut in (b"", b"\xff" * 64, (10**15).to_bytes(8, "little") + b"{}", (2).to_bytes(8, "little") + b"[]"):
        file.write_bytes(cut)
        survives(lambda: Detector.load(run), file)


def test_a_bank_of_no_rows_is_refused(tmp_path: Path) -> None:
    own = Run.new(tmp_path, Settings.of("patchcore", "tiny", {"weights": "random"}))
    model = own.new_model()
    model.bank = model.bank[:0]
    own.save_model(model)
    with pytest.raises(ValueError, match="does not hold the weights of this patchcore: bank has no rows"):
        own.model()


CELLS = ["", "x", "nan", "-1", "1e999", "../../../etc/passwd", "9" * 400, "a\0b"]


def test_a_table_of_scores_with_wrong_cells_is_refused(run: Path) -> None:
    file = run / "scores" / "new" / "scores.csv"
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    for column in table:
        for changed in (table.drop(columns=str(column)), *(table.assign(**{str(column): cell}) for cell in CELLS)):
            changed.to_csv(file, index=False)
            survives(lambda: api.evaluate(run), file)
    for text in ("", "\0\1", "path,score\n", 'path,score\n"a,1\n', "path\na,b,c\n", table[:0].to_csv(index=False)):
        file.write_text(text)
        assert survives(lambda: api.evaluate(run), file)


HISTORIES = ["", "\0", "epoch,phase,loss\nx,a,b\n", "epoch,loss\n1,2\n", "epoch,phase,loss\n1e400,a,inf\n"]


@pytest.mark.parametrize("name", ["history.csv", "manifest.csv", "rejected.csv", "scores/new/rejected.csv"])
def test_tables_with_wrong_columns_are_refused(name: str, run: Path) -> None:
    file = run / name
    for text in HISTORIES:
        file.write_text(text)
        folder = RunFolder(run)
        for read in (folder.read_history, folder.read_rejected, Run.load(run).manifest, lambda: api.evaluate(run)):
            survives(read, file)
