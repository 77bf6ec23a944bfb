"""Keep labels out of reach: what a training or scoring process may open of the data, and what not.

A cell's training runs in a process of its own that is handed the training and calibration rows alone, without labels;
its scoring gets image paths alone. This closes the other way in: the files themselves. It works on whatever goes
through Python's own ``open`` and folder listings, so it stops mistakes and curiosity, not a determined attack by
native code.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable


def close(closed: Iterable[str | os.PathLike[str]], files: Iterable[str], folders: Iterable[str]) -> None:
    """Refuse from now on, in this process, to open or list what lies in ``closed`` files and folders.

    Let through are ``files`` and all that lies in ``folders``. A PermissionError names what was refused. It cannot be
    undone: call it in a process that does one thing and ends.
    """
    shut = [os.path.realpath(path) for path in closed]
    allowed = {os.path.realpath(path) for path in files}
    open_folders = [os.path.realpath(path) for path in (*folders, sys.prefix, sys.base_prefix, _SOURCE)]

    def hook(event: str, args: tuple[object, ...]) -> None:
        if event not in ("open", "os.listdir", "os.scandir") or not isinstance(args[0], str | bytes | os.PathLike):
            return
        path = os.path.realpath(os.fsdecode(args[0]))
        if path in allowed or any(_within(path, folder) for folder in open_folders):
            return
        if any(_within(path, folder) for folder in shut):
            raise PermissionError(f"{path} is closed to training and scoring: the benchmark keeps labels out of reach")

    sys.addaudithook(hook)


_SOURCE = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))  # noqa: PTH120  # strings, as the hook compares


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)
