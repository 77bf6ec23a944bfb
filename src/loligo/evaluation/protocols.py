"""Measure a scored run against its labels, under two protocols that are always named.

clean: no label is used anywhere before this page; the threshold is a quantile of held-out normals. The headline.
paper: as the published tables: a labelled validation set picks the epoch, and accuracy and F1 are at the threshold that
is best on the test labels. Only to compare with those tables.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from loligo.calibration import Calibration
from loligo.data.decode import read_mask
from loligo.data.preprocessing import resized_mask
from loligo.evaluation import metrics
from loligo.files import write_json
from loligo.types import Again

Metrics = dict[str, Any]
TEXT = ("path", "patient", "kind", "mask", "map", "reconstruction", "overlay")
"""Columns that stay as they are written, empty where nothing is known: a kind 7 or None is a name."""


def evaluate(folder: Path) -> Metrics:
    """Return the metrics of the scores in a run folder, and write them to metrics.json.

    Raises ValueError where there are no scores, or no labels of both kinds in the test split.
    """
    table = read_scores(folder)
    test = labelled(table, "test")
    if test["label"].nunique() < 2:
        counts = test["label"].value_counts().to_dict()
        raise ValueError(
            f"{folder / 'scores.csv'} has test labels {counts}; metrics need normal (0) and abnormal (1) images there"
        )
    if not (folder / "config.yaml").is_file():
        raise ValueError(
            f"{folder} holds scores that are kept apart from their run; metrics need the run folder: "
            "score without --out, then evaluate the run"
        )
    calibration = Calibration.load(folder / "calibration.json")
    found: Metrics = {"clean": clean(test, calibration), "paper": paper(test, folder)}
    if (test["mask"] != "").any() and (test["map"] != "").any():
        found["pixel"] = pixels(test, folder)
    if "kind" in test:
        found["kinds"] = by_kind(test)
    write_json(found, folder / "metrics.json", indent=2)
    return found


def read_scores(folder: Path) -> pd.DataFrame:
    """Read scores.csv of a run folder; ValueError, which names the file, where there is none or it cannot be read."""
    path = folder / "scores.csv"
    if not path.is_file():
        raise ValueError(f"{folder} has no scores.csv; make it with 'loligo score {folder}'")
    try:
        table = read(path)
    except ValueError as error:
        raise ValueError(f"{path} is not a table of scores ({error}); score the images anew") from error
    if missing := [name for name in ("path", "split", "label", "score") if name not in table]:
        raise ValueError(f"{path} lacks the column {', '.join(missing)}; score the images anew")
    return table


def read(path: Path) -> pd.DataFrame:
    """Read a table of scores, a row an image, or an image and epoch."""
    types = {"label": "Int64"} | dict.fromkeys(TEXT, "str")
    table = pd.read_csv(path, dtype=types, keep_default_na=False, na_values=[""])
    return table.fillna({name: "" for name in TEXT if name in table})


def labelled(table: pd.DataFrame, split: str) -> pd.DataFrame:
    """Return the rows of a split that carry a label."""
    rows = table[(table["split"] == split) & table["label"].notna()]
    return rows.reset_index(drop=True)


def clean(test: pd.DataFrame, calibration: Calibration) -> Metrics:
    """Measure ranking, and accuracy at the threshold that held-out normals set."""
    found = _measure(test, calibration.threshold)
    return found | {
        "false_alarm_rate": calibration.false_alarm_rate,
        "note": "threshold from held-out normals",
    }


def paper(test: pd.DataFrame, folder: Path) -> Metrics:
    """Measure as the published tables do: epoch (where there are scores by epoch) and threshold chosen by labels."""
    epoch, note = None, "the last epoch: there are no scores of a labelled validation set by epoch"
    if (folder / "epochs.csv").is_file():
        epochs = read(folder / "epochs.csv")
        aucs = auc_by_epoch(epochs, "validation")
        if len(aucs):
            best = int(aucs.index[int(aucs["auc"].argmax())])
            if set(test["path"]) <= set(epochs.loc[epochs["epoch"] == best, "path"]):
                epoch, test = best, at_epoch(test, epochs, best)
                note = f"epoch {epoch}, best on labelled validation of {len(aucs)} watched ({aucs['auc'][epoch]:.3f})"
            else:
                note = "the last epoch: the scores by epoch are of other test images"
    threshold = metrics.best_accuracy_threshold(_labels(test), _scores(test))
    return _measure(test, threshold) | {"epoch": epoch, "note": note + "; threshold best on test labels"}


def at_epoch(test: pd.DataFrame, epochs: pd.DataFrame, epoch: int) -> pd.DataFrame:
    """Return labelled rows with the scores that they had after an epoch; labels stay those of the rows."""
    scores = epochs[epochs["epoch"] == epoch].set_index("path")["score"]
    return test.assign(score=scores.loc[test["path"]].to_numpy())


def auc_by_epoch(epochs: pd.DataFrame, split: str) -> pd.DataFrame:
    """Return the AUC of a labelled split after each epoch: index epoch, column auc; empty where labels lack a kind."""
    rows = labelled(epochs, split)
    if rows["label"].nunique() < 2:
        return pd.DataFrame({"auc": []})
    aucs = {e: metrics.roc_auc(_labels(part), _scores(part)) for e, part in rows.groupby("epoch")}
    return pd.DataFrame({"auc": pd.Series(aucs)})


def pixels(test: pd.DataFrame, folder: Path) -> Metrics:
    """Measure the maps against the masks, at the maps' size; normal images count as masks of nothing."""
    rows = test[(test["map"] != "") & ((test["mask"] != "") | (test["label"] == 0))]
    pairs = Again(
        lambda: (
            (_voxels if str(row.map).endswith(".nii.gz") else _pixels)(folder / str(row.map), str(row.mask))
            for row in rows.itertuples()
        )
    )
    return dict(metrics.paired_pixel_metrics(pairs)) | {"images": len(rows)}


