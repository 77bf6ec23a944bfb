"""VQ-VAE restoration and a variational autoencoder on the ZhangLab chest X-rays: each score of one trained model.

    python benchmarks/density.py --data chest_xray/ --out runs/zhanglab

Official split, clean protocol. Density, restoration and both come from one model, the VAE's bound and squared error
from another. Rows go to results/density.csv, with the seconds an image takes and where they go, and, of the methods'
own scores, to results/results.csv. What is finished is not made again, and a training that was cut off goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
import torch

from loligo import api, experiment
from loligo.data.sources import zhanglab
from loligo.evaluation import metrics, results
from recorder import commits, scored
from speed import machine

RESULTS = Path(__file__).parent / "results"
PRESETS = {"vqvae_restoration": "radiograph", "vae": None}
EPOCHS = {"vqvae_restoration": 40, "vae": 60}


def main() -> None:
    """Train, score, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--methods", nargs="*", default=list(PRESETS), choices=list(PRESETS))
    parser.add_argument("--epochs", type=int, help="of the VQ-VAE 40, a quarter of them of the autoencoder; VAE: 60")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, help="of each split and class at most, for a trial")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    torch.set_flush_denormal(True)
    rows = zhanglab.index(given.data)
    if given.images:
        rows = rows.groupby(["split", "label"]).head(given.images).reset_index(drop=True)
    for method in given.methods:
        epochs = given.epochs or EPOCHS[method]
        key = {"method": method, "epochs": epochs, "seed": given.seed}
        folder = given.out / "_".join(map(str, key.values()))
        train = {"epochs": epochs, "batch_size": 8, "seed": given.seed}
        run = experiment.complete(api.plan(method, folder, PRESETS[method], {}, train), rows)
        before = (folder / "metrics.json").exists()
        cost = scored(run, maps=False)
        api.evaluate(run, None if before else given.results / "results.csv")
        table = pd.read_csv(folder / "scores.csv", dtype={"patient": str})
        found = []
        for name in cost["scores"]:
            auc, low, high = metrics.roc_auc_interval(table["label"], table[name], groups=table["patient"])
            ap = metrics.average_precision(table["label"], table[name])
            found.append(key | {"score": name} | {"auc": auc, "auc_low": low, "auc_high": high, "ap": ap})
        about = {f"seconds_{name}": value for name, value in cost["seconds_per_image"].items()}
        about |= {
            "train_seconds": run.about["cost"]["train_seconds"],
            "machine": machine(),
            "commit": commits(run, cost),
        }
        shown = pd.DataFrame(found).round(4).assign(**about)
        print(shown.drop(columns=["machine", "commit"]).to_string(), flush=True)
        results.replace(given.results / "density.csv", shown, key)


if __name__ == "__main__":
    main()
