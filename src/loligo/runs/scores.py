"""A folder a scoring: ``RUN/scores/NAME``, or one named with ``--out``; written aside, and moved when it is whole.

scores.csv is ranked, the most abnormal image first; files that could not be scored stand at its end with a reason.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from loligo.files import ABANDONED, as_any_folder, reason, sweep, write_csv, write_json
from loligo.runs import tables
from loligo.runs.folder import RunFolder

T = TypeVar("T")
UNFINISHED = ".scoring-"
"""How the names of folders begin that are being written."""
NEAR = 2
"""Folders from the root that a path must have in common with a scoring to be written relative to it."""
DIGITS = {"p_value": 6, "q_value": 6, "anomaly_score": 6, "threshold": 7}
"""Significant digits of columns; a raw score has 7, so that what lies above a rounded threshold is flagged."""


@dataclass(frozen=True)
class ScoreFolder:
    """Where everything of one scoring lies, and what its tables hold."""

    path: Path

    @property
    def scores(self) -> Path:
        """A row a file, the most abnormal image first."""
        return self.path / "scores.csv"

    @property
    def rejected(self) -> Path:
        """A row a file that could not be used."""
        return self.path / "rejected.csv"

    @property
    def maps(self) -> Path:
        """The folder of heat maps, overlays and reconstructions."""
        return self.path / "maps"

    @property
    def objects(self) -> Path:
        """A row a DICOM object: the image that it is of, its kind, and its file in the folder that was named."""
        return self.path / "objects.csv"

    @property
    def calibration(self) -> Path:
        """The calibration that p-values and flags come from, at this scoring's false-alarm rate."""
        return self.path / "calibration.json"

    @property
    def about(self) -> Path:
        """Which run scored what, when."""
        return self.path / "scoring.json"

    @property
    def metrics(self) -> Path:
        """What the scores are worth by the labels."""
        return self.path / "metrics.json"

    @property
    def report(self) -> Path:
        """The page on all of this."""
        return self.path / "report.html"

    @property
    def figures(self) -> Path:
        """The folder of the page's charts."""
        return self.path / "figures"

    @property
    def run(self) -> RunFolder:
        """The run that scored; ValueError where it is not where it was."""
        about = tables.optional(self.about, tables.mapping) or {}
        if model := about.get("model"):
            raise ValueError(f"{self.path}: it was scored by the exported model {model}; for this, score with its run")
        said = about.get("run", "../..")
        places = [self.path / str(said), self.path.parent.parent, self.path]
        for place in places:
            if (place / "config.yaml").is_file():
                return RunFolder(Path(os.path.normpath(place)))
        raise ValueError(f"{self.path}: the run that scored is not at {said} any more; move it back, or score anew")

    def artefact(self, name: str) -> Path:
        """Return where a file lies that a table names, such as ``maps/000001_a.npy``.

        Tables come from anywhere. Raises ValueError unless the name is relative and the file, links followed, lies
        below maps/ of this folder.
        """
        path = self.path / name
        if Path(name).parts[:1] != ("maps",) or not path.resolve().is_relative_to(self.maps.resolve()):
            raise ValueError(f"{self.scores} names the file {name!r}; only files below its own maps/ are allowed")
        return path

    def read_scores(self) -> pd.DataFrame:
        """Read the images of scores.csv: text but for ``label`` (Int64) and numbers, empty where unknown.

        Paths start at the root. Raises ValueError, which names the file, where there is none, it holds no scores, or
        one is not finite.
        """
        if not self.scores.is_file():
            raise ValueError(f"{self.path} has no scores.csv; make one with 'loligo score'")
        return tables.parsed(self.scores, tables.scores)

    def write_scores(self, table: pd.DataFrame, rejected: pd.DataFrame) -> None:
        """Write scores.csv and rejected.csv (path, reason): rounded, without empty columns, paths relative if near."""
        if len(rejected):
            table = pd.concat([table, rejected], ignore_index=True)
        plain = {"split": "test", "source": "folder"}  # of what a folder's images are all alike
        known = [name for name in table if _holds_something(table[name], plain.get(str(name), ""))]
        written = table[known].copy()
        for name, digits in DIGITS.items():
            if name in written:
                written[name] = written[name].map(lambda x, n=digits: x if pd.isna(x) else float(f"{x:.{n}g}"))
        for name in ("path", "mask"):
            if name in written:
                written[name] = [self._near(entry) for entry in written[name]]
        for name in ("rank", "flag"):
            if name in written:
                written[name] = written[name].astype("Int64")
        write_csv(written, self.scores)
        write_csv(rejected, self.rejected)

    def write_objects(self, objects: pd.DataFrame, failed: pd.DataFrame, rejected: pd.DataFrame) -> None:
        """Write objects.csv (path, kind, file), and rejected.csv anew with the images that have none and the reason."""
        write_csv(objects.assign(path=[self._near(entry) for entry in objects["path"]]), self.objects)
        write_csv(pd.concat([rejected, failed], ignore_index=True), self.rejected)

    def write_about(self, about: dict[str, Any]) -> None:
        """Write scoring.json: the path of the ``run`` becomes relative if near."""
        run = os.path.abspath(about["run"])  # noqa: PTH100
        write_json(
            about | {"run": self._near(run), "written": datetime.now(UTC).isoformat(timespec="seconds")}, self.about
        )

    def _near(self, entry: Any) -> Any:
        """Write a path relative to this folder where both lie below one folder of some depth: they move together."""
        if not isinstance(entry, str) or not Path(entry).is_absolute():
            return entry
        here = os.path.abspath(self.path)  # noqa: PTH100  # links as they are named
        if here != os.path.realpath(here) or Path(here).parts[: NEAR + 1] != Path(entry).parts[: NEAR + 1]:
            return entry  # through a link, .. would lead elsewhere
        return os.path.relpath(entry, here)

    def read_rejected(self) -> pd.DataFrame:
        """Read rejected.csv as text: path, reason; no rows where it is missing."""
        found = tables.optional(self.rejected, tables.rejected)
        return pd.DataFrame(columns=list(tables.REJECTED), dtype=str) if found is None else found

    def read_metrics(self) -> dict[str, Any] | None:
        """Read metrics.json as a mapping; None where it is missing."""
        return tables.optional(self.metrics, tables.mapping)

    def write_metrics(self, metrics: dict[str, Any]) -> None:
        """Write metrics.json."""
        write_json(metrics, self.metrics, indent=2)


