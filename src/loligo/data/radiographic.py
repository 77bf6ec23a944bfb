"""Simulated findings of chest radiographs, each by the sign that a radiologist knows it by.

Each kind takes a `Scene` and a generator, and returns the changed image (H, W) float32; `findings.insert` finds the
mask. Brightness is in parts of the step from lung to soft tissue in the same image, size in parts of its shorter side.
Where no lungs were found, the halves of the foreground stand for them. The signs are those of Hansell et al.,
Fleischner Society: Glossary of Terms for Thoracic Imaging, Radiology 2008, 246(3), 697-722.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy import ndimage

from loligo.data.scene import Lung, Scene
from loligo.data.shapes import (
    Floats,
    Stroke,
    blob,
    blurred,
    branches,
    curve,
    ellipse,
    fade,
    grid,
    ink,
    noise,
    upsampled,
    warped,
)

DETAIL = 0.03
"""Width of what fades in opaque lung: vessels and, less, ribs."""
VESSEL = 0.01
"""Width of the finest vessels, that vanish first."""
HEART = 0.1
"""Least half width of a heart."""


def consolidation(scene: Scene, rng: np.random.Generator) -> Floats:
    """Fill air spaces: fluffy confluent opacities with ragged edges, that hide vessels and the border beside them.

    One lung or both; a patch, several or a lobe, at times with air bronchograms; half to fully as bright as tissue.
    """
    weight, air = np.zeros(scene.shape, np.float32), np.zeros(scene.shape, np.float32)
    amount, edge = rng.uniform(0.4, 1.05), rng.uniform(0.4, 1)
    rough = noise(scene.shape, rng.uniform(5, 9), rng, octaves=3)
    for lung in scene.some(rng, both=0.35):
        patches = _lobe(scene, lung, rng, rough) if rng.random() < 0.25 else np.zeros(scene.shape, np.float32)
        for _ in range(int(rng.integers(1, 4))):
            shift = rough * np.float32(rng.uniform(0.2, 0.4))
            spot = blob(scene.shape, lung.place(rng), rng.uniform(0.06, 0.22), rng, edge=edge, rough=shift)
            patches = np.maximum(patches, spot)
        weight = np.maximum(weight, patches * scene.within(lung, reach=0.02, edge=0.05))
        if rng.random() < 0.4:
            air += ink(scene.shape, _tree(lung, rng, width=0.006))
    clouded = weight * (1 + np.float32(0.1) * noise(scene.shape, 14, rng, octaves=2))
    after = _opaque(scene, clouded, amount, keep=rng.uniform(0.3, 0.7))
    if air.any():
        after -= np.float32(0.35 * amount * _gap(scene)) * weight * np.minimum(air, 1)
    return after


def ground_glass(scene: Scene, rng: np.random.Generator) -> Floats:
    """Veil the lung: a hazy, smooth opacity through which vessels stay visible, patchy or diffuse."""
    weight = np.zeros(scene.shape, np.float32)
    for lung in scene.some(rng, both=0.6):
        if rng.random() < 0.35:
            veil = fade(np.float32(0.8) + np.float32(0.3) * noise(scene.shape, 3, rng))
        else:
            veil = fade(noise(scene.shape, rng.uniform(2.5, 7), rng, octaves=2) * np.float32(0.6) + np.float32(0.3))
        weight = np.maximum(weight, veil * scene.within(lung, reach=0.01, edge=0.06))
    return _opaque(scene, weight, rng.uniform(0.15, 0.55), keep=rng.uniform(0.8, 1))


def edema(scene: Scene, rng: np.random.Generator) -> Floats:
    """Let fluid into both lungs: vessels lose their sharp outline, and a haze lies about the hila or over all."""
    weight, least = np.zeros(scene.shape, np.float32), np.float32(rng.uniform(0.1, 0.9))
    for lung in scene.lungs:
        near = fade(np.float32(1.8) - ellipse(scene.shape, lung.hilum, (0.3, 0.2)))
        weight = np.maximum(weight, np.maximum(near, least) * scene.within(lung, reach=0.01, edge=0.06))
    soft = scene.image + weight * (blurred(scene.image, rng.uniform(0.003, 0.009)) - scene.image)
    return _opaque(scene, weight, rng.uniform(0.1, 0.5), keep=rng.uniform(0.7, 1), x=soft)


def interstitial(scene: Scene, rng: np.random.Generator) -> Floats:
    """Thicken the interstitium: a net of lines, small nodules or streaks from the hilum, mostly of both lungs."""
    kind, zone, strokes = int(rng.integers(3)), np.zeros(scene.shape, np.float32), []
    rows, _ = grid(scene.shape)
    for lung in scene.some(rng, both=0.85):
        weight = scene.within(lung, reach=0.01, edge=0.05)
        if kind == 2:
            strokes += [s for _ in range(3) for s in _tree(lung, rng, width=rng.uniform(0.004, 0.009))]
            weight *= fade(np.float32(1.5) - ellipse(scene.shape, lung.hilum, (0.3, 0.2)))
        elif rng.random() < 0.4:  # basal
            top, bottom, *_ = lung.box
            weight *= fade((rows - np.float32(top)) / np.float32(max(bottom - top, 1e-3)))
        zone = np.maximum(zone, weight)
    if kind == 2:
        pattern = np.float32(1.4) * blurred(ink(scene.shape, strokes), 0.008) + np.float32(0.2)
    else:
        field = noise(scene.shape, min(1 / rng.uniform(0.02, 0.045), min(scene.shape) / 2.5), rng)
        pattern = np.exp(-((field / np.float32(0.35)) ** 2)) if kind == 0 else fade((field - np.float32(0.4)) / 2)
        pattern = pattern + np.float32(0.15)
        zone *= fade(noise(scene.shape, 4, rng) * np.float32(0.5) + 1)
    detail = scene.image - blurred(scene.image, VESSEL)
    return scene.image + zone * (np.float32(rng.uniform(0.3, 0.8) * _gap(scene)) * pattern - np.float32(0.3) * detail)


def effusion(scene: Scene, rng: np.random.Generator) -> Floats:
    """Fill the pleural space from the base: a meniscus that rises to the chest wall, or a veil where one lies supine.

    From a blunted costophrenic angle to most of a lung; mostly of one side.
    """
    weight, supine = np.zeros(scene.shape, np.float32), rng.random() < 0.2
    rows, columns = grid(scene.shape)
    for lung in scene.some(rng, both=0.25):
        top, bottom, left, right = (np.float32(edge) for edge in lung.box)
        tall, out = bottom - top, np.clip((columns - left) / (right - left), 0, 1)
        out = out if lung.lateral > 0 else 1 - out  # 0 medial, 1 at the chest wall
        height, rise = rng.choice((0.08, 0.2, 0.45)) * rng.uniform(0.5, 1.4), rng.uniform(0.08, 0.3)
        level = bottom - tall * (np.float32(height) + np.float32(rise) * out**3)
        if supine:
            veil = np.float32(0.35) + np.float32(0.65) * fade((rows - top) / tall)
        else:
            veil = fade((rows - level) / np.float32(rng.uniform(0.02, 0.07)))
        weight = np.maximum(weight, veil * scene.within(lung, reach=0.03))
    amount = rng.uniform(0.25, 0.6) if supine else rng.uniform(0.6, 1.15)
    return _opaque(scene, weight, amount, keep=0.8 if supine else 0.3)


def pneumothorax(scene: Scene, rng: np.random.Generator) -> Floats:
    """Let air between lung and chest wall: a dark rim without vessels beyond the thin white line of the pleura.

    The lung shrinks towards the lower end of its medial border by a little to a half.
    """
    lung = scene.some(rng, both=0)[0]
    top, bottom, left, right = lung.box
    centre = (bottom - rng.uniform(0, 0.35) * (bottom - top), right if lung.lateral < 0 else left)
    scale = 1 / (1 - rng.uniform(0.08, 0.5))
    places = [
        (c + ((np.arange(n) + 0.5) * unit - c) * scale) / unit - 0.5
        for c, unit, n in zip(centre, lung.unit, lung.mask.shape, strict=True)
    ]
    shrunk = ndimage.map_coordinates(lung.depth, np.meshgrid(*places, indexing="ij"), order=1, mode="nearest") / scale
    inner = upsampled(shrunk, scene.shape) + np.float32(0.005) * noise(scene.shape, 6, rng)  # depth in the shrunk lung
    pixel, gap, x = 1 / min(scene.shape), _gap(scene), scene.image
    rim = scene.within(lung, reach=0.005, edge=0.02) * np.clip(0.5 - inner / np.float32(2 * pixel), 0, 1)
    away = np.abs(inner) / np.float32(max(0.005, 1.2 * pixel))
    line = scene.within(lung, reach=-0.015, edge=0.02) * fade(1 - away)
    rows, columns = grid(scene.shape)
    out, up = (columns - np.float32(centre[1])) * lung.lateral, np.float32(centre[0]) - rows
    medial = np.float32(0.4 * (right - left)) * (1 - up / np.float32(bottom - top))  # none of it at the apex
    lateral = fade((out - medial) / np.float32(0.05)) * fade(1 + up / np.float32(0.12))
    dark = np.float32(rng.uniform(0.15, 0.6) * gap) * np.clip((x - scene.range[0]) / np.float32(0.4 * gap), 0, 1)
    detail = np.float32(0.8) * (x - blurred(x, VESSEL))
    changed: Floats = x + lateral * (line * np.float32(rng.uniform(0.25, 0.7) * gap) - rim * (dark + detail))
    return changed


def nodule(scene: Scene, rng: np.random.Generator) -> Floats:
    """Add one to several round opacities with soft edges, 2 to 20 % of the image wide: from a nodule to a mass."""
    weight, wide = np.zeros(scene.shape, np.float32), scene.shape[1] / min(scene.shape)
    largest = math.exp(rng.uniform(math.log(0.025), math.log(0.2)))
    rough = noise(scene.shape, 8, rng, octaves=2)
    for _ in range(1 if rng.random() < 0.6 else int(rng.integers(2, 7))):
        radius, lung = largest * rng.uniform(0.7, 1) / 2 * wide, scene.lungs[int(rng.integers(2))]
        shift = rough * np.float32(rng.uniform(0, 0.12))
        spot = blob(scene.shape, lung.place(rng, radius), radius * 1.2, rng, edge=rng.uniform(0.3, 0.7), rough=shift)
        weight = np.maximum(weight, spot * np.float32(rng.uniform(0.8, 1)))
    return _opaque(scene, weight, rng.uniform(0.3, 1.0), keep=0.9)


def atelectasis(scene: Scene, rng: np.random.Generator) -> Floats:
    """Collapse a part of a lung: an opaque band or a wedge from the hilum, to which its surroundings are drawn."""
    lung, wedge = scene.some(rng, both=0)[0], rng.random() < 0.5
    at, length = (lung.hilum, rng.uniform(0.15, 0.35)) if wedge else (lung.place(rng, 0.03), rng.uniform(0.08, 0.25))
    turn = rng.normal(0, 0.5) + lung.lateral * math.pi / 2  # from the hilum outwards
    rows, columns = grid(scene.shape)
    down, right = rows - np.float32(at[0]), columns - np.float32(at[1])
    cos, sin = np.float32(math.cos(turn)), np.float32(math.sin(turn))
    along, across = (down * cos + right * sin) / np.float32(length), right * cos - down * sin  # along: 1 at the end
    thick = np.float32(rng.uniform(0.008, 0.03))
    if wedge:
        half = thick + np.maximum(along, 0) * np.float32(length * math.tan(rng.uniform(0.1, 0.35)))
        middle, reach = 0.5, 0.75
    else:
        half = thick * np.sqrt(np.clip(1 - along**2, 0, 1))
        middle, reach = 0.0, 1.2
    half = half + np.float32(0.006) * noise(scene.shape, 10, rng, octaves=2)
    soft = np.float32(rng.uniform(0.01, 0.03))
    weight = fade((half - np.abs(across)) / soft + np.float32(0.5)) * fade(
        (1 - np.abs(along)) * np.float32(length / 0.06)
    )
    weight *= fade(along * np.float32(length / 0.02) + 1) if wedge else 1
    width = np.float32(rng.uniform(0.05, 0.11))
    distance = np.sqrt((across / width) ** 2 + ((along - np.float32(middle)) / np.float32(reach)) ** 2)
    pull = across * fade(2 - 2 * distance) * np.float32(rng.uniform(0.2, 0.45))
    moved = warped(scene.image, -pull * sin, pull * cos)
    return _opaque(scene, weight * scene.within(lung, reach=0.01), rng.uniform(0.4, 1.1), keep=0.6, x=moved)


def cardiomegaly(scene: Scene, rng: np.random.Generator) -> Floats:
    """Widen the heart shadow: its borders move smoothly into the lungs, mostly to the patient's left."""
    left, right = scene.lungs
    top, bottom = min(left.box[0], right.box[0]), max(left.box[1], right.box[1])
    row = top + rng.uniform(0.65, 0.75) * (bottom - top)
    line = min(int(row / left.unit[0]), len(left.mask) - 1)
    first, last = (np.flatnonzero(lung.mask[max(0, line - 3) : line + 4].any(0)) for lung in (left, right))
    borders = (
        (first[-1] + 1) * left.unit[1] if len(first) else left.box[3],
        (last[0] * right.unit[1] if len(last) else right.box[2]),
    )
    middle, radius = sum(borders) / 2, max((borders[1] - borders[0]) / 2, HEART)
    weight = fade(2 - 2 * ellipse(scene.shape, (row, middle), (0.4 * (bottom - top), 2.3 * radius)))
    away = grid(scene.shape)[1] - np.float32(middle)
    grow = rng.uniform(0.2, 0.6)
    share = np.where(away > 0, np.float32(grow), np.float32(grow * rng.uniform(0.2, 0.8)))
    return warped(scene.image, np.zeros(scene.shape, np.float32), -away * share * weight)


