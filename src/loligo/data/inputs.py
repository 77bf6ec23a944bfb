"""Turn what a user gives, a manifest, a folder or files, into a checked manifest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pandas as pd

from loligo.data import manifest
from loligo.data.dataset import no_rejections
from loligo.data.manifest import Listing
from loligo.data.sources import folder


def resolve(data: str | Path | Sequence[str | Path], *, purpose: Literal["train", "score"]) -> Listing:
    """Turn a manifest, a folder or image files into a checked manifest, and the files that no reader takes.

    A manifest is taken as it is, and the caller picks splits from it. Of a folder, class and split folders
    are recognised (see ``sources.folder``). To ``train``, every other image counts as normal, and where the
    folder holds no calibration split, ``CALIBRATION_FRACTION`` of the training patients becomes it. To
    ``score``, every other image has no label, and what lies in no split folder is ``test``.

    Raises ``FileNotFoundError`` for a path that does not exist or a folder without files, ``AllRejected`` where none of
    the files is an image, and ``ValueError`` for what else is wrong with them.
    """
    given = [data] if isinstance(data, str | Path) else data
    if "" in given:
        raise ValueError("a path is empty; give a manifest, a folder or image files")
    paths = [Path(path) for path in given]
    if absent := [path for path in paths if not path.exists()]:
        raise FileNotFoundError(
            f"{', '.join(map(str, absent[:10]))}: no such file or folder; give a manifest, a folder or image files"
        )
    if len(paths) == 1 and paths[0].suffix.lower() in manifest.MANIFEST_SUFFIXES:
        return Listing(manifest.read(paths[0]), no_rejections())
    loose: Literal["train", "test"] = "train" if purpose == "train" else "test"
    return folder.listed(paths[0], loose) if len(paths) == 1 and paths[0].is_dir() else _files(paths, loose)


def _files(paths: Sequence[Path], split: str) -> Listing:
    """List image files as rows without label."""
    kept, rejected = manifest.sift(manifest.absolute(path) for path in paths)
    return Listing(
        manifest.check(pd.DataFrame({"path": [manifest.writable(path) for path in kept], "split": split})), rejected
    )
