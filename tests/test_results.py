"""The table of results."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from loligo import results


def test_rows_of_a_key_are_replaced_and_the_others_stay_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    for seed, auc, commit in ((0, 0.5, "12e4567"), (1, 0.6, "0000001"), (0, 0.7, "12e4568")):
        key = {"method": "ae", "options": "", "seed": seed}
        results.replace(path, pd.DataFrame([{**key, "auc": auc, "commit": commit}]), key)
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    assert table.to_numpy().tolist() == [["ae", "", "1", "0.6", "0000001"], ["ae", "", "0", "0.7", "12e4568"]]
