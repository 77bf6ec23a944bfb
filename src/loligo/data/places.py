"""What the folders above an image say of it: by their names, or because the user says so."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from loligo.data import folder_names, manifest
from loligo.data.folder_names import Kind
from loligo.files import as_list
from loligo.io import stem

Parts = tuple[str, ...]
"""Names of the folders between the folder that is read and a file."""
_MASK_FILE = re.compile(r"(?:^|[_\- ])(?:mask|seg|segmentation|gt|groundtruth)(?:[_\- ]?\d+)?$", re.IGNORECASE)


@dataclass(frozen=True)
class Layout:
    """What a user says of the folders below the one that is read; paths start there, or where the command runs."""

    normal: Sequence[str | Path] = ()
    """Folders of normal images; whatever no name explains then is not learnt from."""
    abnormal: Sequence[str | Path] = ()
    """Folders of abnormal images."""
    masks: Sequence[str | Path] = ()
    """Folders of masks."""
    patient: str = ""
    """"folder" where each sub-folder is a patient, else a regular expression whose first group in a name is one."""

    def kinds(self, root: Path) -> dict[Parts, Kind]:
        """Return what is said of which folder or file below ``root``; ValueError for one that is not there."""
        said: dict[Parts, Kind] = {}
        every: dict[Kind, Sequence[str | Path]] = {
            "normal": self.normal,
            "abnormal": self.abnormal,
            "mask": self.masks,
        }
        for kind, given in every.items():
            for path in as_list(given):
                place = _parts(path, root)
                if said.setdefault(place, kind) != kind:
                    raise ValueError(f"{path} is given as {said[place]} and as {kind}; give it as one of them")
        return said

    @property
    def settles(self) -> bool:
        """Tell whether the user says what is normal or abnormal."""
        return bool(self.normal or self.abnormal)


AS_NAMED = Layout()
"""Folders are what their names say."""


@dataclass(frozen=True)
class Place:
    """What is known of a file by where it lies."""

    split: str = ""
    """Empty where no folder says."""
    kind: Kind = ""
    """Empty where no folder says."""
    shown: Parts = ()
    """The folder that says so, or the uppermost one."""
    beside: bool = False
    """Whether a folder that nothing explains lies beside one of normals, as the kinds of defects of MVTec."""
    mask: int = 0
    """Where in ``parts`` the folder of masks stands."""
    sure: bool = False
    """Whether the user says so, which names further in do not change but for masks."""


@dataclass(frozen=True)
class Found:
    """A file that a reader takes, and its place."""

    path: Path
    parts: Parts
    place: Place

    @property
    def loose(self) -> bool:
        """Tell a file that lies in no folder but the one that is read, or a split's."""
        return all(folder_names.read(name).split and not folder_names.read(name).kind for name in self.parts)


class Places:
    """Reads places; it knows all folders, since what a name means may depend on those beside it."""

    def __init__(self, folders: Iterable[Parts], said: Mapping[Parts, Kind]) -> None:
        self._said = said
        self._read: dict[Parts, Place] = {(): Place(kind=said.get((), ""), sure=() in said)}
        self.children: defaultdict[Parts, set[str]] = defaultdict(set)
        for parts in sorted(set(folders), key=len):
            for depth in range(len(parts) - 1, -1, -1):
                if parts[depth] in self.children[parts[:depth]]:
                    break
                self.children[parts[:depth]].add(parts[depth])
        self._with_normal = {
            _without_splits(parent)
            for parent, names in self.children.items()
            if any(folder_names.read(name).kind == "normal" for name in names)
        }

    def read(self, parts: Parts) -> Place:
        """Read the place of the files in a folder: the innermost name that says something counts, masks always."""
        known = next(depth for depth in range(len(parts), -1, -1) if parts[:depth] in self._read)
        for depth in range(known, len(parts)):
            self._read[parts[: depth + 1]] = self._within(self._read[parts[:depth]], parts[: depth + 1])
        return self._read[parts]

    def _within(self, above: Place, here: Parts) -> Place:
        """Return the place of a folder, given that of the one above."""
        said, kind = folder_names.read(here[-1]), self._said.get(here, "")
        sure = above.sure or bool(kind)
        if not kind and above.kind != "mask":
            kind = said.kind or self._by_number(here, above.kind)
            kind = kind if kind == "mask" or not sure else ""
        beside = said.empty and not said.group and _without_splits(here[:-1]) in self._with_normal
        mask = len(here) - 1 if kind == "mask" and above.kind != "mask" else above.mask
        shown = here if said.split or kind or beside else above.shown or here
        return Place(said.split or above.split, kind or above.kind, shown, above.beside or beside, mask, sure)

    def find(self, paths: Iterable[Path], root: Path) -> list[Found]:
        """Return files with their places; one named as a mask, x_mask.png beside others, is one."""
        by_folder: defaultdict[Parts, list[Path]] = defaultdict(list)
        for path in paths:
            by_folder[path.relative_to(root).parts[:-1]].append(path)
        found = []
        for parts, files in by_folder.items():
            place, named = self.read(parts), [bool(_MASK_FILE.search(stem(path))) for path in files]
            for path, is_mask in zip(files, named, strict=True):
                kind = self._said.get((*parts, path.name), "mask" if is_mask and not all(named) else place.kind)
                own = place if kind == place.kind else Place(place.split, kind, place.shown, mask=len(parts))
                found.append(Found(path, parts, own))
        return sorted(found, key=lambda one: one.path)

    def _by_number(self, here: Parts, before: Kind) -> Kind:
        """Read folders 0 and 1 that lie side by side, alone, in none of a kind."""
        if before or self.children[here[:-1]] != {"0", "1"}:
            return ""
        return "normal" if here[-1] == "0" else "abnormal"


def _parts(path: str | Path, root: Path) -> Parts:
    """Return a folder that a user names as its place below ``root``."""
    for place in (manifest.absolute(root / path), manifest.absolute(Path(path))):
        if place.exists() and place.is_relative_to(root):
            return place.relative_to(root).parts
    raise ValueError(f"{path}: there is no such folder in {root}; name one that lies there")


def _without_splits(parts: Parts) -> Parts:
    """Leave out the folders of splits, so that train/normal and test/crack lie side by side."""
    return tuple(name for name in parts if not folder_names.read(name).split)
