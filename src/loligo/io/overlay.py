"""Draw a heat map over an image, with its regions outlined and its hottest places marked: arrays in, arrays out.

Heat is given in parts of the colours' range, as `Calibration.heat` gives it: 0 is the hottest place of a typical normal
image, 1 what at most 1 in 20 normal images reach anywhere.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from loligo.io.regions import Hot, Line

Grey = npt.NDArray[np.uint8]
Heat = npt.NDArray[np.floating[Any]]
Draw = PIL.ImageDraw.ImageDraw

MEANING = (
    "Uncoloured: no hotter than the hottest place of a typical normal image. "
    "Full colour: hotter than the hottest place of 19 in 20 normal images."
)
"""What the ends of the scale are, for a reader."""
ENDS = ("typical normal", "1 in 20 normals")
"""The same beside the colour bar of a picture."""
REGIONS = 5
"""Regions that are outlined at most."""
OPACITY, BELOW = 0.6, 0.54
"""Of full colour over the image, and of what is just below it: what is in full colour is told from what is nearly."""
COLOURS, NEARLY = (0.38, 0.8), 0.6
"""Part of the colour map inferno that is used, purple to orange: it is seen on black, grey and white; and where it ends
just below full colour."""
OUTLINE = (0, 229, 255)
"""Cyan: nowhere on the heat map's scale, and distinct from it for the colour-blind."""
BARRED = 200
"""Width in pixels from which a picture has room for its colour bar."""


def overlay(grey: Grey, heat: Heat) -> Grey:
    """Blend heat (h, w) over (h, w) uint8, the more opaque the further beyond 0 and full from 1: (h, w, 3) uint8."""
    index = (255 * heat.clip(0, 1)).astype(np.uint8)
    colour, seen = _table()
    blended: Grey = np.rint(colour[index] + seen[index][..., None] * grey[..., None]).astype(np.uint8)
    return blended


@functools.cache
def _table() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return by heat in 1/255 the colour that is added (256, 3), and how much of the image is left (256,)."""
    from matplotlib import colormaps

    heat = np.linspace(0, 1, 256)
    alpha = np.where(heat < 1, BELOW * np.sqrt(heat), OPACITY)  # a little hotter than normal is to be seen
    place = np.where(heat < 1, COLOURS[0] + (NEARLY - COLOURS[0]) * heat, COLOURS[1])
    colour = 255 * alpha[:, None] * colormaps["inferno"](place)[:, :3]
    return colour.astype(np.float32), (1 - alpha).astype(np.float32)


def annotated(grey: Grey, heat: Heat, hot: Hot, note: str | None = None) -> Grey:
    """Return heat (h, w) over (h, w) uint8 with what `regions.find` found in it: (h, w, 3) uint8.

    Regions are hatched and outlined, each with its number at its hottest place; where there are none, a cross marks the
    hottest place, if it is hotter than a typical normal one. Unless ``note`` is None, a colour bar, and the note where
    it is not empty, stand on the edge with less heat, if the picture is wide enough.
    """
    shown = hot.regions[:REGIONS]
    image = outlined(grey, heat, hot)
    draw, unit = PIL.ImageDraw.Draw(image), max(image.size) / 100
    for i, region in enumerate(shown, 1):
        _badge(draw, _at(region.at, image.size), str(i), unit)
    if not shown and hot.peak > 0:
        cross(image, hot.at)
    if note is not None and image.width >= BARRED:
        half = len(heat) // 2
        _bar(image, note, top=bool(heat[:half].clip(0).sum() < heat[-half:].clip(0).sum()))
    return np.asarray(image)


def outlined(grey: Grey, heat: Heat, hot: Hot) -> PIL.Image.Image:
    """Return heat (h, w) over (h, w) uint8 with its regions hatched and outlined, as an image to draw on."""
    blended = overlay(grey, heat)
    shown = hot.regions[:REGIONS]
    for region in shown:
        blended = _hatched(blended, region.mask)
    image = PIL.Image.fromarray(blended)
    for line in (line for region in shown for line in region.outline):
        outline(image, line, OUTLINE, max(1, round(max(image.size) / 300)))
    return image


def outline(image: PIL.Image.Image, line: Line, colour: tuple[int, int, int], width: int) -> None:
    """Draw a closed line, dark beside it, so that it is seen on any grey."""
    draw, points = PIL.ImageDraw.Draw(image), [_at((row, column), image.size) for row, column in line]
    draw.line([*points, points[0]], fill=(0, 0, 0), width=3 * width, joint="curve")
    draw.line([*points, points[0]], fill=colour, width=width, joint="curve")


def cross(image: PIL.Image.Image, at: tuple[float, float]) -> None:
    """Mark a place (row, column), in parts of the picture's sides, by four ticks around it."""
    _cross(PIL.ImageDraw.Draw(image), _at(at, image.size), max(image.size) / 100)


