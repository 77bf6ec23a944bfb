"""The verbs of loligo, which `import loligo` gives and the command line calls."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, Never

import numpy as np
import pandas as pd
import torch

from loligo import __version__, scoring
from loligo.config import PreprocessingConfig, TrainConfig
from loligo.data import inputs, manifest
from loligo.data.dataset import AllRejected, Dataset, no_rejections, refuse_mixed
from loligo.data.decode import shared_spacing
from loligo.data.manifest import Listing
from loligo.data.splits import SPLITS
from loligo.detector import Detector
from loligo.evaluation import protocols
from loligo.evaluation.results import append
from loligo.files import write_csv
from loligo.methods.contract import Method
from loligo.names import nearest
from loligo.nn.precision import pick_device, resolve
from loligo.reports.run import gather
from loligo.reports.run import page as reports
from loligo.reports.sheet import page as sheets
from loligo.reports.sheet.examine import examine
from loligo.runs import mood, scores
from loligo.runs.run import Run
from loligo.runs.scores import ScoreFolder
from loligo.runs.settings import FALSE_ALARM_RATE, Settings, misplaced
from loligo.training import images, loop, processes
from loligo.training.cost import cost
from loligo.training.loop import Callback

DARK = 0.5
"""Brightest pixel, of the files' range, below which images look as if another range was meant."""
Paths = str | Path | Sequence[str | Path]
log = logging.getLogger(__name__)


def load(run: str | Path | Run, device: str = "auto", false_alarm_rate: float | None = None) -> Detector:
    """Return the detector of a run folder, as `Detector.load` does."""
    return Detector.load(run, device, false_alarm_rate)


def train(
    method: str,
    data: Paths | pd.DataFrame,
    out: str | Path,
    *,
    preset: str | None = None,
    options: dict[str, Any] | None = None,
    train: TrainConfig | dict[str, Any] | None = None,
    preprocessing: PreprocessingConfig | dict[str, Any] | None = None,
    false_alarm_rate: float = FALSE_ALARM_RATE,
    strict: bool = False,
    callback: Callback | None = None,
    **unknown: Never,
) -> Run:
    """Train ``method`` on the normals of ``data`` into the run folder ``out``, and calibrate it.

    ``data`` is a manifest (path or frame), a folder of images, or files; a folder is indexed on the fly and a tenth of
    its images held out for calibration. ``options``, ``train`` and ``preprocessing`` replace defaults of the method's
    Config, of `TrainConfig` and of `PreprocessingConfig`; ``preset`` names a set of the first two. A training that was
    cut off resumes. Images that cannot be read are listed in rejected.csv, unless ``strict``. ``callback`` is called
    after each epoch. Raises ValueError for unknown names or unfit data.
    """
    for name in unknown:
        raise TypeError(misplaced(method, name))
    settings = Settings.of(method, preset, options, train, preprocessing, false_alarm_rate)
    return train_run(Run.new(out, settings), data, strict=strict, callback=callback)


def train_run(run: Run, data: Paths | pd.DataFrame, *, strict: bool = False, callback: Callback | None = None) -> Run:
    """Train what `Run.new` returned; see `train`."""
    if run.trained:
        raise ValueError(f"{run.folder} holds a finished training; choose another folder, or remove it")
    _refuse_arrays(data, "loligo.Detector.fit(method, images)")
    rows, rejected = _listing(data, "train", strict)
    _require(rows, "train")
    _require(rows, "calibration")
    with _leaving_nothing(run):
        if run.train.devices > 1 and not processes.inside():
            processes.spawn(_train, run.train.devices, run, rows, rejected, strict, callback)
            return Run.load(run.folder)
        return _train(run, rows, rejected, strict, callback)


