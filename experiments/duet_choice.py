"""How the settings of Duet were chosen: by simulated findings that training did not see, without labels.

    python -m experiments.duet_choice --data chest_xray/ --mnist mnist/ --settings duet,head_alone

Heads learn by findings of two thirds of the kinds, under some kinds of change of acquisition; other images are scored,
with findings of the last third, plain and under the other kinds of change (`experiments.views`). The criterion is the
mean of three: AUC of images without change; AUC under changes, normal images changed too; AUROC of pixels under
changes. Each is a mean over kinds of finding. Beside it stand false alarms at a threshold that 5 % of plain normals
exceed. Only normal images of the sets' train splits are read. Rows go to results/duet_choice.csv, one a setting, data
set and fold of kinds; those that are there are not measured again. `seconds` are what both voices took to learn and to
speak, for this setting or for an earlier one with the same voices.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.common import RESULTS
from experiments.views import MARKED, SOURCES, Indices, Views, batches, criterion
from loligo.evaluation import results
from loligo.methods.contract import ALONE, Group
from loligo.methods.declared import defaults
from loligo.methods.duet import LEFT_OUT, Duet, DuetConfig, apart
from loligo.methods.optimisation import Clock
from loligo.nn.density import PlaceGaussian
from loligo.nn.heat import enlarge
from loligo.nn.nearest import nearest
from loligo.nn.precision import accelerate, autocast, dtype_of, resolve
from loligo.training.cost import commit
from loligo.training.optimisers import TurnOptimiser

CPU = torch.device("cpu")
DTYPE = dtype_of(resolve("auto", CPU), CPU)
FOLDS = 3
ROUNDS = 8
BANK = 5000
"""Features that the nearest is searched among."""
SAID: dict[str, Callable[[Tensor], Tensor]] = {
    "logit": lambda logits: logits,
    "softplus": F.softplus,
    "probability": torch.sigmoid,
}
Maps = Callable[[Indices], Tensor]
"""Of some views: features (N, D, h, w), or what a voice says (N, 1, h, w)."""


@dataclass(frozen=True)
class Setting:
    """What is compared; the defaults are Duet's own."""

    duet: dict[str, Any] = field(default_factory=dict)
    """Options of Duet."""
    epochs: int = 15
    batch_size: int = Duet.training_defaults["batch_size"]
    """Normal images of a step; as many with a finding come beside them."""
    context: int = 1
    """Layers of the head that look around a place."""
    place: bool = True
    """The head knows where a place lies."""
    tuned: float = 0.0
    """Learning rate of the backbone's weights, whose batch norms stay as they are; 0 for a frozen one."""
    density: Literal["gaussian", "nearest"] = "gaussian"
    apart: bool = True
    """What all places share is taken from the features that the density sees."""
    normals: int = 10**6
    """Normal images to learn from, at most."""
    weights: tuple[float, float] = (1.0, 1.0)
    """Of what head and density say."""
    said: Literal["logit", "softplus", "probability"] = "logit"
    """What the head says."""
    standard: Literal["whole", "centred", "scaled"] = "whole"
    """Whether each place has its own mean, or its own deviation too."""
    pooled: Literal["sum", "voices"] = "sum"
    """Whether the highest places are those of the summed map, or of each voice's."""


SETTINGS: dict[str, Setting] = {
    "duet": Setting(),
    # voices
    "head_alone": Setting(weights=(1, 0)),
    "density_alone": Setting(weights=(0, 1)),
    "density_half": Setting(weights=(1, 0.5)),
    "density_twice": Setting(weights=(1, 2)),
    # density
    "plain_normals": Setting(duet={"copies": 0}),
    "plain_normals_not_apart": Setting(duet={"copies": 0}, apart=False),
    "not_apart": Setting(apart=False),
    "nearest": Setting(density="nearest"),
    "nearest_not_apart": Setting(density="nearest", apart=False),
    "regularisation_0.1": Setting(duet={"regularisation": 0.1}),
    # from places to a score
    "top_0.01": Setting(duet={"top": 0.01}),
    "top_0.02": Setting(duet={"top": 0.02}),
    "top_0.1": Setting(duet={"top": 0.1}),
    "top_0.25": Setting(duet={"top": 0.25}),
    "mean": Setting(duet={"top": 1.0}),
    "top_of_voices": Setting(pooled="voices"),
    "top_0.1_of_voices": Setting(duet={"top": 0.1}, pooled="voices"),
    "mean_of_voices": Setting(duet={"top": 1.0}, pooled="voices", said="probability"),
    "centred": Setting(standard="centred"),
    "scaled": Setting(standard="scaled"),
    "softplus": Setting(said="softplus"),
    "probability": Setting(said="probability"),
    "sigma_0": Setting(duet={"sigma": 0.0}),
    "sigma_8": Setting(duet={"sigma": 8.0}),
    # head
    "width_32": Setting(duet={"width": 32}),
    "width_128": Setting(duet={"width": 128}),
    "context_2": Setting(context=2),
    "context_3": Setting(context=3),
    "no_place": Setting(place=False),
    "dropout_0.1": Setting(duet={"dropout": 0.1}),
    "dropout_0.4": Setting(duet={"dropout": 0.4}),
    "epochs_8": Setting(epochs=8),
    "epochs_30": Setting(epochs=30),
    "batch_8": Setting(batch_size=8),
    "batch_32": Setting(batch_size=32),
    "rate_0.001": Setting(duet={"learning_rate": 1e-3}),
    "width_128_epochs_30": Setting(duet={"width": 128}, epochs=30),
    # images and features
    "normals_100": Setting(normals=100),
    "dimensions_100": Setting(duet={"dimensions": 100}),
    "dimensions_300": Setting(duet={"dimensions": 300}),
    "layers_2_3": Setting(duet={"layers": (2, 3)}),
    "fast": Setting(duet=Duet.presets["fast"]),
    "tuned": Setting(epochs=8, tuned=1e-4),
}


