"""How the settings of Duet are compared: by simulated findings that training did not see, without labels.

    python -m experiments.duet_choice --data chest_xray/ --mnist mnist/ --settings duet,head_alone

Normal images are divided into four subpopulations (k-means of their mean features); each is left out in turn. Heads
learn from the others, by findings of two thirds of the kinds, under some kinds of change of acquisition. The criterion
is the mean of three, over the last third of the kinds, in images of other patients: AUC of images under the other kinds
of change, normal images changed too; AUC against normal images of the subpopulation that was left out; AUROC of pixels
(`experiments.views.criterion`). Only normal images of the sets' train splits are read. Rows go to
results/duet_choice.csv, one a setting, data set, fold of kinds and subpopulation; those that are there are not measured
again.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from torch import Tensor

from experiments.common import RESULTS
from experiments.views import FREQUENCY, MARKED, SOURCES, Indices, Views, batches, criterion
from loligo.data.pairs import LEFT_OUT
from loligo.evaluation import results
from loligo.methods.contract import ALONE
from loligo.methods.declared import defaults
from loligo.methods.duet import COVERED, Duet, DuetConfig, pooled, standardised
from loligo.methods.optimisation import Clock
from loligo.nn.heat import enlarge
from loligo.nn.precision import accelerate, autocast, dtype_of, resolve
from loligo.nn.ratio import Covered, LikelihoodRatio
from loligo.training.cost import commit
from loligo.training.optimisers import TurnOptimiser

CPU = torch.device("cpu")
DTYPE = dtype_of(resolve("auto", CPU), CPU)
FOLDS = 3
ROUNDS = 8
BANK = 5000
"""Features that the nearest is searched among."""
GROUPS = 4
"""Subpopulations of the normal images."""
Maps = Callable[[Indices], Tensor]
"""Of some views: features (N, D, h, w), or the map of one of both (N, 1, h, w)."""


def plain(z: Tensor) -> Tensor:
    """Leave features as they are."""
    return z


def less_mean(z: Tensor) -> Tensor:
    """Take from features (N, D, h, w) their mean over places."""
    return z - z.mean((2, 3), keepdim=True)


def taught(kind: str) -> float:
    """Weigh kinds as Duet does: all alike but devices."""
    return float(kind != "device")


def by_frequency(kind: str) -> float:
    """Weigh diseases by their frequency."""
    return FREQUENCY.get(kind, 0)


@dataclass(frozen=True)
class Setting:
    """What is compared; the defaults are Duet's own."""

    duet: dict[str, Any] = field(default_factory=dict)
    """Options of Duet."""
    epochs: int = 15
    weight: Callable[[str], float] = taught
    """How often each kind of finding is taught, where lungs are found."""
    features: tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]] = (standardised, standardised)
    """What whitened features are made to before head and density see them."""
    ratio: bool = True
    """The density compares with a Gaussian of findings; else it is the distance from that of normal images."""
    normals: int = 10**6
    """Normal images to learn from, at most."""
    weights: tuple[float, float] = (1.0, 1.0)
    """Of head and density."""
    top: float = 0.0
    """Fraction of the summed map, where it is highest, whose mean is the score; 0 for Duet's own."""


OPACITIES = ("consolidation", "ground_glass", "edema", "interstitial", "effusion")
SETTINGS: dict[str, Setting] = {
    "duet": Setting(),
    "head_alone": Setting(weights=(1, 0)),
    "density_alone": Setting(weights=(0, 1)),
    "density_half": Setting(weights=(1, 0.5)),
    "density_twice": Setting(weights=(1, 2)),
    # features
    "plain_density": Setting(features=(standardised, plain)),
    "less_mean_density": Setting(features=(standardised, less_mean)),
    "plain_head": Setting(features=(plain, standardised)),
    "finer": Setting(duet={"layers": (2, 3)}),
    "dimensions_100": Setting(duet={"dimensions": 100}),
    "dimensions_300": Setting(duet={"dimensions": 300}),
    "fast": Setting(duet=Duet.presets["fast"]),
    # density
    "distance": Setting(ratio=False),
    "distance_alone": Setting(ratio=False, weights=(0, 1)),
    "plain_normals": Setting(duet={"copies": 0}),
    "regularisation_0.1": Setting(duet={"regularisation": 0.1}),
    "normals_100": Setting(normals=100),
    # from places to a score
    "top_0.02": Setting(top=0.02),
    "top_0.1": Setting(top=0.1),
    # head
    "opacities": Setting(weight=lambda kind: float(kind in OPACITIES)),
    "by_frequency": Setting(weight=by_frequency),
    "width_128": Setting(duet={"width": 128}),
    "dropout_0.1": Setting(duet={"dropout": 0.1}),
    "dropout_0.4": Setting(duet={"dropout": 0.4}),
    "epochs_30": Setting(epochs=30),
}


