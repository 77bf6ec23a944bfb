"""VQ-VAE restoration against a variational autoencoder on toy brains: real anatomy, MOOD's six synthetic anomalies.

    python -m experiments.brains --out runs/brains

Makes the volumes, trains both methods on the same slices with their positions, scores the test volumes and writes
results/brains.csv: AUC and AP of volumes, AP, AUROC and the best Dice of voxels, with intervals by a bootstrap over
volumes. What is finished is not made again, and a training that was cut off resumes. The VAE's map is also measured
smoothed as that of the other is, lest that decide. Beside the
six kinds stand four volumes like the challenge's examples, on which a published run reports its voxels: two with a ball
of one grey and two normal ones.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from experiments.common import RESULTS, machine
from loligo import api, experiment
from loligo.data import manifest, mood_anomalies, toy_brains
from loligo.detector import Detector
from loligo.evaluation import metrics, results
from loligo.io import nifti, planes
from loligo.nn.precision import accelerate
from loligo.runs.run import Run
from loligo.runs.scores import scorings
from loligo.runs.settings import Settings

METHODS: dict[str, tuple[str | None, dict[str, Any]]] = {
    "vqvae_restoration": ("volumes", {}),
    "vae": (None, {"position": True}),
}
"""Preset and options, but for the size; the prior is smaller than the paper's, so that a processor trains it."""
SMOOTHING = (1, 13)
"""Windows of the minimum and of the mean over voxels, of the preset ``volumes``."""
BALLS = 2
"""Volumes with a ball, measured beside as many normal ones."""
Maps = list[npt.NDArray[np.float32]]
Masks = list[npt.NDArray[np.bool_]]


def volumes(given: argparse.Namespace) -> pd.DataFrame:
    """Make the toy brains, unless they stand there, and list them."""
    folder = given.out / f"data_{given.size}_{given.train}_{given.test_normal}_{given.test_abnormal}_{given.seed}"
    if (folder / "manifest.csv").exists():
        return manifest.read(folder / "manifest.csv")
    counts = {name: getattr(given, name) for name in ("train", "calibration", "test_normal", "test_abnormal")}
    return toy_brains.write(folder, **counts, test_ball=BALLS, validation=0, size=given.size, seed=given.seed)


def read_maps(folder: Path, table: pd.DataFrame) -> tuple[Maps, Masks]:
    """Read the maps of all volumes, and their masks, as axial slices (N, H, W)."""
    maps, masks = [], []
    for row in table.itertuples():
        heat = nifti.read(folder / str(row.map))
        mask = nifti.read_mask(Path(str(row.mask)), heat) if row.mask else np.zeros(heat.shape, bool)
        maps.append(planes.slices(heat.voxels, "axial"))
        masks.append(planes.slices(mask, "axial"))
    return maps, masks


def smoothed(maps: Maps) -> Maps:
    """Smooth maps of slices as the VQ-VAE's are."""
    return [planes.smoothed(heat, *SMOOTHING) for heat in maps]


def voxels(maps: Maps, masks: Masks) -> dict[str, float]:
    """Return AUROC, AP and best Dice of voxels, exactly, and their intervals by a bootstrap over volumes."""
    counts, found = binned(maps, masks), metrics.pixel_metrics(maps, masks)
    point = {"auc": found["auroc"], "ap": found["ap"], "dice": found["best_dice"]}
    return point | interval(lambda drawn: from_counts(counts[drawn].sum(0)), len(maps))


