"""Turn what a user gives, a manifest, a folder or files, into a checked manifest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pandas as pd

from loligo.data import headers, manifest, patients
from loligo.data.dataset import no_rejections
from loligo.data.manifest import Listing
from loligo.data.places import AS_NAMED, Found, Layout, Place
from loligo.data.sources import folder
from loligo.files import as_list


def resolve(
    data: str | Path | Sequence[str | Path] | pd.DataFrame,
    *,
    purpose: Literal["train", "score"],
    layout: Layout = AS_NAMED,
) -> Listing:
    """Turn a manifest (path or frame), a folder or files into a checked manifest, and the files that no reader takes.

    A manifest is taken as it is, and the caller picks splits from it. Of a folder, class and split folders
    are recognised (see ``sources.folder``), or given by ``layout``. To ``train``, other images count as normal; to
    ``score``, every other image has no label, and what lies in no split folder, or has none in a manifest, is ``test``.

    Raises ``FileNotFoundError`` for a path that does not exist or a folder without files, ``AllRejected`` where none of
    the files is an image, and ``ValueError`` for what else is wrong with them.
    """
    if isinstance(data, pd.DataFrame):
        _refuse(layout, "a manifest")
        return Listing(manifest.check(data, "test" if purpose == "score" else ""), no_rejections())
    given = as_list(data)
    if "" in given:
        raise ValueError("a path is empty; give a manifest, a folder or image files")
    paths = [path.parent if is_directory(path) else path for path in map(Path, given)]
    if absent := [path for path in paths if not path.exists()]:
        raise FileNotFoundError(
            f"{', '.join(map(str, absent[:10]))}: no such file or folder; give a manifest, a folder or image files"
        )
    loose: Literal["train", "test"] = "train" if purpose == "train" else "test"
    if len(paths) == 1 and paths[0].is_dir():
        return folder.listed(paths[0], loose, layout, to_learn=purpose == "train")
    if len(paths) == 1 and paths[0].suffix.lower() in manifest.MANIFEST_SUFFIXES:
        _refuse(layout, "a manifest")
        return Listing(manifest.read(paths[0], "test" if purpose == "score" else ""), no_rejections())
    if all(path.is_dir() for path in paths) and paths:
        names = ", ".join(map(str, paths[:10]))
        raise ValueError(
            f"{names} are several folders; give the one that holds them, whose sub-folders' names are read"
        )
    _refuse(replace(layout, patient=""), "a list of files")
    return _files(paths, loose, layout.patient)


def is_directory(path: Path) -> bool:
    """Tell the DICOMDIR of a folder, which stands for it."""
    return path.name.upper() == "DICOMDIR" and path.is_file()


def _refuse(layout: Layout, what: str) -> None:
    """Raise where a user says of ``what`` is no folder what only sub-folders can tell."""
    if layout.normal or layout.abnormal or layout.masks or layout.patient:
        raise ValueError(
            f"normal, abnormal, masks and patient say what lies in a folder; {what} is given: leave them out"
        )


def _files(paths: Sequence[Path], split: str, patient: str) -> Listing:
    """List image files as rows without label."""
    kept, rejected = manifest.sift(manifest.absolute(path) for path in paths)
    rows = pd.DataFrame({"path": [manifest.writable(path) for path in kept], "split": split})
    if patient:
        rows["patient"] = patients.of([Found(path, (path.parent.name,), Place()) for path in kept], patient)
    return Listing(manifest.check(headers.add(rows, not patient)), rejected)