class Study:
    """The features of a data set's views, and what head and density learn from them."""

    def __init__(self, views: Views, config: DuetConfig) -> None:
        self.views = views
        features, self.targets, self.marked = described(views, config)
        self.z = whitened(features, views.where("part == 'train' and kind == '' and round <= 1"), config)
        self.table = views.table.assign(group=self._groups())

    def _groups(self) -> Indices:
        """Return the subpopulation of each view: that of its image as it is."""
        table = self.views.table
        plain_views = self.views.where("kind == '' and change == 'none'")
        means = torch.cat([self.z[part].float().mean((2, 3)) for part in batches(plain_views)])
        found = KMeans(GROUPS, n_init=5, random_state=0).fit_predict(means.numpy())
        known = table.loc[plain_views, ["part", "image"]].assign(group=found)
        return table.merge(known, on=["part", "image"], how="left")["group"].to_numpy()

    def row(self, setting: Setting, config: DuetConfig, fold: int, group: int) -> dict[str, float]:
        """Return the criterion and its parts with a fold's kinds of finding and a subpopulation left out."""
        left_out = sorted(FREQUENCY.keys() & set(self.views.kinds) or self.views.kinds)[fold::FOLDS]
        train, own = self.table["part"] == "train", self.table["group"] == group
        seen = self.table[train & ~own & (self.table["image"] < setting.normals)]
        at = np.flatnonzero(~train | (own & (self.table["round"] == 0)))
        copies = np.array(seen.query(f"kind == '' and round <= {config.copies}").index)
        held = copies[self.table.loc[copies, "image"].to_numpy() % LEFT_OUT == 0]
        see = self._as(setting.features[1])
        say = self._head(setting, config, seen[~seen["kind"].isin(left_out)])
        found = seen[(seen["kind"] != "") & ~seen["kind"].isin(left_out) & (seen["round"] <= max(config.copies, 1))]
        abnormal = np.array(found[found["kind"].map(setting.weight) > 0].index) if setting.ratio else at[:0]
        first = self._density(see, np.setdiff1d(copies, held), abnormal, config)
        every = self._density(see, copies, abnormal, config)
        maps, reference = joined(say, every, at), joined(say, first, held)
        scores, heat = combined(maps, reference, setting, config)
        table = self.table.loc[at].assign(outside=own[at])
        return criterion(table, scores, heat, self.marked, left_out)

    def _as(self, made: Callable[[Tensor], Tensor]) -> Maps:
        return lambda part: made(self.z[part].float())

    @torch.no_grad()
    def _density(self, see: Maps, normal: Indices, abnormal: Indices, config: DuetConfig) -> Maps:
        """Fit a density to views of normal images, and to places of others that findings cover."""
        _, features, *sides = see(normal[:1]).shape
        density, covered = LikelihoodRatio(features, math.prod(sides)), Covered(math.prod(sides), features, CPU)
        moments = density.moments()
        for part in batches(normal):
            moments.add(see(part))
        for part in batches(abnormal):
            covered.add(see(part), self.targets[part] > COVERED)
        density.fit(moments, config.regularisation)
        density.fit_findings(covered, config.regularisation)
        return lambda part: density(see(part))

    def _head(self, setting: Setting, config: DuetConfig, seen: pd.DataFrame) -> Maps:
        """Train a head on views of training images."""
        torch.manual_seed(0)
        model, see = Duet(config), self._as(setting.features[0])
        optimiser = TurnOptimiser(model, model.phases()[0].turns[0])
        model.train()
        for clock, part in self._steps(setting, seen):
            loss = F.binary_cross_entropy_with_logits(model.head(see(part)), self.targets[part])
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step(clock, ALONE)
        head = model.head.eval()
        return lambda part: head(see(part))

    def _steps(self, setting: Setting, seen: pd.DataFrame) -> Iterator[tuple[Clock, Indices]]:
        """Yield the views of each training step: as many with a finding as without, of one round an epoch."""
        rng, rounds = np.random.default_rng(0), [rows for number, rows in seen.groupby("round") if number]
        batch, step = Duet.training_defaults["batch_size"], 0
        count = math.ceil((rounds[0]["kind"] == "").sum() / batch)
        for epoch in range(setting.epochs):
            rows = rounds[epoch % len(rounds)]
            normal, abnormal = rows[rows["kind"] == ""], rows[rows["kind"] != ""]
            weights = abnormal["kind"].map(setting.weight)
            weights = weights if weights.sum() else weights + 1  # no chest: all kinds alike
            drawn = abnormal.sample(len(normal), replace=True, weights=weights, random_state=rng)
            pairs = np.array(normal.index)[rng.permutation(len(normal))], np.array(drawn.index)
            for parts in zip(*(np.array_split(views, count) for views in pairs), strict=True):
                yield Clock(step, setting.epochs * count, epoch, setting.epochs), np.concatenate(parts)
                step += 1


