"""Find the image that each mask belongs to, by name and folder."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

from loligo.data import folder_names
from loligo.data.places import Found, Parts
from loligo.io import stem

_MARK = re.compile(
    r"^(?:mask|seg|gt|label)[_\- ]"
    r"|(?:^|[_\- ])(?:(?:anomaly[_\- ])?mask|seg|segmentation|gt|groundtruth|label)(?:[_\- ]?\d+)?$",
    re.IGNORECASE,
)
_MODALITY = "_0000"  # nnU-Net: case_0000 is the image of the mask case

Pairs = dict[Path, Path]
Rejected = list[tuple[Path, str]]


def match(masks: Iterable[Found], images: Iterable[Found]) -> tuple[Pairs, Rejected]:
    """Return the mask of each image that has one, and the masks that belong to none, or to several, with the reason.

    A mask has the name of its image, alone or with a word such as ``_mask``. What their folders are called must agree
    but for those of splits and masks: ``ground_truth/crack/000_mask.png`` is that of ``test/crack/000.png``. Where
    several images agree as well, it is that of the abnormal one. Beside images, ``a_seg`` is the mask of ``a_t1`` and
    ``a_t2`` too, and ``mask`` of all of its folder.
    """
    by_stem: defaultdict[str, list[Found]] = defaultdict(list)
    by_folder: defaultdict[Parts, list[Found]] = defaultdict(list)
    for image in images:
        by_folder[image.parts].append(image)
        for name in {stem(image.path), stem(image.path).removesuffix(_MODALITY)}:
            by_stem[name].append(image)
    pairs, rejected = Pairs(), Rejected()
    for mask in masks:
        name = stem(mask.path)
        bare = _MARK.sub("", name)
        found = _best(mask, by_stem.get(name, []) or by_stem.get(bare, []))
        beside = [] if found else [one for one in by_folder.get(mask.parts, []) if _begins(stem(one.path), bare)]
        if len(found) != 1 and not beside:
            rejected.append((mask.path, f"it is a mask, and belongs to {len(found) or 'none'} of the images"))
            continue
        for image in beside or found:
            if pairs.setdefault(image.path, mask.path) != mask.path:
                rejected.append((mask.path, f"it is a mask, and {image.path.name} has another one, which is used"))
    return pairs, rejected


def _begins(name: str, start: str) -> bool:
    """Tell whether a name begins with the words of ``start``, as a_t1 with a."""
    return not start or (name.startswith(start) and not name[len(start) : len(start) + 1].isalnum())


def _best(mask: Found, images: list[Found]) -> list[Found]:
    """Return those of the images that a mask fits best, by their folders."""
    above = [name for depth, name in enumerate(mask.parts) if depth != mask.place.mask]
    needed = {name.lower() for name in above if not _says_nothing(name)}
    fits = {
        image.path: (_in_common(above, image.parts), image.place.kind == "abnormal" or image.place.beside)
        for image in images
        if needed <= {name.lower() for name in image.parts}
    }
    return [image for image in images if fits.get(image.path) == max(fits.values(), default=None) and fits]


def _says_nothing(name: str) -> bool:
    """Tell a folder of masks, splits or images, whose name images need not share."""
    said = folder_names.read(name)
    return said.kind == "mask" or bool(said.split) or said.filler


def _in_common(first: Iterable[str], second: Iterable[str]) -> int:
    """Count the names that two paths share."""
    return (Counter(map(str.lower, first)) & Counter(map(str.lower, second))).total()
