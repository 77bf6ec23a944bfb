"""Decide by DICOM headers whether an image is one that a run can say anything of: one like those that it learnt from.

What a header does not say refuses nothing, and neither does what fewer than `KNOWN` of the training images say: of the
others nobody knows. Values are compared in capitals and with single blanks, body parts word by word, as "PORT CHEST" is
a CHEST; what is no code is not compared.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import pandas as pd

from loligo import io
from loligo.names import some
from loligo.types import OLDEST, Acquisition

GROUPS = (("CR", "DX"), ("RF", "XA"))
"""Modalities that are one to a method: radiographs, and images of one kind of device."""
KNOWN = 0.5
"""Part of the training images that must say something, so that what they say is a rule."""
MARGIN = 0.2
"""Part of the youngest and of the oldest training patient's age by which others may be younger or older."""

_CODE = re.compile(r"[A-Z0-9 _]{1,16}")  # of PS3.5: what may be written and shown of a header's value
_SAME = {"LL": "LATERAL", "RL": "LATERAL", "LAT": "LATERAL", "THORAX": "CHEST"}
_SHOWS = {
    "LATERAL": "lateral view",
    **dict.fromkeys(("LLD", "RLD"), "decubitus view"),
    **dict.fromkeys(("LLO", "RLO"), "oblique view"),
}

_TOLD = 6  # values of a kind, at most