@contextmanager
def _leaving_nothing(run: Run) -> Iterator[None]:
    """Remove the record of a training that is refused before it keeps anything, and its folder where that is empty."""
    new = not run.files.config.exists()
    try:
        yield
    except (ValueError, ImportError):
        if new and not run.begun:
            for path in (run.files.config, run.files.manifest, run.files.rejected):
                path.unlink(missing_ok=True)
            with suppress(OSError):
                run.folder.rmdir()
        raise


def _train(run: Run, rows: pd.DataFrame, rejected: pd.DataFrame, strict: bool, callback: Callback | None) -> Run:
    """Train in this process, which may be one of several; the first of them writes."""
    device = pick_device(run.train.device, processes.local_rank())
    with processes.joined(device) as reduce:
        first = reduce.rank == 0
        torch.manual_seed(run.train.seed)
        model = run.new_model()  # before anything is written, as it may refuse its options
        if first:
            _begin(run, rows)
        if spacing := shared_spacing(rows.loc[rows["split"].isin(("train", "calibration")), "path"]):
            run.about["data"]["spacing"] = list(spacing)
        normals, held_out = (
            images.load(run, rows[rows["split"] == split], strict=strict) for split in ("train", "calibration")
        )
        first_of = [part.rows["path"][0] for part in (normals, held_out)]
        refuse_mixed(first_of, [part.counts is not None for part in (normals, held_out)])
        if first:
            _warn_of_dark(normals)
        each = callback or (_EachEpoch(run, rows, strict) if run.train.evaluate_every_epoch else None)
        unread = [rejected, normals.rejected, held_out.rejected]
        unread += [each.data.rejected] if isinstance(each, _EachEpoch) else []
        run.about.setdefault("precision", resolve(run.train.precision, device))
        if first:
            run.files.write_rejected(pd.concat(unread, ignore_index=True))
            run.save()
        history = loop.fit(
            model, normals, run.train, run.folder, each, precision=run.precision, reduce=reduce, progress=first
        )
        if first:
            run.save_model(model)
            run.about["cost"] = cost(history)
            _finish(run, model, rows, normals, held_out, sum(map(len, unread)))
    return run


def _begin(run: Run, rows: pd.DataFrame) -> None:
    """Keep the manifest with the run; one that is resumed must be given the same images to learn from."""
    if run.files.config.exists() and not run.begun:
        log.warning("%s: the training was cut off before anything was kept; it starts over", run.folder)
    path = run.files.manifest
    if run.begun and path.exists() and manifest.trained_on(manifest.read(path)) != manifest.trained_on(rows):
        raise ValueError(f"{run.folder} was begun on other training images; see {path}, or choose another folder")
    manifest.write(rows, path)


def _finish(run: Run, model: Method, rows: pd.DataFrame, normals: Dataset, held_out: Dataset, rejected: int) -> None:
    """Calibrate, and note what the run was trained on."""
    calibration = Detector.of(run, model, run.train.device).calibrate(held_out)
    source = " ".join(sorted({str(name) for name in rows.get("source", []) if name and not pd.isna(name)}))
    run.about["data"] |= {
        "source": source,
        "train": len(normals.rows),
        "calibration": len(held_out.rows),
        "rejected": rejected,
        "false_alarm_rate": calibration.false_alarm_rate,
    }
    run.save()
    calibration.save(run.files.calibration)  # last: where it stands, the run counts as trained


