"""Find the files below a folder once each, without hidden ones and without what loligo itself wrote there."""

from __future__ import annotations

import os.path
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from loligo import io
from loligo.files import reason

_FILES = ("config.yaml", "calibration.json", "manifest.csv", "history.csv", "epochs.csv", "scores.csv", "rejected.csv")
_WEIGHTS = ("model.safetensors", "reference.safetensors", "checkpoint", "folds")
_PAGES = ("scoring.json", "metrics.json", "report.html", "benchmark.json", "benchmark.html", "contamination.png")
_RESULTS = {*_FILES, *_WEIGHTS, *_PAGES, "maps", "figures", "scores", "sample", "pixel"}
"""What a run, a scoring and a report write; only beside a table or configuration of theirs is it taken for that."""
_HIDDEN = frozenset(
    (
        *("dicomdir", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "$recycle.bin"),
        *("system volume information", "lost+found"),
    )
)


@dataclass
class Walk:
    """What lies below a folder."""

    files: list[Path] = field(default_factory=list)
    """All files, in order of path."""
    closed: list[tuple[Path, str]] = field(default_factory=list)
    """Folders that cannot be opened, with the reason."""
    again: list[tuple[Path, Path]] = field(default_factory=list)
    """Folders that a link shows again, after the path under which their files are listed."""
    own: list[Path] = field(default_factory=list)
    """Files and folders of results, which are passed over."""


def walk(root: Path) -> Walk:
    """List the files below ``root``; links to folders are followed, each folder is entered once.

    A folder keeps its own name where a link shows it, too. Links in circles lead nowhere.
    """
    found, links = Walk(), [root]
    seen = {_identity(parent): root for parent in root.resolve().parents}  # a link to them leads in circles, too
    while links:
        stack = [links.pop(0)]
        while stack:
            folder = stack.pop()
            if (first := seen.setdefault(_identity(folder), folder)) != folder:
                if first not in folder.parents:
                    found.again.append((first, folder))
                continue
            for path in _enter(folder, found):
                if not os.path.isdir(path):  # noqa: PTH112  # False where the path is too long, too
                    found.files.append(path)
                elif path.is_symlink():
                    links.append(path)
                else:
                    stack.append(path)
        links.sort()
    found.files.sort()
    return found


def is_hidden(path: Path) -> bool:
    """Tell files and folders that are none of ours by their name: hidden ones, those that systems leave, lists."""
    return path.name.startswith((".", "__MACOSX")) or path.name.lower() in _HIDDEN


def _identity(folder: Path) -> tuple[int, int]:
    about = folder.stat()
    return about.st_dev, about.st_ino


def _enter(folder: Path, found: Walk) -> Iterator[Path]:
    """Yield what a folder holds, but for hidden things and results."""
    try:
        paths = list(folder.iterdir())
    except OSError as error:  # no permission, a path too long
        found.closed.append((folder, f"the folder cannot be opened ({reason(error)})"))
        return
    names = {path.name for path in paths}
    results, generated = _has_results(folder, names), _is_generated(folder, names)
    for path in paths:
        if is_hidden(path):
            continue
        if generated or (results and path.name in _RESULTS):
            found.own.append(path)
        else:
            yield path


def _has_results(folder: Path, names: set[str]) -> bool:
    """Tell a folder that a run, a scoring, a benchmark or one of contamination was written to."""
    return (
        "benchmark.json" in names
        or names.issuperset(("contamination.csv", "contamination.png"))
        or ("scores.csv" in names and b"p_value" in _start(folder / "scores.csv").partition(b"\n")[0])
        or ("config.yaml" in names and b"method_config" in _start(folder / "config.yaml"))
    )


def _is_generated(folder: Path, names: set[str]) -> bool:
    """Tell a data set that loligo generated, which only its manifest explains."""
    shown = {name for name in names if not name.startswith(".")}
    ours = (b"synthetic", b"digit_anatomy", b"toy_brains")
    return shown == {"images", "masks", "manifest.csv"} and any(
        name in _start(folder / "manifest.csv") for name in ours
    )


def _start(path: Path) -> bytes:
    """Read the first bytes of a file."""
    try:
        with io.opened(path) as stream:
            return stream.read(1 << 16)
    except (OSError, io.UnreadableImage):
        return b""
