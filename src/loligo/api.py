"""The verbs of loligo: train, score, evaluate, report, sheet; the command line and longer experiments call these."""

from __future__ import annotations

import os
import platform
import resource
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch

from loligo import methods, reports
from loligo.calibration import HEADROOM, Calibration
from loligo.config import PreprocessingConfig, TrainConfig, build
from loligo.data import manifest
from loligo.data.dataset import AllRejected, Dataset, no_rejections
from loligo.data.decode import shared_spacing
from loligo.data.manifest import Listing
from loligo.data.splits import SPLITS
from loligo.evaluation import protocols as evaluation
from loligo.evaluation.results import append, commit
from loligo.files import write_csv
from loligo.methods.contract import Method
from loligo.names import nearest
from loligo.reports.run import gather
from loligo.reports.sheet import page as sheets
from loligo.reports.sheet.examine import examine
from loligo.runs.run import Run
from loligo.scoring import (
    Scorer,
    VolumeMaps,
    batches,
    by_row,
    check_mood,
    mood_layout,
    raw_scores,
    score_table,
    sweep,
    sweep_mood,
)
from loligo.training import loop as training

DARK = 0.5
"""Brightest pixel, of the files' range, below which images look as if another range was meant."""
Paths = str | Path | Sequence[str | Path]


def train(
    method: str,
    data: Paths | pd.DataFrame,
    out: str | Path,
    *,
    preset: str | None = None,
    options: dict[str, Any] | None = None,
    train: TrainConfig | dict[str, Any] | None = None,
    preprocessing: PreprocessingConfig | dict[str, Any] | None = None,
    strict: bool = False,
    watch: Callable[[Method, int], None] | None = None,
) -> Run:
    """Train ``method`` on the normals of ``data`` into the run folder ``out``, and calibrate it.

    ``data`` is a manifest (path or frame), a folder of images, or files; a folder is indexed on the fly and a tenth of
    its patients held out for calibration. ``options`` and ``train`` replace defaults of the method's Config and of
    `TrainConfig`; ``preset`` names a set of both. A training that was cut off goes on where it stopped. Images that
    cannot be read are listed in rejected.csv, unless ``strict``. ``watch`` looks on after each epoch; that of
    ``train.evaluate_every_epoch`` scores validation and test images for the papers' protocol. Raises ValueError for unknown names or
    unfit data.
    """
    run = plan(method, out, preset, options or {}, train or {}, preprocessing or {})
    if run.trained:
        raise ValueError(f"{run.folder} holds a finished training; choose another folder, or remove it")
    torch.manual_seed(run.train.seed)
    model = run.new_model()  # before anything is written, as it may refuse its options
    rows, foreign = _listing(data, "train", strict)
    _require(rows, "train")
    if (run.folder / "config.yaml").exists() and not run.begun:
        print(f"{run.folder}: the training was cut off before anything was kept; it starts over", file=sys.stderr)
    _keep_manifest(run, rows)
    learnt = rows.loc[rows["split"].isin(("train", "calibration")), "path"]
    if spacing := shared_spacing(learnt):
        run.about["data"]["spacing"] = list(spacing)
    normals = _load(run, rows, "train", strict)
    held_out = _load(run, rows, "calibration", strict)
    _warn_of_dark(normals)
    looks = _Watch(run, rows, strict) if run.train.evaluate_every_epoch and not watch else None
    unread = [foreign, *(data.rejected for data in (normals, held_out, *([looks.data] if looks else [])))]
    rejected = pd.concat(unread, ignore_index=True)
    write_csv(rejected.assign(during="training"), run.folder / "rejected.csv")
    run.save()
    history = training.fit(model, normals, run.train, run.folder, watch or looks, held_out)
    run.save_model(model)
    run.about["cost"] = _cost(history)
    source = " ".join(sorted({str(name) for name in rows.get("source", []) if name and not pd.isna(name)}))
    calibration = calibrate(run, held_out)
    run.about["data"] |= {
        "source": source,
        "train": len(normals.rows),
        "calibration": len(held_out.rows),
        "rejected": len(rejected),
        "false_alarm_rate": calibration.false_alarm_rate,
    }
    run.save()
    calibration.save(run.folder / "calibration.json")  # last: where it stands, the run counts as trained
    return run


def plan(
    method: str, out: str | Path, preset: str | None, options: dict[str, Any], train: Any, preprocessing: Any = None
) -> Run:
    """Return the run that is to be made in ``out``; ValueError where another one was begun there."""
    kind = methods.get(method)
    if preset is not None and preset not in kind.presets:
        raise ValueError(f"{method} has no preset {preset!r}; {nearest(preset, kind.presets)}")
    given = kind.presets.get(preset or "default", {})
    config = build(kind.Config, {k: v for k, v in given.items() if not k.startswith("train.")} | options, method)
    if not isinstance(train, TrainConfig):
        preset_train = {k.removeprefix("train."): v for k, v in given.items() if k.startswith("train.")}
        train = build(TrainConfig, preset_train | train, "train")
    if not isinstance(preprocessing, PreprocessingConfig):
        preprocessing = build(PreprocessingConfig, preprocessing or {}, "preprocessing")
    if not str(out):
        raise ValueError("the run folder's name is empty; name one, such as runs/a")
    run = Run(Path(out), method, config, train, {"data": {}, "cost": {}}, preset or "", preprocessing)
    if run.begun:
        before = Run.load(run.folder)
        if (before.method, before.method_config, before.train, before.preprocessing) != (
            method,
            config,
            train,
            preprocessing,
        ):
            raise ValueError(
                f"{run.folder} was begun with other options ({_difference(before, run)}); "
                "repeat those to go on with it, or choose another folder"
            )
    return run


