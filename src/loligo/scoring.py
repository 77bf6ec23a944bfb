"""Score images with a trained method: raw scores, and heat maps on disk."""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import PIL.Image
import torch
from torch import Tensor
from tqdm import tqdm

from loligo.calibration import Calibration
from loligo.config import Axis, Precision
from loligo.data.dataset import Dataset
from loligo.files import replacing, write_text
from loligo.io import VOLUME_SUFFIXES, stem
from loligo.methods.contract import Method
from loligo.nn.conv import packed
from loligo.nn.precision import autocast, hasten, pick_dtype
from loligo.types import Scores, VolumeHeader

MAX_NAME = 120
"""Bytes of an image's own name that the name of its map keeps; with what is added, file systems allow some 255."""


OPACITY = 0.75
"""Of the hottest colour over the image."""


class Scorer:
    """A method made ready to score fast: folded, packed, in its dtype, without gradients."""

    def __init__(self, method: Method, precision: Precision = "auto", device: str = "cpu") -> None:
        self.device = torch.device(device)
        self.dtype = pick_dtype(precision, self.device)
        self.method = packed(method, self.dtype, self.device)
        hasten()

    @torch.inference_mode()
    def __call__(self, x: Tensor) -> Scores:
        """Score a batch (N, C, H, W) float32 in [0, 1]; results are float32 on the CPU."""
        x = x.to(self.device).contiguous(memory_format=torch.channels_last)
        with autocast(self.device, self.dtype):
            scores = self.method.score(x)
        parts = (scores.image, scores.map, scores.reconstruction)
        return Scores(*(None if part is None else part.float().cpu() for part in parts))  # type: ignore[arg-type]


def batches(
    scorer: Scorer, data: Dataset, batch_size: int = 16, progress: bool = True
) -> Iterator[tuple[npt.NDArray[np.int64], Tensor, Scores]]:
    """Yield (indices, images, scores) of all in order, with a progress bar."""
    with tqdm(total=len(data), desc="scoring", unit="image", disable=None if progress else True) as bar:
        for start in range(0, len(data), batch_size):
            indices = np.arange(start, min(start + batch_size, len(data)))
            x = data.batch(indices)
            yield indices, x, scorer(x)
            bar.update(len(indices))


def raw_scores(scorer: Scorer, data: Dataset, batch_size: int = 16, progress: bool = True) -> npt.NDArray[np.float64]:
    """Return the raw score of every row, (R,) float64."""
    found = [s.image.double().numpy() for _, _, s in batches(scorer, data, batch_size, progress)]
    return by_row(np.concatenate(found), data, scorer.method.volume_score)


def by_row(scores: npt.NDArray[np.float64], data: Dataset, volume: Literal["sum", "max"]) -> npt.NDArray[np.float64]:
    """Return the score of each row (R,) by those of its images (N,): sum or maximum over a volume's slices."""
    if volume == "sum":
        return np.bincount(data.row_of, scores, len(data.rows)).astype(np.float64)
    found = np.full(len(data.rows), -np.inf)
    np.maximum.at(found, data.row_of, scores)
    return found


def score_table(
    scorer: Scorer,
    data: Dataset,
    calibration: Calibration,
    maps: Path | None = None,
    batch_size: int = 16,
    axis: Axis = "axial",
) -> pd.DataFrame:
    """Return the manifest's rows with score, anomaly_score, p_value, flag, and where their maps are.

    Where ``maps`` is given, each image leaves there its map as ``.npy`` float32 (H, W) at the network's size, the
    rebuilt image as 8-bit PNG, and an overlay to look at; a volume, cut along ``axis``, leaves its map as NIfTI on its
    own grid. Paths in the table are relative to the parent of ``maps``.
    """
    table, raw = data.rows.copy(), np.full(len(data), np.nan)
    table[["map", "reconstruction", "overlay"]] = ""
    whole = VolumeMaps(scorer.method, data, axis) if maps and data.counts else None
    for indices, x, scores in batches(scorer, data, batch_size):
        raw[indices] = scores.image.double().numpy()
        if maps is None or scores.map is None:
            continue
        if whole:
            for row, header, voxels in whole.add(scores.map[:, 0]):
                table.loc[row, "map"] = save_volume(maps, row, header, voxels)
            continue
        names = [_name(int(i), str(table["path"][i])) for i in indices]
        for column, files in save_maps(maps, names, x, scores, calibration.map_scale).items():
            table.loc[indices, column] = files
    table["score"] = values = by_row(raw, data, scorer.method.volume_score)
    table["anomaly_score"] = calibration.anomaly_score(values)
    table["p_value"] = calibration.p_value(values)
    table["flag"] = (values >= calibration.threshold).astype(int)
    return table


