"""False alarms at another site, before and after its normal images calibrate a run: the folders of ZhangLab.

    loligo train padim --preset radiograph --data zhanglab.csv --out runs/padim --train.seed 0
    python -m experiments.recalibration runs/padim [runs/squid ...] --data chest_xray/

The test folder's normals stand for another site. In each of 100 draws, 10, 20 or 50 of them calibrate, and the false
alarms are counted among the rest, at a nominal rate of 5 %. Theory has an expectation, k / (n + 1), and intervals of
95 %: of the number flagged among m fresh normals, beta-binomial (m, k, n + 1 - k), and of the rate itself, Beta
(k, n + 1 - k), which is what loligo prints beside a threshold. Rows go to results/recalibration.csv: the mean of the
rates, the range of 90 % of the draws, and the part of the draws within each interval.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import betabinom

from experiments.common import RESULTS
from loligo.calibration import Calibration
from loligo.data.sources import zhanglab
from loligo.detector import Detector
from loligo.evaluation import results
from loligo.runs.run import Run
from loligo.training.cost import commit

Floats = npt.NDArray[np.float64]
NORMALS, DRAWS, RATE = (10, 20, 50), 100, 0.05
RANGE, INTERVAL = (0.05, 0.95), (0.025, 0.975)


def within(calibration: Calibration, flagged: int, fresh: int) -> tuple[bool, bool]:
    """Say whether so many false alarms lie in the beta-binomial interval, and their rate in that of `Calibration`."""
    n = len(calibration.scores)
    rank = round(calibration.expected * (n + 1))
    low, high = betabinom.ppf(INTERVAL, fresh, rank, n + 1 - rank)
    least, most = calibration.interval
    return bool(low <= flagged <= high), least <= flagged / fresh <= most


def after(own: Calibration, scores: Floats, count: int, shift: bool) -> dict[str, Any]:
    """Return what `DRAWS` calibrations on ``count`` of a site's normals (N,) give among the others."""
    random, rates, found = np.random.default_rng(0), [], []
    for _ in range(DRAWS):
        order = random.permutation(len(scores))
        chosen, fresh = scores[order[:count]], scores[order[count:]]
        calibration = own.shifted(chosen).at(RATE) if shift else Calibration.fit(chosen, RATE)
        flagged = int((fresh >= calibration.threshold).sum())
        rates.append(flagged / len(fresh))
        found.append(within(calibration, flagged, len(fresh)))
    (low, high), (theory, interval) = np.quantile(rates, RANGE), np.mean(found, axis=0)
    return {
        **{"way": "shift" if shift else "recalibrated", "normals": count, "expected": calibration.expected},
        **{"mean": np.mean(rates), "low": low, "high": high},
        **{"in_beta_binomial": np.nan if shift else theory, "in_interval": interval},
    }


def measured(folder: Path, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a run: before, and after each recalibration."""
    run = Run.load(folder)
    detector = Detector.load(run, false_alarm_rate=RATE)
    normals = detector.images(rows[(rows["split"] == "test") & (rows["label"] == 0)].reset_index(drop=True))
    scores, own = detector.scores(normals.distinct()), detector.calibration
    flagged = int((scores >= own.threshold).sum())
    theory, interval = within(own, flagged, len(scores))
    before = {
        **{"way": "before", "normals": len(own.scores), "expected": own.expected, "mean": flagged / len(scores)},
        **{"in_beta_binomial": float(theory), "in_interval": float(interval)},
    }
    found = [before, *(after(own, scores, n, shift) for shift in (False, True) for n in NORMALS)]
    key = {"method": run.method, "preset": run.preset, "seed": run.train.seed}
    return pd.DataFrame(found).round(4).assign(**key, site=len(scores), draws=DRAWS, commit=commit())


def main() -> None:
    """Measure each run and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    given = parser.parse_args()
    rows = zhanglab.index(given.data)
    for folder in given.runs:
        found = measured(folder, rows)
        print(found.to_string(index=False))
        key = found.iloc[0][["method", "preset", "seed"]].to_dict()
        results.replace(RESULTS / "recalibration.csv", found, key)


if __name__ == "__main__":
    main()
