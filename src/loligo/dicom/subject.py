"""All that the writers of objects share: the result, the source, the run's facts, and what stands out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Self

from loligo.dicom import findings, sources
from loligo.dicom.about import About
from loligo.dicom.findings import Findings
from loligo.dicom.sources import Source
from loligo.types import Floats, Prediction


@dataclass(frozen=True)
class Subject:
    """One result to be written."""

    prediction: Prediction
    source: Source
    about: About
    when: datetime
    """The content date of its objects."""

    @classmethod
    def of(cls, prediction: Prediction, path: Path, about: About, when: datetime | None = None) -> Self:
        """Read the headers of a result's source, its file or one of a series'; raises as `sources.load`."""
        source = sources.load(path, prediction.geometry)
        return cls(prediction, source, about, when or source.when)

    @cached_property
    def map(self) -> Floats | None:
        """The heat map on the source's own grid, raw; None where the method has none."""
        return self.prediction.map

    @cached_property
    def findings(self) -> Findings | None:
        """What stands out of the map; None where there is no map."""
        return None if self.map is None else findings.find(self.map, self.source, self.about.calibration)