@dataclass(frozen=True)
class Voice:
    """What a voice says of places: of the views that are evaluated, and of normals to standardise by."""

    evaluated: Tensor  # (E, h, w)
    reference: Tensor  # (R, h, w)
    seconds: float

    def map(self, function: Callable[[Tensor], Tensor]) -> Voice:
        return replace(self, evaluated=function(self.evaluated), reference=function(self.reference))

    def standardised(self, how: str) -> Voice:
        """Bring to mean 0 and deviation 1 over the reference, of all places together or of each one."""
        mean = self.reference.mean() if how == "whole" else self.reference.mean(0)
        centred = self.reference - mean
        deviation = centred.std(0) if how == "scaled" else centred.std()
        return self.map(lambda maps: (maps - mean) / deviation.clamp_min(1e-6))


class Study:
    """The features of a data set's views, and what the voices of settings learn from them."""

    def __init__(self, views: Views, config: DuetConfig) -> None:
        self.views, self.evaluated = views, views.where("part == 'evaluate'")
        self.features, self.targets, self.marked = described(views, config)
        self.whitened: tuple[tuple[int, int], Duet, Tensor] | None = None
        self.voices: dict[tuple[object, ...], Voice] = {}

    def row(self, setting: Setting, config: DuetConfig, fold: int) -> dict[str, object]:
        """Return the criterion and its parts with the kinds of finding of a fold left out."""
        left_out = sorted(self.views.kinds)[fold::FOLDS]
        shared = (config.dimensions, config.copies, setting.normals)
        learnt = (config.width, config.dropout, config.learning_rate, config.weight_decay, setting.epochs)
        made = (setting.batch_size, setting.context, setting.place, setting.tuned, fold)
        head = self._kept((*shared, *learnt, *made), lambda: self._head(setting, config, left_out))
        fitted = (setting.density, config.regularisation, setting.apart)
        density = self._kept((*shared, *fitted), lambda: self._density(setting, config))
        scores, heat = combined(head, density, setting, config)
        found = criterion(self.views.table.loc[self.evaluated], scores, heat, self.marked, left_out)
        seconds = round(head.seconds + density.seconds, 1)
        return {**{key: round(value, 4) for key, value in found.items()}, "seconds": seconds}

    def _kept(self, key: tuple[object, ...], learn: Callable[[], tuple[Tensor, Tensor]]) -> Voice:
        if key not in self.voices:
            start = time.perf_counter()
            evaluated, reference = learn()
            self.voices[key] = Voice(evaluated, reference, time.perf_counter() - start)
        return self.voices[key]

    def _normals(self, setting: Setting, config: DuetConfig) -> tuple[Indices, Indices]:
        """Return the normals that a density is fitted on, and those of them that are left out of a first one."""
        query = f"part == 'train' and kind == '' and round <= {config.copies} and image < {setting.normals}"
        return self.views.where(query), self.views.where(f"{query} and image % {LEFT_OUT} == 0")

    @torch.no_grad()
    def _whitened(self, setting: Setting, config: DuetConfig) -> tuple[Duet, Tensor]:
        """Return a Duet that knows the whitening, and the whitened features (V, D, h, w) bfloat16 of all views."""
        key = (config.dimensions, setting.normals)
        if self.whitened is None or self.whitened[0] != key:
            self.whitened = None  # before the next ones take as much memory
            model = Duet(config)
            model._whiten(map(self._features, batches(self._normals(setting, replace(config, copies=1))[0])))
            z = torch.empty(len(self.features), len(model.whitening), model.side, model.side, dtype=torch.bfloat16)
            for part in batches(np.arange(len(z))):
                z[part] = model._whitened(self._features(part), lambda maps: [maps]).bfloat16()
            self.whitened = key, model, z
        return self.whitened[1:]

    def _features(self, part: Indices) -> Tensor:
        return self.features[part].float()

    def _head(self, setting: Setting, config: DuetConfig, left_out: list[str]) -> tuple[Tensor, Tensor]:
        """Train a head, and its backbone where it is to be tuned, without the findings that are left out."""
        whitening, z = self._whitened(setting, config)
        torch.manual_seed(0)
        model = Duet(config)
        model.centre, model.whitening = whitening.centre, whitening.whitening
        model.head.place.requires_grad_(setting.place)  # it begins at 0
        around = [(nn.GELU(), nn.Conv2d(config.width, config.width, 3, padding=1)) for _ in range(1, setting.context)]
        layers = nn.Sequential(model.head.around, *itertools.chain.from_iterable(around))
        model.head.around = layers  # type: ignore[assignment]
        turn = model.phases()[0].turns[0]
        if setting.tuned:
            model.start()
            turn = replace(turn, groups=(*turn.groups, Group(("backbone",), setting.tuned)), clip=1.0)
        optimiser = TurnOptimiser(model, turn)

        def say(part: Indices) -> Tensor:
            logits: Tensor = model.head(self._seen(model, part) if setting.tuned else z[part].float())
            return logits

        model.train()
        for clock, part in self._steps(setting, left_out):
            F.binary_cross_entropy_with_logits(say(part), self.targets[part]).backward()  # type: ignore[no-untyped-call]
            optimiser.step(clock, ALONE)
        model.eval()
        return spoken(say, self.evaluated), spoken(say, self._normals(setting, config)[1])

    def _seen(self, model: Duet, part: Indices) -> Tensor:
        with autocast(CPU, DTYPE):
            return model._whitened(self.views.make(part)[0], model.backbone)

    def _steps(self, setting: Setting, left_out: list[str]) -> Iterator[tuple[Clock, Indices]]:
        """Yield the views of each training step; an epoch has one round of changes and findings."""
        table, rng = self.views.table, np.random.default_rng(0)
        given = table[(table["round"] > 0) & (table["part"] == "train") & (table["image"] < setting.normals)]
        given = given[~given["kind"].isin(left_out)]
        rounds = [np.array(rows.index) for _, rows in given.groupby("round")]
        epochs = [rounds[epoch % len(rounds)] for epoch in range(setting.epochs)]
        counts = [math.ceil(len(views) / (2 * setting.batch_size)) for views in epochs]
        step = 0
        for epoch, (views, count) in enumerate(zip(epochs, counts, strict=True)):
            for part in np.array_split(rng.permutation(views), count):
                yield Clock(step, sum(counts), epoch, setting.epochs), part
                step += 1

    @torch.no_grad()
    def _density(self, setting: Setting, config: DuetConfig) -> tuple[Tensor, Tensor]:
        """Fit a density on all normals, and a first one that some are left out of."""
        z = self._whitened(setting, config)[1]

        def see(part: Indices) -> Tensor:
            return apart(z[part].float()) if setting.apart else z[part].float()

        fit = {"gaussian": gaussian, "nearest": neighbour}[setting.density]
        every, held = self._normals(setting, config)
        first = fit(see, np.setdiff1d(every, held), config)
        return spoken(fit(see, every, config), self.evaluated), spoken(first, held)


