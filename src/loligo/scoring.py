"""Score images into a folder: the table of scores, and heat maps on the grid of each image."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Container, Iterator
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import PIL.Image

from loligo import io
from loligo.calibration import Calibration, q_values
from loligo.data import body
from loligo.data.dataset import Dataset
from loligo.data.preprocessing import resized
from loligo.detector import Detector
from loligo.files import replacing
from loligo.io import nifti, regions
from loligo.io.overlay import annotated, levels
from loligo.runs.scores import ScoreFolder
from loligo.types import Floats, Geometry, Prediction, VolumeHeader

Maps = Literal["image", "network", "none"]
"""Maps on the grid of the image, on that of the network (smaller files, squared), or none."""
MAX_NAME = 120
"""Bytes of an image's own name that the name of its map keeps; with what is added, file systems allow some 255."""
SHOWN, RECONSTRUCTED = 2048, 512
"""Longest side in pixels of an overlay, and of the picture of a reconstruction; else they have the image's size."""
COLUMNS = ("map", "reconstruction", "overlay")
FIRST = ("rank", "path", "p_value", "q_value", "flag", "anomaly_score", "score", "threshold", "warnings")
"""Columns of a table of scores that stand before what a manifest knows."""


def score_table(
    detector: Detector,
    data: Dataset,
    folder: ScoreFolder | None = None,
    maps: Maps = "image",
    batch_size: int = 16,
    without: Container[str] = (),
    each: Callable[[Prediction], None] | None = None,
) -> pd.DataFrame:
    """Return the manifest's rows with what the detector says of each, the most abnormal first, ``without`` some paths.

    Columns: rank, path, p_value, flag, anomaly_score, score, threshold, warnings (names, see `data.checks`), what the
    manifest knows, and the names of maps. Where a ``folder`` is given, each image leaves its map in maps/ as ``.npy``
    float32, (H, W) on its own grid or (S, S) on the network's, and an overlay to look at; a volume leaves its map as
    NIfTI on its own grid. Names in the table are relative to the folder. ``each`` is called with every prediction.
    """
    known = data.rows.drop(columns=[name for name in FIRST if name in data.rows and name != "path"])
    known[list(COLUMNS)] = ""
    found = {}
    for row, prediction in enumerate(detector.predictions(data, batch_size, progress=True)):
        if known["path"][row] in without:
            continue
        named = "; ".join(prediction.warnings)
        found[row] = (prediction.score, prediction.anomaly_score, prediction.p_value, int(prediction.flag), named)
        if each:
            each(prediction)
        if folder is None or maps == "none" or prediction.network_map is None:
            continue
        name = map_name(row, str(known["path"][row]))
        for column, file in _save(folder.maps, name, data, row, prediction, maps, detector.calibration):
            known.loc[row, column] = f"{folder.maps.name}/{file}"
    columns = ["score", "anomaly_score", "p_value", "flag", "warnings"]
    values = pd.DataFrame.from_dict(found, orient="index", columns=columns)
    return ranked(known.join(values, how="inner").assign(threshold=detector.calibration.threshold))


def not_scored(data: Dataset) -> pd.DataFrame:
    """Return the images of which nothing can be said, which are not to be scored: columns path, reason."""
    return data.rows[["path"]].assign(reason=data.not_scored).query("reason != ''").reset_index(drop=True)


def with_q_values(table: pd.DataFrame) -> pd.DataFrame:
    """Add the column q_value to a table of scores, which is taken for one worklist.

    What the run was trained on has none: its p-value is not one of a new image.
    """
    new = ~table["warnings"].str.contains("seen_in_training")
    return ranked(table.assign(q_value=pd.Series(q_values(table.loc[new, "p_value"]), table.index[new])))


def ranked(table: pd.DataFrame) -> pd.DataFrame:
    """Order a table of scores by abnormality, rows of one score by their place; `FIRST` stands first."""
    table = table.sort_values("score", ascending=False, kind="stable").reset_index(drop=True)
    table["rank"] = np.arange(1, len(table) + 1)
    return table[[*(name for name in FIRST if name in table), *(name for name in table if name not in FIRST)]]


