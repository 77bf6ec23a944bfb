"""Turn what a user gives, a manifest, a folder or files, into a checked manifest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pandas as pd

from loligo.data import manifest, patients
from loligo.data.dataset import no_rejections
from loligo.data.manifest import Listing
from loligo.data.places import AS_NAMED, Found, Layout, Place
from loligo.data.sources import folder


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
        return Listing(manifest.check(data, "test" if purpose == "score" else ""), no_rejections())
    given = [data] if isinstance(data, str | Path) else data
    if "" in given:
        raise ValueError("a path is empty; give a manifest, a folder or image files")
    paths = [Path(path) for path in given]
    if absent := [path for path in paths if not path.exists()]:
        raise FileNotFoundError(
            f"{', '.join(map(str, absent[:10]))}: no such file or folder; give a manifest, a folder or image files"
        )
    loose: Literal["train", "test"] = "train" if purpose == "train" else "test"
    if len(paths) == 1 and paths[0].is_dir():
        return folder.listed(paths[0], loose, layout, to_learn=purpose == "train")
    if any((layout.settles, layout.masks)):
        raise ValueError(f"{paths[0]} is no folder: normal, abnormal and masks name folders in the one that is given")
    if len(paths) == 1 and paths[0].suffix.lower() in manifest.MANIFEST_SUFFIXES:
        split = "test" if purpose == "score" else ""
        return Listing(manifest.read(paths[0], split), no_rejections())
    return _files(paths, loose, layout.patient)


def _files(paths: Sequence[Path], split: str, patient: str) -> Listing:
    """List image files as rows without label."""
    kept, rejected = manifest.sift(manifest.absolute(path) for path in paths)
    rows = pd.DataFrame({"path": [manifest.writable(path) for path in kept], "split": split})
    if patient:
        rows["patient"] = patients.of([Found(path, (path.parent.name,), Place()) for path in kept], patient)
    return Listing(manifest.check(rows), rejected)