class VolumeMaps:
    """Collect the maps of slices, and give out each volume's as soon as it is whole: memory holds one volume's."""

    def __init__(self, method: Method, data: Dataset, axis: Axis) -> None:
        self.method, self.data, self.axis = method, data, axis
        self.row, self.waiting = 0, torch.empty(0)

    def add(self, maps: Tensor) -> Iterator[tuple[int, VolumeHeader, npt.NDArray[np.float32]]]:
        """Take the next slices' maps (n, S, S); yield (row, header, map (X, Y, Z)) of each volume that they complete.

        The map is made of what `Method.pool` returns, on the volume's own grid.
        """
        self.waiting = torch.cat([self.waiting, maps]) if len(self.waiting) else maps
        counts = self.data.counts or ()
        while self.row < len(counts) and len(self.waiting) >= counts[self.row]:
            own, self.waiting = self.waiting[: counts[self.row]], self.waiting[counts[self.row] :]
            yield self.row, *self._whole(own)
            self.row += 1

    def _whole(self, maps: Tensor) -> tuple[VolumeHeader, npt.NDArray[np.float32]]:
        header = self.data.geometries[self.row]
        assert isinstance(header, VolumeHeader)
        return header, self.data.preprocessing.restore(self.method.pool(maps).numpy(), header)


def save_volume(folder: Path, row: int, header: VolumeHeader, voxels: npt.NDArray[np.float32]) -> str:
    """Write the map (X, Y, Z) of a row's volume on its own grid; return its file, relative to the folder's parent."""
    from loligo.io import nifti

    name = f"{_name(row, str(header.source))}.nii.gz"
    nifti.write(folder / name, voxels, header)
    return f"{folder.name}/{name}"


def check_mood(rows: pd.DataFrame, maps: bool, folder: Path) -> None:
    """Raise ValueError where `mood_layout` cannot be written to ``folder``.

    That is where there are no volumes, no maps, two volumes of one name, or files in its place that no scoring wrote.
    """
    names = rows["path"].map(lambda path: Path(path).name)
    if odd := [name for name in names if not name.lower().endswith(VOLUME_SUFFIXES)]:
        raise ValueError(f"{odd[0]} is no NIfTI volume; the MOOD layout is for volumes alone")
    if not maps:
        raise ValueError("the MOOD layout holds the maps of volumes; score with maps")
    if (twice := names.duplicated()).any():
        raise ValueError(f"two volumes are named {names[twice].iloc[0]}; the MOOD layout knows volumes by their name")
    ours = _mood_files(folder)
    if foreign := [file for name in names for file in mood_pair(folder, name) if file.exists() and file not in ours]:
        raise ValueError(f"{foreign[0]} was not written by a scoring; choose another folder with --out")


def mood_pair(folder: Path, name: str) -> tuple[Path, Path]:
    """Return where the MOOD layout has the score and the map of the volume ``name``."""
    return folder / "sample" / f"{name}.txt", folder / "pixel" / name


def _mood_files(folder: Path) -> set[Path]:
    """Return the files of the MOOD layout that the table in ``folder`` says were written; no others are ours."""
    if not (folder / "scores.csv").is_file():
        return set()
    table = pd.read_csv(folder / "scores.csv", dtype=str, keep_default_na=False)
    return {file for name in table.get("mood", []) for file in mood_pair(folder, name)}


