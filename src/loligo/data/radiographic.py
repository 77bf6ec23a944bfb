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

VESSEL = 0.02
"""Width of what vanishes in opaque lung: vessels, not ribs."""


def consolidation(scene: Scene, rng: np.random.Generator) -> Floats:
    """Fill air spaces: fluffy confluent opacities with ragged edges, that hide vessels and the border beside them.

    One lung or both; a patch, several or a lobe, at times with air bronchograms; half to fully as bright as tissue.
    """
    amount, weight, air = rng.uniform(0.45, 1.15), np.zeros(scene.shape, np.float32), np.zeros(scene.shape, np.float32)
    edge = rng.uniform(0.3, 0.9)
    for lung in scene.some(rng, both=0.35):
        patches = np.zeros(scene.shape, np.float32)
        for _ in range(int(rng.integers(1, 4))):
            spot = blob(
                scene.shape, lung.place(rng), rng.uniform(0.06, 0.24), rng, ragged=rng.uniform(0.2, 0.4), edge=edge
            )
            patches = np.maximum(patches, spot)
        if rng.random() < 0.25:
            patches = np.maximum(patches, _lobe(scene, lung, rng))
        patches *= scene.within(lung, reach=0.015)
        weight = np.maximum(weight, patches)
        if rng.random() < 0.4:
            air += _tree(scene, lung, rng, width=0.006)
    clouded = weight * (1 + np.float32(0.12) * noise(scene.shape, 14, rng, octaves=2))
    after = _opaque(scene, clouded, amount, keep=rng.uniform(0.2, 0.6))
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


def interstitial(scene: Scene, rng: np.random.Generator) -> Floats:
    """Thicken the interstitium: a net of lines, small nodules or streaks from the hilum, mostly of both lungs."""
    x, after = scene.image, scene.image.copy()
    kind, amount = int(rng.integers(3)), np.float32(rng.uniform(0.2, 0.6) * _gap(scene))
    cells = min(1 / rng.uniform(0.02, 0.045), min(scene.shape) / 2.5)
    rows, _ = grid(scene.shape)
    for lung in scene.some(rng, both=0.85):
        zone = scene.within(lung, reach=0.01)
        if kind == 2:
            trees = [_tree(scene, lung, rng, width=rng.uniform(0.006, 0.014)) for _ in range(2)]
            pattern = blurred(np.minimum(trees[0] + trees[1], 1), 0.006) * np.float32(1.3)
            pattern += np.float32(0.25) * fade(1 - ellipse(scene.shape, lung.hilum, (0.22, 0.16)))
        else:
            field = noise(scene.shape, cells, rng)
            pattern = np.exp(-((field / np.float32(0.35)) ** 2)) if kind == 0 else fade((field - np.float32(0.4)) / 2)
            pattern = pattern - np.float32(0.15)
            top, bottom, *_ = lung.box
            basal = fade((rows - np.float32(top)) / np.float32(max(bottom - top, 1e-3)))
            zone = zone * (basal if rng.random() < 0.4 else fade(noise(scene.shape, 4, rng) * np.float32(0.6) + 1))
        after += zone * (amount * pattern - np.float32(0.3) * (x - blurred(x, VESSEL / 2)))
    return after


def effusion(scene: Scene, rng: np.random.Generator) -> Floats:
    """Fill the pleural space from the base: a meniscus that rises to the chest wall, or a veil where one lies supine.

    From a blunted costophrenic angle to most of a lung; mostly of one side.
    """
    weight = np.zeros(scene.shape, np.float32)
    rows, columns = grid(scene.shape)
    supine = rng.random() < 0.2
    for lung in scene.some(rng, both=0.25):
        top, bottom, left, right = lung.box
        tall, wide = bottom - top, max(right - left, 1e-3)
        out = np.clip((columns - np.float32(left)) / np.float32(wide), 0, 1)  # 0 medial, 1 at the chest wall
        out = out if lung.lateral > 0 else 1 - out
        height, rise = rng.choice((0.08, 0.2, 0.45)) * rng.uniform(0.5, 1.4), rng.uniform(0.08, 0.3)
        level = np.float32(bottom) - np.float32(tall) * (np.float32(height) + np.float32(rise) * out**3)
        edge = np.float32(rng.uniform(0.02, 0.07))
        veil = np.float32(0.35) + np.float32(0.65) * fade((rows - np.float32(top)) / np.float32(tall)) if supine else fade(
            (rows - level) / edge
        )  # fmt: skip
        weight = np.maximum(weight, veil * scene.within(lung, reach=0.03))
    amount = rng.uniform(0.25, 0.6) if supine else rng.uniform(0.6, 1.15)
    return _opaque(scene, weight, amount, keep=0.8 if supine else 0.3)


