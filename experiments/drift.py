"""How soon the drift alarm comes, how often falsely, and which images are out of scope: on ZhangLab and MNIST.

    python -m experiments.drift runs/padim --data chest_xray/ --mnist mnist/t10k-images-idx3-ubyte.gz

Drift: in each of 100 streams, 100 of the test folder's images (one in ten with pneumonia) are the reference window,
and up to 100 others follow, changed as another acquisition would; or images of both kinds as they are, 1,000 of them,
drawn with replacement and slightly jittered, for false alarms. Scope: the part of images that a scoring would not
score. Results go to results/drift.csv and results/scope.csv.
"""

from __future__ import annotations

import argparse
import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from experiments.common import RESULTS
from loligo import monitoring
from loligo.data import acquisition
from loligo.data.dataset import Dataset
from loligo.data.preprocessing import WHITE, resized
from loligo.data.sources import zhanglab
from loligo.detector import Detector
from loligo.drift import Drift
from loligo.files import write_csv
from loligo.runs.run import Run
from loligo.training.cost import commit

Floats = npt.NDArray[np.float32]
STREAMS, REFERENCE, AFTER, UNDRIFTED, SICK = 100, 100, 100, 1000, 0.1
CHANGES = (("contrast", 1), ("contrast", 2), ("gamma", 2), ("noise", 1), ("blur", 1), ("zoom", 2))
JITTER = 1e-3
"""Of each measure's deviation: images that are drawn twice do not tie."""


def of(pixels: Floats, like: Dataset) -> Dataset:
    """Return images (N, S, S) in [0, 1] as a data set like another."""
    rows = pd.DataFrame({"path": [f"{i}.png" for i in range(len(pixels))]})
    levels = np.round(pixels[:, None] * WHITE).astype(np.uint16)
    geometries = [like.geometries[0]] * len(rows)
    return replace(
        like, rows=rows, pixels=levels, geometries=geometries, warnings=(), slices_with_tissue=(), contents=()
    )


def alarms(before: pd.DataFrame, after: pd.DataFrame, labels: npt.NDArray[np.int64], count: int) -> list[float]:
    """Return after how many studies each stream raised the alarm; infinite where it did not."""
    found = []
    sick, well = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    for seed in range(STREAMS):
        random = np.random.default_rng(seed)
        size = REFERENCE + count
        rows = np.where(random.random(size) < SICK, random.choice(sick, size), random.choice(well, size))
        values = np.concatenate([before.to_numpy()[rows[:REFERENCE]], after.to_numpy()[rows[REFERENCE:]]])
        values += random.normal(0, JITTER, values.shape) * before.std().to_numpy()
        drift = Drift.begin(dict(zip(before, values[:REFERENCE].T, strict=True)))
        drift.seed = seed
        place = np.inf
        for number, study in enumerate(values[REFERENCE:], 1):
            drift.add(dict(zip(before, study, strict=True)))
            if drift.alarms:
                place = number
                break
        found.append(place)
    return found


def drifts(detector: Detector, data: Dataset, labels: npt.NDArray[np.int64]) -> pd.DataFrame:
    """Return a row a change: how many of 100 streams raised the alarm, and when."""
    before, pixels, rows = pd.DataFrame(monitoring.measure(detector, data)), data.batch(range(len(data)))[:, 0], []
    for kind, severity in ((None, 0), *CHANGES):
        after, count = before, UNDRIFTED
        if kind:
            changed = acquisition.corrupt(pixels.numpy(), kind, severity, range(len(data)))
            after, count = pd.DataFrame(monitoring.measure(detector, of(changed, data))), AFTER
        for measures in (list(before), ["score"]):
            found = alarms(before[measures], after[measures], labels, count)
            median = float(np.median(found))
            rows.append(
                {
                    **{"change": kind or "none", "severity": severity, "measures": len(measures), "studies": count},
                    **{"alarms": int(np.isfinite(found).sum()), "streams": STREAMS},
                    **{"median": median if np.isfinite(median) else ""},
                }
            )
            print(rows[-1], flush=True)
    return pd.DataFrame(rows)


def scopes(detector: Detector, data: Dataset, digits: Floats) -> pd.DataFrame:
    """Return the part of images of each kind that are out of scope."""
    x, size = data.batch(range(len(data)))[:, 0].numpy(), data.preprocessing.size
    random = np.random.default_rng(0)
    side = size // 4
    sets = {
        "digits": resized(digits, (size, size)),
        "negatives": 1 - x,
        "turned by 90 degrees": np.rot90(x, 1, (1, 2)).copy(),
        "turned by 180 degrees": np.rot90(x, 2, (1, 2)).copy(),
        "mirrored": x[:, :, ::-1].copy(),
        "middle of each side": resized(x[:, side:-side, side:-side].copy(), (size, size)),
        "noise": random.random((200, size, size), dtype=np.float32),
        "smooth noise": np.clip(resized(random.random((200, 6, 6), dtype=np.float32), (size, size)), 0, 1),
    }
    parts = {f"{split}, {'pneumonia' if label else 'normal'}": data.subset(np.flatnonzero(mask))
             for (split, label), mask in _groups(data.rows).items()}  # fmt: skip
    parts |= {name: of(pixels, data) for name, pixels in sets.items()}
    found = []
    for name, part in parts.items():
        out = sum("out_of_scope" in names for names in detector.checked(of_warnings(part)).warnings)
        found.append({"images": name, "count": len(part), "out_of_scope": round(out / len(part), 4)})
        print(found[-1], flush=True)
    return pd.DataFrame(found)


def of_warnings(data: Dataset) -> Dataset:
    """Return the data set with a place for the warnings of each row."""
    return replace(data, warnings=((),) * len(data.rows))


def _groups(rows: pd.DataFrame) -> dict[tuple[str, int], npt.NDArray[np.bool_]]:
    return {
        (split, label): ((rows["split"] == split) & (rows["label"] == label)).to_numpy(bool)
        for split in ("test", "validation")
        for label in (0, 1)
    }


def main() -> None:
    """Measure both and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--mnist", type=Path, required=True)
    given = parser.parse_args()
    run, rows = Run.load(given.run), zhanglab.index(given.data)
    detector = Detector.load(run)
    rows = rows[rows["split"].isin(["validation", "test"])].reset_index(drop=True)
    data = detector.images(rows)
    raw = np.frombuffer(gzip.decompress(given.mnist.read_bytes())[16:], np.uint8).reshape(-1, 28, 28)[:500]
    about = {"method": run.method, "train": run.about["data"]["train"], "commit": commit()}
    found = scopes(detector, data, raw.astype(np.float32) / 255)
    write_csv(found.assign(**about), RESULTS / "scope.csv")
    test = data.subset(np.flatnonzero(data.rows["split"] == "test"))
    write_csv(drifts(detector, test, test.rows["label"].to_numpy(np.int64)).assign(**about), RESULTS / "drift.csv")


if __name__ == "__main__":
    main()
