"""Write the objects of a scoring into a folder: each aside and then moved, what fails listed, the rest goes on.

Names are made of UIDs that follow from a hash, so that a repeat replaces its files, and none is made of a header.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import pandas as pd
from pydicom.dataset import Dataset

from loligo.dicom import DEFAULT, About, check
from loligo.dicom import ko as key_objects
from loligo.dicom.subject import Subject
from loligo.dicom.writers import write
from loligo.files import replacing, write_csv
from loligo.io.content import UnreadableImage
from loligo.types import Prediction

TABLE, REJECTED = "objects.csv", "rejected.csv"
"""Which file is of which image, and why an image has none."""


class Export:
    """A folder of objects that is being written."""

    def __init__(self, folder: Path, about: About, kinds: Sequence[str] = DEFAULT) -> None:
        """Take the folder, which may hold objects already; raises as `check`."""
        check(kinds)
        self.folder, self.about, self.kinds = folder, about, kinds
        self.rows: list[tuple[str, str, str]] = []
        self.rejected: list[tuple[str, str]] = []
        self._flagged: dict[str, list[tuple[Path, list[Dataset], Subject]]] = {}

    def add(self, prediction: Prediction) -> None:
        """Write the objects of one result, but for key objects, which wait for the rest of the study."""
        source = prediction.geometry.source
        if source is None:
            return
        try:
            subject = Subject.of(prediction, source, self.about)
            for made in write(subject, [kind for kind in self.kinds if kind != "ko"]):
                self._save(made, source)
            if prediction.flag and "ko" in self.kinds:
                study = str(subject.source.first.StudyInstanceUID)
                self._flagged.setdefault(study, []).append((source, key_objects.listed(subject), subject))
        except UnreadableImage as error:
            self.rejected.append((str(source), str(error).removeprefix(f"{source}: ")))