def score(
    run: Run | str | Path,
    data: Paths | pd.DataFrame | None = None,
    out: str | Path | None = None,
    *,
    splits: Sequence[str] | None = None,
    maps: scoring.Maps = "image",
    batch_size: int = 16,
    strict: bool = False,
    device: str = "auto",
    false_alarm_rate: float | None = None,
    layout: Literal["loligo", "mood"] = "loligo",
) -> pd.DataFrame:
    """Score images with a trained run into a folder of its own; return the table, the most abnormal image first.

    ``data`` is a folder, files or a manifest; without it, the manifest that the run was trained on. Of a manifest the
    ``splits`` are scored: all of ``data``, test of the run's own, unless given. The folder is ``out``, or
    ``scores/NAME`` in that of the run, named as the data; nothing is written over. It gets scores.csv, rejected.csv,
    maps/ and the calibration, at another ``false_alarm_rate`` than the run's where one is given; its path is
    ``table.attrs["folder"]``. The ``layout`` mood adds what that challenge's evaluation reads: sample/NAME.txt and
    pixel/NAME for each volume. Raises `AllRejected` where no image can be used: the folder then holds rejected.csv.
    """
    _refuse_arrays(data, "loligo.load(run).predict(images)")
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
    if unknown := [split for split in splits or () if split not in SPLITS]:
        raise ValueError(f"there is no split {unknown[0]!r}; {nearest(unknown[0], SPLITS)}")
    run, out = run if isinstance(run, Run) else Run.load(run), Path(out) if out else None
    if out:
        scores.refuse_taken(out)
    detector = Detector.load(run, device, false_alarm_rate)
    made: list[pd.DataFrame | AllRejected] = []

    def fill(folder: ScoreFolder) -> None:
        try:
            found = _to_score(run, data, splits, strict)
            if layout == "mood":
                mood.check(found.rows, maps != "none")
            images = detector.images(found.rows, strict)
        except AllRejected as error:
            write_csv(error.rejected, folder.rejected)
            made.append(error)
            return
        table = scoring.score_table(detector, images, folder, maps, batch_size)
        folder.write_scores(table, pd.concat([found.rejected, images.rejected], ignore_index=True))
        given = [manifest.writable(path) for path in _absolute(data)]
        folder.write_about({"run": run.folder, "loligo": __version__, "data": given, "splits": splits})
        detector.calibration.save(folder.calibration)
        if layout == "mood":
            mood.write(table, folder, detector.calibration)
        made.append(table)

    where = scores.write(run.folder, _name(data, splits), out, fill)
    if isinstance(made[0], AllRejected):
        log.warning("%s has all reasons", where.rejected)
        raise made[0]
    made[0].attrs["folder"] = str(where.path)
    return made[0]


def _to_score(run: Run, data: Paths | pd.DataFrame | None, splits: Sequence[str] | None, strict: bool) -> Listing:
    """Return the rows to be scored, and the files that no reader takes."""
    found = Listing(run.manifest(), no_rejections()) if data is None else _listing(data, "score", strict)
    wanted = splits or (("test",) if data is None else ())
    rows = found.rows[found.rows["split"].isin(wanted)].reset_index(drop=True) if wanted else found.rows
    if rows.empty:
        others = found.rows["split"].value_counts().to_dict()
        has = ", ".join(f"{count} of {split}" for split, count in others.items()) or "none"
        raise ValueError(
            f"there is no {' or '.join(wanted)} image among those that were given ({has}): give a folder or files to "
            "score, or other --splits"
        )
    return found._replace(rows=rows)


def _name(data: Paths | pd.DataFrame | None, splits: Sequence[str] | None) -> str:
    """Name a scoring by what was given."""
    if data is None or isinstance(data, pd.DataFrame):
        return "_".join(splits or ("test",))
    given = _absolute(data)
    return scores.name_of(given[0] if len(given) == 1 else given[0].parent)


def _absolute(data: Paths | pd.DataFrame | None) -> list[Path]:
    """List the paths that were given."""
    if data is None or isinstance(data, pd.DataFrame):
        return []
    return [manifest.absolute(Path(one)) for one in ([data] if isinstance(data, str | Path) else data)]


def evaluate(
    run: Run | str | Path, results: str | Path | None = None, false_alarm_rate: float | None = None
) -> dict[str, Any]:
    """Measure the scores of a run against their labels, under both protocols; append them to a results table.

    ``run`` is the folder of a scoring, or a run, of which the latest scoring is meant. The threshold is that of the
    scoring's false-alarm rate, or of the one given.
    """
    folder = _scoring(run)
    found = protocols.evaluate(folder, false_alarm_rate)
    if results:
        append(Path(results), Run.load(folder.run.path), found)
    return found


