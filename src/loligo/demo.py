"""The demonstration: SQUID, an autoencoder and a Gaussian on DigitAnatomy, scored, compared and reported."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pandas as pd

from loligo.data.digit_anatomy import SOURCE
from loligo.experiment import DATASETS, complete
from loligo.names import nearest

METHODS = {"gaussian": 0.0, "ae": 0.15, "squid": 0.85}
"""Methods, and what part of the time for training each may take."""
LEAST = 2
"""Epochs that a method is trained for, however slow the machine is."""


def run(
    out: Path = Path("runs/demo"),
    mnist: Path | None = None,
    preset: str = "digits",
    seed: int = 0,
    seconds: float = 90,
    results: Path | None = None,
) -> Path:
    """Train the methods on synthetic digits, print how well each does, and write the report of SQUID; return its path.

    Args:
        out: folder for the data and one run folder a method; runs that are finished there are not repeated
        mnist: folder with MNIST idx files to take the digits from; else those that scikit-learn carries
        preset: preset of each method that has it: digits takes minutes, digits_full an hour
        seed: of the data and of the trainings
        seconds: for all trainings; a machine too slow for the preset's epochs trains fewer, by a timed step
        results: table (CSV) to which a row a method and protocol is added
    """
    from loligo import api, methods  # here: the command line shows its help without them

    presets = {known for name in METHODS for known in methods.get(name).presets}
    if preset not in presets:
        raise ValueError(f"no method of the demo has a preset {preset!r}; {nearest(preset, presets)}")
    rows = DATASETS["digit_anatomy"](out / "digit_anatomy", seed=seed, mnist=mnist)
    if mnist is None and (found := set(rows["source"])) != {SOURCE}:
        raise ValueError(f"{out} holds a set of source {found.pop()}; give its --mnist, or choose another folder")
    measured = {name: _one(name, out, rows, preset, seed, seconds * METHODS[name], results) for name in METHODS}
    kinds = sorted(next(iter(measured.values()))["kinds"])
    print("\nDigitAnatomy, clean protocol: AUC by image and by kind of anomaly, AUROC by pixel")
    print(f"{'method':10}" + "".join(f"{title:>10}" for title in ("image", *kinds, "pixel", "seconds")))
    for name, metrics in measured.items():
        values = [
            metrics["clean"]["auc"],
            *(metrics["kinds"][kind] for kind in kinds),
            metrics["pixel"]["auroc"],
        ]
        print(f"{name:10}" + "".join(f"{value:10.3f}" for value in values) + f"{metrics['seconds']:10.0f}")
    path = api.report(out / "squid")
    print(f"report: {path}")
    return path


def _one(
    name: str, out: Path, rows: pd.DataFrame, preset: str, seed: int, seconds: float, results: Path | None
) -> dict[str, Any]:
    """Train, score and evaluate one method, unless that was done."""
    from loligo import api, methods
    from loligo.runs.run import Run
    from loligo.runs.settings import Settings

    presets = methods.get(name).presets
    chosen = next((p for p in (preset, "digits") if p in presets), None)
    folder = out / name
    planned = Run.load(folder) if (folder / "config.yaml").is_file() else None
    if planned is None or not planned.begun:
        print(f"{name}: {methods.METHODS[name].summary}", flush=True)
        planned = Run.new(folder, _affordable(Settings.of(name, chosen, train={"seed": seed}), rows, seconds))
    done = complete(planned, rows)
    scored = api.score(done, maps="network").attrs["folder"]
    return api.evaluate(scored, results) | {"seconds": done.about["cost"]["train_seconds"]}


def _affordable(settings: Any, rows: pd.DataFrame, seconds: float) -> Any:
    """Return settings with as many epochs as fit the time on this machine, at most those asked for; and say so."""
    from loligo.training import images
    from loligo.training.budget import epoch_seconds

    if not settings.new_model().phases():
        return settings
    normals = images.load(settings, rows[rows["split"] == "train"])
    each = epoch_seconds(settings, normals)
    wanted = settings.train.epochs_on(len(normals))
    epochs = max(LEAST, min(wanted, int(seconds / each)))
    if epochs < wanted:
        print(f"an epoch takes {each:.1f} s here: {epochs} epochs in place of {wanted}", flush=True)
    return dataclasses.replace(settings, train=dataclasses.replace(settings.train, epochs=epochs, steps=0))
