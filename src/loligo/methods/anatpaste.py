"""AnatPaste: CutPaste within the lungs alone (Sato et al., iScience 2023, 2205.04282).

The lungs are found by thresholds (see `data/lungs.py`). In half of the training images a patch from elsewhere is pasted
into them, an ellipse or rectangle of random opacity with soft edges, much like a shadow; a ResNet-18 from random
weights learns to classify these and normal images. The score is a kernel density of features of unit length, of
bandwidth 1: wider than they lie apart, so that it orders images as the Euclidean distance from the mean does, which is
taken. The map is that of `cutpaste`.

Departures: those of `cutpaste`, whose optimiser and schedule the paper takes, and in how the lungs are found. The
authors' program keeps the epoch of highest AUC on labelled validation images; here the last one stays. The preset
``radiograph`` starts at ImageNet weights, where the authors' runs on radiographs start at random ones, and takes 800
steps of 16: an 82nd of the steps, a 328th of the images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from loligo.methods.cutpaste import Cutpaste, CutpasteConfig


@dataclass(frozen=True)
class AnatpasteConfig(CutpasteConfig):
    """Options of AnatPaste: those of CutPaste."""

    distance: Literal["mahalanobis", "euclidean"] = "euclidean"
    """Distance of a feature from the mean of normal ones: with their covariance, or without."""


class Anatpaste(Cutpaste):
    """See the module's docstring."""

    Config = AnatpasteConfig
    presets: ClassVar = Cutpaste.presets | {"radiograph": {**Cutpaste.presets["radiograph"], "train.steps": 800}}
    kinds: ClassVar[tuple[str, ...]] = ("anatpaste",)
