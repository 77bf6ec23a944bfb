"""Generate brains of people who do not exist: the MNI152 template, deformed, recoloured and noisy, at random.

Template: Fonov et al. 2011, ICBM 2009a nonlinear symmetric, skull-stripped, as the package nilearn carries it.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial.transform import Rotation

from loligo.io import nifti

Floats = npt.NDArray[np.float32]

FIELD_OF_VIEW = 204.8
"""Side in mm of the cube that is generated, 1.6 mm a voxel at 128; of 150 brains all fit, by 6 mm or more."""
WAVES = ((64.0, 2.8), (32.0, 1.5), (16.0, 0.9))
"""Distance of control points and standard deviation of the elastic deformation along each axis, in mm."""
SHRINK = 1.1
"""Mean size of the template by that of a generated brain: it is larger than people's heads."""
DARKEST = 0.14
"""Part of the template's white matter below which it is background; the darkest brain has more."""

_FILE = "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"


@dataclass(frozen=True)
class Template:
    """The head that all brains are generated from, fit for one size of cube."""

    voxels: Floats
    """(X, Y, Z) float32 in RAS+ order, white matter near 1, background 0."""
    spacing: float
    """Distance of its voxels in mm, along every axis."""
    centre: tuple[float, float, float]
    """Its voxel in the middle of the field of view."""
    size: int
    """Voxels a side of the cubes to generate."""


@lru_cache(maxsize=1)
def template(size: int) -> Template:
    """Load the template to generate cubes of ``size`` voxels a side from; nothing is fetched.

    An average of many heads is blurred, so that its edges are steepened; where the voxels generated are larger than its
    own it is smoothed again. Raises ``ValueError`` for a size below 8 and where nilearn is not installed.
    """
    if size < 8:
        raise ValueError(f"size {size}: a brain needs 8 voxels a side or more")
    volume = nifti.read(_template_file())
    voxels = volume.voxels / np.percentile(volume.voxels[volume.voxels > 0], 95)
    brain = voxels > DARKEST
    around = ndimage.gaussian_filter(voxels, 2) / np.maximum(ndimage.gaussian_filter(brain.astype(np.float32), 2), 0.1)
    sharp = np.where(brain, np.clip(1.7 * voxels - 0.7 * around, 0.2, 1.3), 0)
    spacing, ends = (
        volume.spacing[0],
        [np.flatnonzero(brain.any(axis=axes))[[0, -1]] for axes in ((1, 2), (0, 2), (0, 1))],
    )
    blur = 0.4 * max(0, (FIELD_OF_VIEW / size / spacing) ** 2 - 1) ** 0.5  # in voxels; with its own, that of the result
    x, y, z = (float(pair.mean()) for pair in ends)
    return Template(ndimage.gaussian_filter(sharp.astype(np.float32), blur), spacing, (x, y, z), size)


def _template_file() -> Path:
    """Find the template inside nilearn, without importing it, which takes seconds."""
    found = importlib.util.find_spec("nilearn")
    if found is None or not found.submodule_search_locations:
        raise ValueError("toy brains are generated from a template that nilearn carries; pip install nilearn")
    path = Path(found.submodule_search_locations[0]) / _FILE
    if not path.is_file():
        raise ValueError(f"this nilearn carries no {_FILE}; toy brains were generated with nilearn 0.11 to 0.14")
    return path


def anatomy(base: Template, rng: np.random.Generator) -> Floats:
    """Generate the anatomy of one brain (S, S, S) float32 in RAS+ order: white matter near 1, background exactly 0.

    Voxels have ``FIELD_OF_VIEW / S`` mm a side. Size, tilt and proportions vary, and elastic waves of three lengths
    (`WAVES`) move each place by some 6 mm.
    """
    size, (matrix, shift) = base.size, _affine(rng)
    line = (np.arange(size, dtype=np.float32) - np.float32((size - 1) / 2)) * np.float32(FIELD_OF_VIEW / size)
    x, y, z = np.meshgrid(line, line, line, indexing="ij", sparse=True)
    places = np.empty((3, size, size, size), np.float32)
    for axis, (a, b, c) in enumerate(matrix):
        places[axis] = a * x + b * y + c * z + shift[axis]
        for distance, amount in WAVES:
            places[axis] += np.float32(amount) * smooth_field(size, FIELD_OF_VIEW / distance, rng)
        places[axis] *= np.float32(1 / base.spacing)
        places[axis] += np.float32(base.centre[axis])
    brain: Floats = ndimage.map_coordinates(base.voxels, places, order=1, output=np.float32, cval=0)
    brain[brain < DARKEST] = 0
    return brain


def scan(anatomy: Floats, rng: np.random.Generator) -> Floats:
    """Take an MRI of an anatomy (S, S, S): float32 in arbitrary units, white matter near 1000, background exactly 0.

    Contrast (a gamma), a smooth bias field, gain and noise vary. What is above 0 in the anatomy is above 0 here.
    """
    contrast, gain, noise = rng.uniform(0.8, 1.25), rng.uniform(800, 1200), rng.uniform(0.01, 0.025)
    image = np.power(anatomy, np.float32(contrast)) * np.exp(np.float32(0.06) * smooth_field(len(anatomy), 2, rng))
    image += np.float32(noise) * rng.standard_normal(anatomy.shape, dtype=np.float32)
    return np.where(anatomy > 0, np.maximum(image * np.float32(gain), 1), 0).astype(np.float32)


def smooth_field(size: int, cells: float, rng: np.random.Generator) -> Floats:
    """Sample a smooth random field (S, S, S) float32 of mean 0 and deviation 1: a cubic B-spline of random numbers.

    Its control points divide a side into ``cells`` parts.
    """
    place = np.linspace(0, cells, size)
    first = place.astype(int)
    t = place - first
    basis = np.zeros((size, first[-1] + 4), np.float32)
    for step, weight in enumerate(((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)):
        basis[np.arange(size), first + step] = weight
    basis /= np.sqrt(np.square(basis).sum(axis=1).mean())
    field = rng.standard_normal((basis.shape[1],) * 3, dtype=np.float32)
    for _ in range(3):
        field = np.tensordot(field, basis, axes=(0, 1))
    return np.ascontiguousarray(field)


def _affine(rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Sample the matrix (3, 3) and shift (3,) in mm that lead from a place in the generated brain to the template."""
    turn = Rotation.from_euler("XYZ", np.clip(rng.normal(0, 4, 3), -8, 8), degrees=True).as_matrix()
    scale = SHRINK * np.clip(rng.normal(1, 0.035), 0.93, 1.07) * np.clip(rng.normal(1, 0.025, 3), 0.95, 1.05)
    shift = np.clip(rng.normal(0, 2, 3), -4, 4)
    return (turn * scale).astype(np.float32), shift.astype(np.float32)
