"""Say what one image's score means and what to look at next, in plain words: facts of the page, never a diagnosis."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from loligo.data.neighbours import Neighbours
from loligo.reports.common.text import number, percent
from loligo.reports.sheet.case import Case
from loligo.reports.sheet.regions import Region
from loligo.types import Image

NEARLY_ALL, MOST, FEWER = 0.05, 0.2, 0.8
"""p-values up to which a score is called higher than nearly all and than most, and above which lower than most."""
FEW = 100
"""Held-out normal images below which the page says that there are few."""
RARE = 0.01
"""Rate among training images below which a brightness or a distance is called unusual."""
LARGE = 0.2
"""Fraction of the image from which outlined regions are called large."""
ASPECT = 1.25
"""Factor by which width to height differs from all normal images shown before the page says so."""
SEEN = {
    "train": "This very image is one of those that the method learnt from: its score and p-value mean little.",
    "calibration": "This very image is one of the held-out normal images: its p-value compares it with itself.",
}


def one_in(rate: float) -> str:
    """Write a rate in (0, 1] as people count: "1 in 20", or "57 in 100" where it is no small one."""
    return f"1 in {round(1 / rate)}" if rate <= 0.25 else f"{round(100 * rate)} in 100"


def interval(hits: int, count: int) -> tuple[float, float]:
    """Return between what rates the true one lies where ``hits`` of ``count`` were seen (Clopper and Pearson)."""
    from scipy.stats import binomtest

    low, high = binomtest(hits, count).proportion_ci()
    return low, high


def headline(case: Case) -> str:
    """Return in one line how the score stands among held-out normal images."""
    count = len(case.calibration.scores)
    low, high = interval(_hits(case), count)
    if case.p_value <= MOST and high < 0.5:
        return f"Higher than {'nearly all' if case.p_value <= NEARLY_ALL else 'most'} normal images"
    if case.score > case.calibration.scores[-1]:
        return "Higher than the few held-out normal images"
    most = low > 0.5
    if case.p_value <= FEWER or (case.score >= case.calibration.scores[0] and not most):
        return "In the typical range of normal images"
    return f"Lower than {'most' if most else 'the few held-out'} normal images"


def _hits(case: Case) -> int:
    """Count the held-out normal images that score as high."""
    return round(case.p_value * (len(case.calibration.scores) + 1)) - 1


def confidence(case: Case) -> list[str]:
    """Return in sentences how sure the score is: what was counted, and what so many images can tell."""
    count, p, rate = len(case.calibration.scores), case.p_value, case.calibration.false_alarm_rate
    hits = _hits(case)
    low, high = interval(hits, count)
    turn = (
        f"; the limit of {percent(rate)} lies within, so more held-out images could turn the result"
        if low < rate < high
        else ""
    )
    said = [
        f"{_counted(hits, count)}; counting this image with them, that is about {one_in(p)}.",
        f"Of all normal images, {_percent(low)} to {_percent(high)} would score as high (95 % confidence){turn}.",
    ]
    if not hits or count < FEW:
        why = "This is as sure as this run can be" if not hits else "There are few to compare with"
        said.append(f"{why}: with {count} held-out normal image{'s'[: count > 1]} p cannot be below 1 in {count + 1}.")
    return said


def _percent(rate: float) -> str:
    """Write a rate as a percentage with no digit that it cannot bear."""
    if 0.99 < rate < 1:
        return _most(rate)
    return f"{100 * rate:.{1 if 0 < rate < 0.1 else 0}f} %"


def _counted(hits: int, count: int) -> str:
    """Say how many of the held-out normal images score as high."""
    if count == 1:
        return f"The one held-out normal image {'scores as high' if hits else 'does not score as high'}"
    if not hits:
        return f"None of {count} held-out normal images scores as high"
    return f"{hits} of {count} held-out normal images score{'s'[: hits == 1]} as high"


def suggestions(case: Case, shown: int) -> list[str]:
    """Return what to look at next; each sentence follows from facts of the page, on which ``shown`` regions stand."""
    outlined = case.regions[:shown]
    others = ["in the nearest normal images"] if case.normals else []
    others += ["in the reconstruction"] if case.reconstruction is not None else []
    return [
        *_large(sum(region.fraction for region in case.regions)),
        *_whole(case),
        *_compare(outlined, others),
        *_border(outlined),
        *_likeness(case.neighbours),
        *_cropping(_aspect(case.image), [_aspect(image) for image in case.normals]),
        _caution(case),
    ]


def _compare(regions: Sequence[Region], others: list[str]) -> list[str]:
    """Send the reader from the first region, inside the image if there is one, to the same place elsewhere."""
    if not regions:
        return []
    inner = [i for i, region in enumerate(regions) if not region.at_border]
    first, pair = inner[0] if inner else 0, _pair(regions, inner)
    lateral = len(regions[first].sides) == 1 and first not in pair
    places = (["on the other side of the image"] if lateral else []) + others
    said = [f"Compare region {first + 1} with the same place {listed(places)}."] if places else []
    if pair:
        said.append(f"Regions {pair[0] + 1} and {pair[1] + 1} lie at the same height on both sides: compare the two.")
    return said or [f"Look closely at region {first + 1}."]


def _pair(regions: Sequence[Region], among: Sequence[int]) -> tuple[()] | tuple[int, int]:
    """Return the first two of the regions at ``among`` that face each other; empty where no two do."""
    for a, b in itertools.combinations(among, 2):
        one, two = regions[a], regions[b]
        if len(one.sides) == len(two.sides) == 1 and one.sides != two.sides and _level(one, two):
            return a, b
    return ()


def _level(one: Region, two: Region) -> bool:
    """Say whether two regions have half of the height of the lower one, or more, in common."""
    spans = [np.flatnonzero(region.mask.any(axis=1))[[0, -1]] + (0, 1) for region in (one, two)]
    common = min(end for _, end in spans) - max(start for start, _ in spans)
    return bool(common >= 0.5 * min(end - start for start, end in spans))


def _border(regions: Sequence[Region]) -> list[str]:
    numbers = [str(i + 1) for i, region in enumerate(regions) if region.at_border]
    if not numbers:
        return []
    who = f"Region {numbers[0]} touches" if len(numbers) == 1 else f"Regions {listed(numbers)} touch"
    return [f"{who} the border of the image: check collimation, position, markers and text there."]


def _large(fraction: float) -> list[str]:
    if fraction < LARGE:
        return []
    return [f"Hot regions cover {_percent(fraction)} of the image: check exposure, position and view first."]


def _whole(case: Case) -> list[str]:
    if case.regions or not case.flagged:
        return []
    why = "this method does not say where" if case.map is None else "no region stands out"
    return [f"The score is high but {why}: look at the whole image: exposure, position, cropping, foreign objects."]


def _likeness(found: Neighbours | None) -> list[str]:
    """Say where the image as a whole differs much from the training images."""
    said = []
    if found and _rank(1 - found.dissimilarity, found.count) <= RARE:
        said.append(
            f"No training image is similar to it: {_most(found.dissimilarity)} of them are nearer to their nearest "
            "neighbour. Check that it is the same view."
        )
    for rate, what in ((found.darker, "brighter"), (1 - found.darker, "darker")) if found else ():
        if found and _rank(1 - rate, found.count) <= RARE:
            said.append(f"Its mean is {what} than that of {_most(rate)} of the training images: check the exposure.")
    return said


def _cropping(aspect: float, normal: Sequence[float]) -> list[str]:
    """Say where the shape of the image differs much from those of the normal images shown."""
    if not normal or min(normal) / ASPECT <= aspect <= ASPECT * max(normal):
        return []
    shapes = " to ".join(dict.fromkeys(f"{value:.2f}" for value in (min(normal), max(normal))))
    return [f"Its width to height is {aspect:.2f}, that of the normal images below {shapes}: check the cropping."]


def _aspect(image: Image) -> float:
    """Return width to height."""
    _, height, width = image.pixels.shape
    return float(width / height)


def _most(rate: float) -> str:
    """Write a rate close to 1, never rounded up to all."""
    return "all" if rate == 1 else f"{math.floor(1000 * rate) / 10:g} %"


def _rank(rate: float, count: int) -> float:
    """Return how rare it is to stand before all but a ``rate`` of ``count`` images, at best 1 / (count + 1)."""
    return (round(rate * count) + 1) / (count + 1)


def _caution(case: Case) -> str:
    if case.flagged:
        rate = one_in(case.calibration.false_alarm_rate)
        return f"Flagged does not mean abnormal: about {rate} images like the held-out ones would be flagged too."
    where = " Many normal images have an outlined place too." if case.regions else ""
    return f"Not flagged does not mean normal: read the image as you would without this page.{where}"


def listed(names: Sequence[str]) -> str:
    """Join names as in a sentence: "1", "1 and 2", "1, 2 and 3"."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def region_row(region: Region, spacing: tuple[float, float] | None) -> tuple[str, str, str]:
    """Return place, size and peak of a region, as written on the page; ``spacing`` (row, column) of pixels in mm."""
    height, width = (side * step for side, step in zip(region.size, spacing or (1, 1), strict=True))
    size = f"{width:.0f} × {height:.0f} {'mm' if spacing else 'px'}, {_percent(region.fraction)}"
    return region.place, size, f"{number(region.peak)} ×"
