"""The table of results."""

from __future__ import annotations

import multiprocessing
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from loligo.evaluation import results
from loligo.training import cost


def test_rows_of_a_key_are_replaced_and_the_others_stay_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    for seed, auc, commit in ((0, 0.5, "12e4567"), (1, 0.6, "0000001"), (0, 0.7, "12e4568")):
        key = {"method": "ae", "options": "", "seed": seed}
        results.replace(path, pd.DataFrame([{**key, "auc": auc, "commit": commit}]), key)
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    assert table.to_numpy().tolist() == [["ae", "", "1", "0.6", "0000001"], ["ae", "", "0", "0.7", "12e4568"]]


def _add(path: Path, seed: int) -> None:
    key = {"method": "ae", "options": "", "seed": seed}
    results.replace(path, pd.DataFrame([{**key, "auc": 0.5, "commit": "0000001"}]), key)


def test_processes_that_write_at_once_lose_no_row(tmp_path: Path) -> None:
    with multiprocessing.get_context("fork").Pool(4) as pool:
        pool.starmap(_add, [(tmp_path / "r.csv", seed) for seed in range(24)])
    assert sorted(results.read(tmp_path / "r.csv")["seed"]) == list(range(24))


def test_a_package_below_another_checkout_has_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    (tmp_path / "cost.py").touch()
    monkeypatch.setattr(cost, "__file__", str(tmp_path / "cost.py"))
    cost.commit.cache_clear()
    assert cost.commit() == ""
    cost.commit.cache_clear()
