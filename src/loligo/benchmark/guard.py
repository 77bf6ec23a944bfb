"""Keep labels out of reach: what a training or scoring process may open of the data, and what not.

A cell's training runs in a process of its own that is handed the training and calibration rows alone, without labels;
its scoring gets images under names that tell nothing. This closes the other way in: the files themselves. It sees what
Python's own audit events tell, so it stops mistakes and curiosity; code that sets out to defeat it is not stopped.
"""

from __future__ import annotations

import _posixsubprocess
import os
import re
import sys
from collections.abc import Callable, Iterable

LISTINGS = ("os.listdir", "os.scandir")
LOOKS = ("open", *LISTINGS, "os.link", "os.rename")
BARRED = ("subprocess.Popen", "os.system", "os.posix_spawn", "os.spawn", "os.exec", "os.symlink")
NATIVE = ("csv", "dataset", "feather", "fs", "json", "orc", "parquet")
"""Parts of pyarrow that read files past Python, as of a manifest in Parquet."""
WHY = "the benchmark keeps labels out of reach"


def close(closed: Iterable[str | os.PathLike[str]], files: Iterable[str], folders: Iterable[str]) -> None:
    """Refuse from now on, in this process, to open or list what lies in ``closed`` files and folders.

    Let through are ``files`` and all that lies in ``folders``. Closed as well are handles of folders above, links, the
    memory of other processes, and programs that could look in its place. A PermissionError names what was refused. It
    cannot be undone: call it in a process that does one thing and ends.
    """
    shut = tuple(os.path.realpath(path) for path in closed)
    allowed = frozenset(os.path.realpath(path) for path in files)
    open_folders = tuple(os.path.realpath(path) for path in (*folders, sys.prefix, sys.base_prefix, _SOURCE))

    def hook(event: str, args: tuple[object, ...], _within: Callable[[str, str], bool] = _within) -> None:
        if event in BARRED:
            raise PermissionError(f"{event} is closed to training and scoring: {WHY}")
        given = "." if event in LISTINGS and args[0] is None else args[0] if event in LOOKS else None
        if not isinstance(given, str | bytes | os.PathLike):
            return
        path = os.path.realpath(os.fsdecode(given))
        if path in allowed or any(_within(path, folder) for folder in open_folders):
            return
        handle = event in ("open", "os.rename") and os.path.isdir(path)  # noqa: PTH112
        above = handle and any(_within(folder, path) for folder in shut)
        if above or re.fullmatch(r"/proc/\d+(/task/\d+)?/mem", path) or any(_within(path, folder) for folder in shut):
            raise PermissionError(f"{path} is closed to training and scoring: {WHY}")

    sys.addaudithook(hook)
    vars(_posixsubprocess)["fork_exec"] = _refuse  # it starts a program and tells no event
    vars(sys)["modules"].update(dict.fromkeys(f"pyarrow.{name}" for name in NATIVE))  # None: an import of it fails


def _refuse(*_: object) -> None:
    raise PermissionError(f"programs are closed to training and scoring: {WHY}")


_SOURCE = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))  # noqa: PTH120  # strings, as the hook compares


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)
