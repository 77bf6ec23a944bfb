"""The verbs of loligo, which `import loligo` gives and the command line calls."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Never

import pandas as pd
import torch

from loligo import calibration as calibrations
from loligo import cross_calibration, io
from loligo.calibration import Calibration
from loligo.config import PreprocessingConfig, TrainConfig
from loligo.data import checks, copies, manifest
from loligo.data.dataset import refuse_mixed
from loligo.data.decode import shared_spacing
from loligo.data.header_scope import HeaderScope
from loligo.data.places import AS_NAMED, Layout
from loligo.data.reference import Reference
from loligo.data.splits import ABNORMAL
from loligo.detector import Detector, part_held_out
from loligo.detector import load as load
from loligo.evaluation import protocols
from loligo.evaluation.results import append
from loligo.files import as_list
from loligo.methods.contract import Method
from loligo.names import some
from loligo.nn.precision import pick_device, resolve
from loligo.reports.run import gather
from loligo.reports.run import page as reports
from loligo.reports.sheet import examine
from loligo.reports.sheet import page as sheets
from loligo.runs import scores
from loligo.runs.run import Run
from loligo.runs.scores import ScoreFolder
from loligo.runs.settings import FALSE_ALARM_RATE, HELD_OUT, Settings, misplaced
from loligo.score_files import Paths as Paths
from loligo.score_files import listing, refuse_arrays
from loligo.score_files import score as score
from loligo.training import images, loop, processes
from loligo.training.cost import cost
from loligo.training.loop import Callback

LEAST = 6
"""Normal images below which there is no training."""
log = logging.getLogger(__name__)


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
    calibration: Paths | pd.DataFrame | None = None,
    held_out: float = HELD_OUT,
    folds: int | None = None,
    normal: Sequence[str | Path] = (),
    abnormal: Sequence[str | Path] = (),
    masks: Sequence[str | Path] = (),
    patient: str = "",
    strict: bool = False,
    callback: Callback | None = None,
    **unknown: Never,
) -> Run:
    """Train ``method`` on the normals of ``data`` into the run folder ``out``, and calibrate it.

    ``data`` is a manifest (path or frame), a folder of images, or files; a folder is indexed on the fly. In a folder,
    ``normal``, ``abnormal`` and ``masks`` name sub-folders whose names do not say what they hold, and ``patient`` says
    whose images they are: "folder" where each sub-folder is a patient, or a regular expression whose first group in a
    file's name is one. Where ``data`` has no calibration split and no ``calibration`` images are given, the part
    ``held_out`` of its patients becomes it; or, with ``folds``, every image is scored by one of so many models that did
    not see it, of which the run keeps the first. That is the default for methods of one pass where the part held out
    is too small for the rate. ``options``, ``train`` and ``preprocessing`` replace defaults of the method's Config, of
    `TrainConfig` and of `PreprocessingConfig`; ``preset`` names a set of the first two. A training that was cut off
    resumes. Images that cannot be read are listed in rejected.csv, unless ``strict``. ``callback`` is called after each
    epoch. A weakly supervised method learns from abnormal images, too: those of the split train_abnormal, or else the
    abnormal ones of validation; others never see them. Raises ValueError for unknown names or unfit data, fewer than
    `LEAST` normal images among them.
    """
    for name in unknown:
        raise TypeError(misplaced(method, name))
    settings = Settings.of(method, preset, options, train, preprocessing, false_alarm_rate, held_out, folds)
    layout = Layout(normal, abnormal, masks, patient)
    return train_run(Run.new(out, settings), data, calibration, layout=layout, strict=strict, callback=callback)


def train_run(
    run: Run,
    data: Paths | pd.DataFrame,
    calibration: Paths | pd.DataFrame | None = None,
    *,
    layout: Layout = AS_NAMED,
    strict: bool = False,
    callback: Callback | None = None,
) -> Run:
    """Train what `Run.new` returned; see `train`."""
    if run.trained:
        raise ValueError(f"{run.folder} holds a finished training; choose another folder, or remove it")
    refuse_arrays(data, "loligo.Detector.fit(method, images)")
    rows, rejected = listing(data, "train", strict, layout)
    if calibration is not None:
        extra, unread = listing(calibration, "train", strict)
        rows, rejected = _joined(rows, extra), pd.concat([rejected, unread], ignore_index=True)
    headers = HeaderScope.of(rows.loc[rows["split"].isin(("train", "calibration")), "path"])
    run.about["data"] |= HeaderScope(headers.modalities).written()
    rows, others = headers.only(rows)
    rejected = pd.concat([rejected, others], ignore_index=True)
    if strict and len(others):
        raise ValueError(f"{others['path'][0]}: {others['reason'][0]}")
    rows, folds = _planned(run, run.given(rows))
    with _leaving_nothing(run):
        if run.train.devices > 1 and not processes.inside():
            processes.spawn(_train, run.train.devices, run, rows, folds, rejected, strict, callback)
            return Run.load(run.folder)
        return _train(run, rows, folds, rejected, strict, callback)


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


def _joined(rows: pd.DataFrame, extra: pd.DataFrame) -> pd.DataFrame:
    """Add the normals among the rows ``extra`` as calibration split."""
    if (rows["split"] == "calibration").any():
        raise ValueError("the data has a calibration split, and calibration images are given too; leave one out")
    normal = extra[extra["split"].isin(("train", "calibration"))]
    return manifest.check(pd.concat([rows, normal.assign(split="calibration", label=0)], ignore_index=True))


def _planned(run: Run, rows: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Decide on what it is calibrated, and say what that can tell; return the rows with that split, and the folds."""
    content = copies.find(rows["path"])
    normals, given = (copies.different(rows[rows["split"] == split], content) for split in ("train", "calibration"))
    if normals + given < LEAST or not normals:
        raise ValueError(
            f"{normals + given} different normal images to train and calibrate on are too few: {LEAST} are the least,"
            " 200 or more give p-values that tell something; images by split:"
            f" {rows['split'].value_counts().to_dict()}"
        )
    if given and run.folds:
        raise ValueError(f"the data has {given} calibration images, which {run.folds} folds do not need; leave one out")
    folds, rate = run.folds or 0, run.false_alarm_rate
    if run.folds is None and not given and cross_calibration.is_for(run, normals):
        folds = min(cross_calibration.FOLDS, normals)
    if not (given or folds):
        rows = manifest.as_normals(rows, part_held_out(run.held_out, normals), 0, content)
        given = copies.different(rows[rows["split"] == "calibration"], content)
    for note in copies.notes(rows, content):
        log.warning("%s", note)
    if folds:
        log.warning("%d normal images are few: each is scored by one of %d models that did not see it", normals, folds)
    if said := calibrations.outlook(given or normals, rate, 0 if folds else normals):
        log.warning("%s", said if folds else f"{said}; or --folds 10, a larger --held_out, or --calibration DIR")
    return rows, folds


