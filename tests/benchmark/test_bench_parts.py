"""Cost, what is kept of a training, and two benchmarks side by side."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from conftest import anatomy, dataset
from loligo import methods
from loligo.benchmark import compare, cost, table_text, work
from loligo.calibration import Calibration
from loligo.cli import main
from loligo.detector import Detector
from loligo.methods.contract import Method
from loligo.runs.run import Run
from loligo.runs.settings import Settings
from loligo.types import Scores


class Product(Method):
    """One product of 6 x 12 and one convolution, to count."""

    def __init__(self) -> None:
        super().__init__(methods.get("ae").Config())
        self.linear = torch.nn.Linear(12, 6, bias=False)
        self.conv = torch.nn.Conv2d(1, 2, 3, padding=1)

    def forward(self, x: torch.Tensor) -> Scores:
        return Scores(self.linear(torch.zeros(len(x), 12)).sum(1) + self.conv(x).mean((1, 2, 3)))


def tiny(name: str) -> Method:
    return Settings.of(name, "tiny").new_model().freeze()


def test_operations_are_two_a_multiply_add() -> None:
    x = torch.zeros(1, 1, 8, 8)
    assert cost.flops(Product(), x) == 2 * 6 * 12 + 2 * 8 * 8 * 2 * 9
    model = tiny("padim")
    with FlopCounterMode(display=False) as theirs, torch.no_grad():
        model(torch.zeros(1, 1, 64, 64))
    assert cost.flops(model, torch.zeros(1, 1, 64, 64)) == theirs.get_total_flops() > 0


def test_cost_of_a_trained_run(tmp_path: Path) -> None:
    run = Run.new(tmp_path, Settings.of("ae", "tiny"))
    run.save_model(run.new_model())
    Calibration.fit([0.0, 1.0]).save(run.files.calibration)
    found = cost.measure(run, dataset(anatomy(5, 64)))
    assert found["parameters"] == sum(p.numel() for p in run.new_model().parameters())
    assert found["model_bytes"] == (tmp_path / "model.safetensors").stat().st_size
    assert found["flops_per_image"] > 1e5 and found["score_images_per_s"] > 0


def test_models_that_were_kept_are_scored_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, scored = dataset(anatomy(3, 64)), []
    data.rows["row"] = [4, 5, 9]
    run = Run.new(tmp_path, Settings.of("ae", "tiny"))
    run.save_model(run.new_model(), tmp_path / "000007.safetensors")
    honest = Detector.scores
    monkeypatch.setattr(Detector, "scores", lambda *a, **options: scored.append(honest(*a, **options)) or scored[-1])
    first, again = (work._epoch(run, data, tmp_path / "000007.safetensors") for _ in range(2))
    assert len(scored) == 1
    pd.testing.assert_frame_equal(first, again, check_exact=True)
    np.testing.assert_array_equal(first["score"], scored[0])
    assert list(first["epoch"]) == [7] * 3 and list(first["row"]) == [4, 5, 9]


@pytest.mark.parametrize(
    ("count", "most", "expected"),
    [(10, 99.0, list(range(10))), (10, 3.7, [1, 5, 9]), (10, 0.1, [4, 9]), (1, 0.0, [0])],
)
def test_the_last_of_the_models_that_were_kept_is_always_scored(count: int, most: float, expected: list[int]) -> None:
    paths = [Path(str(i)) for i in range(count)]
    assert work.payable(paths, most) == [paths[i] for i in expected]


def test_models_of_the_last_phase_are_kept_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[str] = []
    monkeypatch.setattr(Run, "save_model", lambda self, model, path: saved.append(path.stem))
    for name, epochs in {"vqvae_restoration": range(31, 61), "ae": range(3, 61, 3), "gaussian": ()}.items():
        run = Run.new(tmp_path, Settings.of(name, "tiny"))  # 60 epochs
        keep, model = work._Keep(tmp_path, run, 100), run.new_model()
        for epoch in range(1, 61) if epochs else ():
            keep(model, epoch)
        assert [int(stem) for stem in saved] == [e for e in epochs if name == "ae" or (e - 30) % 2 == 0], name
        saved.clear()


def cell(name: str, auc: float, **given: object) -> dict[str, object]:
    known = {
        "cell": name,
        "protocol": "clean",
        "status": "done",
        "auc": auc,
        "auc_low": auc - 0.1,
        "auc_high": auc + 0.1,
    }
    same = {"data_hash": "a", "version": "b", "method_config": "{}", "train_config": "{}", "train_seconds": 3.0}
    return known | same | given


def test_two_benchmarks_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = [cell("d/ae/seed_0", 0.8), cell("d/vae/seed_0", 0.7), cell("d/squid/seed_0", 0.9)]
    second = [cell("d/ae/seed_0", 0.85), cell("d/vae/seed_0", 0.55, version="c"), cell("d/x/seed_0", 0.6)]
    second.append(cell("d/squid/seed_0", 0.0, status="failed"))
    for name, rows in (("a", first), ("b", second)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "benchmark.json").write_text(json.dumps({"cells": rows}))
    table = compare(tmp_path / "a", tmp_path / "b" / "benchmark.json")
    assert table["cell"].tolist() == ["d/ae/seed_0", "d/vae/seed_0"]
    assert table["difference"].tolist() == pytest.approx([0.05, -0.15])
    assert table["within"].tolist() == [True, False] and table["changed"].tolist() == ["", "version"]
    text = table_text(table)
    assert "outside A's interval  changed: version" in text
    assert text.splitlines()[-2:] == ["1 of 2 within A's interval", "rows in A alone: 1, in B alone: 1"]
    main(["benchmark", "compare", str(tmp_path / "a"), str(tmp_path / "b")])
    assert "outside A's interval" in (said := capsys.readouterr().out) and "not a medical device" in said
    with pytest.raises(ValueError, match=r"nowhere is no benchmark: there is no"):
        compare(tmp_path / "nowhere", tmp_path / "b")
    for text in ("[]", "{}", "3", "no JSON"):
        (tmp_path / "other.json").write_text(text)
        with pytest.raises(ValueError, match=r"other.json is no benchmark.json"):
            compare(tmp_path / "a", tmp_path / "other.json")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--methods", "gausian", "--datasets", "m.csv", "--out", "o"], "did you mean 'gaussian'"),
        (["--methods", "ae", "--datasets", "nowhere.csv", "--out", "o"], "nowhere.csv does not exist"),
        (["--methods", "ae", "--datasets", "m.csv", "--out", "o", "--budgets", "3"], "did you mean '--budget'"),
        (["compare", "nowhere", "nothing"], "nowhere is no benchmark"),
    ],
)
def test_wrong_input_is_one_line(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["benchmark", *argv])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error and len(error.strip().splitlines()) == 1
