"""Draw the reconstructions of a method's generators, and patches with their features before and after in-painting."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from loligo.reports.common.figures import Floats, panels, styled
from loligo.reports.common.pictures import Grey, thumbnail
from loligo.reports.common.text import number
from loligo.reports.run.insight import ORIGINAL, Example, cosine

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PATCHES = 3
"""Patches of an image that are shown."""


@styled
def reconstructions(examples: Sequence[Example]) -> Figure:
    """Draw each image above its reconstruction by every generator, a column an image."""
    names = list(examples[0].images)
    figure, axes_of = panels(len(names) * len(examples), len(examples), 1.75, 2.05)
    for i, axes in enumerate(axes_of):
        name, example = names[i // len(examples)], examples[i % len(examples)]
        _show(axes, thumbnail(example.images[name]), name if i % len(examples) == 0 else "")
        if name == ORIGINAL:
            axes.set_title(example.title, fontsize=9)
        else:
            axes.set_xlabel("MSE {}\nKL {}".format(*map(number, example.errors[name])), fontsize=9)
    return figure


@styled
def patches(examples: Sequence[Example]) -> Figure:
    """Draw patches of the most and of the least abnormal image before and after in-painting, a column a patch.

    Of each image those are shown that in-painting changed the most, as much as half of them, and the least, by the
    cosine similarity of their features. All examples must have features.
    """
    chosen = [(example, place) for example in _ends(examples) for place in places(example)]
    figure, axes_of = panels(4 * len(chosen), len(chosen), 1.75, 2.05)
    for column, (example, place) in enumerate(chosen):
        _column(axes_of[column :: len(chosen)], example, place, labelled=column == 0)
    return figure


def _ends(examples: Sequence[Example]) -> list[Example]:
    """Return the most and the least abnormal image, or the one that there is."""
    return [examples[0], examples[-1]] if len(examples) > 1 else [examples[0]]


def places(example: Example) -> list[int]:
    """Return the patches to show, ascending by cosine similarity: the least, the median and the greatest."""
    order = np.argsort(cosine(*features(example)), kind="stable")
    ranks = np.unique(np.linspace(0, len(order) - 1, PATCHES).round().astype(int))
    return [int(place) for place in order[ranks]]


def features(example: Example) -> tuple[Floats, Floats]:
    """Return the features (L, D) before and after in-painting; ValueError where there are none."""
    if example.features is None or example.inpainted is None:
        raise ValueError(f"{example.title}: there are no features before and after in-painting")
    return example.features, example.inpainted


def _column(axes: Sequence[Axes], example: Example, place: int, *, labelled: bool) -> None:
    """Draw one patch down a column: its pixels, their reconstruction, its features before and after."""
    tables = features(example)
    count, (before, after) = len(tables[0]), (table[place] for table in tables)
    reconstruction = example.images.get("student", list(example.images.values())[-1])
    low, high = (float(end) for end in np.percentile([before, after], (1, 99)))  # few values stand far out
    labels = ("original patch", "in-painted patch", "features before", "features after") if labelled else ("",) * 4
    for side, label, image in zip(axes[:2], labels[:2], (example.images[ORIGINAL], reconstruction), strict=True):
        _show(side, thumbnail(crop(image, count, place)), label)
    for side, label, values in zip(axes[2:], labels[2:], (before, after), strict=True):
        _show(side, square(values), label, (low, high), "viridis")
    axes[0].set_title(f"{example.title}\npatch {place + 1} of {count}", fontsize=9)
    axes[3].set_xlabel(
        f"colours {number(low)} to {number(high)}\ncosine {float(cosine(before, after)):.3f}", fontsize=9
    )


def crop(image: Floats, count: int, place: int) -> Floats:
    """Return patch ``place`` of ``count`` in a square grid, in raster order, of (C, H, W): (C, h, w)."""
    grid = math.isqrt(count)
    row, column = divmod(place, grid)
    height, width = (side // grid for side in image.shape[1:])
    return image[:, row * height : (row + 1) * height, column * width : (column + 1) * width]


def square(values: Floats) -> Floats:
    """Lay (D,) values out in rows of a square, or as nearly so as D allows; NaN fills the last row."""
    side = math.ceil(math.sqrt(len(values)))
    rows = math.ceil(len(values) / side)
    return np.append(values, np.full(rows * side - len(values), np.nan)).reshape(rows, side)


def _show(
    axes: Axes, pixels: Floats | Grey, label: str, limits: tuple[float, float] = (0, 255), colours: str = "gray"
) -> None:
    """Show (h, w) pixels as they are, without smoothing; a label stands at the left."""
    axes.imshow(pixels, cmap=colours, vmin=limits[0], vmax=limits[1], interpolation="none")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.set_ylabel(label, fontsize=9)
