"""What is known of one image or volume: the facts of its sheet, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from functools import cached_property

import numpy as np
import numpy.typing as npt

from loligo.calibration import Calibration
from loligo.data import body
from loligo.data.body import Place
from loligo.data.neighbours import Neighbours
from loligo.io import regions
from loligo.io.regions import Hot
from loligo.types import Image, Volume

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Case:
    """One image or volume with what a trained run says of it; of its file only the name is ever shown."""

    image: Image | Volume
    method: str
    run: str
    """Name of the run folder, without the folders that it lies in."""
    written: date
    """The day of the sheet."""
    calibration: Calibration
    score: float
    """Raw: higher is more abnormal."""
    map: Floats | None
    """(H, W) float32, or (X, Y, Z), on the image's own grid; None where the method gives none."""
    reconstruction: Floats | None = None
    """(H, W) float32 in [0, 1] on the same grid, the normal image that the method sees in it, or None."""
    neighbours: Neighbours | None = None
    """None where the training images are not at hand, and of a volume."""
    normals: tuple[Image, ...] = ()
    """The nearest normal training images, nearest first."""
    warnings: tuple[str, ...] = ()
    """Sentences on what is wrong with the input, which the sheet begins with."""

    @property
    def flagged(self) -> bool:
        """Say whether the score reaches the run's threshold."""
        return self.score >= self.calibration.threshold

    @property
    def p_value(self) -> float:
        """Return the fraction of held-out normals, this image counted with them, that score as high: in (0, 1]."""
        return float(self.calibration.p_value(self.score))

    @property
    def deviations(self) -> float:
        """Return how far the score lies above the mean of the held-out normals, in their standard deviations."""
        return (self.score - self.calibration.mean) / self.calibration.std

    @property
    def count(self) -> int:
        """Return how many normals were held out."""
        return len(self.calibration.scores)

    @property
    def hits(self) -> int:
        """Count the held-out normals that score as high."""
        return round(self.p_value * (self.count + 1)) - 1

    @property
    def noun(self) -> str:
        """Return what it is: image or volume."""
        return "volume" if isinstance(self.image, Volume) else "image"

    @property
    def name(self) -> str:
        """Return the name of its file, without its folders."""
        return self.image.source.name if self.image.source else "image without a file name"

    @cached_property
    def heat(self) -> Floats | None:
        """Return the map in parts of the colours' range; None without a map."""
        return None if self.map is None else self.calibration.heat(self.map)

    @cached_property
    def hot(self) -> Hot | None:
        """Return what stands out of an image's map; None without one, and of a volume."""
        return None if self.heat is None or isinstance(self.image, Volume) else regions.find(self.heat)

    @cached_property
    def place(self) -> Place:
        """Return what the hottest place of an image lies in, as far as that can be told."""
        if self.hot is None or self.hot.peak <= 0 or isinstance(self.image, Volume):
            return Place(None, None)
        return body.place(self.image.pixels.mean(axis=0, dtype=np.float32), self.hot.at)
