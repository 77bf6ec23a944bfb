"""Measure a scored run against its labels, under two protocols that are always named.

clean: this run uses no label before its metrics; the threshold is a quantile of held-out normals. The headline.
paper: as the published tables: a labelled validation set picks the epoch, and accuracy and F1 are at the threshold that
is best on the test labels. Only to compare with those tables.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from loligo import io
from loligo.calibration import Calibration
from loligo.data import masks
from loligo.data.preprocessing import Preprocessing, resized, resized_mask
from loligo.evaluation import metrics, statistics
from loligo.names import some
from loligo.runs.run import Run
from loligo.runs.scores import ScoreFolder
from loligo.types import Again

Metrics = dict[str, Any]
RATES = ("sensitivity", "specificity")
"""Metrics with an interval beside that of the AUC: what a hospital asks for."""
log = logging.getLogger(__name__)


def evaluate(scoring: ScoreFolder, false_alarm_rate: float | None = None) -> Metrics:
    """Return the metrics of a scoring, and write them to its metrics.json.

    The threshold is that of the scoring's false-alarm rate, or of the one given.

    Raises ValueError where there are no scores, or no labels of both kinds in the test split.
    """
    test = labelled(scoring.read_scores(), "test")
    if test["label"].nunique() < 2:
        counts = [int((test["label"] == label).sum()) for label in (0, 1)]
        raise ValueError(
            f"{scoring.scores} has {counts[0]} test images labelled normal (0) and {counts[1]} abnormal (1); metrics "
            "need both kinds: score a manifest with labels, or a folder with sub-folders normal and abnormal"
        )
    calibration = Calibration.load(scoring.calibration)
    if false_alarm_rate is not None:
        calibration = calibration.at(false_alarm_rate)
    found: Metrics = {"clean": clean(test, calibration), "paper": paper(test, scoring.run.read_epochs())}
    if (test["mask"] != "").any() and (test["map"] != "").any():
        by_pixel, note = pixels(test, scoring, Run.load(scoring.run.path).preprocess())
        found |= {"pixel": by_pixel} if by_pixel else {}
        found |= {"pixel_note": note} if note else {}
    if unusable := _unusable_masks(scoring):
        found["pixel_note"] = "; ".join([*filter(None, [found.get("pixel_note")]), unusable])
    if "pixel_note" in found:
        log.warning("%s", found["pixel_note"])
    if seen := int(test["warnings"].str.contains("seen_in_training").sum()):
        found["seen_note"] = f"{seen} of {len(test)} test images were trained or calibrated on: these metrics mislead"
        log.warning("%s", found["seen_note"])
    if left := int(scoring.read_rejected()["reason"].str.startswith("not scored").sum()):
        found["scope_note"] = f"{left} images are out of scope and not among the {len(test)}; --scope any scores them"
        log.warning("%s", found["scope_note"])
    if kinds := by_kind(test):
        found["kinds"] = kinds
    scoring.write_metrics(found)
    return found


def labelled(table: pd.DataFrame, split: str) -> pd.DataFrame:
    """Return the rows of a split that carry a label."""
    rows = table[(table["split"] == split) & table["label"].notna()]
    return rows.reset_index(drop=True)


def clean(test: pd.DataFrame, calibration: Calibration) -> Metrics:
    """Measure ranking, and accuracy at the threshold that held-out normals set."""
    found = _measure(test, calibration.threshold)
    low, high = calibration.interval
    return found | {
        "false_alarm_rate": calibration.false_alarm_rate,
        "false_alarm_rate_low": low,
        "false_alarm_rate_high": high,
        "note": f"threshold from held-out normals, which {calibration.told}",
    }


def paper(test: pd.DataFrame, epochs: pd.DataFrame | None) -> Metrics:
    """Measure as the published tables do: epoch (where there are scores by epoch) and threshold chosen by labels."""
    epoch, note = None, "the last epoch: there are no scores of a labelled validation set by epoch"
    if epochs is not None:
        aucs = auc_by_epoch(epochs, "validation")
        if len(aucs):
            best = int(aucs.index[int(aucs["auc"].argmax())])
            if set(test["path"]) <= set(epochs.loc[epochs["epoch"] == best, "path"]):
                epoch, test = best, at_epoch(test, epochs, best)
                note = f"epoch {epoch}, best on labelled validation of {len(aucs)} evaluated ({aucs['auc'][epoch]:.3f})"
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


def pixels(test: pd.DataFrame, scoring: ScoreFolder, preprocessing: Preprocessing) -> tuple[Metrics, str]:
    """Measure the maps against the masks, of images at the network's size; normal images count as masks of nothing.

    Abnormal images whose mask marks nothing or cannot be read are left out; return what is said of them, too. The
    metrics are empty where there is no pixel of both kinds.
    """
    rows = test[(test["map"] != "") & ((test["mask"] != "") | (test["label"] == 0))]
    files, odd = [], []
    for name, mask, label in zip(rows["map"], rows["mask"], rows["label"], strict=True):
        pair = (scoring.artefact(name), mask)
        if mask and label and (why := _useless(*pair)):
            odd.append(f"{Path(mask).name} {why}")
        else:
            files.append(pair)
    note = f"{len(odd)} of {(rows['mask'] != '').sum()} masks are left out: {some(odd, 5)}" if odd else ""
    pairs = Again(
        lambda: (
            _pixels(path, mask, preprocessing) if path.suffix == ".npy" else _voxels(path, mask) for path, mask in files
        )
    )
    try:
        return dict(metrics.paired_pixel_metrics(pairs)) | {"images": len(files)}, note
    except metrics.OneKind as error:
        every = "the masks mark every pixel as abnormal"
        why = every if error.abnormal else note or "no mask marks a pixel as abnormal"
        return {}, f"no metrics by pixel: {why}"


def _unusable_masks(scoring: ScoreFolder) -> str:
    """Say how many masks the scoring could not use."""
    count = int(scoring.read_rejected()["reason"].str.startswith(masks.OF).sum())
    return f"{count} masks could not be used; {scoring.rejected} says why" if count else ""


def _useless(path: Path, mask: str) -> str:
    """Say why the mask of an abnormal image with this map tells nothing; empty where it does."""
    try:
        return "" if _mask(path, mask).any() else "marks nothing"
    except io.UnreadableImage as error:
        return str(error).removeprefix(f"{mask}: ")


def _mask(path: Path, mask: str) -> npt.NDArray[np.bool_]:
    """Read the mask of an image or volume that has its map at a path."""
    if path.suffix == ".npy":
        return masks.read(Path(mask), None)
    from loligo.io import nifti

    return masks.read(Path(mask), nifti.read_header(path))


def _pixels(path: Path, mask: str, own: Preprocessing) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Read an image's map and mask, both at the network's size: at their own, large images would weigh more."""
    heat, size = np.load(path, allow_pickle=False), (own.size, own.size)
    on_network = heat.shape == size
    if not on_network:
        heat = resized(heat[None], size)[0]
    if not mask:
        return heat, np.zeros(size, bool)
    there = _mask(path, mask)
    return heat, own.mask(there) if on_network else resized_mask(there, size)


