"""Tell whose images lie in a folder, by its sub-folders or by the names of files."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pandas as pd

from loligo.data import folder_names
from loligo.data.places import Found

FOLDER = "folder"
_MANY = 3  # sub-folders that may be of patients


def of(images: Sequence[Found], how: str) -> list[str]:
    """Name the patient of each image (N,), empty where unknown.

    Where ``how`` is "folder" it is the sub-folder below those of splits and classes, else the first group of a regular
    expression that is searched in the file's name, and then in its path. Where it is empty, folders named as patients
    (p07, Patient 12, sub-003) are, if there are two or more; of one name in two splits or classes, they are two then.
    Raises ``ValueError`` for what is no regular expression, or finds nothing at all.
    """
    if how and how != FOLDER:
        return _by_pattern(images, how)
    found = [_folder(image, how == FOLDER) for image in images]
    if how == FOLDER and not any(found):
        raise ValueError(
            "there is no sub-folder that could be a patient's; give a regular expression, such as '^([^_]+)_'"
        )
    return found if how or len(set(found) - {""}) > 1 else [""] * len(images)


def notes(images: Sequence[Found], rows: pd.DataFrame, how: str) -> list[str]:
    """Say what patients were found, or how to name them."""
    known = rows.loc[rows["patient"] != "", "patient"]
    if len(known):
        rest = f"; {len(rows) - len(known)} images are of no known one" if len(known) < len(rows) else ""
        source = how or ("their DICOM headers" if "modality" in rows else "their folders")
        told = [f"{known.nunique()} patients are told by {source}, each kept in one split{rest}"]
        if "modality" in rows and not how and known.nunique() == 1 and len(rows) > 1:
            told.append(
                "all images have one Patient ID (0010,0020); where that was blanked, say whose they are: --patient"
                " folder, or a pattern such as --patient '(.*)' where each is of another one"
            )
        return told
    folders = {image.parts for image in images if _folder(image, True)}
    if len(folders) < _MANY:
        return []
    return [
        f"{len(folders)} sub-folders: if each is one patient, say --patient folder (patient='folder' in Python), so"
        " that nobody is both learnt from and calibrated on"
    ]


def _folder(image: Found, every: bool) -> str:
    """Return the sub-folder of a patient: the first that is named as one, else, where ``every`` may be, all of them."""
    named = next((n for n, name in enumerate(image.parts, 1) if folder_names.read(name).patient), 0)
    if every:
        names = map(folder_names.read, parts := image.parts[: named or None])
        return "/".join(part for part, name in zip(parts, names, strict=True) if name.empty and not name.filler)
    return " ".join(("/".join(image.parts[:named]), image.place.split, image.place.kind)).strip() if named else ""


def _by_pattern(images: Sequence[Found], how: str) -> list[str]:
    """Search a regular expression in names."""
    try:
        pattern = re.compile(how)
    except re.error as error:
        raise ValueError(f"patient {how!r} is neither 'folder' nor a regular expression ({error})") from error
    matches = [pattern.search(image.path.name) or pattern.search("/".join(image.parts)) for image in images]
    found = [(match.group(min(1, pattern.groups)) or "").strip() if match else "" for match in matches]
    if not any(found):
        raise ValueError(f"patient {how!r} is found in no file's name, such as {images[0].path.name}")
    return found
