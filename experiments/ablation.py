"""Ablations of SimSID on DigitAnatomy or ZhangLab: one change a training, all by one schedule.

    python benchmarks/ablation.py digit_anatomy --data runs/digits --out runs/ablation --epochs 8
    python benchmarks/ablation.py zhanglab --data chest_xray/ --out runs/ablation --epochs 8

Finished trainings are not made again. Rows go to results/ablation.csv: the clean protocol's AUC with its interval, and
on DigitAnatomy the AUROC by pixel.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pandas as pd

from loligo import experiment
from loligo.evaluation import results
from loligo.runs.run import Run

RESULTS = Path(__file__).parent / "results" / "ablation.csv"
CHANGES: dict[str, dict[str, Any]] = {
    "as it is": {},
    "no hierarchy": {"memory_levels": 1},
    "no in-painting": {"inpainting": False},
    "memory queue": {"memory": "queue"},
    "no memory": {"memory": "none"},
    "k = 1": {"k": 1},
    "all slots": {"shrinkage": "none"},
}
PRESETS = {"digit_anatomy": "digits", "zhanglab": None}
BASES: dict[str, dict[str, Any]] = {"digit_anatomy": {"memory_levels": 2}, "zhanglab": {}}
"""What all trainings on a data set have; the preset ``digits`` has a single grid, which leaves no hierarchy to take."""


def main() -> None:
    """Train each variant that is not trained yet, and write the table anew."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", choices=sorted(PRESETS))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=list(CHANGES), choices=list(CHANGES))
    given = parser.parse_args()
    for change in given.only:
        folder = given.out / "_".join(
            [given.dataset, *change.replace("=", "").split(), str(given.epochs), str(given.seed)]
        )
        found = experiment.run(
            given.dataset,
            "simsid",
            given.data,
            folder,
            preset=PRESETS[given.dataset],
            options=BASES[given.dataset] | CHANGES[change],
            train={"epochs": given.epochs, "seed": given.seed},
        )
        cost = Run.load(folder).about["cost"]
        key = {"dataset": given.dataset, "change": change, "epochs": given.epochs, "seed": given.seed}
        row = {
            **key,
            **{name: round(found["clean"][name], 4) for name in ("auc", "auc_low", "auc_high")},
            "pixel_auroc": round(found["pixel"]["auroc"], 4) if "pixel" in found else None,
            **{name: cost[name] for name in ("train_seconds", "machine")},
            "commit": cost["commit"],
        }
        print(row, flush=True)
        results.replace(RESULTS, pd.DataFrame([row]), key)


if __name__ == "__main__":
    main()
