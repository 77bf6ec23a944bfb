"""The demonstration: SQUID, an autoencoder and a Gaussian on DigitAnatomy, scored, compared and reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from loligo.data.digit_anatomy import SOURCE
from loligo.experiment import DATASETS, complete
from loligo.names import nearest

METHODS = ("gaussian", "ae", "squid")


def run(
    out: Path = Path("runs/demo"),
    mnist: Path | None = None,
    preset: str = "digits",
    seed: int = 0,
    results: Path | None = None,
) -> Path:
    """Train the methods on made digits, print how well each does, and write the report of SQUID; return its path.

    Args:
        out: folder for the data and one run folder a method; runs that are finished there are not made again
        mnist: folder with MNIST idx files to draw the digits from; else those that scikit-learn carries
        preset: preset of each method that has it: digits takes minutes, digits_full an hour
        seed: of the data and of the trainings
        results: table (CSV) to which a row a method and protocol is added
    """
    from loligo import api, methods  # here: the command line shows its help without them

    presets = {known for name in METHODS for known in methods.get(name).presets}
    if preset not in presets:
        raise ValueError(f"no method of the demo has a preset {preset!r}; {nearest(preset, presets)}")
    rows = DATASETS["digit_anatomy"](out / "digit_anatomy", seed=seed, mnist=mnist)
    if mnist is None and (drawn := set(rows["source"])) != {SOURCE}:
        raise ValueError(f"{out} holds a set of source {drawn.pop()}; give its --mnist, or choose another folder")
    found = {name: _one(name, out, rows, preset, seed, results) for name in METHODS}
    kinds = sorted(next(iter(found.values()))["kinds"])
    print("\nDigitAnatomy, clean protocol: AUC by image and by kind of anomaly, AUROC by pixel")
    print(f"{'method':10}" + "".join(f"{title:>10}" for title in ("image", *kinds, "pixel", "seconds")))
    for name, metrics in found.items():
        values = [
            metrics["clean"]["auc"],
            *(metrics["kinds"][kind] for kind in kinds),
            metrics["pixel"]["auroc"],
        ]
        print(f"{name:10}" + "".join(f"{value:10.3f}" for value in values) + f"{metrics['seconds']:10.0f}")
    path = api.report(out / "squid")
    print(f"report: {path}")
    return path


def _one(name: str, out: Path, rows: pd.DataFrame, preset: str, seed: int, results: Path | None) -> dict[str, Any]:
    """Train, score and evaluate one method, unless that was done."""
    from loligo import api, methods

    presets = methods.get(name).presets
    chosen = next((p for p in (preset, "digits") if p in presets), None)
    planned = api.plan(name, out / name, chosen, {}, {"seed": seed})
    if not planned.trained:
        print(f"{name}: {methods.METHODS[name][1]}", flush=True)
    run = complete(planned, rows)
    api.score(run)
    return api.evaluate(run, results) | {"seconds": run.about["cost"]["train_seconds"]}