@dataclass(frozen=True)
class HeaderScope:
    """What the headers of a run's training images say; empty where there is no rule, so that anything is allowed."""

    modalities: tuple[str, ...] = ()
    """Of most of them, such as CR and DX, which are one."""
    views: tuple[str, ...] = ()
    """View Positions, such as AP and PA; all that are lateral are LATERAL."""
    body_parts: tuple[str, ...] = ()
    """Body Parts Examined, such as CHEST."""
    ages: tuple[int, ...] = ()
    """Of the youngest and the oldest patient, in whole years."""

    @classmethod
    def of(cls, paths: Iterable[str]) -> Self:
        """Gather what the DICOM files among some say, those of the most frequent modality."""
        every: list[Acquisition] = []
        for path in paths:
            with contextlib.suppress(io.UnreadableImage):
                every += filter(None, [_acquisition(Path(path))])
        if not every:
            return cls()
        allowed = Counter(_group(one) for one in every).most_common(1)[0][0]
        taken = [one for one in every if _group(one) == allowed]
        ages = [int(one.age) for one in taken if one.age is not None]
        return cls(
            modalities=allowed,
            views=_values([_view(one) for one in taken]),
            body_parts=_values([_code(one.body_part) for one in taken]),
            ages=(min(ages), max(ages)) if ages and len(ages) >= KNOWN * len(taken) else (),
        )

    @classmethod
    def read(cls, about: Mapping[str, Any]) -> Self:
        """Read what `written` gave; ValueError for another form. What is missing, as of old runs, is no rule."""
        found = {field.name: about.get(field.name, []) for field in fields(cls)}
        for name, value in found.items():
            kind, such = (int, "[18, 90]") if name == "ages" else (str, "[CR, DX]")
            if not (isinstance(value, list) and all(isinstance(one, kind) for one in value)):
                raise ValueError(f"data.{name} is {value!r}; it must be a list such as {such}")
        if len(found["ages"]) not in (0, 2):
            raise ValueError(f"data.ages is {found['ages']!r}; it must be 2 whole numbers of years, such as [18, 90]")
        return cls(**{name: tuple(value) for name, value in found.items()})

    def written(self) -> dict[str, list[Any]]:
        """Return the rules that there are as config.yaml holds them."""
        return {name: list(value) for name, value in vars(self).items() if value}

    @property
    def told(self) -> str:
        """Say whom the training images are of, such as "CR or DX; AP or PA; CHEST; 18 to 90 years"."""
        said = [" or ".join(values[:_TOLD]) for values in (self.modalities, self.views, self.body_parts)]
        said += ["{} to {} years".format(*self.ages)] if self.ages else []
        return "; ".join(filter(None, said))

    def refuse_other(self, path: Path) -> None:
        """Raise ``UnreadableImage`` for a DICOM file of another modality, and where it cannot be opened."""
        if why := self._other_modality(path):
            raise io.UnreadableImage(path, why)

    def only(self, rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the rows without DICOM files of another modality, and a table of those: columns path, reason."""
        others = {}
        for index, path in rows["path"].items():
            with contextlib.suppress(io.UnreadableImage):  # loading says what is wrong with a file
                if why := self._other_modality(Path(path)):
                    others[index] = why
        table = pd.DataFrame({"path": rows.loc[list(others), "path"], "reason": list(others.values())}, dtype=str)
        return rows.drop(index=list(others)).reset_index(drop=True), table.reset_index(drop=True)

    def _other_modality(self, path: Path) -> str:
        """Say that a DICOM file is of another modality; empty where it is not."""
        found = _acquisition(path) if self.modalities else None
        if not found or _group(found) == self.modalities:
            return ""
        return (
            f"its Modality (0008,0060) is {' or '.join(_group(found))}; {' and '.join(self.modalities)}, as of most"
            " training images, are allowed"
        )

    def reasons(self, path: Path | None) -> dict[str, str]:
        """Say what an image's header has that no training image's has, by the names of `checks.NOT_SCORED`.

        Nothing of an array, of a file that is no DICOM, and of one that is gone.
        """
        found = None
        with contextlib.suppress(io.UnreadableImage):
            found = _acquisition(path) if path and (self.views or self.body_parts or self.ages) else None
        if not found:
            return {}
        view, part = _view(found), _code(found.body_part)
        words = {word for one in self.body_parts for word in _words(one)}
        said = {}
        if view and self.views and view not in self.views:
            shown = f"its View Position (0018,5101) is {_code(found.view)}; {_allowed(self.views)}"
            said["other_view"] = f"{_SHOWS.get(view, 'another view')}: {shown}"
        if part and words and not words & _words(part):
            shown = f"its Body Part Examined (0018,0015) is {part}; {_allowed(self.body_parts)}"
            said["other_body_part"] = f"another part of the body: {shown}"
        if found.age is not None and self.ages and (shown := self._other_age(int(found.age))):
            said["other_age"] = f"patient of another age: {shown}"
        return said

    def _other_age(self, age: int) -> str:
        """Say that a patient's age lies outside; empty where it does not."""
        youngest, oldest = self.ages
        low, high = math.floor((1 - MARGIN) * youngest), math.ceil((1 + MARGIN) * oldest)
        if low <= age <= high:
            return ""
        allowed = f"{low} to {high}" if high < OLDEST else f"{low} and more"
        return (
            f"its Patient's Age (0010,1010) is {age} years; {allowed} are allowed, {MARGIN:.0%} beyond the"
            f" {youngest} to {oldest} of the training patients"
        )


ANY = HeaderScope()
"""No rule at all."""


def _acquisition(path: Path) -> Acquisition | None:
    """Return how a DICOM file says that it was taken; None for what is not read as DICOM.

    Raises ``UnreadableImage`` where it cannot be opened.
    """
    found = io.about(path)
    return found.acquisition if found else None


def _group(found: Acquisition) -> tuple[str, ...]:
    """Return the modality of a file and those that are one with it."""
    return next((group for group in GROUPS if found.modality in group), (found.modality,))


def _code(text: str) -> str:
    """Return a header's value as it is compared, empty where it is no code."""
    value = " ".join(text.upper().split())
    return value if _CODE.fullmatch(value) else ""


def _view(found: Acquisition) -> str:
    return _SAME.get(value := _code(found.view), value)


def _words(part: str) -> set[str]:
    return {_SAME.get(word, word) for word in re.findall("[A-Z0-9]+", part)}


def _values(every: Sequence[str]) -> tuple[str, ...]:
    """Return the different values, in order; none where too few images have one."""
    known = list(filter(None, every))
    return tuple(sorted(set(known))) if len(known) >= KNOWN * len(every) else ()


def _allowed(values: Sequence[str]) -> str:
    return f"{some(values)} {'is' if len(values) == 1 else 'are'} allowed, as of the training images"
