"""False alarms of a trained run on its held-out normals when their exposure or sharpness is changed; no label is used.

    python -m experiments.exposure runs/zhanglab/squid_12_0 --name "squid, train.intensity_augmentation"

Adds rows to results/exposure.csv: the run's name, the change, the fraction of held-out normals at or above the
threshold, and by how many of their deviations the mean score rises.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torchvision.transforms.v2.functional import gaussian_blur

from experiments.common import RESULTS
from loligo.data import acquisition
from loligo.data.transforms import stretch
from loligo.detector import Detector
from loligo.evaluation import results
from loligo.runs.run import Run
from loligo.training.cost import commit

TABLE = RESULTS / "exposure.csv"


def ordinary(x: torch.Tensor, kind: str) -> torch.Tensor:
    """Change images (N, 1, H, W) by one kind of acquisition, each by its own ordinary amount."""
    changed = [
        acquisition.change(image, np.random.default_rng(i), (kind,), (1, 1))[0]
        for i, image in enumerate(x[:, 0].numpy())
    ]
    return torch.from_numpy(np.stack(changed))[:, None]


CHANGES = {
    "none": lambda x: x,
    **{f"gamma {g:.2f}": lambda x, g=g: x**g for g in (2 / 3, 0.8, 1.25, 1.5)},
    **{f"contrast {f}": lambda x, f=f: stretch(x, f).clamp(0, 1) for f in (0.8, 1.2)},
    **{f"brightness {f}": lambda x, f=f: (x * f).clamp(0, 1) for f in (0.8, 1.2)},
    **{f"blur {s}": lambda x, s=s: gaussian_blur(x, [7, 7], [s, s]) for s in (0.5, 0.7)},
    **{f"ordinary {kind}": lambda x, kind=kind: ordinary(x, kind) for kind in acquisition.KINDS},
}


def main() -> None:
    """Score the held-out normals under each change."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--name", required=True)
    given = parser.parse_args()
    run = Run.load(given.run)
    rows, detector = run.manifest(), Detector.load(run)
    data, calibration = detector.images(rows[rows["split"] == "calibration"]), detector.calibration
    x, found = data.batch(np.arange(len(data))), []
    for change, function in CHANGES.items():
        scores = torch.cat([detector(part).image for part in function(x).split(16)]).double().numpy()
        flagged = (scores >= calibration.threshold).mean()
        rise = (scores.mean() - calibration.mean) / calibration.std
        found.append({"run": given.name, "change": change, "flagged": round(flagged, 3), "rise": round(rise, 2)})
    table = pd.DataFrame(found)
    print(table.to_string(index=False))
    results.replace(TABLE, table.assign(commit=commit()), {"run": given.name})


if __name__ == "__main__":
    main()