@torch.no_grad()
def described(views: Views, config: DuetConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Return features (V, C, h, w) bfloat16, what part of each place a finding covers, and masks (V, 112, 112) bool."""
    model = Duet(config)
    model.start()
    count, side, marked = len(views.table), model.side, []
    features = torch.empty(count, len(model.centre), side, side, dtype=torch.bfloat16)
    targets = torch.empty(count, 1, side, side)
    with autocast(CPU, DTYPE):
        backbone = model.eval().backbone.ready(CPU)
        for part in batches(np.arange(count), 32):
            images, masks = views.make(part)
            features[part] = model._features(images, backbone).bfloat16()
            targets[part] = F.adaptive_avg_pool2d(masks, side)
            marked.append(F.adaptive_avg_pool2d(masks, MARKED)[:, 0] > 0.5)
    return features, targets, torch.cat(marked)


@torch.no_grad()
def spoken(say: Maps, views: Indices) -> Tensor:
    """Return what a voice says of views, (N, h, w) float32."""
    return torch.cat([say(part)[:, 0].float() for part in batches(views)])


def gaussian(see: Maps, fitted: Indices, config: DuetConfig) -> Maps:
    """Return the distance from a Gaussian of each place."""
    _, features, *sides = see(fitted[:1]).shape
    density = PlaceGaussian(features, math.prod(sides))
    moments = density.moments()
    for part in batches(fitted):
        moments.add(see(part))
    density.fit(moments, config.regularisation)
    return lambda part: density(see(part))


def neighbour(see: Maps, fitted: Indices, config: DuetConfig) -> Maps:
    """Return the distance from the nearest of some features, wherever these were."""
    rng, bank = np.random.default_rng(0), []
    for part in batches(fitted):
        rows = see(part).movedim(1, 3).flatten(0, 2)
        count = min(len(rows), math.ceil(BANK * len(part) / len(fitted)))
        bank.append(rows[rng.choice(len(rows), count, replace=False)])

    def distance(part: Indices) -> Tensor:
        z = see(part).movedim(1, 3)
        with autocast(CPU, DTYPE):
            return nearest(z.flatten(0, 2), torch.cat(bank))[0].view(len(z), 1, *z.shape[1:3])

    return distance


def combined(head: Voice, density: Voice, setting: Setting, config: DuetConfig) -> tuple[Tensor, Tensor]:
    """Return scores (E,) and maps (E, 112, 112) of both voices."""
    voices = [voice.standardised(setting.standard) for voice in (head.map(SAID[setting.said]), density)]
    heat = sum((w * voice.evaluated for w, voice in zip(setting.weights, voices, strict=True)), torch.zeros(()))

    def top(maps: Tensor) -> Tensor:
        flat = maps.flatten(1)
        return flat.topk(math.ceil(config.top * flat.shape[1]), 1).values.mean(1)

    if setting.pooled == "voices":
        own = [voice.map(top).standardised("whole").evaluated for voice in voices]
        scores = sum((w * said for w, said in zip(setting.weights, own, strict=True)), torch.zeros(()))
    else:
        scores = top(heat)
    parts = torch.split(heat[:, None], 100)
    maps = [enlarge(part, MARKED, config.sigma * MARKED / config.size)[:, 0] for part in parts]
    return scores, torch.cat(maps)


def measure(source: str, folder: Path, names: list[str], given: argparse.Namespace) -> None:
    """Measure the settings of one data set that the table has not; those of the same features follow each other."""
    done = pd.read_csv(given.out, keep_default_na=False) if given.out.exists() else pd.DataFrame()
    counts = {part: getattr(given, part) or count for part, count in SOURCES[source][2].items()}
    own = {"dataset": source, "preset": given.preset, **counts, "rounds": given.rounds}
    configs = {name: configured(SETTINGS[name], given.preset) for name in names}
    keys = [{"setting": name, "fold": fold, **own} for name in names for fold in range(FOLDS)]
    keys = [key for key in keys if done.empty or not results.matching(done, key).any()]
    order = [network(config) for config in configs.values()]
    last: tuple[object, Study] | None = None
    for key in sorted(keys, key=lambda key: order.index(network(configs[key["setting"]]))):
        config = configs[key["setting"]]
        if last is None or last[0] != network(config):
            last = None  # before the next one takes as much memory
            last = network(config), Study(Views(source, folder, config.size, counts, given.rounds), config)
        row = last[1].row(SETTINGS[key["setting"]], config, key["fold"])
        print(key["setting"], source, key["fold"], row, flush=True)
        results.replace(given.out, pd.DataFrame([key | row | {"commit": commit()}]), key)


def configured(setting: Setting, preset: str) -> DuetConfig:
    """Return the options of Duet: a preset's, and over them the setting's."""
    return DuetConfig(**(defaults(Duet, preset or None, "duet")[0] | setting.duet))


def network(config: DuetConfig) -> tuple[object, ...]:
    """Return what features depend on."""
    return config.backbone, config.weights, config.size, config.layers


def main() -> None:
    """Measure the settings that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of ZhangLab")
    parser.add_argument("--mnist", type=Path, help="folder of MNIST")
    parser.add_argument("--out", type=Path, default=RESULTS / "duet_choice.csv")
    parser.add_argument("--settings", default=",".join(SETTINGS), help="some of them, by commas")
    parser.add_argument("--preset", default="", choices=["", *Duet.presets], help="of Duet, that settings begin with")
    parser.add_argument("--train", type=int, help="normal images to learn from")
    parser.add_argument("--evaluate", type=int, help="normal images to evaluate")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="changed copies of each image to learn from")
    given = parser.parse_args()
    names = given.settings.split(",")
    if unknown := set(names) - set(SETTINGS):
        parser.error(f"settings {', '.join(sorted(unknown))} are unknown; there are {', '.join(SETTINGS)}")
    accelerate()
    for source, folder in {"zhanglab": given.data, "digit_anatomy": given.mnist}.items():
        if folder is not None:
            measure(source, folder, names, given)


if __name__ == "__main__":
    main()