@torch.no_grad()
def described(views: Views, config: DuetConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Return features (V, C, h, w) bfloat16, what part of each place a finding covers, and masks (V, 112, 112) bool."""
    model = Duet(config)
    model.start()
    count, side, marked = len(views.table), model.side, []
    features = torch.empty(count, len(model.whitening.centre), side, side, dtype=torch.bfloat16)
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
def whitened(features: Tensor, fitted: Indices, config: DuetConfig) -> Tensor:
    """Return the whitened features (V, D, h, w) bfloat16 of all views."""
    model = Duet(config)
    model.whitening.fit(features[part].float() for part in batches(fitted))
    z = torch.empty(len(features), len(model.whitening.matrix), model.side, model.side, dtype=torch.bfloat16)
    for part in batches(np.arange(len(z))):
        z[part] = model.whitening(features[part].float()).bfloat16()
    return z


@torch.no_grad()
def joined(head: Maps, density: Maps, views: Indices) -> Tensor:
    """Return the maps of head and density, (N, 2, h, w) float32."""
    return torch.cat([torch.cat([head(part), density(part)], 1) for part in batches(views)])


def combined(maps: Tensor, reference: Tensor, setting: Setting, config: DuetConfig) -> tuple[Tensor, Tensor]:
    """Return scores (N,) and heat (N, 112, 112) of maps (N, 2, h, w), standardised by those of normals."""
    weights = torch.tensor(setting.weights)
    rows = reference.movedim(1, 3).flatten(0, 2)
    heat = ((maps - rows.mean(0)[:, None, None]) / rows.std(0)[:, None, None] * weights[:, None, None]).sum(1)
    if setting.top:
        scores = heat.flatten(1).topk(math.ceil(setting.top * heat[0].numel()), 1).values.mean(1)
    else:
        normal = pooled(reference)
        scores = ((pooled(maps) - normal.mean(0)) / normal.std(0) * weights).sum(1)
    sigma = config.sigma * MARKED / config.size
    return scores, torch.cat([enlarge(part[:, None], MARKED, sigma)[:, 0] for part in torch.split(heat, 100)])


def measure(source: str, folder: Path, names: list[str], given: argparse.Namespace) -> None:
    """Measure the settings of one data set that the table has not; those of the same features follow each other."""
    done = pd.read_csv(given.out, keep_default_na=False) if given.out.exists() else pd.DataFrame()
    counts = {part: getattr(given, part) or count for part, count in SOURCES[source][2].items()}
    own = {"dataset": source, "preset": given.preset, **counts, "rounds": given.rounds}
    configs = {name: configured(SETTINGS[name], given.preset) for name in names}
    folds = [{"fold": fold, "group": group} for fold in range(FOLDS) for group in range(GROUPS)]
    keys = [{"setting": name, **fold, **own} for name in names for fold in folds]
    keys = [key for key in keys if done.empty or not results.matching(done, key).any()]
    order = [network(config) for config in configs.values()]
    last: tuple[object, Study] | None = None
    for key in sorted(keys, key=lambda key: order.index(network(configs[key["setting"]]))):
        config = configs[key["setting"]]
        if last is None or last[0] != network(config):
            last = None  # before the next one takes as much memory
            last = network(config), Study(Views(source, folder, config.size, counts, given.rounds), config)
        row = last[1].row(SETTINGS[key["setting"]], config, key["fold"], key["group"])
        row = {name: round(value, 4) for name, value in row.items()}
        print(key["setting"], source, key["fold"], key["group"], row, flush=True)
        results.replace(given.out, pd.DataFrame([key | row | {"commit": commit()}]), key)


def configured(setting: Setting, preset: str) -> DuetConfig:
    """Return the options of Duet: a preset's, and over them the setting's."""
    return DuetConfig(**(defaults(Duet, preset or None, "duet")[0] | setting.duet))


def network(config: DuetConfig) -> tuple[object, ...]:
    """Return what features depend on."""
    return config.backbone, config.weights, config.size, config.layers, config.dimensions


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
