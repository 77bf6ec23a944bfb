"""What every object says of the run that made it: the model, its calibration, and whom it was trained on."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass
from typing import Self

from loligo import __version__
from loligo.calibration import Calibration
from loligo.detector import Detector
from loligo.runs.run import DIGEST, Run, digest

_WORD = re.compile(r"[\w.+-]{1,32}")  # what may be shown of a data set's name, which a manifest may hold anything as


@dataclass(frozen=True)
class About:
    """The facts of a trained run that its objects repeat; no path and no patient is among them."""

    method: str
    """Name of the method, such as padim."""
    version: str
    """Of loligo."""
    digest: str
    """SHA-256 of the weights, 64 hexadecimal digits."""
    calibration: Calibration
    """Threshold, false-alarm rate, and the scale of the heat."""
    population: str
    """Whom it was trained on, such as "1133 normal images (zhanglab; CR or DX)"."""
    identity: str
    """SHA-256 of all that a result depends on besides its image: weights, options, calibration and version."""
    voi: int = 1
    """The window that it sees images by; see `loligo.io.dicom.read`."""

    @classmethod
    def of(cls, detector: Detector) -> Self:
        """Return the facts of a detector that `Detector.load` read; ValueError for one that is not saved."""
        run = detector.settings
        if not isinstance(run, Run):
            raise ValueError("objects name the model by the SHA-256 of its file: save this detector, then load it")
        weights = run.about.get(DIGEST) or digest(run.files.model)
        options = [dataclasses.asdict(part) for part in (run.method_config, run.preprocessing, detector.calibration)]
        facts = [__version__, weights, run.method, run.precision, *options]
        text = json.dumps(facts, sort_keys=True, default=lambda value: value.tolist())
        return cls(
            method=run.method,
            version=__version__,
            digest=weights,
            calibration=detector.calibration,
            population=population(run),
            identity=hashlib.sha256(text.encode()).hexdigest(),
            voi=run.preprocessing.voi,
        )


def population(run: Run) -> str:
    """Say how many normals of which data set and modality a run was trained on."""
    data = run.about["data"]
    count = data.get("train", "an unknown number of")
    what = "volumes" if "spacing" in data else "images"
    names = [word for word in str(data.get("source", "")).split() if _WORD.fullmatch(word)]
    known = "; ".join(filter(None, (", ".join(names), run.headers.told)))
    return f"{count} normal {what}" + (f" ({known})" if known else "")
