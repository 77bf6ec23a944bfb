"""Say what one image's score means and what to look at next, in plain words: facts of the page, never a diagnosis."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from loligo.data.checks import WARNINGS
from loligo.data.neighbours import Neighbours
from loligo.io.overlay import REGIONS
from loligo.io.regions import Region
from loligo.reports.common.text import number, percent
from loligo.reports.sheet.case import Case
from loligo.types import Image

MOST, FEWER = 0.2, 0.8
"""p-values up to which a score is called higher, and above which lower, than so many normals."""
FEW = 100
"""Held-out normal images below which the page says that there are few."""
RARE = 0.01
"""Rate among training images below which a brightness or a distance is called unusual."""
ASPECT = 1.25
"""Factor by which width to height differs from all normal images shown before the page says so."""


def one_in(rate: float) -> str:
    """Write a rate in (0, 1] as people count: "1 in 20", or "57 in 100" where it is no small one."""
    return f"1 in {round(1 / rate)}" if rate <= 0.25 else f"{round(100 * rate)} in 100"


def interval(hits: int, count: int) -> tuple[float, float]:
    """Return between what rates the true one lies where ``hits`` of ``count`` were seen (Clopper and Pearson)."""
    from scipy.stats import binomtest

    low, high = binomtest(hits, count).proportion_ci()
    return low, high


def headline(case: Case) -> str:
    """Return in one line how the score stands among held-out normals."""
    count, hits = case.count, case.hits
    below = f"{'all' if count > 1 else 'the'} {_normals(case)}"
    if not hits:
        return f"Higher than {below}"
    if case.p_value <= MOST:
        return f"Higher than {count - hits} of {_normals(case)}"
    if case.score < case.calibration.scores[0]:
        return f"Lower than {below}"
    if case.p_value > FEWER and hits < count:
        return f"Lower than {hits} of {_normals(case)}"
    return f"In the typical range of normal {case.noun}s"


def _normals(case: Case) -> str:
    """Return "32 held-out normal images"."""
    return f"{case.count if case.count > 1 else 'one'} held-out normal {case.noun}{'s'[: case.count > 1]}"


def warnings(case: Case) -> list[str]:
    """Return in a sentence each what is odd about the input."""
    return [WARNINGS.get(name, f"{name}.").replace("image", case.noun, 1) for name in case.warnings]


def standing(case: Case) -> str:
    """Say how far the score lies from the mean of normals, in their deviations."""
    side = "above" if case.deviations >= 0 else "below"
    return f"{number(abs(case.deviations))} deviations {side} the mean of those normals"


def confidence(case: Case) -> list[str]:
    """Return in sentences how sure the score is: what was counted, and what so many images can tell."""
    count, p, rate, hits = case.count, case.p_value, case.calibration.false_alarm_rate, case.hits
    low, high = interval(hits, count)
    turn = (
        f"; the limit of {percent(rate)} lies within, so more held-out {case.noun}s could turn the result"
        if low < rate < high
        else ""
    )
    said = [
        f"{_counted(case)}; counting this {case.noun} with them, that is about {one_in(p)}.",
        f"Of all normal {case.noun}s, {_percent(low)} to {_percent(high)} would score as high (95 % confidence){turn}.",
    ]
    if not hits or count < FEW:
        why = "This is as sure as this run can be" if not hits else "There are few to compare with"
        said.append(f"{why}: with {_normals(case)} p cannot be below 1 in {count + 1}.")
    return said


def _percent(rate: float) -> str:
    """Write a rate as a percentage with no digit that it cannot bear."""
    if 0.99 < rate < 1:
        return _most(rate)
    return f"{100 * rate:.{1 if 0 < rate < 0.1 else 0}f} %"


def _counted(case: Case) -> str:
    """Say how many of the held-out normals score as high."""
    if case.count == 1:
        return f"The {_normals(case)} {'scores as high' if case.hits else 'does not score as high'}"
    if not case.hits:
        return f"None of {_normals(case)} scores as high"
    return f"{case.hits} of {_normals(case)} score{'s'[: case.hits == 1]} as high"


def suggestions(case: Case) -> list[str]:
    """Return what to look at next; each sentence follows from facts of the page."""
    outlined = case.hot.regions[:REGIONS] if case.hot else ()
    others = ["in the nearest normal images"] if case.normals else []
    others += ["in the reconstruction"] if case.reconstruction is not None else []
    said = ["Black and white may be exchanged: check that first."] if "inverted" in case.warnings else []
    said += [*_whole(case), *_compare(outlined, others), *_border(outlined), *_likeness(case.neighbours)]
    if isinstance(case.image, Image):
        said += _cropping(_aspect(case.image), [_aspect(image) for image in case.normals])
    return [*said, _caution(case)]


def where(case: Case) -> list[str]:
    """Say what the hottest place of an image lies in, as far as that can be told, and where heat is everywhere."""
    if case.hot is None or case.hot.peak <= 0:
        return []
    body, lungs = case.place
    said = []
    if case.hot.widespread:
        said.append(
            f"{_percent(case.hot.fraction)} of the image is in full colour: no place stands out, none is outlined."
            " The cross marks the hottest place."
        )
    if body is None:
        said.append("The outline of the body was not found.")
    elif not body:
        said.append(
            "The hottest place lies outside of the body: check collimation, markers, padding and what lies beside."
        )
    if lungs is None:
        said.append("The two lungs could not be told from the rest of the image.")
    else:
        said.append(f"The hottest place lies {'inside' if lungs else 'outside'} of the air-filled lung that was found.")
    return said


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


def _whole(case: Case) -> list[str]:
    if case.hot and case.hot.widespread:
        return ["Look at the whole image first: exposure, position, view, cropping, polarity."]
    if not case.flagged or (case.heat is not None and case.stands_out):
        return []
    why = "this method does not say where" if case.heat is None else "no place stands out"
    return [
        f"The score is high but {why}: look at the whole {case.noun}: exposure, position, cropping, foreign objects."
    ]


def _likeness(found: Neighbours | None) -> list[str]:
    """Say where the image as a whole differs much from the training images."""
    said = []
    if found and _rank(1 - found.dissimilarity, found.count) <= RARE:
        said.append(
            f"It looks like no training image: {_most(found.dissimilarity)} of those have a closer look-alike among "
            "the others than this image has. Check view, cropping, padding and zoom."
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
    said = f"Its width to height is {aspect:.2f}, that of the normal images shown {shapes}"
    return [f"{said}: check cropping and padding."]


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
        return f"Flagged does not mean abnormal: about {rate} {case.noun}s like the held-out ones would be flagged too."
    return f"Not flagged does not mean normal: read the {case.noun} as you would without this page."


def listed(names: Sequence[str]) -> str:
    """Join names as in a sentence: "1", "1 and 2", "1, 2 and 3"."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def region_row(region: Region, image: Image) -> tuple[str, str, str]:
    """Return place, size and heat of a region of an image, as written on the page: mm where its pixels have a size."""
    steps = image.spacing or (1, 1)
    height, width = (part * n * step for part, n, step in zip(region.size, image.pixels.shape[1:], steps, strict=True))
    size = f"{width:.0f} × {height:.0f} {'mm' if image.spacing else 'px'}, {_percent(region.fraction)}"
    return region.place, size, number(region.peak)