def device(scene: Scene, rng: np.random.Generator) -> Floats:
    """Lay a device over the chest, bright with sharp edges: a catheter, a tube, electrodes or a pacemaker."""
    kind = (_catheter, _tube, _electrodes, _pacemaker)[int(rng.integers(4))]
    weight = ink(scene.shape, kind(scene, rng))
    if rng.random() < 0.5:
        weight = weight * np.float32(rng.uniform(0.3, 0.7))
    bright = np.float32(scene.range[0] + scene.contrast * rng.uniform(0.9, 1.15))
    laid: Floats = scene.image + weight * np.maximum(bright - scene.image, np.float32(0.15 * scene.contrast))
    return laid


def _catheter(scene: Scene, rng: np.random.Generator) -> list[Stroke]:
    """Draw a thin line from the border or the neck to within the chest."""
    high, wide = (n / min(scene.shape) for n in scene.shape)
    start = (0.0, rng.uniform(0.2, 0.8) * wide) if rng.random() < 0.7 else (
        rng.uniform(0, 0.6) * high, 0.0 if rng.random() < 0.5 else wide
    )  # fmt: skip
    end = scene.lungs[int(rng.integers(2))].hilum if rng.random() < 0.6 else scene.place(rng)
    return [Stroke(curve([start, end], 0.08, rng), rng.uniform(0.004, 0.01))]


