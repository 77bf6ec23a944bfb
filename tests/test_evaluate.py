"""Metrics of tables of scores that are written by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from loligo.calibration import Calibration
from loligo.evaluation.protocols import evaluate, patients
from loligo.runs.run import Run
from loligo.runs.scores import ScoreFolder
from loligo.runs.settings import Settings

SIZE = 16
LABELS = [0, 0, 0, 1, 1, 1, 1]
SCORES = [1.0, 2.0, 5.0, 3.0, 6.0, 4.0, 8.0]


def scored(folder: Path, **columns: object) -> pd.DataFrame:
    """Write a run folder's scores.csv of seven test images, and what else `evaluate` wants to see."""
    folder.mkdir(exist_ok=True)
    paths = [f"/d/{i}.png" for i in range(len(LABELS))]
    table = pd.DataFrame({"path": paths, "split": "test", "label": LABELS, "mask": "", "map": "", "score": SCORES})
    table = table.assign(anomaly_score=0.5, p_value=0.5, flag=0)
    table.assign(**columns).to_csv(folder / "scores.csv", index=False)
    Run.new(folder, Settings.of("gaussian", options={"size": SIZE})).save()
    Calibration.fit(np.arange(20) / 10).save(folder / "calibration.json")
    return table


def epochs(folder: Path, table: pd.DataFrame) -> None:
    """Write scores by epoch of the rows of a table; those of the first epoch rank every split perfectly."""
    rows = pd.concat([table, table.assign(split="validation", path=table["path"] + "v")])
    both = [rows.assign(epoch=1, score=rows["label"] * 9), rows.assign(epoch=2, score=-rows["label"])]
    pd.concat(both).drop(columns=["mask", "map"]).to_csv(folder / "epochs.csv", index=False)


def test_the_papers_protocol_takes_the_epoch_of_the_same_images_alone(tmp_path: Path) -> None:
    table = scored(tmp_path)
    epochs(tmp_path, table)
    found = evaluate(ScoreFolder(tmp_path))["paper"]
    assert (found["epoch"], found["auc"]) == (1, 1)
    table.assign(label=1 - table["label"]).to_csv(tmp_path / "scores.csv", index=False)  # labels mended since
    assert evaluate(ScoreFolder(tmp_path))["paper"]["auc"] == 0
    table.to_csv(tmp_path / "scores.csv", index=False)
    epochs(tmp_path, table.assign(path="/other" + table["path"]))
    found = evaluate(ScoreFolder(tmp_path))["paper"]
    assert found["epoch"] is None
    assert "of other test images" in found["note"]
    assert found["auc"] == pytest.approx(roc_auc_score(LABELS, SCORES))


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ([0, 0, 0, 1, 1, 2, 2], {"1": [3, 4], "2": [5, 6]}),
        ([None, None, None, "blob", None, None, "blob"], {"blob": [3, 6]}),
        (["", "", "", "None", "blob", "NA", "blob"], {"None": [3], "blob": [4, 6], "NA": [5]}),
        ([None] * 7, {}),
    ],
)
def test_any_word_or_number_names_a_kind_and_nothing_names_none(
    kinds: list[object], expected: dict[str, list[int]], tmp_path: Path
) -> None:
    scored(tmp_path, kind=kinds)
    found = evaluate(ScoreFolder(tmp_path)).get("kinds", {})
    aucs = {
        k: roc_auc_score([0, 0, 0] + [1] * len(i), SCORES[:3] + [SCORES[j] for j in i]) for k, i in expected.items()
    }
    assert found == pytest.approx(aucs)


def test_images_of_unknown_patients_count_for_themselves() -> None:
    table = pd.DataFrame({"path": ["a", "b", "c", "d"], "patient": ["x", "", "x", ""]})
    found = patients(table)
    assert found is not None and pd.factorize(found)[0].tolist() == [0, 1, 0, 2]
    assert patients(table.assign(patient="")) is None and patients(table[["path"]]) is None


def test_pixel_metrics_do_not_depend_on_the_size_of_the_mask_file(tmp_path: Path) -> None:
    random, heat = np.random.default_rng(0), []
    (tmp_path / "maps").mkdir()
    for i in range(7):
        heat.append(random.random((SIZE, SIZE), dtype=np.float32))
        np.save(tmp_path / f"maps/{i}.npy", heat[i])
    marked = np.zeros((SIZE, SIZE), bool)
    marked[4:9, 3:8] = True
    found = []
    for times in (1, 4):
        Image.fromarray(np.kron(marked, np.ones((times, times), bool))).save(tmp_path / "mask.png")
        masks = [str(tmp_path / "mask.png") if label else "" for label in LABELS]
        scored(tmp_path, map=[f"maps/{i}.npy" for i in range(7)], mask=masks)
        found.append(evaluate(ScoreFolder(tmp_path))["pixel"])
    assert found[0] == found[1]
    truth = np.stack([marked if label else np.zeros_like(marked) for label in LABELS])
    assert found[0]["auroc"] == pytest.approx(roc_auc_score(truth.ravel(), np.stack(heat).ravel()), abs=1e-3)


def test_maps_beyond_the_run_folder_are_not_opened(tmp_path: Path) -> None:
    np.save(tmp_path / "secret.npy", np.zeros((4, 4), np.float32))
    scored(tmp_path / "run", map=str(tmp_path / "secret.npy"), mask=str(tmp_path / "mask.png"))
    with pytest.raises(ValueError, match=r"secret\.npy'; only files below its own maps/ are allowed"):
        evaluate(ScoreFolder(tmp_path / "run"))
