"""Score a folder, files or a manifest with a run, or with an exported model and without torch."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import pandas as pd

from loligo import __version__, scoring
from loligo import dicom as objects
from loligo.data import checks, inputs, manifest
from loligo.data.dataset import AllRejected, no_rejections
from loligo.data.places import AS_NAMED, Layout
from loligo.data.splits import SPLITS
from loligo.detector import Detector
from loligo.dicom import DEFAULT
from loligo.files import as_list, write_csv
from loligo.names import nearest
from loligo.runs import mood, scores
from loligo.runs.run import Run
from loligo.runs.scores import ScoreFolder
from loligo.sessions import Session

if TYPE_CHECKING:
    from loligo.dicom.export import Export

Paths = str | Path | Sequence[str | Path]
log = logging.getLogger(__name__)


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
    scope: Literal["checked", "any"] = "checked",
    q_value: bool = False,
    dicom: str | Path | None = None,
    dicom_objects: Sequence[str] = DEFAULT,
) -> pd.DataFrame:
    """Score images with a trained run into a folder of its own; return the table, the most abnormal image first.

    ``run`` is a run, its folder, or an exported model, .onnx or .xml, whose folder then stands for that of the run.
    ``data`` is a folder, files or a manifest; without it, the manifest that the run was trained on. Of a manifest the
    ``splits`` are scored: all of ``data``, test of the run's own, unless given. The folder is ``out``, or
    ``scores/NAME`` in that of the run, named as the data; nothing is written over. It gets scores.csv, rejected.csv,
    maps/ and the calibration, at another ``false_alarm_rate`` than the run's where one is given; its path is
    ``table.attrs["folder"]``, ``["threshold"]`` says what that flags, and ``["remark"]`` where the scores as a whole
    are unlike the calibration's. The ``layout`` mood adds what that challenge's evaluation reads: sample/NAME.txt and
    pixel/NAME for each volume. Images that show something else than the training images are not scored but listed with
    that reason, unless ``scope`` is any; the run's own test split is scored whole. ``q_value`` adds that column, of
    all that is scored as one worklist; see `calibration.q_values`. The folder ``dicom`` gets the ``dicom_objects`` of
    each DICOM image (see `loligo.dicom`); objects.csv says which file is of which image. Raises `AllRejected` where no
    image can be used: the folder then holds rejected.csv.
    """
    refuse_arrays(data, "loligo.load(run).predict(images)")
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
    if unknown := [split for split in splits or () if split not in SPLITS]:
        raise ValueError(f"there is no split {unknown[0]!r}; {nearest(unknown[0], SPLITS)}")
    out = Path(out) if out else None
    if out:
        scores.refuse_taken(out)
    detector = Detector.load(run, device, false_alarm_rate)
    run = cast(Run, detector.settings)
    model = {"model": detector.method.path.name} if isinstance(detector.method, Session) else {}
    export = _export(dicom, out, detector, dicom_objects) if dicom else None

    def fill(folder: ScoreFolder) -> pd.DataFrame | AllRejected:
        try:
            rows, rejected = _to_score(run, data, splits, strict)
            if layout == "mood":
                mood.check(rows, maps != "none")
            images = detector.images(rows, strict)
            others = scoring.not_scored(images) if scope == "checked" and data is not None else no_rejections()
            if len(others) == len(images.rows):
                raise AllRejected(pd.concat([others, images.rejected], ignore_index=True))
        except AllRejected as error:
            write_csv(error.rejected, folder.rejected)
            return error
        table = scoring.score_table(
            detector, images, folder, maps, batch_size, set(others["path"]), export.add if export else None
        )
        if q_value:
            table = scoring.with_q_values(table)
        rejected = pd.concat([rejected, images.rejected, others], ignore_index=True)
        folder.write_scores(table, rejected)
        if export:
            written, failed = export.finish()
            folder.write_objects(written, failed, rejected)
            table.attrs["objects"] = written["file"].nunique()
        given = [manifest.writable(path) for path in _absolute(data)]
        folder.write_about({"run": run.folder, "loligo": __version__, "data": given, "splits": splits} | model)
        detector.calibration.save(folder.calibration)
        if layout == "mood":
            mood.write(table, folder, detector.calibration)
        for said in checks.summary(images.warnings, "images"):
            log.warning("%s", said)
        return table

    where, made = scores.write(run.folder, _name(data, splits), out, fill)
    if isinstance(made, AllRejected):
        log.warning("%s has all reasons", where.rejected)
        raise made
    new = made.loc[~made["warnings"].str.contains("seen_in_training"), "score"]
    made.attrs.update(
        folder=str(where.path), threshold=detector.calibration.told, remark=detector.calibration.remark(new)
    )
    return made


def _export(dicom: str | Path, out: Path | None, detector: Detector, kinds: Sequence[str]) -> Export:
    """Return the writer of DICOM objects; ValueError for what it cannot write, and a folder in that of the scoring."""
    objects.check(kinds)
    from loligo.dicom.export import Export

    folder = Path(dicom)
    if out and out.resolve() in (folder.resolve(), *folder.resolve().parents):
        raise ValueError(f"{folder} for DICOM objects lies in {out}, which is written at once; name a folder beside it")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; DICOM objects need a folder")
    return Export(folder, objects.About.of(detector), kinds)


def _to_score(
    run: Run, data: Paths | pd.DataFrame | None, splits: Sequence[str] | None, strict: bool
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows to be scored, and the files that no reader takes."""
    every, rejected = (run.manifest(), no_rejections()) if data is None else listing(data, "score", strict)
    wanted = splits or (("test",) if data is None else ())
    rows = every[every["split"].isin(wanted)].reset_index(drop=True) if wanted else every
    if rows.empty:
        others = every["split"].value_counts().to_dict()
        has = ", ".join(f"{count} of {split}" for split, count in others.items()) or "none"
        raise ValueError(
            f"there is no {' or '.join(wanted)} image among those that were given ({has}): give a folder or files to "
            "score, or other --splits"
        )
    return rows, rejected


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
    return [manifest.absolute(Path(one)) for one in as_list(data)]


def refuse_arrays(data: object, instead: str) -> None:
    """Raise TypeError where what is given is neither paths nor the table of a manifest."""
    first = data[0] if isinstance(data, list | tuple) and data else data
    if not isinstance(first, str | Path | pd.DataFrame | None):
        raise TypeError(f"data is a {type(first).__name__}; give paths or a manifest. Images in memory: {instead}")


def listing(
    data: Paths | pd.DataFrame, purpose: Literal["train", "score"], strict: bool, layout: Layout = AS_NAMED
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows of what was given, and the files that no reader takes; where ``strict``, raise for the first."""
    found = inputs.resolve(data, purpose=purpose, layout=layout)
    if strict and len(found.rejected):
        raise ValueError(f"{found.rejected['path'][0]}: {found.rejected['reason'][0]}")
    found.tell()
    return found.rows, found.rejected