def pneumothorax(scene: Scene, rng: np.random.Generator) -> Floats:
    """Let air between lung and chest wall: a dark rim without vessels beyond the thin white line of the pleura.

    The lung shrinks towards its hilum by a little to more than half, most at the apex.
    """
    lung = scene.some(rng, both=0)[0]
    top, bottom, left, right = lung.box
    medial = right if lung.lateral < 0 else left
    centre = (bottom - rng.uniform(0, 0.35) * (bottom - top), medial)
    scale = 1 / (1 - rng.uniform(0.08, 0.5))
    size = lung.mask.shape[0]
    places = [(c + ((np.arange(size) + 0.5) * u - c) * scale) / u - 0.5 for c, u in zip(centre, lung.unit, strict=True)]
    shrunk = ndimage.map_coordinates(lung.depth, np.meshgrid(*places, indexing="ij"), order=1, mode="nearest") / scale
    inner = upsampled(shrunk.astype(np.float32), scene.shape) + np.float32(0.006) * noise(scene.shape, 6, rng)
    inside, pixel = scene.within(lung, reach=0.01, edge=0.02), np.float32(1 / min(scene.shape))
    rim = inside * np.clip(0.5 - inner / pixel / 2, 0, 1)
    width = max(0.004, 0.7 * float(pixel))
    line = inside * np.exp(-((inner / np.float32(width)) ** 2)) * scene.within(lung, reach=-0.015, edge=0.02)
    line[line < 0.02] = 0
    x, gap = scene.image, _gap(scene)
    dark = np.float32(rng.uniform(0.15, 0.6) * gap) * np.clip((x - scene.range[0]) / np.float32(0.3 * gap), 0, 1)
    detail = x - blurred(x, VESSEL / 2)
    return x - rim * (dark + np.float32(0.85) * detail) + line * np.float32(rng.uniform(0.15, 0.5) * gap)


def nodule(scene: Scene, rng: np.random.Generator) -> Floats:
    """Add one to several round opacities with soft edges, 2 to 20 % of the image wide: from a nodule to a mass."""
    weight, wide = np.zeros(scene.shape, np.float32), scene.shape[1] / min(scene.shape)
    largest = math.exp(rng.uniform(math.log(0.02), math.log(0.2)))
    count = 1 if rng.random() < 0.6 else int(rng.integers(2, 7))
    for _ in range(count):
        radius = max(0.01, largest * rng.uniform(0.6, 1) / 2) * wide
        lung = scene.lungs[int(rng.integers(2))]
        spot = blob(scene.shape, lung.place(rng, 0.5 * radius), radius * 1.15, rng, ragged=rng.uniform(0, 0.08),
                    edge=rng.uniform(0.3, 0.7))  # fmt: skip
        weight = np.maximum(weight, spot * np.float32(rng.uniform(0.8, 1)))
    return _opaque(scene, weight, rng.uniform(0.3, 1.0), keep=0.9)


def atelectasis(scene: Scene, rng: np.random.Generator) -> Floats:
    """Collapse a part of a lung: an opaque band or a wedge from the hilum, to which its surroundings are drawn."""
    lung = scene.some(rng, both=0)[0]
    rows, columns = grid(scene.shape)
    wedge = rng.random() < 0.5
    at = lung.hilum if wedge else lung.place(rng, 0.03)
    turn = rng.normal(0, 0.5) + (math.pi / 2 if lung.lateral > 0 else -math.pi / 2)  # from the hilum outwards
    cos, sin = math.cos(turn), math.sin(turn)
    down, right = rows - np.float32(at[0]), columns - np.float32(at[1])
    along, across = down * np.float32(cos) + right * np.float32(sin), right * np.float32(cos) - down * np.float32(sin)
    length = rng.uniform(0.15, 0.4) * (1 if wedge else 0.6)
    thick = rng.uniform(0.008, 0.03)
    if wedge:
        half = np.float32(thick) + np.maximum(along, 0) * np.float32(math.tan(rng.uniform(0.1, 0.35)))
    else:
        half = np.float32(thick) * np.sqrt(np.clip(1 - (along / np.float32(length)) ** 2, 0, 1))
    ends = fade((np.float32(length) - np.abs(along)) / np.float32(0.06))
    weight = fade((half - np.abs(across)) / np.float32(rng.uniform(0.006, 0.015)) + np.float32(0.5)) * ends
    weight *= scene.within(lung, reach=0.01) * (along > -0.02 if wedge else 1)
    reach = rng.uniform(0.06, 0.14)
    pull = across * fade(1 - np.abs(across) / np.float32(2 * reach)) * np.float32(rng.uniform(0.2, 0.5))
    pull = pull * fade((np.float32(length + 0.08) - np.abs(along - (length / 2 if wedge else 0))) / np.float32(0.15))
    moved = warped(scene.image, -pull * np.float32(sin), pull * np.float32(cos))
    return _opaque(scene, weight, rng.uniform(0.4, 1.1), keep=0.5, x=moved)


