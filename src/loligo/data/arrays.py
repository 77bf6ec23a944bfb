"""Make a data set of images at hand, in memory; nothing is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from loligo import io
from loligo.data.dataset import Dataset, no_rejections, refuse_mixed
from loligo.data.decode import Decoded, decode, prepared
from loligo.data.entries import content_hash
from loligo.data.preprocessing import Preprocessing
from loligo.types import Image, Volume, VolumeHeader

Given = Image | Volume | npt.NDArray[Any] | str | Path


def from_images(images: Sequence[Given] | Given, preprocessing: Preprocessing) -> Dataset:
    """Return images as a network sees them: arrays (H, W) or a stack (N, H, W), ``Image``s, ``Volume``s or paths.

    Unsigned integers are divided by the largest number of their type; floats must lie in [0, 1]. ``rows`` has the
    column path, "image 0" where an image has no file. Raises ``ValueError``, which names the image, for one that cannot
    be used, and where there is none.
    """
    listed = _listed(images)
    if not listed:
        raise ValueError("there are no images; give arrays (H, W), a stack (N, H, W) or paths")
    found = [_one(i, image, preprocessing) for i, image in enumerate(listed)]
    names = [str(one.geometry.source or f"image {i}") for i, one in enumerate(found)]
    volume = [isinstance(one.geometry, VolumeHeader) for one in found]
    refuse_mixed(names, volume)
    return Dataset(
        rows=pd.DataFrame({"path": names}),
        pixels=np.concatenate([one.levels for one in found]),
        rejected=no_rejections(),
        preprocessing=preprocessing,
        geometries=tuple(one.geometry for one in found),
        counts=tuple(len(one.levels) for one in found) if volume[0] else None,
        warnings=tuple(one.warnings for one in found),
        slices_with_tissue=tuple(one.tissue for one in found),
        contents=tuple(content_hash(path) if (path := one.geometry.source) and path.is_file() else "" for one in found),
    )


def grey(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return an array of grey values as float32 in [0, 1]; ValueError for a type or values that do not say how."""
    if values.dtype.kind == "u":
        return values.astype(np.float32) / np.float32(np.iinfo(values.dtype).max)
    if values.dtype.kind == "b":
        return values.astype(np.float32)
    if values.dtype.kind != "f":
        raise ValueError(
            f"its type is {values.dtype}, which does not say what is white; give uint8, uint16, or floats in [0, 1]"
        )
    if wrong := int(np.count_nonzero(~np.isfinite(values))):
        raise ValueError(f"{wrong} of {values.size} values are NaN or infinite; give each a number in [0, 1]")
    if values.size and (values.min() < 0 or values.max() > 1):
        raise ValueError(
            f"its values run from {values.min():g} to {values.max():g}; floats must lie in [0, 1]: divide by white"
        )
    return values.astype(np.float32)


def _listed(images: Sequence[Given] | Given) -> list[Given]:
    """Return what was given as a list of single images."""
    if isinstance(images, Image | Volume | str | Path):
        return [images]
    if (shape := getattr(images, "shape", None)) is None:
        return list(images)
    stack = np.asarray(images)
    if stack.ndim == 4 and stack.shape[1] == 1:
        stack = stack[:, 0]
    if stack.ndim not in (2, 3):
        raise ValueError(f"an array of shape {tuple(shape)} is neither an image (H, W) nor a stack (N, H, W)")
    return [stack] if stack.ndim == 2 else list(stack)


def _one(i: int, image: Given, preprocessing: Preprocessing) -> Decoded:
    """Return one image as a network sees it; raise ``ValueError`` that names it."""
    if isinstance(image, str | Path):
        try:
            return decode(Path(image), preprocessing)
        except io.UnreadableImage:
            raise
        except ValueError as error:
            raise ValueError(f"{image}: {error}") from error
    try:
        if not isinstance(image, Volume):
            image = _image(image)
        elif not np.isfinite(image.voxels).all():
            raise ValueError("some of its voxels are NaN or infinite; give each a number")
        return prepared(image, preprocessing)
    except io.UnreadableImage:
        raise
    except ValueError as error:
        raise ValueError(f"image {i}: {error}") from error


def _image(image: Any) -> Image:
    """Return an array (H, W), or an image whose values are checked."""
    if isinstance(image, Image):
        return replace(image, pixels=grey(np.asarray(image.pixels)))
    values = np.asarray(image)
    if values.ndim != 2 or not values.size:
        raise ValueError(f"its shape is {values.shape}; give (H, W) of a pixel or more, or a stack (N, H, W) by itself")
    return Image(grey(values)[None])