def _difference(before: Run, now: Run) -> str:
    """Name the first option in which two runs differ."""
    pairs: list[tuple[str, Any, Any]] = [("method", before.method, now.method)]
    for name, a, b in (
        ("method", before.method_config, now.method_config),
        ("train", before.train, now.train),
        ("preprocessing", before.preprocessing, now.preprocessing),
    ):
        pairs += [(f"{name}.{k}", v, vars(b).get(k)) for k, v in vars(a).items()]
    name, old, new = next(pair for pair in pairs if pair[1] != pair[2])
    return f"{name} was {old!r}, is now {new!r}"


def calibrate(run: Run, normals: Dataset) -> Calibration:
    """Score held-out normals; return what they say: p-values, threshold, colours of maps."""
    scorer = Scorer(run.model(), run.train.precision)
    whole = VolumeMaps(scorer.method, normals, run.preprocessing.axis) if normals.counts else None
    values, peaks = [], []
    for _, _, scores in batches(scorer, normals):
        values.append(scores.image.double().numpy())
        if scores.map is not None:
            maps = scores.map[:, 0]
            found = (voxels for *_, voxels in whole.add(maps)) if whole else maps.numpy()
            peaks += [np.quantile(heat, 0.999) for heat in found]
    scale = float(np.median(peaks)) * HEADROOM if peaks else 1.0
    scored = by_row(np.concatenate(values), normals, scorer.method.volume_score)
    return replace(Calibration.fit(scored), map_scale=scale or 1.0)


