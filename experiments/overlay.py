"""Lay voxel scores over their inputs in world coordinates, for RAS, LPS and oblique files, and draw what is seen.

    python -m experiments.overlay --png experiments/results/overlay.png

One toy brain with a bright ball is written three times: in RAS order, in LPS order, and turned by some 20 degrees about
two axes with its axes in another order. Each file goes through the package's own way in and out: read, sliced
axially, a stand-in for a method that marks what is brighter than any tissue, stacked, written as a score file. Then the
package is left alone: nilearn resamples image and score, each by its own affine, onto one grid of the world, where the
planes through the ball are drawn with the score's outline and a cross where the ball was put.
"""

from __future__ import annotations

import argparse
import tempfile
from io import BytesIO
from pathlib import Path

import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from nilearn.image import resample_img
from PIL import Image

from loligo.calibration import Calibration
from loligo.data import brains
from loligo.data.preprocessing import Preprocessing
from loligo.detector import Detector
from loligo.io import nifti
from loligo.methods.configs import MethodConfig
from loligo.methods.contract import Method
from loligo.runs.settings import Settings
from loligo.types import Scores

SIZE, RADIUS = 96, 8.0
BALL = np.array([-30.0, 24.0, 18.0])  # mm: left, in front, up
WORLD = np.diag([1.5, 1.5, 1.5, 1.0])
WORLD[:3, 3] = -96
SIDES = (129, 129, 129)


class Bright(Method):
    """Mark what is near the upper end of the window."""

    def forward(self, x: torch.Tensor) -> Scores:
        heat = (x[:, :1] - 0.9).clamp(min=0)
        return Scores(heat.mean((1, 2, 3)), heat)


def head() -> nib.Nifti1Image:
    """Draw a brain with a bright ball in RAS order, the middle of the grid in the middle of the world."""
    random = np.random.default_rng(0)
    voxels = brains.scan(brains.anatomy(brains.template(SIZE), random), random)
    affine = np.diag([brains.FIELD_OF_VIEW / SIZE] * 3 + [1.0])
    affine[:3, 3] = -affine[0, 0] * (SIZE - 1) / 2
    places = np.stack(np.meshgrid(*[np.arange(SIZE)] * 3, indexing="ij"), -1) * affine[0, 0] + affine[:3, 3]
    voxels[np.linalg.norm(places - BALL, axis=-1) < RADIUS] = 3 * voxels.max()
    return nib.Nifti1Image(voxels, affine)


def reordered(image: nib.Nifti1Image, axes: str) -> nib.Nifti1Image:
    """Store an image with its axes in another order; the world stays."""
    own = nib.orientations.io_orientation(image.affine)
    return image.as_reoriented(nib.orientations.ornt_transform(own, nib.orientations.axcodes2ornt(tuple(axes))))


def oblique(image: nib.Nifti1Image) -> nib.Nifti1Image:
    """Scan the same head with a grid that is turned in the world, of oblong voxels, its axes in the order P, S, R."""
    a, b = np.radians([20.0, -15.0])
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    turn = turn @ np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine, shape = np.eye(4), (110, 120, 70)
    affine[:3, :3] = turn * (1.9, 1.8, 2.9)
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    turned = resample_img(image, affine, shape, force_resample=True, copy_header=True)
    return reordered(nib.Nifti1Image(turned.get_fdata(dtype=np.float32), affine), "PSR")


def save(image: nib.Nifti1Image, path: Path) -> Path:
    """Write an image with its affine as the scanner's."""
    image.set_sform(image.affine, 1)
    image.set_qform(image.affine, 1)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    return path


def scored(path: Path) -> Path:
    """Score a file the package's way; return the file of its map."""
    method = Bright(MethodConfig(size=96))
    detector = Detector(
        method, Settings.of("gaussian"), Preprocessing(96), device="cpu", calibration=Calibration.fit([0.0])
    )
    (prediction,) = detector.predict([path])
    found = path.with_name(f"map_{path.name}")
    nifti.write(found, prediction.map, prediction.geometry)
    return found


def in_the_world(path: Path) -> npt.NDArray[np.float32]:
    """Resample a file onto the grid of the world by its own affine."""
    return np.asarray(resample_img(str(path), WORLD, SIDES, force_resample=True, copy_header=True).get_fdata())


def draw(axes: Axes, image: npt.NDArray[np.float32], heat: npt.NDArray[np.float32], plane: int) -> None:
    """Draw the plane through the ball: columns and rows are the other two axes of the world, in mm."""
    at = round(float((BALL[plane] - WORLD[plane, 3]) / WORLD[plane, plane]))
    across, up = (axis for axis in range(3) if axis != plane)
    seen, warm = (np.take(volume, at, plane).T for volume in (image, heat))
    low, high = WORLD[0, 3], WORLD[0, 3] + WORLD[0, 0] * (SIDES[0] - 1)
    extent = (low, high, low, high)
    brightest = np.percentile(image[image > 50], 95)
    axes.imshow(seen, cmap="gray", origin="lower", extent=extent, vmin=0, vmax=brightest)
    ramp = np.linspace(low, high, SIDES[0])
    axes.contourf(ramp, ramp, warm, levels=[0.03, 1], colors=["tab:red"], alpha=0.45)
    circle = plt.Circle((BALL[across], BALL[up]), RADIUS, fill=False, color="cyan", linewidth=1.5)
    axes.add_patch(circle)
    axes.plot(BALL[across], BALL[up], "+", color="cyan")
    axes.set_xlabel(f"{'xyz'[across]} (mm)")
    axes.set_ylabel(f"{'xyz'[up]} (mm)")


def main() -> None:
    """Write the files, score them, draw them, and print how far the score's middle lies from the ball's."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--png", type=Path, required=True)
    given = parser.parse_args()
    original = head()
    kinds = {"RAS": original, "LPS": reordered(original, "LPS"), "oblique, PSR": oblique(original)}
    figure, grid = plt.subplots(3, 3, figsize=(11, 11), layout="constrained")
    with tempfile.TemporaryDirectory() as folder:
        for row, (name, image) in zip(grid, kinds.items(), strict=True):
            path = save(image, Path(folder, f"{name[:3]}.nii.gz"))
            seen, heat = in_the_world(path), in_the_world(scored(path))
            middle = nib.affines.apply_affine(WORLD, np.argwhere(heat > 0.03).mean(0))
            apart = float(np.linalg.norm(middle - BALL))
            print(f"{name}: middle of the score {middle.round(2)}, {apart:.2f} mm from the ball's", flush=True)
            for plane, title in enumerate(("sagittal", "coronal", "axial")):
                draw(row[plane], seen, heat, plane)
                row[plane].set_title(f"{name}: {title}, {apart:.1f} mm apart")
    png = BytesIO()
    figure.savefig(png, dpi=60)
    Image.open(png).convert("RGB").quantize(128, method=Image.Quantize.FASTOCTREE).save(given.png, optimize=True)


if __name__ == "__main__":
    main()