def _tube(scene: Scene, rng: np.random.Generator) -> list[Stroke]:
    """Draw both walls of a tube: from above along the midline, or a drain from the side."""
    high, wide = (n / min(scene.shape) for n in scene.shape)
    lung = scene.lungs[int(rng.integers(2))]
    middle = (scene.lungs[0].hilum[1] + scene.lungs[1].hilum[1]) / 2
    ends = [(0.0, middle + rng.normal(0, 0.03)), (rng.uniform(0.3, 0.95) * high, middle + rng.normal(0, 0.03))]
    if rng.random() < 0.4:
        ends = [(rng.uniform(0.5, 0.9) * high, 0.0 if lung.lateral < 0 else wide), lung.place(rng, 0.03)]
    path, half = curve(ends, 0.04, rng), rng.uniform(0.006, 0.014)
    along = np.gradient(path, axis=0)
    normal = along[:, ::-1] * (1, -1) / np.maximum(np.hypot(*along.T), 1e-6)[:, None]
    return [Stroke(path + way * half * normal, 0.004) for way in (-1, 1)]


def _electrodes(scene: Scene, rng: np.random.Generator) -> list[Stroke]:
    """Draw one to four electrodes, each with its lead to a border."""
    strokes, (high, wide) = [], (n / min(scene.shape) for n in scene.shape)
    for _ in range(int(rng.integers(1, 5))):
        at, radius = scene.place(rng), rng.uniform(0.012, 0.03)
        strokes.append(Stroke(_ring(at, radius), 0.0 if rng.random() < 0.6 else radius / 2))
        end = (rng.uniform(0, 1) * high, 0.0 if at[1] < wide / 2 else wide)
        strokes.append(Stroke(curve([at, end], 0.05, rng), 0.005))
    return strokes