def _pixels(path: Path, mask: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Read an image's map and mask, both (H, W) at the map's size: else images with large masks would weigh more."""
    heat = np.load(path, allow_pickle=False)
    if not mask:
        return heat, np.zeros(heat.shape, bool)
    return heat, resized_mask(read_mask(Path(mask)), heat.shape[::-1])


def _voxels(path: Path, mask: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Read a volume's map and mask, both (X, Y, Z)."""
    from loligo.io import nifti

    heat = nifti.read(path)
    return heat.voxels, nifti.read_mask(Path(mask), heat) if mask else np.zeros(heat.shape, bool)


def by_kind(test: pd.DataFrame) -> dict[str, float]:
    """Return the AUC of each kind of abnormal image, those of no known kind aside, against all normal ones."""
    normal = test[test["label"] == 0]
    kinds = sorted(set(test.loc[test["label"] == 1, "kind"]) - {""})
    groups = {kind: pd.concat([normal, test[(test["kind"] == kind) & (test["label"] == 1)]]) for kind in kinds}
    return {kind: metrics.roc_auc(_labels(group), _scores(group)) for kind, group in groups.items()}


def _measure(test: pd.DataFrame, threshold: float) -> Metrics:
    labels, scores = _labels(test), _scores(test)
    auc, low, high = metrics.roc_auc_interval(labels, scores, groups=patients(test))
    return {
        "auc": auc,
        "auc_low": low,
        "auc_high": high,
        "ap": metrics.average_precision(labels, scores),
        **metrics.confusion(labels, scores, threshold),
        "threshold": threshold,
        "n_normal": int((labels == 0).sum()),
        "n_abnormal": int((labels == 1).sum()),
    }


def patients(table: pd.DataFrame) -> npt.NDArray[Any] | None:
    """Return whose each image is (N,), one of unknown patient its own; None where no patient is known."""
    if "patient" not in table or not (known := table["patient"] != "").any():
        return None
    return table["patient"].where(known, "image " + table["path"]).to_numpy()


def _labels(table: pd.DataFrame) -> npt.NDArray[np.int64]:
    return table["label"].to_numpy(dtype=np.int64)


def _scores(table: pd.DataFrame) -> npt.NDArray[np.float64]:
    return table["score"].to_numpy(dtype=np.float64)
