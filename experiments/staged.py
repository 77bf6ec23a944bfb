"""The staged SimSID as its report measures it: 1,024 normal ZhangLab images, reconstructed by both generators.

    python -m experiments.staged --data chest_xray/ --out runs/staged --seed 0
    GLIBC_TUNABLES=glibc.malloc.hugetlb=1 python -m experiments.staged ...    # on Linux: less time lost to page faults

A run that was cut off resumes. Rows are added to simsid_staged.csv beside this file, one a generator
and set of images: mean squared error over all of them, KL divergence of intensity histograms of `BINS` bins as the mean
of the first five (as in the report) and of all; the training images are the report's, the held-out normals stand beside
them. Scores and both protocols go to results.csv.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from experiments.common import RESULTS
from loligo import api, experiment
from loligo.data.dataset import Dataset
from loligo.data.sources import zhanglab
from loligo.evaluation import metrics, results
from loligo.methods.contract import Method
from loligo.runs.run import Run
from loligo.runs.scores import scorings
from loligo.runs.settings import Settings
from loligo.training import images

IMAGES = 1024
BINS = (256, 64, 32, 10)
"""Of the intensity histograms; the report names no number. Two samples of 128x128 values from an image's own histogram
lie 0.017 nats apart by chance with 256 bins, more than the report has for different images, and 0.004 with 64."""


def chosen(rows: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Keep `IMAGES` training normals, sampled at random, and all rows of other splits."""
    train = rows.index[rows["split"] == "train"].to_numpy()
    sampled = np.random.default_rng(seed).choice(train, IMAGES, replace=False)
    return rows[rows.index.isin(sampled) | (rows["split"] != "train")].reset_index(drop=True)


def reconstructed(model: Method, data: Dataset) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the images and what each generator makes of them, all (N, 1, H, W) float32, computed in float32."""
    originals, found = [], []
    for indices in np.array_split(np.arange(len(data)), -(-len(data) // 32)):
        originals.append(x := data.batch(indices))
        with torch.inference_mode():
            found.append(model.inspect(x.contiguous(memory_format=torch.channels_last)).reconstructions)
    names = found[0]
    return torch.cat(originals).numpy(), {name: torch.cat([part[name] for part in found]).numpy() for name in names}


def measured(originals: np.ndarray, others: np.ndarray) -> dict[str, float]:
    """Return the report's figures of one generator on one set of images."""
    kl = {b: [metrics.histogram_kl(x, y, b) for x, y in zip(originals, others, strict=True)] for b in BINS}
    found = {"mse": float(np.square(originals - others).mean())}
    for bins, values in kl.items():
        found |= {f"kl_five_{bins}": float(np.mean(values[:5])), f"kl_all_{bins}": float(np.mean(values))}
    return found


def table(run: Run, rows: pd.DataFrame) -> pd.DataFrame:
    """Measure both generators on training images and on held-out normals."""
    model, found = run.model().to(memory_format=torch.channels_last), []
    for split, name in (("train", "training"), ("calibration", "held-out")):
        data = images.load(run, rows[rows["split"] == split])
        originals, found_by = reconstructed(model, data)
        for generator, others in found_by.items():
            figures = {key: round(value, 6) for key, value in measured(originals, others).items()}
            found.append({"seed": run.train.seed, "images": name, "n": len(data), "generator": generator, **figures})
    return pd.DataFrame(found)


def main() -> None:
    """Train, score, evaluate, measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, help="instead of those of the preset 'report'")
    given = parser.parse_args()
    rows = chosen(zhanglab.index(given.data), given.seed)
    settings = {"seed": given.seed, **({"epochs": given.epochs} if given.epochs else {})}
    planned = Run.new(given.out, Settings.of("simsid_staged", "report", train=settings))
    run, before = experiment.complete(planned, rows), any(one.metrics.exists() for one in scorings(planned.folder))
    found = api.evaluate(api.score(run).attrs["folder"], None if before else RESULTS / "results.csv")
    print(found["clean"], found["paper"], sep="\n")
    history = pd.read_csv(run.folder / "history.csv")
    cost = run.about["cost"]
    figures = table(run, rows).assign(
        epochs=" + ".join(str(n) for n in history.groupby("phase", sort=False).size()),
        **{key: round(found["clean"][key], 5) for key in ("auc", "auc_low", "auc_high")},
        **{key: cost[key] for key in ("train_seconds", "train_cpu_seconds", "machine", "commit")},
    )
    print(figures.to_string())
    key = {name: figures[name].iloc[0] for name in ("seed", "epochs")}
    results.replace(RESULTS / "simsid_staged.csv", figures, key)


if __name__ == "__main__":
    main()
