"""Choose the images that the report shows: the most and the least abnormal, and the mistakes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from loligo.reports.common.pictures import Picture, is_volume
from loligo.reports.common.text import number, p_value
from loligo.reports.run import slices, words
from loligo.reports.run.evidence import Evidence
from loligo.reports.run.pictures import Sources, pictures, read_map
from loligo.runs.scores import ScoreFolder

FEW, MANY = 6, 10
"""Images of a group; of the most abnormal where no image has a label. They bound the size of the report."""


@dataclass(frozen=True)
class Card:
    """One image with what the method says of it."""

    name: str
    """The file's own name, without its folders."""
    row: int
    """Its row in scores.csv, the header being row 1."""
    score: str
    p_value: str
    label: str
    flagged: bool
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Group:
    """Cards that belong together."""

    title: str
    meaning: str
    cards: tuple[Card, ...]


def groups(evidence: Evidence, scale: float) -> list[Group]:
    """Return the images to look at, with heat maps on one scale from 0 to ``scale``."""
    return [
        Group(title, meaning, tuple(_card(evidence.folder, row, scale) for _, row in rows.iterrows()))
        for title, meaning, rows in _chosen(evidence)
    ]


def heat_scale(evidence: Evidence) -> float | None:
    """Return the map value of full colour; None where there are no maps.

    It is the calibrated one, or else what 0.5 % of the pixels of the maps shown reach.
    """
    entries = {entry for *_, rows in _chosen(evidence) for entry in rows["map"] if entry}
    if not entries:
        return None
    if evidence.calibration:
        return evidence.calibration.map_scale
    read = (read_map(evidence.folder.artefact(entry)) for entry in sorted(entries))
    values = [heat.ravel() for heat in read if heat is not None]
    scale = float(np.percentile(np.concatenate(values), 99.5)) if values else 0.0
    return scale if scale > 0 else 1.0


def _chosen(evidence: Evidence) -> list[tuple[str, str, pd.DataFrame]]:
    """Return (title, meaning, rows) of the groups; mistakes only where there are labels of that kind."""
    falling = evidence.scores.sort_values("score", ascending=False, kind="stable")
    normal, abnormal = (falling[(falling["label"] == label).fillna(False)] for label in (0, 1))
    first = FEW if len(normal) or len(abnormal) else MANY
    least = falling.iloc[first:].iloc[::-1].head(FEW)
    found = [
        ("Most abnormal", "The highest scores of all.", falling.head(first)),
        ("Least abnormal", "The lowest scores of all, the lowest first.", least),
    ]
    if len(normal):
        alarms = normal[normal["flag"] == 1].head(FEW)
        found.append(("False alarms", "Labelled normal and yet flagged; the highest scores first.", alarms))
    if len(abnormal):
        misses = abnormal[abnormal["flag"] != 1].iloc[::-1].head(FEW)
        found.append(("Misses", "Labelled abnormal and yet not flagged; the lowest scores first.", misses))
    return found


def _card(folder: ScoreFolder, row: pd.Series[Any], scale: float) -> Card:
    return Card(
        name=Path(row["path"]).name,
        row=words.row_number(row),
        score=number(float(row["anomaly_score"])),
        p_value=p_value(float(row["p_value"])),
        label=words.label(row),
        flagged=bool(row["flag"] == 1),
        pictures=_pictures(folder, row, scale),
    )


def _pictures(folder: ScoreFolder, row: pd.Series[Any], scale: float) -> tuple[Picture, ...]:
    """Return the pictures of an image or of a volume."""
    image, mask = Path(row["path"]), Path(row["mask"]) if row["mask"] else None
    heat, reconstruction = (folder.artefact(row[key]) if row[key] else None for key in ("map", "reconstruction"))
    draw = slices.pictures if is_volume(image, heat) else pictures
    return draw(Sources(image, reconstruction, heat, mask), scale)