def binned(maps: Maps, masks: Masks, bins: int = 2000) -> npt.NDArray[np.int64]:
    """Count the voxels of each volume by value, normal and abnormal: (V, 2, B), bins fine where values are high."""
    abnormal = np.concatenate([heat[mask] for heat, mask in zip(maps, masks, strict=True)])
    every = np.concatenate([heat.ravel()[::97] for heat in maps])
    cuts = np.unique([np.quantile(values, np.linspace(0, 1, bins // 2)) for values in (abnormal, every)])
    return np.stack(
        [
            [np.bincount(np.searchsorted(cuts, heat[part], "right"), minlength=len(cuts) + 1) for part in (~mask, mask)]
            for heat, mask in zip(maps, masks, strict=True)
        ]
    )


def from_counts(counts: npt.NDArray[np.int64]) -> dict[str, float] | None:
    """Return AUROC, AP and best Dice by counts (2, B) of normal and abnormal voxels; None where a kind is missing."""
    normal, abnormal = counts[:, ::-1].astype(np.float64)
    if not (normal.any() and abnormal.any()):
        return None
    hits, alarms = np.cumsum(abnormal), np.cumsum(normal)
    precision = hits / np.maximum(hits + alarms, 1)
    return {
        "auc": float(abnormal @ (alarms[-1] - alarms + normal / 2) / (hits[-1] * alarms[-1])),
        "ap": float(abnormal @ precision / hits[-1]),
        "dice": float(np.max(2 * hits / (hits + alarms + hits[-1]))),
    }


def samples(labels: npt.NDArray[np.int64], scores: npt.NDArray[np.float64]) -> dict[str, float]:
    """Return AUC and AP of volumes with their intervals."""
    auc, low, high = metrics.roc_auc_interval(labels, scores)

    def one(drawn: npt.NDArray[np.int64]) -> dict[str, float] | None:
        both = 0 < labels[drawn].sum() < len(drawn)
        return {"ap": metrics.average_precision(labels[drawn], scores[drawn])} if both else None

    found = {"auc": auc, "auc_low": low, "auc_high": high, "ap": metrics.average_precision(labels, scores)}
    return found | interval(one, len(labels))


def interval(measure: Callable[[npt.NDArray[np.int64]], dict[str, float] | None], count: int) -> dict[str, float]:
    """Return the 95 % interval of what ``measure`` says of resampled volumes, as NAME_low and NAME_high."""
    each = np.arange(count)
    drawn = (measure(np.repeat(each, times)) for times in metrics.resamples(each))
    table = pd.DataFrame([found for found in drawn if found]).quantile([0.025, 0.975])
    return {f"{name}_{end}": float(table[name].iloc[i]) for name in table for i, end in enumerate(("low", "high"))}


def timed(run: Run) -> dict[str, float]:
    """Return the seconds that scoring takes, reading not included."""
    rows, detector = run.manifest(), Detector.load(run, "cpu")
    data = detector.images(rows[rows["split"] == "test"].reset_index(drop=True))
    start = time.perf_counter()
    detector.scores(data)
    seconds = time.perf_counter() - start
    return {
        "seconds_per_slice": round(seconds / len(data), 5),
        "seconds_per_volume": round(seconds / len(data.rows), 4),
    }


def measured(run: Run, seconds: dict[str, float]) -> list[dict[str, Any]]:
    """Return a row for the score of volumes and for each map."""
    scoring = scorings(run.folder)[-1]
    table = scoring.read_scores()
    labels = table["label"].to_numpy(np.int64)
    maps, masks = read_maps(scoring.path, table)
    kinds = {"as it is": maps} | ({} if run.method == "vqvae_restoration" else {"smoothed": smoothed(maps)})
    ball, normal = (table["kind"] == mood_anomalies.BALL).to_numpy(), labels == 0
    six, four = np.flatnonzero(~ball), np.r_[np.flatnonzero(ball), np.flatnonzero(normal)[: ball.sum()]]
    sets = {"six kinds": six, "examples": four}
    counts = {what: {"normal": int(normal[at].sum()), "abnormal": int(labels[at].sum())} for what, at in sets.items()}
    volume = {"set": "six kinds", "level": "volume", "score": getattr(run.method_config, "score", "score")}
    rows: list[dict[str, Any]] = [volume | samples(labels[six], table["score"].to_numpy(np.float64)[six])]
    for name, heat in kinds.items():
        for what, at in sets.items():
            found = voxels([heat[i] for i in at], [masks[i] for i in at])
            rows.append({"set": what, "level": "voxel", "score": name} | found)
        print({kind: round(ap, 3) for kind, ap in by_kind(heat, masks, table["kind"]).items()}, flush=True)
    about = {"train_seconds": run.about["cost"]["train_seconds"], **seconds}
    about |= {"machine": machine(), "commit": run.about["cost"]["commit"]}
    rounded = [{k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()} for row in rows]
    return [row | counts[row["set"]] | about for row in rounded]


def by_kind(maps: Maps, masks: Masks, kinds: pd.Series) -> dict[str, float]:
    """Return the voxels' AP of each kind of anomaly, among its own volumes."""
    own = {kind: np.flatnonzero(kinds == kind) for kind in sorted(set(kinds) - {toy_brains.NORMAL})}
    return {
        kind: metrics.pixel_metrics([maps[i] for i in at], [masks[i] for i in at])["ap"] for kind, at in own.items()
    }


def main() -> None:
    """Make the data, train, score, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--train", type=int, default=128, help="volumes, as the next three")
    parser.add_argument("--calibration", type=int, default=4)
    parser.add_argument("--test-normal", type=int, default=20)
    parser.add_argument("--test-abnormal", type=int, default=36)
    parser.add_argument("--epochs", type=int, default=15, help="of the VQ-VAE, a third of them of the autoencoder")
    parser.add_argument("--vae-epochs", type=int, default=10, help="twice those of the VQ-VAE's autoencoder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    accelerate()
    rows = volumes(given)
    for method in given.methods:
        preset, options = METHODS[method]
        epochs = given.epochs if method == "vqvae_restoration" else given.vae_epochs
        key = {"method": method, "size": given.size, "train": given.train, "epochs": epochs, "seed": given.seed}
        folder = given.out / "_".join(map(str, key.values()))
        train = {"epochs": epochs, "batch_size": 8, "seed": given.seed, "augment": False}
        settings = Settings.of(method, preset, options | {"size": given.size}, train)
        run = experiment.complete(Run.new(folder, settings), rows)
        if not scorings(run.folder):
            api.score(run)
        table = pd.DataFrame([key | row for row in measured(run, timed(run))])
        print(table.drop(columns=["machine", "commit"]).to_string(), flush=True)
        results.replace(given.results / "brains.csv", table, key)


if __name__ == "__main__":
    main()
