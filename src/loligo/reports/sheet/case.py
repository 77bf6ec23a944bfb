"""What is known of one image: the facts of its sheet, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from loligo.calibration import Calibration
from loligo.data.neighbours import Neighbours
from loligo.reports.sheet import regions
from loligo.reports.sheet.regions import Region
from loligo.types import Image

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Case:
    """One image with what a trained run says of it; of its file only the name is ever shown."""

    image: Image
    method: str
    run: str
    """Name of the run folder, without the folders that it lies in."""
    written: date
    """The day of the sheet."""
    calibration: Calibration
    score: float
    """Raw: higher is more abnormal."""
    map: Floats | None
    """(H, W) float32, on the image's own grid; None where the method gives none."""
    reconstruction: Floats | None
    """(H, W) float32 in [0, 1] on the same grid, the normal image that the method sees in it, or None."""
    neighbours: Neighbours | None
    """None where the training images are not at hand."""
    normals: tuple[Image, ...] = ()
    """The nearest normal training images, nearest first."""
    seen: Literal["", "train", "calibration"] = ""
    """In which split of the run this very image stood; empty where in none."""

    @property
    def flagged(self) -> bool:
        """Say whether the score reaches the run's threshold."""
        return self.score >= self.calibration.threshold

    @property
    def p_value(self) -> float:
        """Return the fraction of held-out normals, this image counted with them, that score as high: in (0, 1]."""
        return float(self.calibration.p_value(self.score))

    @property
    def anomaly_score(self) -> float:
        """Return the score in [0, 1]."""
        return float(self.calibration.anomaly_score(self.score))

    @cached_property
    def regions(self) -> list[Region]:
        """Return every region that stands out, the one with most heat first; none without a map."""
        return [] if self.map is None else regions.find(self.map, self.calibration.typical_peak)
