"""Normal images as they are, changed in acquisition, and with simulated findings: what `duet_choice` measures on.

A view is an image of one part, `train` or `evaluate`, with or without a finding, with or without changes. The changes
that views of `train` may have and those that views of `evaluate` may have are of different kinds. Only normal images
that a benchmark would train on are read: the same view comes of the same numbers, whenever it is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from loligo.data import acquisition, cache, digit_anatomy, findings
from loligo.data.preprocessing import Preprocessing, resized
from loligo.data.sources import zhanglab
from loligo.data.splits import hold_out
from loligo.evaluation import metrics

LEFT_OUT = ("noise", "field", "resample", "sharpen")
LEARNT = tuple(kind for kind in acquisition.KINDS if kind not in LEFT_OUT)
CHANGES: dict[str, tuple[str, ...]] = {"none": (), "learnt": LEARNT, "left out": LEFT_OUT}
PARTS = ("train", "evaluate")
OTHERS = 1 / 3
"""Fraction of the patients whose images are those to evaluate."""
EACH = 75
"""Images, at most, that are evaluated with a finding of each kind."""
RATE = 0.05
"""False alarms among plain normals that the threshold allows."""
MARKED = 112
"""Side of the maps and masks whose pixels are compared."""
IMAGES_SEED = 1  # another one than that of the benchmark's images
Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]
Parts = dict[str, Floats]
"""Images (N, S, S) in [0, 1] of each part."""


def radiographs(root: Path, size: int, counts: dict[str, int]) -> Parts:
    """Load normal ZhangLab radiographs, of different patients in both parts; no file of another split is opened."""
    rows = zhanglab.index(root)
    rows = hold_out(rows[rows["split"] == "train"], "validation", OTHERS, seed=0)
    assert (rows["label"] == 0).all() and all(Path(path).parts[-3:-1] == ("train", "NORMAL") for path in rows["path"])
    loaded = {}
    for part, split in zip(PARTS, ("train", "validation"), strict=True):
        own = rows[rows["split"] == split].sample(frac=1, random_state=0)[: counts[part]]
        data = cache.load(own, Preprocessing(size))
        loaded[part] = data.batch(np.arange(len(data)))[:, 0].numpy()
    return loaded


def digits(mnist: Path, size: int, counts: dict[str, int]) -> Parts:
    """Generate normal DigitAnatomy of digits that are not those of its test split, others in each part."""
    pool = digit_anatomy.pool(mnist)
    made = {}
    for part, split in zip(PARTS, ("train", "calibration"), strict=True):
        rngs = (np.random.default_rng([IMAGES_SEED, PARTS.index(part), i]) for i in range(counts[part]))
        images = [digit_anatomy.generate(pool.part(split), "normal", rng)[0] for rng in rngs]
        made[part] = resized(np.stack(images), (size, size))
    return made


SOURCES: dict[str, tuple[Callable[[Path, int, dict[str, int]], Parts], tuple[str, ...], dict[str, int]]] = {
    "zhanglab": (radiographs, findings.KINDS, {"train": 600, "evaluate": 300}),
    "digit_anatomy": (digits, findings.STRUCTURAL, {"train": 400, "evaluate": 200}),
}
"""How each data set is read, the kinds of finding that it may have, and how many images are read by default."""


def plan(counts: dict[str, int], kinds: tuple[str, ...], rounds: int) -> pd.DataFrame:
    """List the views: columns part, image, round, kind (of finding, empty for none) and change, a key of `CHANGES`.

    Round 0 is each image as it is. In each other one a training image is there twice, changed, once with a finding.
    """
    rng, (train, evaluate) = np.random.default_rng(0), (counts[part] for part in PARTS)
    rows = [("train", i, 0, "", "none") for i in range(train)]
    for number in range(1, rounds + 1):
        for i, kind in enumerate(rng.choice(kinds, train)):
            rows += [("train", i, number, "", "learnt"), ("train", i, number, str(kind), "learnt")]
    changes = list(enumerate(("none", "left out")))
    rows += [("evaluate", i, number, "", change) for i in range(evaluate) for number, change in changes]
    for kind in kinds:
        chosen = rng.choice(evaluate, min(EACH, evaluate), replace=False)
        rows += [("evaluate", int(i), number, kind, change) for i in chosen for number, change in changes]
    return pd.DataFrame(rows, columns=["part", "image", "round", "kind", "change"])


class Views:
    """The views of a data set, made when they are asked for."""

    def __init__(self, source: str, folder: Path, size: int, counts: dict[str, int], rounds: int) -> None:
        load, self.kinds, _ = SOURCES[source]
        self.images = load(folder, size, counts)
        self.table = plan({part: len(images) for part, images in self.images.items()}, self.kinds, rounds)
        self.pool = ThreadPoolExecutor(torch.get_num_threads())
        self.anatomy = {part: list(self.pool.map(findings.anatomy, images)) for part, images in self.images.items()}

    def where(self, query: str) -> Indices:
        """Return the numbers of the views that a query of `table` selects."""
        return np.array(self.table.query(query).index)

    def make(self, views: Indices) -> tuple[Tensor, Tensor]:
        """Return images and masks of findings, both (N, 1, S, S) float32."""
        made = list(self.pool.map(self._one, views))
        images, masks = (torch.from_numpy(np.stack(part)).float()[:, None] for part in zip(*made, strict=True))
        return images, masks

    def _one(self, view: int) -> tuple[Floats, npt.NDArray[np.bool_]]:
        part, index, number, kind, change = self.table.iloc[view]
        images, place = self.images[part], self.kinds.index(kind) + 1 if kind else 0
        rng = np.random.default_rng([PARTS.index(part), index, number, place])
        image, mask = images[index], np.zeros(images[index].shape, bool)
        if kind:
            donor = images[rng.integers(len(images))]
            image, mask = findings.insert(image, kind, rng, self.anatomy[part][index], donor)
        if not (kinds := CHANGES[change]):
            return image, mask
        image, moved = acquisition.change(image, rng, kinds, mask=mask)
        return image, mask if moved is None else moved


def batches(views: Indices, size: int = 100) -> Iterator[Indices]:
    """Yield the numbers of views, some at a time."""
    return (views[start : start + size] for start in range(0, len(views), size))


def criterion(table: pd.DataFrame, scores: Tensor, heat: Tensor, marked: Tensor, kinds: list[str]) -> dict[str, float]:
    """Return the criterion of the views of a table that are normal or have a finding of some kinds.

    Half of the normal images give the threshold, the other half are what AUC and false alarms are measured on.
    """
    table = table.assign(score=scores.double().numpy(), place=np.arange(len(table)))
    normal, given = table["kind"] == "", table["image"] < (table["image"].max() + 1) // 2
    threshold = table.loc[normal & given & (table["change"] == "none"), "score"].quantile(1 - RATE)
    normals = {str(change): rows["score"].to_numpy() for change, rows in table[normal & ~given].groupby("change")}
    visible = table[marked[np.array(table.index)].flatten(1).any(1).numpy()]
    images: dict[str, list[float]] = {change: [] for change in normals}
    pixels = []
    for (kind, change), rows in visible.groupby(["kind", "change"]):
        if kind in kinds:
            own, others = rows["score"].to_numpy(), normals[str(change)]
            labels = np.repeat([0, 1], [len(others), len(own)])
            images[str(change)].append(metrics.roc_auc(labels, np.concatenate([others, own])))
            if change != "none":
                maps, masks = heat[np.array(rows["place"])], marked[np.array(rows.index)]
                pixels.append(metrics.pixel_metrics(list(maps.numpy()), list(masks.numpy()))["auroc"])
    parts = [float(np.mean(values)) for values in (images["none"], images["left out"], pixels)]
    alarms = [float((normals[change] > threshold).mean()) for change in ("none", "left out")]
    names = ("criterion", "auc", "auc_changed", "pixel_auroc_changed", "false_alarms", "false_alarms_changed")
    return dict(zip(names, (float(np.mean(parts)), *parts, *alarms), strict=True))
