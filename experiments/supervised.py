"""What labels would give on the ZhangLab chest X-rays: SimSID's discriminator trained to tell pneumonia from normal.

    python -m experiments.supervised --data chest_xray/ --seeds 0 1

It is no result of this project, which learns from normals alone: it says how far the official test split can be ranked
by this network at this size when every image of the training folder has its label. Each epoch sees every normal and as
many images of pneumonia, changed at random as SimSID's are; the last epoch is scored. Validation patients are left
out. Rows go to results/supervised.csv: AUC of labelled validation, of the test split, and of the held-out normals of
the training folder against the test folder's pneumonia and its normals.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from tqdm import tqdm

from experiments.common import RESULTS
from experiments.zhanglab import crossed
from loligo.data import cache
from loligo.data.dataset import Dataset
from loligo.data.preprocessing import Preprocessing
from loligo.data.sources import zhanglab
from loligo.data.transforms import intensity, jitter
from loligo.evaluation import results
from loligo.methods.simsid import SimsidConfig
from loligo.nn.discriminator import Discriminator
from loligo.nn.precision import accelerate
from loligo.training.cost import commit

TABLE = RESULTS / "supervised.csv"
RATE = 1e-3
BATCH = 32


def train(normal: Dataset, abnormal: Dataset, epochs: int, seed: int) -> Discriminator:
    """Train by cross-entropy with Adam, whose rate falls to nothing by a cosine."""
    torch.manual_seed(seed)
    generator, rng = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    config = SimsidConfig()
    network = Discriminator(config.size, 1, config.discriminator_widths, "running")
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser, half = torch.optim.Adam(network.parameters(), RATE), BATCH // 2
    steps = len(normal) // half
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs * steps)
    for _ in tqdm(range(epochs), desc=f"seed {seed}", unit="epoch"):
        orders = rng.permutation(len(normal)), rng.permutation(len(abnormal))
        for step in range(steps):
            part = slice(step * half, (step + 1) * half)
            x = torch.cat([normal.batch(orders[0][part]), abnormal.batch(orders[1][part])])
            x = intensity(jitter(x, generator), generator).contiguous(memory_format=torch.channels_last)
            loss = F.binary_cross_entropy_with_logits(network(x), torch.arange(2).repeat_interleave(half).float())
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return network.eval()


def main() -> None:
    """Train every seed, and add its row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--epochs", type=int, default=20)
    given = parser.parse_args()
    accelerate()
    rows, size = zhanglab.index(given.data), SimsidConfig().size
    every = zhanglab.index(given.data, pneumonia=1.0)
    labelled = every[(every["label"] == 1) & (every["split"] != "test") & ~every["patient"].isin(rows["patient"])]
    normal, abnormal = (cache.load(part, Preprocessing(size)) for part in (rows[rows["split"] == "train"], labelled))
    scored = cache.load(rows[rows["split"].isin(["validation", "test"])], Preprocessing(size))
    for seed in given.seeds:
        start = time.perf_counter()
        network = train(normal, abnormal, given.epochs, seed)
        seconds = time.perf_counter() - start
        with torch.inference_mode():
            scores = torch.cat([network(scored.batch(part)) for part in np.array_split(np.arange(len(scored)), 32)])
        found = crossed(scored.rows.assign(score=scores.double().numpy()), "score")
        about = {"images": f"{len(normal)} + {len(abnormal)}", "train_seconds": round(seconds)}
        key = {"epochs": given.epochs, "seed": seed}
        print(key, found)
        results.replace(TABLE, pd.DataFrame([key | found | about | {"commit": commit()}]), key)


if __name__ == "__main__":
    main()
