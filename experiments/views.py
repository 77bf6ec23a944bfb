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
MARKED = 112
"""Side of the maps and masks whose pixels are compared."""
IMAGES_SEED = 1  # another one than that of the benchmark's images
FREQUENCY = {
    "effusion": 16.7,
    "nodule": 12.1,
    "atelectasis": 11.6,
    "consolidation": 11.1,
    "edema": 7.3,
    "interstitial": 6.7,
    "pneumothorax": 5.3,
    "ground_glass": 5.0,
    "cardiomegaly": 2.8,
}
"""Thousands of images with a finding among the 112,120 of ChestX-ray14 (Wang et al., CVPR 2017): pleural thickening
counts as effusion, mass as nodule, pneumonia as consolidation, fibrosis as interstitial; infiltration is divided evenly
among consolidation, edema, interstitial and ground glass."""
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
    """Return the criterion and its parts, each a mean over kinds of finding, weighed as `FREQUENCY` does.

    ``table`` has the views that are scored, and in column ``outside`` whether an image belongs to the subpopulation
    that nothing was fitted to. Of the others, images with a finding are compared with normals as they are (`auc`), with
    normals under changes that both have (`auc_changed`), and with the subpopulation's normals (`auc_shifted`).
    """
    table = table.assign(score=scores.double().numpy(), place=np.arange(len(table)))
    table = table[(table["kind"] == "") | marked[np.array(table.index)].flatten(1).any(1).numpy()]
    normal, outside, plain = table["kind"] == "", table["outside"], table["change"] == "none"
    found = table[~normal & ~outside & table["kind"].isin(kinds)]
    rows: list[dict[str, float]] = []
    for kind, own in found.groupby("kind"):
        before, after = own[own["change"] == "none"], own[own["change"] != "none"]
        maps, masks = heat[np.array(after["place"])], marked[np.array(after.index)]
        rows.append({
            "weight": FREQUENCY.get(str(kind), 0) if set(kinds) & set(FREQUENCY) else 1,
            "auc": _auc(table[normal & ~outside & plain], before),
            "auc_changed": _auc(table[normal & ~outside & ~plain], after),
            "auc_shifted": _auc(table[normal & outside & plain], before),
            "pixel_auroc": metrics.pixel_metrics(list(maps.numpy()), list(masks.numpy()))["auroc"],
        })  # fmt: skip
    columns = pd.DataFrame(rows)
    weights = columns.pop("weight")
    means = {str(name): float(np.average(column, weights=weights)) for name, column in columns.items()}
    total = float(np.mean([means["auc_changed"], means["auc_shifted"], means["pixel_auroc"]]))
    return {"criterion": total, **means}


def _auc(normals: pd.DataFrame, abnormal: pd.DataFrame) -> float:
    labels = np.repeat([0, 1], [len(normals), len(abnormal)])
    return metrics.roc_auc(labels, np.concatenate([normals["score"], abnormal["score"]]))
