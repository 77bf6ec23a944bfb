"""AnatPaste: CutPaste within the lungs alone (Sato et al., iScience 2023, 2205.04282).

The lungs are found by thresholds (see `data/lungs.py`). In half of the training images a patch from elsewhere is pasted
into them, an ellipse or rectangle of random opacity with soft edges, much like a shadow; a ResNet-18 from random
weights learns to tell these from normal images. Score and map are those of `cutpaste`.

Departures: those of `cutpaste`, and in how the lungs are found. The authors' program keeps the epoch of highest AUC on
labelled validation images; here the last one stays.
"""

from __future__ import annotations

from typing import ClassVar

from loligo.methods.cutpaste import Cutpaste


class Anatpaste(Cutpaste):
    """See the module's docstring; its options are those of CutPaste."""

    presets: ClassVar = Cutpaste.presets | {"radiograph": {"train.epochs": 30}}
    kinds: ClassVar[tuple[str, ...]] = ("anatpaste",)
