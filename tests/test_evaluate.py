"""Metrics of tables of scores that are written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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


def masked(folder: Path, masks: dict[int, np.ndarray], rejected: int = 0) -> dict[str, Any]:
    """Evaluate seven images that have a map each, and some of them a mask."""
    (folder / "maps").mkdir(parents=True)
    for i in range(7):
        np.save(folder / f"maps/{i}.npy", np.random.default_rng(i).random((SIZE, SIZE), dtype=np.float32))
    for i, mask in masks.items():
        Image.fromarray(mask).save(folder / f"{i}_mask.png")
    names = [str(folder / f"{i}_mask.png") if i in masks else "" for i in range(7)]
    scored(folder, map=[f"maps/{i}.npy" for i in range(7)], mask=names)
    reason = "as the mask of 3.png, which counts as without one: is a pipe"
    pd.DataFrame({"path": ["a"] * rejected, "reason": reason}).to_csv(folder / "rejected.csv", index=False)
    return evaluate(ScoreFolder(folder))


EMPTY, FULL, SOME = (np.zeros((SIZE, SIZE), np.uint8), np.full((SIZE, SIZE), 255, np.uint8), np.eye(SIZE, dtype=bool))


@pytest.mark.parametrize(
    ("masks", "images", "note"),
    [
        ({3: SOME, 4: SOME}, 5, None),
        ({3: SOME, 4: EMPTY}, 4, "1 of 2 masks are left out: 4_mask.png marks nothing"),
        ({0: EMPTY, 3: SOME}, 4, None),  # of a normal image it says what is so
        ({3: EMPTY, 4: EMPTY}, 0, "no metrics by pixel: 2 of 2 masks are left out: 3_mask.png marks nothing, 4_mask"),
        ({0: EMPTY}, 0, "no metrics by pixel: no mask marks a pixel as abnormal"),
        ({3: FULL}, 4, None),
        ({0: FULL, 1: FULL, 2: FULL, 3: FULL}, 0, "no metrics by pixel: the masks mark every pixel as abnormal"),
    ],
)
def test_masks_that_tell_nothing_leave_the_metrics_by_image(
    masks: dict[int, np.ndarray], images: int, note: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = masked(tmp_path / "run", masks)
    assert found["clean"]["auc"] == pytest.approx(roc_auc_score(LABELS, SCORES))
    assert found.get("pixel", {"images": 0})["images"] == images
    if note is None:
        assert "pixel_note" not in found and not caplog.messages
    else:
        assert found["pixel_note"].startswith(note) and caplog.messages[-1] == found["pixel_note"]


def test_a_mask_that_was_spoilt_since_is_left_out(tmp_path: Path) -> None:
    masked(tmp_path / "run", {3: SOME, 4: SOME})
    (tmp_path / "run" / "3_mask.png").write_bytes(b"no mask")
    found = evaluate(ScoreFolder(tmp_path / "run"))
    assert found["pixel"]["images"] == 4
    assert found["pixel_note"].startswith("1 of 2 masks are left out: 3_mask.png its content is text or CSV")


def test_masks_that_scoring_could_not_use_are_counted(tmp_path: Path) -> None:
    found = masked(tmp_path / "run", {}, rejected=2)
    assert "pixel" not in found
    assert found["pixel_note"] == f"2 masks could not be used; {tmp_path / 'run' / 'rejected.csv'} says why"
