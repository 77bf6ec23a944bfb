"""Write files so that a kill or a full disk leaves the old one or the new one, never half of one."""

from __future__ import annotations

import errno
import glob
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

if TYPE_CHECKING:
    import pandas as pd


ABANDONED = 3600.0
"""Seconds after which a temporary folder is the remains of a kill."""
LOCK = ".loligo.lock"
"""The empty file that `locked` leaves in a folder."""


@contextmanager
def replacing(target: Path, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside ``target`` to write a file or folder at; move it there on success.

    The move is atomic for a file, and outlives a power cut where it is ``durable``, which costs some ms a file.
    An error inside leaves ``target`` as it was and removes the temporary; so does a file in place of a folder.
    An OSError (full disk, no permission) is raised again with ``target`` named in its message. What a kill left of
    writing the same ``durable`` target, an hour ago or more, goes; of many small files a look at each would be slow.
    """
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if durable:
            sweep(target.parent, f".{glob.escape(target.name)}.????????", ABANDONED)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        new = temporary / target.name
        yield new
        if new.is_file():
            if target.is_dir():
                raise IsADirectoryError(errno.EISDIR, "it is a folder")
            _settle(new, durable)
        elif target.is_dir():
            target.rename(temporary / "old")
        new.replace(target)
        if durable:
            _sync(target.parent)
    except (OSError, SafetensorError) as error:
        kept = "; the previous one is intact" if target.exists() else ""
        raise OSError(f"cannot write {target}: {reason(error)}{kept}") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def as_list(paths: str | Path | Sequence[str | Path]) -> list[str | Path]:
    """Return one path, or several, as a list."""
    return [paths] if isinstance(paths, str | Path) else list(paths)


def reason(error: BaseException) -> str:
    """Say what went wrong without the path, which the message that says it names."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def sweep(folder: Path, pattern: str, seconds: float) -> None:
    """Remove the folders of a pattern that a kill left, so many ``seconds`` ago or more."""
    for left in folder.glob(pattern):
        with suppress(FileNotFoundError):  # another process may just have finished it
            if time.time() - left.stat().st_mtime > seconds:
                shutil.rmtree(left, ignore_errors=True)


def as_any_folder(path: Path) -> None:
    """Give a temporary folder, which is its owner's alone, the permissions of any new one."""
    path.chmod(0o777 & ~_mask())


def _mask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _settle(path: Path, durable: bool) -> None:
    """Give a file the permissions of any new one, as safetensors keeps it to its owner, and force it to the disk."""
    path.chmod(0o666 & ~_mask())
    if durable:
        _sync(path)


def _sync(path: Path) -> None:
    """Force a file, or the names in a folder where the system can do that, to the disk."""
    with suppress(PermissionError) if path.is_dir() else nullcontext():  # Windows opens no folders
        handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold other processes back that would also change a table in ``folder``, which is made where missing."""
    from filelock import FileLock  # here: most commands lock nothing

    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / LOCK):
        yield


def write_text(text: str, target: Path) -> None:
    """Write a text in UTF-8, replacing what stood there."""
    with replacing(target) as path:
        path.write_text(text, encoding="utf-8")


def write_json(values: Any, target: Path, indent: int | None = None) -> None:
    """Write values as JSON, replacing what stood there."""
    write_text(json.dumps(values, indent=indent), target)


def write_csv(table: pd.DataFrame, target: Path) -> None:
    """Write a table without its index, replacing what stood there."""
    with replacing(target) as path:
        table.to_csv(path, index=False)