def find(folder: Path) -> ScoreFolder:
    """Return a scoring by its own folder, or the latest one of a run.

    Raises ValueError, which says what to do, where there is none.
    """
    if ScoreFolder(folder).scores.is_file():
        return ScoreFolder(folder)
    if found := scorings(folder):
        return found[-1]
    run = RunFolder(folder)
    if not run.config.is_file():
        raise ValueError(f"{folder} is neither a run folder nor one of a scoring; make a run with 'loligo train'")
    if not run.calibration.is_file():
        raise ValueError(f"{folder}: its training is not finished; give the same 'loligo train' again, then score")
    raise ValueError(f"{folder} has scored nothing yet; do so with 'loligo score {folder} PATH'")


def scorings(run: Path) -> list[ScoreFolder]:
    """Return the finished scorings in a run folder, the latest last."""
    found = [ScoreFolder(path.parent) for path in RunFolder(run).scorings.glob("[!.]*/scores.csv")]
    return sorted(found, key=lambda one: (one.scores.stat().st_mtime_ns, one.path.name))


def name_of(given: Path) -> str:
    """Name a scoring by the folder, manifest or image that was given: letters, digits, dots, dashes, underscores."""
    name = re.sub(r"[^\w.-]+", "_", given.stem if given.is_file() else given.name).strip("._")
    return name[:80] or "scores"


def write(run: Path, name: str, out: Path | None, fill: Callable[[ScoreFolder], T]) -> tuple[ScoreFolder, T]:
    """Let ``fill`` write a scoring aside; then move it to ``out``, or to NAME, NAME_2, ... of the run.

    Return where it is, and what ``fill`` returned. Nothing is ever written over. An error leaves nothing; what a kill
    left an hour ago or more goes. Raises as `refuse_taken`, and ``OSError``, which names the folder, where it cannot be
    written.
    """
    parent = out.parent if out else RunFolder(run).scorings
    if out:
        refuse_taken(out)
    temporary: Path | None = None
    try:
        parent.mkdir(parents=True, exist_ok=True)
        sweep(parent, f"{UNFINISHED}*", ABANDONED)
        temporary = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=parent))
        made = fill(ScoreFolder(temporary))
        as_any_folder(temporary)
        return ScoreFolder(_moved(temporary, [out] if out else _names(parent, name))), made
    except OSError as error:
        if temporary and str(temporary) not in str(error):  # something else could not be read or written
            raise
        raise OSError(f"cannot write a scoring in {parent}: {reason(error.__cause__ or error)}") from error
    finally:
        if temporary:
            shutil.rmtree(temporary, ignore_errors=True)


def refuse_taken(out: Path) -> None:
    """Raise ValueError where there is something at ``out`` already."""
    if out.is_dir() and any(out.iterdir()):
        what = "another scoring" if ScoreFolder(out).scores.is_file() else "other files"
        raise ValueError(f"{out} holds {what}, and nothing is written over; name a folder that is new or empty")
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; a scoring needs a folder")


def _holds_something(column: pd.Series[Any], plain: str) -> bool:
    return bool((column.notna() & ~column.astype(str).isin(("", plain))).any())


def _names(parent: Path, name: str) -> Iterator[Path]:
    """Yield the places that a scoring may take, in order."""
    yield parent / name
    yield from (parent / f"{name}_{number}" for number in itertools.count(2))


def _moved(temporary: Path, places: Iterable[Path]) -> Path:
    """Move a folder to the first place that is free; another process may take one at any time."""
    for place in places:
        try:
            return temporary.rename(place)  # atomic; it fails where a folder that is not empty stands
        except OSError:
            if not place.exists():
                raise
    raise ValueError("another process wrote a scoring there meanwhile; name another folder")