def _train(
    run: Run, rows: pd.DataFrame, folds: int, rejected: pd.DataFrame, strict: bool, callback: Callback | None
) -> Run:
    """Train in this process, which may be one of several; the first of them writes."""
    device = pick_device(run.train.device, processes.local_rank())
    with processes.joined(device) as reduce:
        first = reduce.rank == 0
        torch.manual_seed(run.train.seed)
        model = run.new_model()  # before anything is written, as it may refuse its options
        model.check_abnormal(int((rows["split"] == ABNORMAL).sum()))
        if first:
            _begin(run, rows)
        if spacing := shared_spacing(rows.loc[rows["split"].isin(("train", "calibration")), "path"]):
            run.about["data"]["spacing"] = list(spacing)
        splits = ("train",) if folds else ("train", "calibration")
        parts = [images.load(run, rows[rows["split"] == split], strict=strict) for split in splits]
        sick = rows[rows["split"] == ABNORMAL]
        abnormal = images.load(run, sick, strict=strict) if model.weakly_supervised else None
        every = [*parts, abnormal] if abnormal else parts
        if run.headers.modalities:  # some are DICOM; those that could not be read say nothing
            run.about["data"] |= HeaderScope.of(path for part in parts for path in part.rows["path"]).written()
        refuse_mixed([part.rows["path"][0] for part in every], [part.counts is not None for part in every])
        plan = cross_calibration.Folds.of(parts[0], folds, run.train.seed, abnormal) if folds else None
        normals, held_out = plan.split() if plan else parts
        if all(part.contents for part in every):
            run.remember(itertools.chain(*(part.contents for part in every)))
        known = Reference.of(normals, held_out, abnormal) if first else None
        if known:
            for said in checks.summary(normals.warnings + held_out.warnings) + checks.summary(known.negatives()):
                log.warning("%s", said)
        each = callback or (_EachEpoch(run, rows, strict) if run.train.evaluate_every_epoch else None)
        unread = [rejected, *(part.rejected for part in every)]
        unread += [each.data.rejected] if isinstance(each, _EachEpoch) else []
        run.about.setdefault("precision", resolve(run.train.precision, device))
        if first:
            run.files.write_rejected(pd.concat(unread, ignore_index=True))
            run.save()
        history = loop.fit(
            model,
            normals,
            run.train,
            run.folder,
            each,
            precision=run.precision,
            reduce=reduce,
            progress=first,
            abnormal=abnormal,
        )
        if first:
            run.save_model(model)
        calibration = None
        if plan:
            calibration = plan.calibrate(run, model, held_out, reduce)
        elif first:
            calibration = Detector.of(run, model, run.train.device).calibrate(held_out)
        if known and calibration:
            known.save(run.files.reference)
            run.about["data"] |= {ABNORMAL: len(abnormal.rows)} if abnormal else {}
            run.about["cost"] = cost(history)
            _finish(run, rows, len(normals.rows), calibration, sum(map(len, unread)))
    return run


