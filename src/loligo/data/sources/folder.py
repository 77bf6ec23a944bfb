"""Index a folder of images by its sub-folders, at any depth: splits, classes, masks, sites, patients.

`folder_names` is the table of names. Abnormal images of a train or calibration folder, from which nothing may learn,
are put aside into ``validation``. In validation and test, a folder of another name beside one of normals is abnormal,
as the kinds of defects of MVTec's layout. `mask_names` pairs masks and images.

What would be learnt from must be explained: where there are class folders, images outside of them stop the reading,
as do plain words side by side that may be classes. A flat folder, and folders of patients or sites, are normal images.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import pandas as pd

from loligo import io
from loligo.config import HELD_OUT
from loligo.data import folder_names, headers, manifest, patients
from loligo.data.manifest import Listing
from loligo.data.mask_names import Pairs, match
from loligo.data.places import AS_NAMED, Found, Layout, Places
from loligo.data.walk import Walk, walk
from loligo.names import some

LEARN = ("train", "calibration")
_SHOWN = 6  # folders in a line


def index(
    root: Path,
    *,
    loose: Literal["train", "test"] = "train",
    normal: list[str] | None = None,
    abnormal: list[str] | None = None,
    masks: list[str] | None = None,
    patient: str = "",
    calibration: float = HELD_OUT,
    seed: int = 0,
) -> pd.DataFrame:
    """List the images below a folder, those to learn from as normal; log what each folder was taken for.

    Raises as `listed`.

    Args:
        root: the folder
        loose: split of images that lie in no split folder
        normal: folders of normal images, where their names do not say so; what no name explains is not learnt from then
        abnormal: folders of abnormal images, likewise
        masks: folders of masks, likewise
        patient: folder, where each sub-folder is a patient, or a regular expression whose first group in a name is one
        calibration: fraction of the training images that is held out, unless there is a calibration folder
        seed: of what is held out
    """
    layout = Layout(tuple(normal or ()), tuple(abnormal or ()), tuple(masks or ()), patient)
    return listed(root, loose, layout).with_calibration(calibration, seed).accepted()


def listed(root: Path, loose: Literal["train", "test"], layout: Layout = AS_NAMED, *, to_learn: bool = True) -> Listing:
    """List the images below ``root`` in order of path as they lie; those of no split folder are ``loose``.

    Beside a DICOMDIR, other files than DICOM are rejected. Links to folders are followed, but not in circles. A
    file that is met again through a link is listed once. Every other file, but hidden ones, those of the system and
    results of loligo, is rejected. Raises ``FileNotFoundError`` where there is no file, ``AllRejected`` where there
    is no image, and ``ValueError`` for a link that gives a file two splits or classes and, where it is ``to_learn``
    from, where it is unclear which images are normal.
    """
    root = manifest.absolute(root)
    said, seen = layout.kinds(root), walk(root)
    files, rejected = manifest.sift(seen.files)
    if is_medium(root):
        files, others = _dicom(files)
        rejected = pd.concat([rejected, others], ignore_index=True)
    places = Places((path.relative_to(root).parts[:-1] for path in files), said)
    _check_links(seen, places, root)
    found = places.find(files, root)
    images = _once([one for one in found if one.place.kind != "mask"])
    if not images:
        raise FileNotFoundError(_none(root, seen, len(found)))
    pairs, orphans = match([one for one in found if one.place.kind == "mask"], images)
    if to_learn and not layout.settles:
        _check_normals(root, images, loose, places, pairs)
    rows = _rows(images, loose, layout, pairs)
    notes = [*_summary(images, rows, to_learn), *_others(root, found, pairs, seen)]
    if to_learn:
        notes += patients.notes(images, rows, layout.patient)
    rejected = pd.concat([rejected, manifest.rejection([*seen.closed, *orphans])], ignore_index=True)
    return Listing(manifest.check(rows), rejected, tuple(notes))


def is_medium(root: Path) -> bool:
    """Tell whether a folder is that of a DICOMDIR, beside which pictures are those of a viewer."""
    return any((root / name).is_file() for name in ("DICOMDIR", "dicomdir"))


def _dicom(files: list[Path]) -> tuple[list[Path], pd.DataFrame]:
    """Return the files that are DICOM, and a table of the others."""
    others = [path for path in files if io.about(path) is None]
    why = "its content is not DICOM, as are images beside a DICOMDIR; index it apart"
    return [path for path in files if path not in set(others)], manifest.rejection((path, why) for path in others)


def _check_links(seen: Walk, places: Places, root: Path) -> None:
    """Raise where a link shows a folder again as another split or class."""
    for pair in seen.again:
        first, second = (places.read(path.relative_to(root).parts) for path in pair)
        if (first.split, first.kind) != (second.split, second.kind):
            raise ValueError(f"{pair[0]} and {pair[1]} are one folder in two splits or classes; keep one of them")


def _once(images: list[Found]) -> list[Found]:
    """Leave out images that a link shows again."""
    linked = {_identity(image) for image in images if image.path.is_symlink()}
    first: dict[object, Found] = {}
    for image in images:
        same = _identity(image) if linked else image.path
        before = first.setdefault(same if same in linked else image.path, image)
        if (before.place.split, before.place.kind) != (image.place.split, image.place.kind):
            raise ValueError(f"{before.path} and {image.path} are one file in two splits or classes; keep one of them")
    return list(first.values())


def _identity(image: Found) -> object:
    about = image.path.stat()
    return about.st_dev, about.st_ino


def _none(root: Path, seen: Walk, masks: int) -> str:
    """Say why there is no image."""
    said = f"no image below {root}"
    if seen.closed:
        said += f"; {seen.closed[0][0]}: {seen.closed[0][1]}"
    if masks:
        said += f" but {masks} that are named as masks"
    if seen.own:
        said += f" but results of loligo ({', '.join(path.name for path in seen.own[:3])}, ...); of a data set that it"
        said += " generated, give the manifest.csv"
    return said


def _check_normals(root: Path, images: Sequence[Found], loose: str, places: Places, pairs: Pairs) -> None:
    """Raise ValueError where images would be learnt from that nothing calls normal, beside some that are explained."""
    learning = [image for image in images if (image.place.split or loose) in LEARN]
    plain = [image for image in learning if not image.place.kind]
    told = [image for image in learning if image.place.kind]
    if masked := [image for image in plain if image.path in pairs]:
        raise ValueError(_unclear(root, masked, "they have masks, which mark what is abnormal"))
    if any(image.place.split == "train" for image in images) and (out := [one for one in plain if not one.place.split]):
        raise ValueError(_unclear(root, out, "they lie outside of the train folder"))
    flat = not any(image.place.kind == "normal" for image in told)  # normal images, with abnormal ones in a sub-folder
    if told and (beside := [image for image in plain if not (flat and image.loose)]):
        raise ValueError(_unclear(root, beside, f"beside them lie {_folders(told)}"))
    if not told and folder_names.read(root.name).kind != "normal":
        _check_siblings(root, plain, places)


def _check_siblings(root: Path, plain: Sequence[Found], places: Places) -> None:
    """Raise ValueError where folders side by side may be classes."""
    for parent, names in sorted(places.children.items()):
        if undecided := {(*parent, name) for name in folder_names.undecided(names)}:
            chosen = [image for image in plain if image.parts[: len(parent) + 1] in undecided]
            if len({image.parts[: len(parent) + 1] for image in chosen}) > 1:
                raise ValueError(_unclear(root, chosen, "these may be classes", len(parent) + 1))


def _unclear(root: Path, images: Sequence[Found], why: str, depth: int = 0) -> str:
    return (
        f"{root}: it is not clear which images are normal. No name explains {len(images)} images in"
        f" {_folders(images, depth)}; {why}. Name folders of normal images with --normal DIR ..., of abnormal ones with"
        " --abnormal DIR ... (normal=, abnormal= in Python; '.' is the whole folder), or give a folder of normal images"
    )


def _rows(images: Sequence[Found], loose: str, layout: Layout, pairs: Pairs) -> pd.DataFrame:
    """Return a row an image: what is abnormal is put aside from the splits that learn from normals alone."""
    rows = []
    for image in images:
        split, kind = image.place.split or loose, image.place.kind
        learns = split in LEARN
        label = {"normal": 0, "abnormal": 1}.get(kind, 1 if image.place.beside and not learns else None)
        if learns and label is None and layout.normal:
            split = "test"
        elif learns and label == 1:
            split = "validation"
        mask = pairs.get(image.path) if label == 1 or (split not in LEARN and kind != "normal") else None
        rows.append((manifest.writable(image.path), split, label, manifest.writable(mask) if mask else ""))
    table = pd.DataFrame(rows, columns=["path", "split", "label", "mask"])
    table["patient"] = patients.of(images, layout.patient)
    table = headers.add(table, not layout.patient)
    sick = set(table.loc[(table["label"] == 1) & (table["split"] == "validation"), "patient"]) - {""}
    table.loc[table["split"].isin(LEARN) & table["patient"].isin(sick), "split"] = "validation"
    return table.assign(source="folder")


def _summary(images: Sequence[Found], rows: pd.DataFrame, to_learn: bool) -> list[str]:
    """Say what the folders were taken for, where there is more than one."""
    groups: defaultdict[str, list[Found]] = defaultdict(list)
    for image, split, label in zip(images, rows["split"], rows["label"], strict=True):
        groups[_meaning(image, split, label, to_learn)].append(image)
    if len({image.place.shown for image in images}) == 1 and len(groups) == 1:
        return []
    return [f"{len(found)} images in {_folders(found)}: {said}" for said, found in groups.items()]


def _meaning(image: Found, split: str, label: int | None, to_learn: bool) -> str:
    """Say what an image was taken for."""
    if to_learn and split in LEARN:
        return "normal, to learn from" if split == "train" else "normal, to calibrate on"
    kind = "unlabelled" if pd.isna(label) else ("normal", "abnormal")[int(label)]
    why = ", as beside normal ones" if kind == "abnormal" and not image.place.kind else ""
    aside = ", not learnt from" if to_learn and split == "validation" and image.place.split != split else ""
    return f"{kind}{why} ({split}{aside})"


def _others(root: Path, found: Sequence[Found], pairs: Pairs, seen: Walk) -> list[str]:
    """Say what was found beside images."""
    lines = []
    if masks := [one for one in found if one.place.kind == "mask"]:
        normal = sum(one.path in pairs for one in found if one.place.kind == "normal")
        out = f"; those of {normal} normal ones are left out (do masks mark anatomy here?)" if normal else ""
        lines.append(f"{len(masks)} files in {_folders(masks)}: masks, of {len(pairs)} images{out}")
    if seen.own:
        names = sorted(path.relative_to(root).as_posix() for path in seen.own)
        lines.append(f"{some(names, _SHOWN)}: results of loligo, passed over")
    if folder_names.read(root.name).kind == "abnormal" and not all(one.place.kind for one in found):
        lines.append(f"{root.name} sounds like abnormal images; what no folder in it explains is taken as said above")
    return lines


def _folders(images: Iterable[Found], depth: int | None = None) -> str:
    """List the folders that say most of images, or those at a depth or below splits, with their numbers of images."""
    parts = [
        one.place.shown if depth is None else one.parts[: depth or len(one.place.shown) + _ends_in_split(one)]
        for one in images
    ]
    count = Counter("/".join(names) or "the folder itself" for names in parts)
    if len(count) == 1:
        return next(iter(count))
    return some((f"{name} ({n})" for name, n in sorted(count.items())), _SHOWN)


def _ends_in_split(image: Found) -> bool:
    """Tell whether nothing but a split is known of an image."""
    return bool(image.place.shown and folder_names.read(image.place.shown[-1]).split)
