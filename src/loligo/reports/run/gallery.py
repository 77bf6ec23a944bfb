"""Choose the images that the report shows: all that are flagged, what comes next, and the mistakes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd

from loligo.calibration import Calibration
from loligo.reports.common.pictures import Picture, is_volume
from loligo.reports.common.text import p_value
from loligo.reports.run import slices, words
from loligo.reports.run.evidence import Evidence
from loligo.reports.run.pictures import Sources, pictures, read_map
from loligo.runs.scores import ScoreFolder

FEW, PICTURED = 6, 60
"""Images of a group; flagged ones with pictures, which bound the size of the report: the others are listed."""


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
    """Empty where it is unknown."""
    flagged: bool
    links: tuple[tuple[str, str], ...]
    """(what, address relative to the page) of its files."""
    warnings: tuple[str, ...] = ()
    """Sentences on what is odd about the input."""
    pictures: tuple[Picture, ...] = ()


@dataclass(frozen=True)
class Group:
    """Cards that belong together."""

    title: str
    meaning: str
    cards: tuple[Card, ...]
    listed: tuple[Card, ...] = ()
    """Further ones, without pictures."""


def groups(evidence: Evidence, colours: Calibration, page: Path) -> list[Group]:
    """Return the images to look at, heat by the colours of a calibration, with links from where ``page`` lies."""
    found = []
    for title, meaning, rows in _chosen(evidence):
        if rows.empty and title != "Flagged":
            continue
        cards = [_card(evidence, row, page) for _, row in rows.iterrows()]
        shown = zip(cards[:PICTURED], rows.head(PICTURED).iterrows(), strict=True)
        pictured = tuple(replace(card, pictures=_pictures(evidence, row, colours)) for card, (_, row) in shown)
        found.append(Group(title, meaning, pictured, tuple(cards[PICTURED:])))
    return found


def colours(evidence: Evidence) -> Calibration | None:
    """Return what sets the colours of heat; None where there are no maps.

    Without a calibration full colour is what 0.5 % of the pixels of the maps shown reach, and none begins at a third.
    """
    entries = {entry for *_, rows in _chosen(evidence) for entry in rows["map"].head(PICTURED) if entry}
    if not entries:
        return None
    if evidence.calibration:
        return evidence.calibration
    read = (read_map(evidence.folder.artefact(entry)) for entry in sorted(entries))
    values = [heat.ravel() for heat in read if heat is not None]
    scale = float(np.percentile(np.concatenate(values), 99.5)) if values else 0.0
    scale = scale if scale > 0 else 1.0
    return replace(Calibration.fit([0.0]), typical_peak=scale / 3, map_scale=scale)


def _chosen(evidence: Evidence) -> list[tuple[str, str, pd.DataFrame]]:
    """Return (title, meaning, rows) of the groups; mistakes only where there are labels of that kind."""
    falling = evidence.scores.sort_values("score", ascending=False, kind="stable")
    flagged, others = falling[falling["flag"] == 1], falling[falling["flag"] != 1]
    normal, abnormal = (falling[(falling["label"] == label).fillna(False)] for label in (0, 1))
    found = [
        ("Flagged", f"All {len(flagged)} that are flagged, the highest scores first.", flagged),
        ("Next below", "The highest scores that are not flagged.", others.head(FEW)),
        ("Least abnormal", "The lowest scores of all, the lowest first.", others.iloc[FEW:].iloc[::-1].head(FEW)),
    ]
    if len(normal):
        alarms = normal[normal["flag"] == 1].head(FEW)
        found.append(("False alarms", "Labelled normal and yet flagged; the highest scores first.", alarms))
    if len(abnormal):
        misses = abnormal[abnormal["flag"] != 1].iloc[::-1].head(FEW)
        found.append(("Misses", "Labelled abnormal and yet not flagged; the lowest scores first.", misses))
    return found


def _card(evidence: Evidence, row: pd.Series[Any], page: Path) -> Card:
    return Card(
        name=Path(row["path"]).name,
        row=words.row_number(row),
        score=words.standing(evidence, row),
        p_value=p_value(float(row["p_value"])),
        label="" if pd.isna(row["label"]) else words.label(row),
        flagged=bool(row["flag"] == 1),
        links=tuple(_links(evidence.folder, row, page)),
        warnings=words.odd(row, evidence.noun),
    )


def _links(folder: ScoreFolder, row: pd.Series[Any], page: Path) -> Iterator[tuple[str, str]]:
    """Yield (what, address) of the files of an image that there are."""
    for column in ("overlay", "map"):
        if row[column] and (path := folder.artefact(row[column])).is_file():
            yield column, quote(Path(os.path.relpath(path, page.parent)).as_posix())


def _pictures(evidence: Evidence, row: pd.Series[Any], colours: Calibration) -> tuple[Picture, ...]:
    """Return the pictures of an image or of a volume."""
    folder = evidence.folder
    image, mask = Path(row["path"]), Path(row["mask"]) if row["mask"] else None
    heat, made, overlay = (
        folder.artefact(row[key]) if row[key] else None for key in ("map", "reconstruction", "overlay")
    )
    draw = slices.pictures if is_volume(image, heat) else pictures
    return draw(Sources(image, made, heat, mask, overlay, evidence.voi), colours)
