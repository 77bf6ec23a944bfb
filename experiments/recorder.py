"""Score as the package does, and keep what the score of a VQ-VAE is made of and what each of its steps takes."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from loligo.calibration import Calibration
from loligo.config import Precision
from loligo.evaluation.results import commit
from loligo.files import write_csv, write_json
from loligo.methods.contract import Method
from loligo.methods.vqvae_restoration import VqvaeRestoration
from loligo.runs.run import Run
from loligo.scoring import Scorer, by_row, score_table
from loligo.types import Scores

Floats = npt.NDArray[np.float64]
STEPS = ("encoder", "quantize", "prior", "decoder")


class Recorder(Scorer):
    """A scorer that remembers: image scores by name, seconds by step, how many images there were."""

    def __init__(self, method: Method, precision: Precision = "auto") -> None:
        super().__init__(method, precision)
        self.seconds, self.total, self.images, self.begun = dict.fromkeys(STEPS, 0.0), 0.0, 0, 0.0
        self.kept: list[Tensor] = []
        model = self.method
        if isinstance(model, VqvaeRestoration):
            own = model.parts

            def parts(x: Tensor, seen: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor, Tensor]:
                found = own(x, seen)
                self.kept.append(found[0])
                return found

            model.parts = parts  # type: ignore[method-assign]
            for name in STEPS:
                model.get_submodule(name).register_forward_pre_hook(self._begin)
                model.get_submodule(name).register_forward_hook(lambda _, given, __, name=name: self._end(name, given))

    def _begin(self, _: nn.Module, __: Any) -> None:
        self.begun = time.perf_counter()

    def _end(self, name: str, given: tuple[Any, ...]) -> None:
        if name != "prior" or len(given) < 3:  # with a memo it is a pass of restoration
            self.seconds[name] += time.perf_counter() - self.begun

    def __call__(self, x: Tensor) -> Scores:
        start = time.perf_counter()
        scores = super().__call__(x)
        self.total += time.perf_counter() - start
        self.images += len(x)
        if not isinstance(self.method, VqvaeRestoration) and scores.map is not None:
            self.kept.append(torch.stack([scores.image, scores.map.mean((1, 2, 3)), scores.map.amax((1, 2, 3))], 1))
        return scores

    def scores(self) -> dict[str, Floats]:
        """Return scores (N,) of all images seen by name: a VQ-VAE's four; of other methods theirs and two of the map's.

        The mean of a VAE's map is its reconstruction score.
        """
        found = torch.cat(self.kept).double()
        if not isinstance(self.method, VqvaeRestoration):
            return {
                str(getattr(self.method.config, "score", "score")): found[:, 0].numpy(),
                "mean of map": found[:, 1].numpy(),
                "greatest of map": found[:, 2].numpy(),
            }
        parts = {"density": found[:, 0].numpy(), "rarest": found[:, 2].numpy()}
        if not self.method.restores:
            return parts
        mean, deviation = self.method.usual.double().T
        both = ((found[:, :2] - mean) / deviation).sum(1)
        return parts | {"restoration": found[:, 1].numpy(), "both": both.numpy()}

    def seconds_per_image(self) -> dict[str, float]:
        """Return what an image takes in all, and by step; restoration is what the other steps leave."""
        found = {"all": self.total}
        if isinstance(self.method, VqvaeRestoration):
            found |= {**self.seconds, "restoration": self.total - sum(self.seconds.values())}
        return {name: round(seconds / max(1, self.images), 5) for name, seconds in found.items()}


def commits(run: Run, cost: dict[str, Any]) -> str:
    """Return the commit that trained a run, and that which scored it where it is another one."""
    trained, scoring = run.about["cost"]["commit"], cost["commit"]
    return trained if trained == scoring else f"{trained}, scored by {scoring}"


def scored(run: Run, maps: bool) -> dict[str, Any]:
    """Score the test split into the run folder, unless that was done; return what it took and the scores' names.

    scores.csv has a column a score; scoring.json holds what is returned.
    """
    cost = run.folder / "scoring.json"
    if not cost.exists():
        images = images.load(run, run.manifest().query("split == 'test'").reset_index(drop=True))
        recorder, start = Recorder(run.model(), run.train.precision), time.perf_counter()
        calibration = Calibration.load(run.folder / "calibration.json")
        table = score_table(recorder, images, calibration, run.folder / "maps" if maps else None, 16, run.train.axis)
        seconds = (time.perf_counter() - start) / len(table)
        most = ("rarest", "greatest of map")
        parts = {
            name: by_row(values, images, "max" if name in most else "sum") for name, values in recorder.scores().items()
        }
        write_csv(table.assign(**parts), run.folder / "scores.csv")
        found = {"seconds_per_image": recorder.seconds_per_image(), "seconds_per_row": round(seconds, 4)}
        write_json(found | {"scores": list(parts), "commit": commit()}, cost)
    values: dict[str, Any] = json.loads(cost.read_text(encoding="utf-8"))
    return values