def mood_layout(table: pd.DataFrame, folder: Path, calibration: Calibration) -> None:
    """Write what the MOOD challenge's evaluation reads: sample/NAME.txt, a number, and pixel/NAME, the map of NAME.

    That evaluation cuts scores and maps off at 0 and 1. So both are bounded here in a way that keeps their order.
    """
    from loligo.io import nifti

    for path, file, score in zip(table["path"], table["map"], table["score"], strict=True):
        name, heat = Path(path).name, nifti.read(folder / file)
        sample, pixel = mood_pair(folder, name)
        write_text(f"{bounded((score - calibration.mean) / calibration.std)}\n", sample)
        voxels = bounded(heat.voxels.astype(np.float64) / calibration.map_scale)  # float32 would not rise steadily
        nifti.write(pixel, voxels.astype(np.float32), heat)


def sweep_mood(folder: Path) -> None:
    """Remove what `mood_layout` wrote, by the earlier table in ``folder``."""
    for file in _mood_files(folder):
        file.unlink(missing_ok=True)


def bounded(x: Any) -> Any:
    """Map a number or an array into (0, 1), 0 to 0.5; steadily rising, and slower than a sigmoid to saturate."""
    return 0.5 + x / (2 * (1 + abs(x)))


def sweep(maps: Path, table: pd.DataFrame) -> None:
    """Remove maps that an earlier scoring left and that the table of this one does not name."""
    named = set(table[["map", "reconstruction", "overlay"]].to_numpy().ravel())
    for path in maps.glob("*"):
        if re.match(r"\d{6}_", path.name) and f"{maps.name}/{path.name}" not in named:
            path.unlink()


def _name(index: int, path: str) -> str:
    """Name an image's maps by its row, its own name, and a digest of its path.

    Two of one name do not collide, nor does what a scoring that was cut off wrote with what an earlier one lists.
    """
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:8]
    return f"{index:06d}_{os.fsencode(stem(Path(path)))[:MAX_NAME].decode('utf-8', 'ignore')}_{digest}"


def save_maps(folder: Path, names: list[str], x: Tensor, scores: Scores, scale: float) -> dict[str, list[str]]:
    """Write the maps of a batch; return the columns of the score table that name them, relative to the parent."""
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, list[str]] = {"map": [], "overlay": [], "reconstruction": []}
    maps = scores.map[:, 0].numpy() if scores.map is not None else np.empty((0,))
    for i, name in enumerate(names[: len(maps)]):
        with replacing(folder / f"{name}.npy", durable=False) as path:
            np.save(array := io.BytesIO(), maps[i].astype(np.float32), allow_pickle=False)
            path.write_bytes(array.getbuffer())  # a full disk has a message here, of its own numpy has none
        files["map"].append(f"{folder.name}/{name}.npy")
        picture = overlay(_levels(x[i, 0].clamp(0, 1).numpy()), (maps[i] / scale).clip(0, 1))
        _save_image(folder / f"{name}_overlay.png", picture)
        files["overlay"].append(f"{folder.name}/{name}_overlay.png")
        if scores.reconstruction is not None:
            rebuilt = _levels(scores.reconstruction[i, 0].clamp(0, 1).numpy())
            _save_image(folder / f"{name}_reconstruction.png", rebuilt)
            files["reconstruction"].append(f"{folder.name}/{name}_reconstruction.png")
    return {column: found for column, found in files.items() if found}


def overlay(grey: npt.NDArray[np.uint8], heat: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Blend heat (h, w) in [0, 1] over (h, w) uint8, the more opaque the hotter: (h, w, 3) uint8."""
    from matplotlib import colormaps

    colour = colormaps["inferno"](0.3 + 0.7 * heat)[..., :3]
    alpha = OPACITY * heat[..., None]
    blended: npt.NDArray[np.uint8] = np.rint(255 * alpha * colour + (1 - alpha) * grey[..., None]).astype(np.uint8)
    return blended


def _levels(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Round (H, W) in [0, 1] to 8 bit."""
    return np.asarray(np.rint(pixels * 255).astype(np.uint8))


def _save_image(path: Path, pixels: npt.NDArray[np.uint8]) -> None:
    """Write (H, W) or (H, W, 3) as PNG."""
    with replacing(path, durable=False) as new:
        PIL.Image.fromarray(pixels).save(new)