def report(run: Run | str | Path) -> Path:
    """Write report.html of a scoring, and its charts as PNG files in figures/ beside it; return the path of the page.

    ``run`` is the folder of a scoring, or a run, of which the latest scoring is meant.
    """
    folder = _scoring(run)
    return reports.write(folder, insight=gather.insight(folder))


def _scoring(run: Run | str | Path) -> ScoreFolder:
    """Return the scoring that is meant, and log which where a run has several."""
    folder = run.folder if isinstance(run, Run) else Path(run)
    found = scores.find(folder)
    if found.path != folder and (others := [one.path.name for one in scores.scorings(folder) if one != found]):
        named = ", ".join(others[:5]) + (f" and {len(others) - 5} more" if len(others) > 5 else "")
        log.warning(
            "%s is the latest of its scorings; there are %s too: name a folder to choose one", found.path, named
        )
    return found


def sheet(
    run: Run | str | Path,
    image: str | Path,
    out: str | Path | None = None,
    *,
    device: str = "auto",
    false_alarm_rate: float | None = None,
) -> Path:
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
    return sheets.write(examine(run, image, device=device, false_alarm_rate=false_alarm_rate), out)


class _EachEpoch:
    """Score the validation and test images after each epoch, into epochs.csv; it decides nothing."""

    def __init__(self, run: Run, rows: pd.DataFrame, strict: bool) -> None:
        chosen = rows[rows["split"].isin(["validation", "test"])]
        if chosen.empty:
            raise ValueError("train.evaluate_every_epoch needs validation or test images in the manifest; it has none")
        self.run, self.data = run, images.load(run, chosen, strict=strict)

    def __call__(self, model: Method, epoch: int) -> None:
        values = Detector.of(self.run, model, self.run.train.device).scores(self.data)
        rows = self.data.rows[["path", "split", "label", "patient"]].assign(epoch=epoch, score=values)
        self.run.files.append_epoch(rows, epoch)


def _refuse_arrays(data: object, instead: str) -> None:
    """Raise TypeError where what is given is neither paths nor the table of a manifest."""
    first = data[0] if isinstance(data, list | tuple) and data else data
    if not isinstance(first, str | Path | pd.DataFrame | None):
        raise TypeError(f"data is a {type(first).__name__}; give paths or a manifest. Images in memory: {instead}")


def _listing(data: Paths | pd.DataFrame, purpose: Literal["train", "score"], strict: bool) -> Listing:
    """Return the rows of what was given, and the files that no reader takes; where ``strict``, raise for the first."""
    if isinstance(data, pd.DataFrame):
        return Listing(manifest.check(data), no_rejections())
    found = inputs.resolve(data, purpose=purpose)
    if strict and len(found.rejected):
        raise ValueError(f"{found.rejected['path'][0]}: {found.rejected['reason'][0]}")
    return found


def _require(rows: pd.DataFrame, split: str) -> None:
    if not (rows["split"] == split).any():
        raise ValueError(
            f"the data has no image in split {split!r}; its splits: {rows['split'].value_counts().to_dict()}; "
            "move some normal images there, or give their folder, of which a tenth is held out for calibration"
        )


def _warn_of_dark(images: Dataset) -> None:
    """Say where the images use little of their range, as 12-bit pixels in 16-bit files: contrast is lost on methods."""
    few = images.batch(np.unique(np.linspace(0, len(images) - 1, 64).astype(int)))[:, 0]
    if 0 < (brightest := float(few.max())) < DARK:
        log.warning(
            "the brightest pixel of %d training images has %.3f of what their files can hold; if those are 12-bit "
            "numbers in 16 bits, save them scaled to the full range, these and all that is scored",
            len(few),
            brightest,
        )
