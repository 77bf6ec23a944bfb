"""Write the objects of a scoring into a folder: each aside and then moved; what fails is listed, and the rest goes on.

Files are named by the hash in the UID of their object, so that a repeat replaces them, and never by a header's fields.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from pydicom.dataset import Dataset

from loligo.data import manifest
from loligo.dicom import ko, writers
from loligo.dicom.about import About
from loligo.dicom.subject import Subject
from loligo.files import replacing
from loligo.io.content import UnreadableImage
from loligo.types import Prediction

COLUMNS = ("path", "kind", "file")
FAILED = "scored, but it has no DICOM objects: "
"""How a reason in rejected.csv begins."""


class _Flagged(NamedTuple):
    """What waits for the other flagged images of its study."""

    path: Path
    headers: list[Dataset]
    when: datetime


class Export:
    """A folder of objects that is being written."""

    def __init__(self, folder: Path, about: About, kinds: Sequence[str]) -> None:
        """Take a folder, which may hold objects already, and kinds that `loligo.dicom.check` has passed."""
        self.folder, self.about, self.kinds = folder, about, kinds
        self._rows: list[tuple[str, str, str]] = []
        self._rejected: list[tuple[str, str]] = []
        self._flagged: dict[str, list[_Flagged]] = {}

    def add(self, prediction: Prediction) -> None:
        """Write the objects of one result, all or none; its key objects wait for the rest of its study.

        Raises OSError, which names the file, where one cannot be written.
        """
        source = prediction.geometry.source or Path("an array")
        try:
            subject = Subject.of(prediction, source, self.about)
            made = writers.write(subject, [kind for kind in self.kinds if kind != "ko"])
        except UnreadableImage as error:
            self._reject(source, error)
            return
        for kind, one in made:
            self._save(source, kind, one)
        if prediction.flag and "ko" in self.kinds:
            waiting = _Flagged(source, ko.listed(subject), subject.when)
            self._flagged.setdefault(str(subject.source.first.StudyInstanceUID), []).append(waiting)

    def finish(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Write the key objects of each study; return which file is of which image, and what has none and why."""
        for waiting in self._flagged.values():
            headers = [header for one in waiting for header in one.headers]
            made = ko.make(headers, self.about, min(one.when for one in waiting))
            for one in waiting:
                self._save(one.path, "ko", made)
        rows = pd.DataFrame(self._rows, columns=list(COLUMNS), dtype=str)
        return rows, pd.DataFrame(self._rejected, columns=["path", "reason"], dtype=str)

    def _save(self, source: Path, kind: str, made: Dataset) -> None:
        """Write one object under a name of its own."""
        name = f"{kind}_{int(str(made.SOPInstanceUID).rpartition('.')[2]):032x}.dcm"
        made.save_as(whole := BytesIO(), enforce_file_format=True)
        with replacing(self.folder / name) as new:
            new.write_bytes(whole.getbuffer())
        self._rows.append((manifest.writable(source), kind, name))

    def _reject(self, source: Path, error: UnreadableImage) -> None:
        self._rejected.append((manifest.writable(source), FAILED + str(error).removeprefix(f"{source}: ")))
