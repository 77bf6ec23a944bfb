"""Index COVIDx (Wang et al. 2020): ``{train,test,val}*.txt`` lists beside image folders.

A line is ``patient file class [origin]``, the file lying in ``train/``, ``test/`` or ``val/``. Classes are
normal (0), pneumonia, COVID-19 and positive (1). ``negative`` of the two-class lists only says "no COVID-19"
and holds pneumonia of other causes: it is refused unless the caller asks to count it as normal.

A patient is the patient with the origin, since each origin numbers its own. Patients of the train list who
have an abnormal image do not train; some are kept for validation. A listed file that is not on disk keeps its
row, and is rejected with that reason when it is loaded.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import pandas as pd

from loligo.data import manifest
from loligo.data.splits import arrange

CLASSES = {"normal": 0, "pneumonia": 1, "covid-19": 1, "positive": 1, "negative": 0}
_LISTS = {"train": "train", "test": "test", "val": "validation"}
_LINE = re.compile(
    rf"(?P<patient>\S+)\s+(?P<file>\S.*?)\s+(?P<name>{'|'.join(CLASSES)})(?:\s+(?P<origin>\S+))?",
    re.IGNORECASE,
)


def index(
    root: Path,
    *,
    negative: Literal["refuse", "normal"] = "refuse",
    calibration: float = 0.10,
    validation: float = 0.05,
    seed: int = 0,
) -> pd.DataFrame:
    """List the set with column class; fractions are of the train list's patients.

    Raises ``FileNotFoundError`` where a list or every listed file is missing, and ``ValueError`` for a line or class
    that is not understood.

    Args:
        root: folder with the lists
        negative: what the class negative of two-class lists means
        calibration: fraction that is held out for p-values and threshold, of wholly normal patients
        validation: fraction that becomes validation, alike of wholly normal patients and of the others
        seed: of the split
    """
    frame = pd.DataFrame([row for prefix in _LISTS for row in _rows(manifest.absolute(root), prefix)])
    if negative == "refuse" and (frame["class"] == "negative").any():
        raise ValueError(
            f"{root}: class 'negative' holds pneumonia of other causes than COVID-19;"
            " use a list of three classes, or negative='normal' to count it as normal"
        )
    if not frame["path"].map(lambda path: Path(path).is_file()).any():
        raise FileNotFoundError(f"none of the {len(frame)} listed files exists, such as {frame['path'][0]}")
    normal = {"calibration": calibration, "validation": validation}
    return manifest.check(arrange(frame, normal=normal, abnormal={"validation": validation}, seed=seed))


def _rows(root: Path, prefix: str) -> list[dict[str, object]]:
    """Read one list; only that of ``val`` may be absent."""
    lists = sorted(root.glob(f"{prefix}*.txt"))
    if not lists and prefix == "val":
        return []
    if len(lists) != 1:
        names = ", ".join(path.name for path in lists) or "none"
        raise FileNotFoundError(f"{root} must hold one list {prefix}*.txt, found {names}")
    try:
        lines = lists[0].read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{lists[0]} is not text in UTF-8 ({error}); save it as such") from error
    if not any(line.strip() for line in lines):
        raise ValueError(f"{lists[0]} is empty; it must list images as 'patient file class [origin]'")
    return [_row(root, prefix, line, f"{lists[0]}:{n}") for n, line in enumerate(lines, 1) if line.strip()]


def _row(root: Path, prefix: str, line: str, place: str) -> dict[str, object]:
    """Read one line."""
    if not (found := _LINE.fullmatch(line.strip())):
        raise ValueError(f"{place}: {line!r} is not 'patient file class [origin]' with class {', '.join(CLASSES)}")
    name, origin = found["name"].lower(), found["origin"]
    if not manifest.is_below(found["file"]):
        raise ValueError(f"{place}: the file {found['file']!r} lies outside {prefix}/; name one in it")
    return {
        "path": str(root / prefix / found["file"]),
        "split": _LISTS[prefix],
        "label": CLASSES[name],
        "patient": f"{found['patient']} {origin}" if origin else found["patient"],
        "source": "covidx",
        "class": name,
    }