def letter(image: PIL.Image.Image, text: str, at: tuple[float, float]) -> None:
    """Write a side, such as R, at a place (row, column) in parts of the picture's sides, inside of the picture."""
    size = max(10.0, max(image.size) / 18)
    draw = PIL.ImageDraw.Draw(image)
    where = _inside(_at(at, image.size), 0.65 * size, image.size)
    font = PIL.ImageFont.load_default(size)
    draw.text(where, text, fill=(255, 255, 255), anchor="mm", font=font, stroke_width=2, stroke_fill=(0, 0, 0))


def ramp(width: int, height: int) -> Grey:
    """Return the colours of heat from 0 at the left to 1 and beyond over mid grey: (height, width, 3) uint8."""
    heat = np.tile(np.linspace(0, 1.15, width, dtype=np.float32), (height, 1))
    return overlay(np.full(heat.shape, 110, np.uint8), heat)


def levels(pixels: npt.NDArray[np.floating[Any]]) -> Grey:
    """Round values, those beyond [0, 1] to its ends, to 8 bit: uint8 of the same shape."""
    return np.asarray(np.rint(pixels.clip(0, 1) * 255).astype(np.uint8))


def _at(place: tuple[float, float], size: tuple[int, int]) -> tuple[float, float]:
    """Return (x, y) in pixels of a place (row, column) in parts of a picture of (width, height)."""
    return place[1] * size[0], place[0] * size[1]


def _hatched(picture: Grey, mask: npt.NDArray[np.bool_]) -> Grey:
    """Lighten every few diagonals inside of a mask, so that inside and outside cannot be taken for each other."""
    height, width = picture.shape[:2]
    inside = np.asarray(PIL.Image.fromarray(mask).resize((width, height), PIL.Image.Resampling.NEAREST))
    rows, columns = np.ogrid[:height, :width]
    step = max(6, max(height, width) // 45)
    lines = inside & ((rows + columns) % step < max(1, step // 8))
    picture[lines] = (0.45 * picture[lines] + 0.55 * np.array(OUTLINE)).astype(np.uint8)
    return picture


def _badge(draw: Draw, at: tuple[float, float], text: str, unit: float) -> None:
    """Draw a region's number in a disc, whose ticks point at the hottest place under it."""
    _cross(draw, at, unit)
    radius = max(6.0, 2.3 * unit)
    at = _inside(at, radius, draw.im.size)
    box = (at[0] - radius, at[1] - radius, at[0] + radius, at[1] + radius)
    draw.ellipse(box, fill=OUTLINE, outline=(0, 0, 0), width=max(1, round(unit / 4)))
    draw.text(at, text, fill=(0, 0, 0), anchor="mm", font=PIL.ImageFont.load_default(1.5 * radius))


def _inside(at: tuple[float, float], radius: float, size: tuple[int, int]) -> tuple[float, float]:
    """Move a disc into a picture of (width, height)."""
    x, y = (min(max(radius, value), max(radius, side - 1 - radius)) for value, side in zip(at, size, strict=True))
    return x, y


def _cross(draw: Draw, at: tuple[float, float], unit: float) -> None:
    """Draw four ticks around a place, which stays free; what lies beyond the edge is cut."""
    near, far, width = max(3.0, 1.2 * unit), max(9.0, 3.6 * unit), max(1, round(unit / 3))
    for fill, wide in (((0, 0, 0), 3 * width), (OUTLINE, width)):
        for x, y in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            ends = [(at[0] + x * part, at[1] + y * part) for part in (near, far)]
            draw.line(ends, fill=fill, width=wide)


def _bar(image: PIL.Image.Image, note: str, *, top: bool) -> None:
    """Lay the colour bar with its ends in words, and a note, over the upper or the lower edge."""
    size = min(40.0, max(9.0, image.width / 42))
    font, height = PIL.ImageFont.load_default(size), round(1.5 * size)
    lines = 2 if note else 1
    strip = PIL.Image.new("RGB", (image.width, lines * height))
    draw = PIL.ImageDraw.Draw(strip)
    widths = [font.getlength(text) for text in ENDS]
    span = round(min(12 * size, max(2 * size, image.width - sum(widths) - 3 * size)))
    x, middle = size / 2, height / 2
    draw.text((x, middle), ENDS[0], fill=(255, 255, 255), anchor="lm", font=font)
    start = round(x + widths[0] + size / 2)
    strip.paste(PIL.Image.fromarray(ramp(span, max(2, height // 2))), (start, height // 4))
    draw.text((start + span + size / 2, middle), ENDS[1], fill=(255, 255, 255), anchor="lm", font=font)
    if note:
        draw.text((x, 1.5 * height), note, fill=(255, 255, 255), anchor="lm", font=font)
    image.paste(strip, (0, 0 if top else image.height - strip.height))
