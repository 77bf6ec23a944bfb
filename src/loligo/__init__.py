"""loligo: unsupervised anomaly detection for radiology.

Learn from normal images alone; say of a new one how abnormal it is, where, and how sure that is. The whole flow:

    import loligo

    run = loligo.train("squid", data="normals/", out="runs/a")     # a tenth is held out for calibration
    table = loligo.score(run, "new/")                              # runs/a/scores.csv and runs/a/maps/
    print(table[["path", "anomaly_score", "p_value", "flag"]])

    run = loligo.train("squid", data="manifest.csv", out="runs/b", options={"slots": 400}, train={"epochs": 10})
    loligo.score(run)                                              # the manifest's test split
    print(loligo.evaluate(run)["clean"]["auc"])                    # both protocols, with intervals
    loligo.report(run)                                             # runs/b/report.html

Research use only: not a medical device.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["Run", "evaluate", "report", "score", "train"]


def __getattr__(name: str) -> Any:
    """Import the verbs when they are asked for, so that ``import loligo`` is free."""
    if name not in __all__:
        raise AttributeError(f"module 'loligo' has no attribute {name!r}; it has {', '.join(__all__)}")
    from loligo import api

    return getattr(api, name)
