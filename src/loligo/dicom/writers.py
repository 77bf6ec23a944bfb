"""Make the objects of one result, by kind: what the library refuses is said without what it repeats of a header."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence

import numpy as np
from pydicom.dataset import Dataset

from loligo.dicom import ko, pdf, pm, sc, seg, sr
from loligo.dicom.subject import Subject
from loligo.io.content import UnreadableImage

_LIBRARIES = r"(highdicom|pydicom|loligo\.dicom)(\.|$)"  # warnings of highdicom may count as its caller's


def _ko(subject: Subject) -> Dataset | None:
    """Return the key object selection of one image; None where it is not flagged."""
    return ko.make(ko.listed(subject), subject.about, subject.when) if subject.prediction.flag else None


WRITERS: dict[str, Callable[[Subject], Dataset | None]] = {
    "sr": sr.make,
    "pm": pm.make,
    "seg": seg.make,
    "ko": _ko,
    "pdf": pdf.make,
    "sc": sc.make,
}


def write(subject: Subject, kinds: Sequence[str]) -> list[tuple[str, Dataset]]:
    """Return kind and object, as far as the result has them; raises ``UnreadableImage``, which names file and kind."""
    if subject.map is not None and not np.isfinite(subject.map).all():
        raise UnreadableImage(subject.source.path, "its map is not a number; train the method anew")
    made = [(kind, _write(subject, kind)) for kind in WRITERS if kind in kinds]
    return [(kind, one) for kind, one in made if one is not None]


def _write(subject: Subject, kind: str) -> Dataset | None:
    logging.getLogger("highdicom").setLevel(logging.CRITICAL)  # it repeats values of the header, names among them
    warnings.filterwarnings("ignore", module=_LIBRARIES)  # so do its warnings; for good, as threads share the filters
    try:
        return WRITERS[kind](subject)
    except (UnreadableImage, OSError, MemoryError):
        raise
    except Exception as error:  # of a header that is odd in a way nobody thought of
        raise UnreadableImage(
            subject.source.path, f"its {kind} cannot be made ({type(error).__name__}): its header may be odd"
        ) from error
