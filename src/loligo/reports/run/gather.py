"""Ask a trained model, in one pass over some images, for what the figures of its report show."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from loligo import methods
from loligo.evaluation.metrics import histogram_kl
from loligo.methods.contract import Method
from loligo.reports.common.text import number
from loligo.reports.run import evidence, words
from loligo.reports.run.embedding import Embedding
from loligo.reports.run.insight import HELD_OUT, ORIGINAL, Example, Insight, cosine
from loligo.runs.run import Run
from loligo.runs.scores import ScoreFolder
from loligo.training import images
from loligo.types import Inspection

log = logging.getLogger(__name__)
Floats = npt.NDArray[np.float32]

MOST, SHOWN, BATCH = 100, 3, 16
"""Images of a group that are counted, evenly spaced; images shown at each end of the scores; images at once."""


def insight(scoring: ScoreFolder) -> Insight | None:
    """Return what the method shows of itself on held-out normals and on scored images; None where it shows nothing.

    A volume is seen by its middle slice. None as well where no image can be read any more, which is logged. Raises
    ValueError where the run is not scored.
    """
    run = Run.load(scoring.run.path)
    if methods.get(run.method).inspect is Method.inspect:
        return None
    model, seen = run.model().freeze(), _Seen()  # not in bfloat16, in which intensities would lie on a grid
    try:
        data = images.load(run, _rows(scoring, run))
    except ValueError as error:  # moved away since they were scored; the scores are still worth a page
        log.warning("the report does without what the method shows of itself: %s", error)
        return None
    counts = np.array(data.counts or (1,) * len(data.rows))
    chosen = np.cumsum(counts) - counts + counts // 2
    for start in range(0, len(chosen), BATCH):
        indices = chosen[start : start + BATCH]
        x = data.batch(indices)
        with torch.inference_mode():
            found = model.inspect(x.contiguous(memory_format=torch.channels_last))
        if found is None:
            return None
        seen.add(data.rows.iloc[data.row_of[indices]], x, found)
    return seen.insight()


def _rows(scoring: ScoreFolder, run: Run) -> pd.DataFrame:
    """Choose the images, those to show first: rows with path, label, and

    group (str), counted (bool: in the means of the group), title (str, empty where it is not shown).
    """
    scores = evidence.read(scoring).scores
    names = scores["label"].map({0: "normal", 1: "abnormal"}).fillna("unlabelled")
    falling = scores.sort_values("score", ascending=False, kind="stable").index
    shown = [*falling[:SHOWN], *falling[SHOWN:][-SHOWN:]]
    counted = [i for _, rows in scores.groupby(names) for i in _evenly(rows).index]
    scored = scores.loc[list(dict.fromkeys([*shown, *counted]))].assign(group=names)
    scored["counted"] = scored.index.isin(counted)
    scored["title"] = [_title(row) if i in shown else "" for i, row in scored.iterrows()]
    held_out = run.manifest().query("split == 'calibration'")
    normals = _evenly(held_out).assign(group=HELD_OUT, counted=True, title="", label=0)
    columns = ["path", "label", "group", "counted", "title"]
    return pd.concat([scored[columns], normals[columns]], ignore_index=True).astype({"label": float})


def _evenly(rows: pd.DataFrame) -> pd.DataFrame:
    """Return `MOST` rows at most, evenly spaced, so that kinds that stand together are all in."""
    return rows.iloc[np.unique(np.linspace(0, len(rows) - 1, min(MOST, len(rows))).round().astype(int))]


def _title(row: pd.Series[Any]) -> str:
    """Name an image by its row of scores.csv, its score and its label."""
    return f"row {words.row_number(row)}, A {number(float(row['anomaly_score']))}\n{words.label(row, 20)}"


class _Seen:
    """What was seen of images so far; of few of them the images themselves."""

    def __init__(self) -> None:
        self.errors: list[tuple[str, str, float, float]] = []
        self.cosines: list[tuple[str, float]] = []
        self.examples: list[Example] = []
        self.features: list[Floats] = []
        self.labels: list[float] = []
        self.memory: Floats | None = None

    def add(self, rows: pd.DataFrame, x: Tensor, found: Inspection) -> None:
        """Take in n rows of `_rows`, their images (n, C, H, W), and what the method shows of them."""
        images = {ORIGINAL: x} | found.reconstructions
        self.memory = None if found.memory is None else found.memory.detach().float().numpy()
        for i, (_, row) in enumerate(rows.iterrows()):
            one = {name: _of(part, i) for name, part in images.items()}
            features, inpainted = (None if p is None else _of(p, i) for p in (found.features, found.inpainted))
            self._add(row, one, features, inpainted)

    def _add(
        self, row: pd.Series, images: dict[str, Floats], features: Floats | None, inpainted: Floats | None
    ) -> None:
        errors = {name: _errors(images[ORIGINAL], image) for name, image in images.items() if name != ORIGINAL}
        if row["title"]:
            self.examples.append(Example(row["title"], images, errors, features, inpainted))
        if not row["counted"]:
            return
        self.errors += [(row["group"], name, *error) for name, error in errors.items()]
        if features is not None and inpainted is not None:
            self.cosines.append((row["group"], float(cosine(features, inpainted).mean())))
        if features is not None and row["group"] != HELD_OUT:
            self.features.append(features)
            self.labels.append(row["label"])

    def insight(self) -> Insight:
        """Put together what was seen."""
        embedding = None
        if self.memory is not None and self.features:
            embedding = Embedding(np.stack(self.features), self.memory, np.array(self.labels))
        return Insight(
            errors=pd.DataFrame(self.errors, columns=["group", "generator", "mse", "kl"]),
            cosines=pd.DataFrame(self.cosines, columns=["group", "cosine"]),
            examples=tuple(self.examples),
            embedding=embedding,
        )


def _of(part: Tensor, i: int) -> Floats:
    """Return what belongs to image i of a batch, apart from it, so that the batch can go."""
    found: Floats = part[i].float().numpy().copy()
    return found


def _errors(original: Floats, reconstruction: Floats) -> tuple[float, float]:
    """Return mean squared error and KL divergence of a reconstruction from its original, both (C, H, W)."""
    error = float(np.square(original - reconstruction).mean(dtype=np.float64))
    return error, histogram_kl(original, reconstruction)