def _pacemaker(scene: Scene, rng: np.random.Generator) -> list[Stroke]:
    """Draw a rounded box below a clavicle and one or two leads that end in the heart."""
    lung = scene.lungs[int(rng.integers(2))]
    top, bottom, left, right = lung.box
    at = (top + rng.uniform(0.1, 0.3) * (bottom - top), left + rng.uniform(0.3, 0.7) * (right - left))
    size = rng.uniform(0.04, 0.08)
    box = _ring((0, 0), 1.0)
    box = np.add(at, size * np.sign(box) * np.abs(box) ** 0.5 * (rng.uniform(0.7, 1), rng.uniform(0.7, 1)))
    middle = (scene.lungs[0].hilum[1] + scene.lungs[1].hilum[1]) / 2
    strokes = [Stroke(box, 0.0)]
    for _ in range(int(rng.integers(1, 3))):
        turn, end = (top + 0.15 * (bottom - top), middle), (top + rng.uniform(0.5, 0.9) * (bottom - top), middle + 0.05)
        path = np.concatenate(
            [curve([at, turn], 0.03, rng), curve([turn, np.add(end, rng.normal(0, 0.04, 2))], 0.04, rng)]
        )
        strokes.append(Stroke(path, 0.005))
    return strokes


def _ring(at: tuple[float, float], radius: float) -> np.ndarray:
    """Return points (n, 2) on a circle, closed."""
    angles = np.linspace(0, 2 * np.pi, 33)
    return np.add(at, radius * np.stack([np.cos(angles), np.sin(angles)], 1))


