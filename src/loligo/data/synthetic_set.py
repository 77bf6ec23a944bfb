"""Write a test set of synthetic anomalies or simulated findings with true masks, from normal images."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import PIL.Image

from loligo import io
from loligo import progress as bars
from loligo.data import findings, generated, manifest, synthetic
from loligo.data.preprocessing import resized
from loligo.files import replacing
from loligo.names import nearest

log = logging.getLogger(__name__)

SOURCE = "synthetic"
NORMAL = "normal"
KINDS = synthetic.KINDS + findings.KINDS
"""The kinds that a set may have: synthetic anomalies, then simulated findings."""
FROM_OTHERS = (*synthetic.FROM_OTHERS, *findings.FROM_OTHERS)

Floats = npt.NDArray[np.float32]


def write(
    folder: Path,
    rows: pd.DataFrame,
    *,
    kinds: Sequence[str] = synthetic.KINDS,
    split: str = "test",
    seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """Write each normal image of a manifest's ``split``, and a changed copy of it for each of ``kinds``.

    ``kinds`` may be any of `KINDS`; by default they are the synthetic anomalies.
    Images without a label count as normal. They keep their own size and are written as 8-bit PNG, with masks and
    ``manifest.csv``, all as split test, whose column ``kind`` names the anomaly and ``origin`` the image that it is
    of; it is returned with absolute paths. What a kind takes from another image comes from the next one. The same
    seed gives the same bytes, and no copy depends on which other kinds there are. The folder appears whole or not at
    all; ``progress`` draws a bar on a terminal.

    A copy in which no change can be seen is left out with a warning. Raises ValueError for unknown or no kinds, where
    there are no normal images, an image cannot be read or is a volume, or no copy is left, and FileExistsError where
    ``folder`` holds anything but an earlier set of this form.
    """
    generated.check_counts(seed=seed)
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f"there is no kind {kind!r}; {nearest(kind, KINDS)}")
    normal = rows[(rows["split"] == split) & (rows["label"] != 1).fillna(True)].reset_index(drop=True)
    _check(normal, kinds, split)
    folder = folder.resolve()
    generated.check_replaceable(folder, SOURCE, "synthetic set")
    with replacing(folder) as new:
        for part in ("images", "masks"):
            (new / part).mkdir(parents=True)
        bar = bars.bar(range(len(normal)), total=len(normal), desc="synthesizing", unit="image", show=progress)
        found = [row for i in bar for row in _write_one(new, normal, i, kinds, seed)]
        if len(found) == len(normal):
            raise ValueError(f"{normal['path'][0]}: no {kinds[0]} can be seen in it; is it of one grey? give others")
        manifest.write(pd.DataFrame(found), new / "manifest.csv")
    return manifest.read(folder / "manifest.csv")


def _check(normal: pd.DataFrame, kinds: Sequence[str], split: str) -> None:
    """Raise ValueError where there is nothing to generate a set from."""
    if not kinds:
        raise ValueError(f"no kind is given; allowed: {', '.join(KINDS)}")
    if normal.empty:
        raise ValueError(f"there are no normal images in split {split}; name another split")
    if len(normal) < 2 and (pairs := [kind for kind in kinds if kind in synthetic.WITH_DONOR]):
        raise ValueError(f"{pairs[0]} needs two images or more; split {split} has one normal image")


def _write_one(new: Path, normal: pd.DataFrame, i: int, kinds: Sequence[str], seed: int) -> list[dict[str, object]]:
    """Write image ``i`` and its changed copies; return their rows of the manifest."""
    image = _read(normal["path"][i])
    donor = resized(_read(normal["path"][(i + 1) % len(normal)])[None], (image.shape[0], image.shape[1]))[0]
    about = {"split": "test", "patient": normal["patient"][i], "source": SOURCE, "origin": normal["path"][i]}
    found = [_saved(new, f"{i:05d}_{NORMAL}", image, None) | about | {"kind": NORMAL}]
    anatomy = findings.anatomy(image) if set(kinds) & set(findings.KINDS) else None
    for kind in kinds:
        rng = np.random.default_rng([seed, KINDS.index(kind), i])
        other = donor if len(normal) > 1 and kind in FROM_OTHERS else None
        if kind in findings.KINDS:
            changed, mask = findings.insert(image, kind, rng, anatomy, other)
        else:
            changed, mask = synthetic.insert(image, kind, rng, other)
        if not mask.any():
            log.warning("%s: no %s can be seen in it; it has no such copy", normal["path"][i], kind)
            continue
        found.append(_saved(new, f"{i:05d}_{kind}", changed, mask) | about | {"kind": kind})
    return found


def _read(path: str) -> Floats:
    """Read an image (H, W) float32, rounded to the 8 bit that it is written with."""
    grey: Floats = np.rint(io.read(Path(path)).pixels[0] * 255) / np.float32(255)
    return grey


def _saved(new: Path, name: str, image: Floats, mask: npt.NDArray[np.bool_] | None) -> dict[str, object]:
    """Write an image (H, W) and its mask; return where they are, and the label."""
    path, marks = new / "images" / f"{name}.png", new / "masks" / f"{name}.png"
    PIL.Image.fromarray(np.rint(image * 255).astype(np.uint8)).save(path)
    if mask is None:
        return {"path": str(path), "label": 0, "mask": ""}
    PIL.Image.fromarray(mask.astype(np.uint8) * 255).save(marks)
    return {"path": str(path), "label": 1, "mask": str(marks)}
