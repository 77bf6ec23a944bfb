"""loligo: unsupervised anomaly detection for radiology.

Learn from normal images alone; say of a new one how abnormal it is, where, and how sure that is. The whole flow:

    import loligo

    run = loligo.train("padim", "normals/", "runs/a", preset="radiograph")   # a tenth is held out for calibration
    table = loligo.score(run, "new/")                                        # into runs/a/scores/new/
    prediction = loligo.load(run).predict(["new/case.png"])[0]               # nothing is written
    prediction.p_value, prediction.map                                       # the map lies on the image's own pixels

    loligo.score(run)                                                        # the test split of a manifest
    loligo.evaluate(run)["clean"]["auc"]                                     # both protocols, with intervals
    loligo.report(run)                                                       # report.html beside the scores

Research use only: not a medical device.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loligo.api import evaluate, report, sheet, train
    from loligo.detector import Detector, load
    from loligo.exporting import export
    from loligo.methods import list_methods
    from loligo.nn.precision import accelerate
    from loligo.recalibration import recalibrate
    from loligo.score_files import score
    from loligo.types import Image, Prediction

__version__ = "0.1.0"
NOTICE = "Research use only: not a medical device."
__all__ = [
    "Detector",
    "Image",
    "Prediction",
    "accelerate",
    "evaluate",
    "export",
    "list_methods",
    "load",
    "recalibrate",
    "report",
    "score",
    "sheet",
    "train",
]
_HOMES = {
    "Detector": "detector",
    "Image": "types",
    "Prediction": "types",
    "accelerate": "nn.precision",
    "export": "exporting",
    "list_methods": "methods",
    "load": "detector",
    "recalibrate": "recalibration",
    "score": "score_files",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is asked for: importing loligo alone loads nothing."""
    if name not in __all__:
        raise AttributeError(f"module 'loligo' has no attribute {name!r}")
    found = getattr(import_module(f"loligo.{_HOMES.get(name, 'api')}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """List the public names."""
    return sorted([*__all__, *(name for name in globals() if name.startswith("__"))])
