"""Write toy brains: volumes of real anatomy with the MOOD challenge's synthetic anomalies, whose masks are known.

Normals are the MNI152 template, deformed and scanned anew (see `brains`); abnormal ones are changed before they are
scanned (see `mood_anomalies`), so that noise and bias field give nothing away.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from loligo import progress as bars
from loligo.data import brains, generated, manifest, mood_anomalies
from loligo.data.brains import Floats, Template
from loligo.files import replacing
from loligo.io import nifti

SOURCE = "toy_brains"
NORMAL = "normal"
KINDS = (NORMAL, *mood_anomalies.KINDS, mood_anomalies.BALL)

_SPLITS = ("train", "calibration", "validation", "test")
_ALIGNED = 2  # NIfTI's code of a space that is no scanner's


def generate(base: Template, kind: str, rng: np.random.Generator) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Generate one volume of a kind in `KINDS`: voxels (S, S, S) float32 in RAS+ order, and its mask (S, S, S) bool.

    Units are arbitrary, white matter near 1000, background exactly 0. A generator of the same seed and kind
    "normal" give its normal twin, equal to it outside the mask.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; allowed: {', '.join(KINDS)}")
    shape, change, scanner = rng.spawn(3)
    anatomy = brains.anatomy(base, shape)
    mask = np.zeros(anatomy.shape, bool)
    if kind != NORMAL:
        anatomy, mask = mood_anomalies.insert(anatomy, kind, change)
    return brains.scan(anatomy, scanner), mask


def write(
    folder: Path,
    *,
    train: int = 60,
    calibration: int = 10,
    validation: int = 6,
    test_normal: int = 18,
    test_abnormal: int = 18,
    test_ball: int = 0,
    size: int = 128,
    seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """Write int16 volumes of ``size`` voxels a side, masks and ``manifest.csv``; return it with absolute paths.

    All but ``test_abnormal`` and ``test_ball`` count normal volumes; of those, the six kinds of `mood_anomalies` take
    turns, and these are easy ones as in the challenge's examples. Each volume is a patient of its own. The same seed
    gives the same bytes, and volume i of a split and label does not depend on how many others there are. The folder
    appears whole or not at all; ``progress`` draws a bar on a terminal.

    Raises ValueError for a negative count or seed, a size below 8, and where nilearn is not installed, and
    FileExistsError where ``folder`` holds anything but earlier toy brains, because writing replaces the folder.
    """
    normal = {"train": train, "calibration": calibration, "validation": validation, "test": test_normal}
    generated.check_counts(**normal, test_abnormal=test_abnormal, test_ball=test_ball, seed=seed)
    folder = folder.resolve()
    generated.check_replaceable(folder, SOURCE, "toy brains")
    plan = [(split, NORMAL, i) for split, count in normal.items() for i in range(count)]
    kinds = mood_anomalies.KINDS
    plan += [("test", kinds[i % len(kinds)], i) for i in range(test_abnormal)]
    plan += [("test", mood_anomalies.BALL, i) for i in range(test_ball)]
    base = brains.template(size)
    with replacing(folder) as new:
        (new / "masks").mkdir(parents=True)
        bar = bars.bar(plan, total=len(plan), desc="toy brains", unit="volume", show=progress)
        rows = [_write_one(new, base, split, kind, i, seed) for split, kind, i in bar]
        manifest.write(pd.DataFrame(rows), new / "manifest.csv")
    return manifest.read(folder / "manifest.csv")


def _write_one(new: Path, base: Template, split: str, kind: str, i: int, seed: int) -> dict[str, object]:
    """Generate and write one volume, and its mask where it is abnormal; return its row of the manifest."""
    group = 0 if kind == NORMAL else 2 if kind == mood_anomalies.BALL else 1
    voxels, mask = generate(base, kind, np.random.default_rng([seed, _SPLITS.index(split), group, i]))
    name = f"{split}_{kind}_{i:05d}"
    image, marks = new / "images" / f"{name}.nii.gz", new / "masks" / f"{name}.nii.gz"
    affine = np.diag([brains.FIELD_OF_VIEW / base.size] * 3 + [1.0])
    affine[:3, 3] = -affine[0, 0] * (base.size - 1) / 2  # the world begins in the middle
    nifti.save(image, np.rint(voxels).astype(np.int16), affine, _ALIGNED)
    if mask.any():
        nifti.save(marks, mask.astype(np.uint8), affine, _ALIGNED)
    return {
        "path": str(image),
        "split": split,
        "label": int(mask.any()),
        "patient": name,
        "mask": str(marks) if mask.any() else "",
        "source": SOURCE,
        "kind": kind,
        "seed": seed,
        "side": base.size,
    }
