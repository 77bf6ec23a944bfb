"""The demonstration: SQUID, an autoencoder and a Gaussian on DigitAnatomy, scored, compared and reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from loligo.data import digit_anatomy, manifest
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
    data = out / "digit_anatomy"
    source = digit_anatomy.SOURCE if mnist is None else f"{digit_anatomy.SOURCE}_mnist"
    if not (data / "manifest.csv").exists():
        digit_anatomy.write(data, seed=seed, mnist=mnist)
    elif (drawn := set(manifest.read(data / "manifest.csv")["source"])) != {source}:
        raise ValueError(f"{data} holds {', '.join(sorted(drawn))}, not {source}; choose another --out")
    found = {name: _one(name, out, data / "manifest.csv", preset, seed, results) for name in METHODS}
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


def _one(name: str, out: Path, data: Path, preset: str, seed: int, results: Path | None) -> dict[str, Any]:
    """Train, score and evaluate one method, unless that was done."""
    from loligo import api, methods
    from loligo.runs import Run

    presets = methods.get(name).presets
    chosen = next((p for p in (preset, "digits") if p in presets), None)
    run = api.plan(name, out / name, chosen, {}, {"seed": seed})
    if not run.trained:
        print(f"{name}: {methods.METHODS[name][1]}", flush=True)
        run = api.train(name, data, out / name, preset=chosen, train={"seed": seed})
    api.score(run)
    return api.evaluate(run, results) | {"seconds": Run.load(run.folder).about["cost"]["train_seconds"]}
