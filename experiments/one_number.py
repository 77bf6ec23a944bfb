"""What a single number of an image ranks on the ZhangLab chest X-rays: a baseline for every method.

    python -m experiments.one_number --data chest_xray/

Each image of 128x128 is one number: its mean, its standard deviation, or the mean length of its gradient after a
Gaussian of one pixel. It scores by how many standard deviations it lies from the training normals' mean, to either
side: no label, no training. AUC of the official test split, and with the held-out normals of the train folder in place
of the test folder's. Rows go to results/one_number.csv.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.ndimage import gaussian_gradient_magnitude

from experiments.common import RESULTS
from loligo.data import cache
from loligo.data.preprocessing import Preprocessing
from loligo.data.sources import zhanglab
from loligo.evaluation import metrics
from loligo.files import write_csv
from loligo.training.cost import commit

TABLE = RESULTS / "one_number.csv"
Floats = npt.NDArray[np.float64]
NUMBERS: dict[str, Callable[[npt.NDArray[np.float32]], float]] = {
    "mean": lambda x: float(x.mean()),
    "standard deviation": lambda x: float(x.std()),
    "mean gradient": lambda x: float(gaussian_gradient_magnitude(x, 1).mean()),
}


def main() -> None:
    """Measure every number, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--size", type=int, default=128)
    given = parser.parse_args()
    rows, found = zhanglab.index(given.data), []
    images = cache.load(rows, Preprocessing(given.size))
    label, split = images.rows["label"].to_numpy(np.int64), images.rows["split"].to_numpy()
    for name, number in NUMBERS.items():
        values = np.array([number(images.batch([i])[0, 0].numpy()) for i in range(len(images))])
        normals_train = values[split == "train"]
        scores = np.abs(values - normals_train.mean()) / normals_train.std()
        test = split == "test"
        for normals, chosen in {"test": test, "held-out": (test & (label == 1)) | (split == "calibration")}.items():
            auc, low, high = metrics.roc_auc_interval(
                label[chosen], scores[chosen], groups=images.rows["patient"].to_numpy()[chosen]
            )
            row = {"number": name, "normals": normals, "auc": auc, "auc_low": low, "auc_high": high}
            found.append(row | {"size": given.size, "commit": commit()})
    table = pd.DataFrame(found).round(4)
    print(table.to_string())
    write_csv(table, TABLE)


if __name__ == "__main__":
    main()
