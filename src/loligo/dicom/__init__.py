"""Write results as DICOM objects that a department's viewer shows: those of IHE AI Results, by highdicom.

`objects` makes those of one image or series, and `key_objects` the list of a study's flagged images.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from loligo.dicom.about import About as About
from loligo.types import Prediction

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

KINDS = ("sr", "pm", "seg", "ko", "pdf", "sc")
"""Structured report, parametric map, segmentation, key object selection, the sheet as PDF, and the overlay as secondary
capture."""
DEFAULT = ("sr", "pm", "seg", "ko")


def objects(
    prediction: Prediction,
    source: Path,
    about: About,
    kinds: Sequence[str] = DEFAULT,
    when: datetime | None = None,
) -> list[Dataset]:
    """Return the DICOM objects of what a detector says of one DICOM image or series.

    ``source`` is the image's file, or one of the series', whose others are found beside it. Of ``kinds`` those are made
    that the result has: pm and seg where the method has a map, seg where a region is outlined, ko where the image is
    flagged, and sc of an image alone. A study of several images has one list of key objects: leave ko out of ``kinds``,
    and give its flagged images to `key_objects`. UIDs follow from the source's and ``about.identity``, so that a repeat
    has the same. Content dates are those of the source, or ``when``.

    Raises ValueError, which names the file and no patient, where no objects can be made of it, and for unknown kinds or
    a library that is missing.
    """
    check(kinds)
    from loligo.dicom import writers
    from loligo.dicom.subject import Subject

    return [made for _, made in writers.write(Subject.of(prediction, source, about, when), kinds)]


def key_objects(flagged: Sequence[tuple[Prediction, Path]], about: About, when: datetime | None = None) -> Dataset:
    """Return the key object selection of the flagged images of one study, each with its file.

    Its content date is that of the first image, or ``when``. Raises as `objects`, and ValueError where they are not of
    one study.
    """
    check(("ko",))
    from loligo.dicom import ko
    from loligo.dicom.subject import Subject

    subjects = [Subject.of(prediction, source, about, when) for prediction, source in flagged]
    listed = [header for one in subjects for header in ko.listed(one)]
    return ko.make(listed, about, subjects[0].when)


def check(kinds: Sequence[str]) -> None:
    """Raise ValueError for kinds of objects that there are not, none, or a library that they need and is missing."""
    from loligo.names import nearest

    if not kinds:
        raise ValueError(f"no kind of DICOM object is named; allowed are {', '.join(KINDS)}")
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise ValueError(f"there is no DICOM object {unknown[0]!r}; {nearest(unknown[0], KINDS)}")
    try:
        import highdicom as highdicom
    except ImportError as error:
        raise ValueError("DICOM objects are written by highdicom: pip install 'loligo[dicom]'") from error
    if "pdf" in kinds:
        from loligo.reports.sheet import page

        page.check(Path("sheet.pdf"))