def map_name(row: int, path: str) -> str:
    """Name an image's maps by its row, its own name, and a digest of its path.

    Two of one name do not collide.
    """
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:8]
    stem = io.stem(Path(path))
    return f"{row:06d}_{os.fsencode(stem)[:MAX_NAME].decode('utf-8', 'ignore')}_{digest}"


def _save(
    maps: Path, name: str, data: Dataset, row: int, prediction: Prediction, grid: Maps, calibration: Calibration
) -> Iterator[tuple[str, str]]:
    """Write the files of a prediction; yield the column and the name of each."""
    geometry = prediction.geometry
    maps.mkdir(parents=True, exist_ok=True)
    if isinstance(geometry, VolumeHeader):
        assert prediction.map is not None
        nifti.write(maps / f"{name}.nii.gz", prediction.map, geometry)
        yield "map", f"{name}.nii.gz"
        return
    heat = prediction.map if grid == "image" else prediction.network_map
    with replacing(maps / f"{name}.npy", durable=False) as path:
        np.save(array := BytesIO(), np.asarray(heat, np.float32), allow_pickle=False)
        path.write_bytes(array.getbuffer())  # a full disk has a message here, of its own numpy has none
    yield "map", f"{name}.npy"
    pixels = _original(data, row, prediction, _shown(geometry, SHOWN))
    _save_image(maps / f"{name}_overlay.png", _picture(pixels, prediction, calibration))
    yield "overlay", f"{name}_overlay.png"
    if prediction.network_reconstruction is not None:
        image = prediction.restore(prediction.network_reconstruction, _shown(geometry, RECONSTRUCTED))
        _save_image(maps / f"{name}_reconstruction.png", levels(image))
        yield "reconstruction", f"{name}_reconstruction.png"


def picture(pixels: Floats, prediction: Prediction, calibration: Calibration) -> npt.NDArray[np.uint8]:
    """Return an image (1, H, W) in [0, 1] with its map: (h, w, 3) uint8, `SHOWN` pixels a side at most."""
    assert isinstance(prediction.geometry, Geometry)
    return _picture(resized(pixels, _shown(prediction.geometry, SHOWN).shape)[0], prediction, calibration)


def _picture(pixels: Floats, prediction: Prediction, calibration: Calibration) -> npt.NDArray[np.uint8]:
    """Return the overlay on the pixels (h, w) of a picture."""
    heat = calibration.heat(prediction.restore(_map(prediction), Geometry((pixels.shape[0], pixels.shape[1]))))
    hot = regions.find(heat)
    return annotated(levels(pixels), heat, hot, body.remark(pixels, hot))


def _map(prediction: Prediction) -> Floats:
    assert prediction.network_map is not None
    if not np.isfinite(prediction.network_map).all():
        raise ValueError(f"{prediction.geometry.source}: its map is not a number; train the method anew")
    return prediction.network_map


def _original(data: Dataset, row: int, prediction: Prediction, shown: Geometry) -> Floats:
    """Return the pixels of an image on the grid of a picture, (h, w) in [0, 1]: the file's own.

    Of an array, and of a file that has changed or gone since it was decoded, they are those that the network was given.
    """
    geometry = prediction.geometry
    with contextlib.suppress(OSError, ValueError, MemoryError):
        if (
            geometry.source
            and (image := io.read(geometry.source, data.preprocessing.voi)).geometry.shape == geometry.shape
        ):
            pixels: Floats = resized(image.pixels[:1], shown.shape)[0]
            return pixels
    return prediction.restore(data.images([row])[0, 0], shown)


def _shown(geometry: Geometry, most: int) -> Geometry:
    """Return the grid of a picture of an image: its own, or one of the same aspect with ``most`` pixels a side."""
    factor = min(1.0, most / max(geometry.shape))
    height, width = (max(1, round(side * factor)) for side in geometry.shape)
    return Geometry((height, width))


def _save_image(path: Path, pixels: npt.NDArray[np.uint8]) -> None:
    """Write (H, W) or (H, W, 3) as PNG."""
    with replacing(path, durable=False) as new:
        PIL.Image.fromarray(pixels).save(new, compress_level=1)  # the highest takes as long as scoring
