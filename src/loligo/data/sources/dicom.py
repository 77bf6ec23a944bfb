"""Index a folder of DICOM files, nested and mixed as they come, with what their headers say."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pandas as pd

from loligo.config import HELD_OUT
from loligo.data import manifest
from loligo.data.places import Layout
from loligo.data.sources import folder


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
    """List the DICOM images and series below a folder as `folder.index` does, and no other files.

    Patients are those of the headers, as keyed hashes (see `data.headers`), unless ``patient`` says otherwise. Raises
    as `folder.index`, and ``FileNotFoundError`` where no DICOM file can be used.

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
    found = folder.listed(root, loose, Layout(tuple(normal or ()), tuple(abnormal or ()), tuple(masks or ()), patient))
    if "modality" not in found.rows or not (own := found.rows["modality"] != "").any():
        raise FileNotFoundError(f"{root}: no DICOM file that can be used lies below it; see loligo index folder")
    others = manifest.rejection((Path(path), "its content is not DICOM") for path in found.rows.loc[~own, "path"])
    rows = found.rows[own].reset_index(drop=True).assign(source="dicom")
    rejected = pd.concat([found.rejected, others], ignore_index=True)
    return found._replace(rows=rows, rejected=rejected).with_calibration(calibration, seed).accepted()
