"""Say what is odd about an image as it is given, though it can be scored: warnings by name.

Those that a file shows by itself are found here, when it is decoded; those that need the training images, or the other
images of a scoring, by `reference`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from loligo.types import Image, Volume

Names = tuple[str, ...]
"""Warnings of an image, in the order of `WARNINGS`."""

TAILS = (1.0, 99.0)
"""Percentiles of an image between which its contrast lies."""
BRIGHT = 95.0
"""Percentile of what is brighter than an image's darkest pixel that says what it uses of its range: a dead pixel, a
marker or a large black background counts for nothing."""
NARROW = 0.5
"""Part of the file's range that `BRIGHT` lies below where the range is narrow."""
BLANK = 0.01
"""Contrast, of the file's range, below which an image shows nothing."""
AIR = 0.1
"""Part of the standard deviation of a volume's richest slice that a slice of air stays below."""
TINY = 4
"""Times that the network's side is longer than a side of an image that is tiny."""

_SAYS = {
    "out_of_scope": "shows something else than the training images: most of its structure is none that they have, so"
    " that its score says nothing",
    "other_view": "has a View Position in its DICOM header that no training image has",
    "other_body_part": "has a Body Part Examined in its DICOM header that no training image has",
    "other_age": "is of a patient who is much younger or older than all whose images were trained on, by its DICOM"
    " header",
    "blank": "shows nothing: nearly all of its pixels have one value",
    "tiny": f"has fewer than 1/{TINY} of the pixels a side that the network sees",
    "narrow_range": "uses less than half of its file's range, as 12-bit numbers in a 16-bit file do, and is dark to the"
    " method; save it scaled to the full range, as all that is trained on and scored",
    "no_window": "has no VOI LUT or window in its DICOM header: black and white are the ends of the range that it may"
    " store",
    "other_range": "is much brighter, darker or paler than the training images, as one of another bit depth or window",
    "inverted": "looks like the negative of the training images: black and white may be exchanged",
    "unlike_training": "is less like any training image than those are like each other; it may show something else",
    "seen_in_training": "is one that the method was trained or calibrated on, so that its score says nothing",
    "copy": "is the same as another one of this scoring",
    "extent": "covers another length of the body, in mm, than the training volumes",
}
WARNINGS = {name: f"The image {said}." for name, said in _SAYS.items()}
"""What each warning says, in one sentence, by its name."""
NOT_SCORED = ("other_view", "other_body_part", "other_age", "out_of_scope")
"""Warnings of images that a scoring does not score, by their header (see `header_scope`) or their content."""
_SAMPLED = 1 << 20  # pixels by which a large image is judged


def found(image: Image | Volume, levels: npt.NDArray[np.uint16], size: int) -> Names:
    """Return the warnings of an image by itself, given its levels (N, 1, S, S) in a network of ``size`` S."""
    volume = isinstance(image, Volume)
    pixels = _sampled(image.pixels if isinstance(image, Image) else levels.astype(np.float32) / np.float32(65535))
    low, high = np.percentile(pixels, TAILS)
    blank = bool(high - low < BLANK)
    side = sorted(image.geometry.shape)[-2]  # of a volume's slices, whatever their direction
    seen = (
        name
        for name, is_so in (
            ("blank", blank),
            ("tiny", TINY * side < size),
            ("narrow_range", not (volume or blank) and _used(pixels) < NARROW),
        )
        if is_so
    )
    return ordered(seen, image.remarks if isinstance(image, Image) else ())


def tissue(levels: npt.NDArray[np.uint16]) -> tuple[bool, ...]:
    """Tell which slices of a volume's levels (N, 1, S, S) hold tissue: those whose contrast is more than air's.

    All do where one has as much contrast as another, as the only one, an image, has.
    """
    contrast = np.array([one.std(dtype=np.float32) for one in levels])
    return tuple((contrast >= AIR * contrast.max()).tolist())


def ordered(*warnings: Iterable[str]) -> Names:
    """Return all of some warnings, each once, in the order of `WARNINGS`."""
    given = set().union(*warnings)
    return tuple(name for name in WARNINGS if name in given)


def why_not_scored(warnings: Names, headers: Mapping[str, str]) -> str:
    """Return the reason why an image with these warnings is not scored; empty where it is.

    ``headers`` says more of those that are due to its header; see `HeaderScope.reasons`.
    """
    said = [headers.get(name, f"it {_SAYS[name]}") for name in NOT_SCORED if name in warnings]
    return f"not scored: {'; '.join(said)}" if said else ""


def summary(warnings: Sequence[Names], images: str = "training images") -> list[str]:
    """Say how many of the ``images`` have each warning: a sentence a warning."""
    counts = Counter(name for names in warnings for name in names)
    return [
        f"{n} of {len(warnings)} {images}: {'it' if n == 1 else 'each'} {_SAYS[name]}"
        for name in _SAYS
        if (n := counts[name])
    ]


def _used(pixels: npt.NDArray[np.float32]) -> float:
    """Return what pixels (N,) in [0, 1] of more than one value use of their range."""
    return float(np.percentile(pixels[pixels > pixels.min()], BRIGHT))


def _sampled(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return pixels of any shape as (N,), of a large image some of them."""
    return pixels.reshape(-1)[:: max(1, pixels.size // _SAMPLED)]
