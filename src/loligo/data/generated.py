"""Checks that the generators of data sets share."""

from __future__ import annotations

from pathlib import Path

from loligo.data import manifest


def check_counts(**given: int) -> None:
    """Raise ``ValueError`` for a count or seed below 0, by name."""
    for name, value in given.items():
        if value < 0:
            raise ValueError(f"{name} is {value}; 0 or more is allowed")


def check_replaceable(folder: Path, source: str, title: str) -> None:
    """Raise ``FileExistsError`` where a folder holds anything but an earlier set of its own: writing replaces it.

    ``source`` is how the sources in the set's manifest begin; ``title`` is the set's name for the message.
    """
    found = {entry.name for entry in folder.iterdir()} if folder.exists() else set()
    ours = {"images", "masks", "manifest.csv"}
    if found == ours and (manifest.read(folder / "manifest.csv")["source"].str.startswith(source)).all():
        return
    if found:
        listed = ", ".join(sorted(found)[:5])
        raise FileExistsError(f"{folder} holds {listed}, not an earlier {title} alone; name a new folder")