def score(
    run: Run | str | Path,
    data: Paths | pd.DataFrame | None = None,
    out: str | Path | None = None,
    *,
    splits: Sequence[str] | None = None,
    maps: bool = True,
    batch_size: int = 16,
    strict: bool = False,
    device: str = "cpu",
    layout: Literal["loligo", "mood"] = "loligo",
) -> pd.DataFrame:
    """Score images with a trained run; write scores.csv, maps/ and rejected.csv to ``out``; return the table.

    ``data`` is a folder, files or a manifest; without it, the manifest that the run was trained on. Of a manifest the
    ``splits`` are scored: all of ``data``, test of the run's own, unless given. ``out`` is the run folder unless given;
    metrics of scores that stood there go. The ``layout`` mood adds what that challenge's evaluation reads:
    sample/NAME.txt and pixel/NAME for each volume.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
    if unknown := [split for split in splits or () if split not in SPLITS]:
        raise ValueError(f"there is no split {unknown[0]!r}; {nearest(unknown[0], SPLITS)}")
    run = run if isinstance(run, Run) else Run.load(run)
    folder = Path(out) if out else run.folder
    calibration = Calibration.load(run.folder / "calibration.json")
    try:
        rows, foreign = _listing(run.manifest() if data is None else data, "score", strict)
    except AllRejected as error:
        _keep_rejected(folder / "rejected.csv", error.rejected)
        raise
    splits = splits or (("test",) if data is None else None)
    if splits:
        rows = rows[rows["split"].isin(splits)].reset_index(drop=True)
    if rows.empty:
        raise ValueError(f"there is nothing to score: the manifest has no image in {', '.join(splits or SPLITS)}")
    if layout == "mood":
        check_mood(rows, maps, folder)
    try:
        images = run.images(rows, strict)
    except AllRejected as error:
        _keep_rejected(folder / "rejected.csv", pd.concat([foreign, error.rejected], ignore_index=True))
        raise
    scorer = Scorer(run.model(), run.train.precision, device)
    table = score_table(
        scorer, images, calibration, folder / "maps" if maps else None, batch_size, run.preprocessing.axis
    )
    (folder / "metrics.json").unlink(missing_ok=True)  # it is of the scores before
    sweep_mood(folder)
    if layout == "mood":
        table["mood"] = table["path"].map(lambda path: Path(path).name)  # a later scoring may remove what is ours alone
    write_csv(table, folder / "scores.csv")
    sweep(folder / "maps", table)
    _keep_rejected(folder / "rejected.csv", pd.concat([foreign, images.rejected], ignore_index=True))
    if layout == "mood":
        mood_layout(table, folder, calibration)
    return table


def evaluate(run: Run | str | Path, results: str | Path | None = None) -> dict[str, Any]:
    """Measure the scores of a run against their labels, under both protocols; append them to a results table."""
    folder = run.folder if isinstance(run, Run) else Path(run)
    found = evaluation.evaluate(folder)
    if results:
        append(Path(results), Run.load(folder), found)
    return found


def report(run: Run | str | Path) -> Path:
    """Write report.html of a run folder, and its charts as PNG files in figures/; return the path of the page."""
    run = run if isinstance(run, Run) else Run.load(run)
    return reports.write(run.folder, insight=gather.insight(run))


def sheet(run: Run | str | Path, image: str | Path, out: str | Path | None = None) -> Path:
    """Write the one-page sheet of an image to ``out``, .pdf or .html; return its path.

    ``out`` is the image's name with .pdf, in the current folder, unless given. Raises ValueError, which names the file,
    for an image that cannot be read, a run whose training is not finished, and an ``out`` that cannot be made.
    """
    run = run if isinstance(run, Run) else Run.load(run)
    image = Path(image)
    if not image.is_file():
        raise FileNotFoundError(f"{image}: no such file; give one image")
    if (shown := manifest.writable(image)) != str(image):
        raise ValueError(f"{shown}: its name is not UTF-8 or has a carriage return; rename the file")
    out = Path(out or f"{image.stem}.pdf")
    sheets.check(out)
    return sheets.write(examine(run, image), out)


class _Watch:
    """Score the validation and test images after each epoch, into epochs.csv; looks on, decides nothing."""

    def __init__(self, run: Run, rows: pd.DataFrame, strict: bool) -> None:
        watched = rows[rows["split"].isin(["validation", "test"])]
        if watched.empty:
            raise ValueError("train.evaluate_every_epoch needs validation or test images in the manifest; it has none")
        self.run, self.path = run, run.folder / "epochs.csv"
        self.data = run.images(watched, strict)

    def __call__(self, model: Method, epoch: int) -> None:
        values = raw_scores(Scorer(model, self.run.train.precision), self.data, progress=False)
        rows = self.data.rows[["path", "split", "label", "patient"]].assign(epoch=epoch, score=values)
        append_epoch(self.path, rows, epoch)


def append_epoch(path: Path, rows: pd.DataFrame, epoch: int) -> None:
    """Add the rows of an epoch to a table; rows of it or later ones, left by a killed training, go."""
    if path.exists():
        before = evaluation.read(path)
        rows = pd.concat([before[before["epoch"] < epoch], rows], ignore_index=True)
    write_csv(rows, path)


def _keep_rejected(path: Path, rejected: pd.DataFrame) -> None:
    """Write what a scoring rejected in place of what one before did; what the training rejected stays."""
    rejected = rejected.assign(during="scoring")
    if path.exists():
        before = pd.read_csv(path, dtype=str, keep_default_na=False)
        before = before[before["during"] == "training"] if "during" in before else before[:0]
        rejected = pd.concat([before, rejected], ignore_index=True)
    write_csv(rejected, path)


def _listing(data: Paths | pd.DataFrame, purpose: Literal["train", "score"], strict: bool) -> Listing:
    """Return the rows of what was given, and the files that no reader takes; where ``strict``, raise for the first."""
    if isinstance(data, pd.DataFrame):
        return Listing(manifest.check(data), no_rejections())
    found = manifest.resolve(data, purpose=purpose)
    if strict and len(found.rejected):
        raise ValueError(f"{found.rejected['path'][0]}: {found.rejected['reason'][0]}")
    return found


def _require(rows: pd.DataFrame, split: str) -> None:
    if not (rows["split"] == split).any():
        raise ValueError(
            f"the data has no image in split {split!r}; its splits: {rows['split'].value_counts().to_dict()}; "
            "move some normal images there, or give their folder, of which a tenth is held out for calibration"
        )


def _load(run: Run, rows: pd.DataFrame, split: str, strict: bool) -> Dataset:
    _require(rows, split)
    return run.images(rows[rows["split"] == split], strict)


def _warn_of_dark(images: Dataset) -> None:
    """Say where the images use little of their range, as 12-bit pixels in 16-bit files: contrast is lost on methods."""
    few = images.batch(np.unique(np.linspace(0, len(images) - 1, 64).astype(int)))[:, 0]
    if 0 < (brightest := float(few.max())) < DARK:
        print(
            f"the brightest pixel of {len(few)} training images has {brightest:.3f} of what their files can hold; "
            "if those are 12-bit numbers in 16 bits, save them scaled to the full range, these and all that is scored",
            file=sys.stderr,
        )


def _keep_manifest(run: Run, rows: pd.DataFrame) -> None:
    """Keep the manifest with the run; one that is resumed must be given the same images to learn from."""
    path = run.folder / "manifest.csv"
    if run.begun and path.exists() and manifest.trained_on(manifest.read(path)) != manifest.trained_on(rows):
        raise ValueError(f"{run.folder} was begun on other training images; see {path}, or choose another folder")
    manifest.write(rows, path)


def _cost(history: pd.DataFrame) -> dict[str, Any]:
    """Return what a training took; a resumed one counts all its epochs."""
    cost: dict[str, Any] = {
        "train_seconds": round(history.attrs["seconds"], 2),
        "train_cpu_seconds": round(history.attrs["cpu_seconds"], 2),
        "images_per_s": round(float(history["images_per_s"].median()), 2) if len(history) else None,
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
        "commit": commit(),
    }
    return cost