def _begin(run: Run, rows: pd.DataFrame) -> None:
    """Keep the manifest with the run; one that is resumed must be given the same images to learn from."""
    if run.files.config.exists() and not run.begun:
        log.warning("%s: the training was cut off before anything was kept; it starts over", run.folder)
    path = run.files.manifest
    if run.begun and path.exists() and manifest.trained_on(manifest.read(path)) != manifest.trained_on(rows):
        raise ValueError(f"{run.folder} was begun on other training images; see {path}, or choose another folder")
    manifest.write(rows, path)


def _finish(run: Run, rows: pd.DataFrame, normals: int, calibration: Calibration, rejected: int) -> None:
    """Keep the calibration, and note what the run was trained on."""
    source = " ".join(sorted({str(name) for name in rows.get("source", []) if name and not pd.isna(name)}))
    run.about["data"] |= {
        "source": source,
        "train": normals,
        "calibration": len(calibration.scores),
        "rejected": rejected,
        "folds": calibration.folds,
        "false_alarm_rate": calibration.false_alarm_rate,
    }
    run.save()
    calibration.save(run.files.calibration)  # last: where it stands, the run counts as trained
    cross_calibration.tidy(run)


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
        said = "%s is the latest of its scorings; there are %s too: name a folder to choose one"
        log.warning(said, found.path, some(others, 5))
    return found


def sheet(
    run: Run | str | Path,
    images: Paths | None = None,
    out: str | Path | None = None,
    *,
    device: str = "auto",
    false_alarm_rate: float | None = None,
) -> Path:
    """Write a page on each of some images or volumes to ``out``, .pdf or .html; return its path.

    ``run`` is a run, its folder, or that of a scoring. Without ``images``, these are those that the scoring flagged, or
    the latest of the run, the most abnormal first. ``out`` is the name of the only image with .pdf, or sheets.pdf, in
    the current folder, unless given. Of several images those that cannot be used are left out with a warning. Raises
    ValueError, which names the file, where the only one or all cannot be used, nothing is flagged, the training is not
    finished, or ``out`` cannot be made.
    """
    scoring = ScoreFolder(run.folder if isinstance(run, Run) else Path(run))
    if scoring.scores.is_file():
        run = scoring.run.path
    run = run if isinstance(run, Run) else Run.load(run)
    paths = examine.flagged(_scoring(scoring.path)) if images is None else [Path(image) for image in as_list(images)]
    out = Path(out or (f"{io.stem(paths[0])}.pdf" if len(paths) == 1 else "sheets.pdf"))
    sheets.check(out)
    examiner = examine.Examiner(run, device=device, false_alarm_rate=false_alarm_rate)
    return sheets.write(examine.each(examiner, paths), out)


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
