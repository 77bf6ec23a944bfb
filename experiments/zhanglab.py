"""SQUID and SimSID on the ZhangLab chest X-rays, official test split: AUC by epoch, both protocols, traps, ablations.

    python -m experiments.zhanglab --data chest_xray/ --out runs/zhanglab --seed 0 --epochs 20
    python -m experiments.zhanglab --data chest_xray/ --out runs/zhanglab --epochs 10 --set strict_top_k=false
    python -m experiments.zhanglab --data chest_xray/ --out runs/zhanglab --set train.intensity_augmentation=false
    python -m experiments.zhanglab --method simsid --data chest_xray/ --out runs/zhanglab --seed 0 --epochs 40

A run that was cut off resumes. After each epoch validation and test images are scored in several ways
from one pass of the generator; the scores go to epochs.csv and variants.csv of the run folder and decide nothing. At
the end the run is scored and evaluated, and rows are added to results.csv and zhanglab_epochs.csv beside this file.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml

from experiments.common import RESULTS
from loligo import api
from loligo.data.sources import zhanglab
from loligo.detector import Detector
from loligo.evaluation import metrics, results
from loligo.methods.simsid import Simsid
from loligo.methods.squid import Squid
from loligo.nn.discriminator import FeatureNorm
from loligo.nn.precision import autocast
from loligo.runs.run import Run
from loligo.runs.scores import scorings
from loligo.runs.settings import Settings
from loligo.runs.tables import append_epoch
from loligo.training import images


class Variants:
    """Score validation and test images after an epoch by each combination of discriminators and images."""

    def __init__(self, run: Run, rows: pd.DataFrame) -> None:
        self.run, self.data = run, images.load(run, rows[rows["split"].isin(["validation", "test"])])

    def __call__(self, model: Squid | Simsid, epoch: int) -> None:
        detector, found = Detector.of(self.run, model, self.run.train.device), []
        for _, x, scores in detector.batches(self.data):
            with torch.inference_mode(), autocast(detector.device, detector.dtype):
                variants = by_variant(detector.network, *map(torch.from_numpy, (x, scores.reconstruction)))
            found.append(variants | {"score": scores.image})
        table = self.data.rows[["path", "split", "label", "patient"]].assign(epoch=epoch)
        columns = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
        self.run.files.append_epoch(table.assign(score=columns.pop("score")), epoch)
        append_epoch(self.run.folder / "variants.csv", table.assign(**columns), epoch)


def by_variant(model: Squid | Simsid, x: torch.Tensor, reconstruction: torch.Tensor) -> dict[str, np.ndarray]:
    """Return (n,) scores of a batch by name of the variant."""
    error = (reconstruction - x).square().mean((1, 2, 3))
    last = model.ensemble.current[0]
    on_reconstruction, on_input = -model.ensemble.mean(reconstruction), -model.ensemble.mean(x)
    found = {
        "ensemble on reconstruction": on_reconstruction,
        "reconstruction error": error,
        "last discriminator": -last(reconstruction),
        "ensemble on input": on_input,
        "ensemble on both": (on_input + on_reconstruction) / 2,
    }
    norms = [m for m in last.modules() if isinstance(m, FeatureNorm)]
    for norm in norms:
        norm.statistics = "running"
    found["last discriminator, running statistics"] = -last(reconstruction)
    for norm in norms:
        norm.statistics = "image"
    return {name: part.float().cpu().numpy() for name, part in found.items()}


PAIRS = {
    "validation": [("validation", 0), ("validation", 1)],
    "test": [("test", 0), ("test", 1)],
    "held-out normals, test pneumonia": [("validation", 0), ("test", 1)],
    "held-out normals, test normals": [("validation", 0), ("test", 0)],
}
"""Which groups are compared, each a split and a label."""


def crossed(table: pd.DataFrame, name: str) -> dict[str, float]:
    """Return the AUC of column ``name`` for each of `PAIRS`."""
    of = dict(list(table.groupby(["split", "label"])[name]))
    return {
        pair: round(metrics.roc_auc(np.repeat([0, 1], [len(of[a]), len(of[b])]), np.concatenate([of[a], of[b]])), 4)
        for pair, (a, b) in PAIRS.items()
    }


def auc_by_epoch(folder: Path, key: dict[str, object]) -> pd.DataFrame:
    """Return the columns of ``key``, then epoch, split, and the AUC of each variant.

    Beside validation and test stand two crossed comparisons, which say whose images differ from folder to folder:
    held-out normals of the training folder against the test folder's pneumonia, and against its normals.
    """
    table, rows = pd.read_csv(folder / "variants.csv"), []
    names = [c for c in table if c not in ("path", "split", "label", "patient", "epoch")]
    for epoch, part in table.groupby("epoch"):
        known = [name for name in names if part[name].notna().all()]  # a variant may be younger than the training
        aucs = pd.DataFrame({name: crossed(part, name) for name in known})
        rows += [{**key, "epoch": epoch, "split": split, **row} for split, row in aucs.to_dict("index").items()]
    return pd.DataFrame(rows)


def main() -> None:
    """Train, score, evaluate, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", choices=["squid", "simsid"], default="squid")
    parser.add_argument("--preset", help="such as ensemble; else the paper's configuration")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--set", nargs="*", default=[], help="options to change, for traps and ablations")
    given = parser.parse_args()
    changes = {name: yaml.safe_load(value) for name, value in (pair.split("=") for pair in given.set)}
    options = {name: value for name, value in changes.items() if not name.startswith("train.")}
    settings = {name.removeprefix("train."): value for name, value in changes.items() if name not in options}
    departures = [*([given.preset] if given.preset else []), *given.set]
    key = {"method": given.method, "options": " ".join(departures), "epochs": given.epochs, "seed": given.seed}
    rows = zhanglab.index(given.data)
    folder = given.out / "_".join([given.method, *departures, str(given.epochs), str(given.seed)])
    settings |= {"seed": given.seed, "epochs": given.epochs}
    run = Run.new(folder, Settings.of(given.method, given.preset, options, settings))
    if not run.trained:
        run = api.train_run(run, rows, callback=Variants(run, rows))
    before = any(one.metrics.exists() for one in scorings(folder))
    found = api.evaluate(api.score(run).attrs["folder"], None if given.set or before else RESULTS / "results.csv")
    print(found["clean"], found["paper"], sep="\n")
    results.replace(RESULTS / "zhanglab_epochs.csv", auc_by_epoch(folder, key), key)


if __name__ == "__main__":
    main()