def _voxels(path: Path, mask: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Read a volume's map and mask, both (X, Y, Z)."""
    from loligo.io import nifti

    heat = nifti.read(path)
    return heat.voxels, _mask(path, mask) if mask else np.zeros(heat.shape, bool)


def by_kind(test: pd.DataFrame) -> dict[str, float]:
    """Return the AUC of each kind of abnormal image, those of no known kind aside, against all normal ones."""
    normal = test[test["label"] == 0]
    kinds = sorted(set(test.loc[test["label"] == 1, "kind"]) - {""})
    groups = {kind: pd.concat([normal, test[(test["kind"] == kind) & (test["label"] == 1)]]) for kind in kinds}
    return {kind: metrics.roc_auc(_labels(group), _scores(group)) for kind, group in groups.items()}


def _measure(test: pd.DataFrame, threshold: float) -> Metrics:
    labels, scores = _labels(test), _scores(test)
    auc, low, high = metrics.roc_auc_interval(labels, scores, groups=patients(test))
    spans = statistics.bootstrap(labels, [scores], [threshold], patients(test))
    rates = {f"{name}_{end}": spans[name][i] for name in RATES for i, end in enumerate(("low", "high"))}
    return {
        "auc": auc,
        "auc_low": low,
        "auc_high": high,
        "ap": metrics.average_precision(labels, scores),
        **metrics.confusion(labels, scores, threshold),
        **rates,
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