def _gap(scene: Scene) -> float:
    """Return the step from lung to soft tissue."""
    return max(scene.levels[1] - scene.levels[0], 1e-6)


def _opaque(scene: Scene, weight: Floats, amount: float, keep: float, x: Floats | None = None) -> Floats:
    """Bring an image (H, W) nearer to soft tissue: by ``amount`` of what it lacks, with ``keep`` of ribs and vessels.

    What is as bright already, as the heart, hardly changes, so that its border vanishes.
    """
    x, gap = scene.image if x is None else x, _gap(scene)
    smooth = blurred(x, DETAIL)
    lacks = np.clip(np.float32(scene.levels[1] + 0.15 * gap) - smooth, np.float32(0.1 * gap), np.float32(1.3 * gap))
    opaque: Floats = x + weight * (np.float32(amount) * lacks - np.float32(1 - keep) * (x - smooth))
    return opaque


def _lobe(scene: Scene, lung: Lung, rng: np.random.Generator, rough: Floats) -> Floats:
    """Return the weight (H, W) of what lies above or below a fissure."""
    rows, columns = grid(scene.shape)
    top, bottom, left, right = lung.box
    level = top + rng.uniform(0.35, 0.65) * (bottom - top)
    tilt = np.float32(rng.normal(0, 0.25)) * (columns - np.float32((left + right) / 2))
    way = 1 if rng.random() < 0.65 else -1
    return fade(way * (rows - np.float32(level) - tilt) / np.float32(0.04) + np.float32(0.2) * rough)


def _tree(lung: Lung, rng: np.random.Generator, width: float) -> list[Stroke]:
    """Return bronchi that fan out from a hilum."""
    strokes: list[Stroke] = []
    reach = (lung.box[3] - lung.box[2]) * 0.4
    for turn in (-0.65, -0.15, 0.35):
        way = math.pi / 2 * lung.lateral * (1 + turn) + rng.normal(0, 0.15)
        strokes += branches(lung.hilum, way, reach * rng.uniform(0.7, 1.2), width, rng)
    return strokes


KINDS: dict[str, Callable[[Scene, np.random.Generator], Floats]] = {
    "consolidation": consolidation,
    "ground_glass": ground_glass,
    "edema": edema,
    "interstitial": interstitial,
    "effusion": effusion,
    "pneumothorax": pneumothorax,
    "nodule": nodule,
    "atelectasis": atelectasis,
    "cardiomegaly": cardiomegaly,
    "device": device,
}
"""Each kind by its name."""