def cardiomegaly(scene: Scene, rng: np.random.Generator) -> Floats:
    """Widen the heart shadow: its borders move smoothly into the lungs, mostly to the patient's left."""
    (left, right) = scene.lungs
    top, bottom = (max(left.box[i], right.box[i]) if i else min(left.box[i], right.box[i]) for i in (0, 1))
    row = top + rng.uniform(0.62, 0.75) * (bottom - top)
    line = min(int(row / left.unit[0]), len(left.mask) - 1)
    band = slice(max(0, line - 3), line + 4)
    inner = [np.flatnonzero(lung.mask[band].any(0)) for lung in (left, right)]
    first = inner[0][-1] * left.unit[1] if len(inner[0]) else left.box[3]
    last = inner[1][0] * right.unit[1] if len(inner[1]) else right.box[2]
    middle, radius = (first + last) / 2, max((last - first) / 2, 0.08)
    grow, tall = rng.uniform(0.15, 0.5), rng.uniform(0.9, 1.3) * 0.4 * (bottom - top)
    rows, columns = grid(scene.shape)
    away = columns - np.float32(middle)
    wide = np.where(away > 0, np.float32(2.6 * radius), np.float32(2.4 * radius)).astype(np.float32)
    weight = fade(2 - 2 * np.abs(away) / wide) * fade(
        np.float32(1.6) - np.abs(rows - np.float32(row)) / np.float32(tall)
    )
    share = np.where(away > 0, np.float32(grow), np.float32(grow * rng.uniform(0.2, 0.8)))
    return warped(scene.image, np.zeros(scene.shape, np.float32), -away * share * weight)


def device(scene: Scene, rng: np.random.Generator) -> Floats:
    """Lay a device over the chest, bright with sharp edges: a catheter, a tube, electrodes or a pacemaker."""
    kind = (_catheter, _tube, _electrodes, _pacemaker)[int(rng.integers(4))]
    weight = ink(scene.shape, kind(scene, rng))
    if rng.random() < 0.5:
        weight = np.minimum(weight, 1) * np.float32(rng.uniform(0.3, 0.7))
    bright = np.float32(scene.range[0] + scene.contrast * rng.uniform(0.9, 1.15))
    return scene.image + weight * np.float32(0.9) * np.maximum(bright - scene.image, np.float32(0.15 * scene.contrast))


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
    return scene.levels[1] - scene.levels[0]


def _opaque(scene: Scene, weight: Floats, amount: float, keep: float, x: Floats | None = None) -> Floats:
    """Add ``amount`` steps from lung to tissue, less where it is bright; of vessels and other detail ``keep`` stays."""
    x = scene.image if x is None else x
    room = np.clip((scene.range[1] - x) / np.float32(max(scene.range[1] - scene.levels[0], 1e-6)), 0, 1)
    step = np.float32(amount * _gap(scene)) * room
    if keep < 1:
        step = step - np.float32(1 - keep) * (x - blurred(x, VESSEL))
    opaque: Floats = x + weight * step
    return opaque


def _lobe(scene: Scene, lung: Lung, rng: np.random.Generator) -> Floats:
    """Return the weight (H, W) of what lies above or below a fissure."""
    rows, columns = grid(scene.shape)
    top, bottom, left, right = lung.box
    level = top + rng.uniform(0.35, 0.65) * (bottom - top)
    tilt = np.float32(rng.normal(0, 0.25)) * (columns - np.float32((left + right) / 2))
    way = 1 if rng.random() < 0.65 else -1
    return fade(
        way * (rows - np.float32(level) - tilt) / np.float32(0.04) + np.float32(0.2) * noise(scene.shape, 8, rng, 2)
    )


def _tree(scene: Scene, lung: Lung, rng: np.random.Generator, width: float) -> Floats:
    """Return the ink (H, W) of bronchi that fan out from a hilum."""
    *_, left, right = lung.box
    outwards = math.pi / 2 * lung.lateral
    strokes: list[Stroke] = []
    for turn in (-0.9, -0.2, 0.5):
        reach = (right - left) * rng.uniform(0.3, 0.5)
        strokes += branches(lung.hilum, outwards * (1 + turn * 0.7) + rng.normal(0, 0.15), reach, width, rng)
    return ink(scene.shape, strokes)


KINDS: dict[str, Callable[[Scene, np.random.Generator], Floats]] = {
    "consolidation": consolidation,
    "ground_glass": ground_glass,
    "interstitial": interstitial,
    "effusion": effusion,
    "pneumothorax": pneumothorax,
    "nodule": nodule,
    "atelectasis": atelectasis,
    "cardiomegaly": cardiomegaly,
    "device": device,
}
"""Each kind by its name."""
