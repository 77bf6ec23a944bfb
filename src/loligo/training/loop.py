"""Train a method on normal images: one loop for all methods, resumable to the same numbers."""

from __future__ import annotations

import copy
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from loligo import progress as bars
from loligo.config import TrainConfig
from loligo.data.dataset import Dataset
from loligo.data.transforms import intensity, jitter
from loligo.methods.contract import ALONE, Method, Reduce, Step
from loligo.methods.optimisation import Clock
from loligo.nn.precision import Resolved, autocast, dtype_of, pick_device, resolve
from loligo.training import schedule
from loligo.training.checkpoint import Checkpoint
from loligo.training.optimisers import TurnOptimiser
from loligo.training.processes import local_rank, synced_norms
from loligo.training.schedule import Epoch
from loligo.types import Again

Callback = Callable[[Method, int], None]
"""Called after each epoch with a copy of the method, finished as if that were the last, and the number of the epoch."""


def fit(
    method: Method,
    data: Dataset,
    config: TrainConfig,
    folder: Path | None = None,
    callback: Callback | None = None,
    *,
    precision: Resolved | None = None,
    reduce: Reduce = ALONE,
    progress: bool = True,
    abnormal: Dataset | None = None,
) -> pd.DataFrame:
    """Train ``method`` in place on all images of ``data``; return the history, one row an epoch.

    A weakly supervised method needs ``abnormal`` images, too, of which as many are seen as of normal ones, some more
    than once or not in each epoch; ValueError where another method is given any.

    Its attributes ``attrs["seconds"]`` and ``attrs["cpu_seconds"]``, of all threads, are what the training took: all
    epochs, and what is learnt after them. ``folder`` keeps history.csv and checkpoint/last.safetensors, both written
    after each epoch; where the checkpoint exists, training resumes from it. Without a folder nothing is written.
    ``callback`` is called after each epoch, in the first process; it changes nothing. ``reduce`` joins the processes of
    one training.
    """
    method.check_count(len(data))
    method.check_abnormal(len(abnormal) if abnormal else 0)
    device = pick_device(config.device, local_rank())
    dtype = dtype_of(precision or resolve(config.precision, device), device)
    if len(data) // math.ceil(len(data) / config.batch_size) < reduce.size:
        raise ValueError(
            f"{len(data)} images in batches of {config.batch_size} are too few for {reduce.size} processes"
        )
    method.start()
    method.to(device).to(memory_format=torch.channels_last)
    loop = Loop(method, data, config, device, dtype, reduce, progress, abnormal)
    checkpoint = Checkpoint(folder, writes=reduce.rank == 0) if folder else None
    if not (checkpoint and checkpoint.restore(loop)):
        loop.prepare()
    loop.run(checkpoint, callback)
    start, spent = time.perf_counter(), time.process_time()
    loop.finish(method)
    if checkpoint:
        checkpoint.tidy(loop)
    history = pd.DataFrame(loop.history)
    rest = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - spent}
    history.attrs |= {name: value + float(history.get(name, pd.Series(0.0)).sum()) for name, value in rest.items()}
    return history


class Loop:
    """The state of a training and the loop that moves it."""

    def __init__(
        self,
        method: Method,
        data: Dataset,
        config: TrainConfig,
        device: torch.device,
        dtype: torch.dtype,
        reduce: Reduce,
        progress: bool,
        abnormal: Dataset | None = None,
    ) -> None:
        self.method, self.data, self.config, self.device, self.dtype = method, data, config, device, dtype
        self.reduce, self.progress, self.abnormal = reduce, progress, abnormal
        self.phases = method.phases()
        self.plan = list(schedule.plan(self.phases, config.epochs_on(len(data))))
        self.done = 0
        self.history: list[dict[str, object]] = []
        self.optimisers = [[TurnOptimiser(method, turn) for turn in phase.turns] for phase in self.phases]
        self.steps = math.ceil(len(data) / config.batch_size)

    def prepare(self) -> None:
        """Let the method measure what its phases need."""
        torch.manual_seed(self.config.seed)
        self.method.eval()
        with torch.no_grad(), autocast(self.device, self.dtype):
            self.method.prepare(Again(lambda: self.plain_batches("preparing")), self.reduce)

    def run(self, checkpoint: Checkpoint | None, callback: Callback | None) -> None:
        """Train the epochs that are left."""
        left, steps, show = self.plan[self.done :], len(self.plan) * self.steps, bool(self.plan) and self.progress
        estimate = bars.Estimate(self.steps, len(left), show)
        with bars.bar(total=steps, initial=self.done * self.steps, desc="training", unit="step", show=show) as bar:
            for epoch in left:
                bar.set_description_str(f"epoch {self.done + 1}/{len(self.plan)}", refresh=False)
                with synced_norms(self.reduce):
                    self._epoch(epoch, bar, estimate)
                self.done += 1
                self.method.after_epoch(self.done / len(self.plan))
                if callback:
                    finished = self.finish(copy.deepcopy(self.method))  # by all processes, which may have to agree
                    if self.reduce.rank == 0:
                        callback(finished, self.done)
                if checkpoint:
                    checkpoint.save(self)

    def finish(self, method: Method) -> Method:
        """Put ``method`` in eval mode and let it learn what is not learnt by gradient, as after the last epoch."""
        torch.manual_seed(self.config.seed)
        for optimiser in (turn for phase in self.optimisers for turn in phase):
            optimiser.put_averages(method)
        method.eval()
        with torch.no_grad(), autocast(self.device, self.dtype):
            method.fit(Again(lambda: self.plain_batches("fitting")), self.reduce)
        return method

    def _epoch(self, epoch: Epoch, bar: Any, estimate: bars.Estimate) -> None:
        seed = self.config.seed * 100_003 + self.done
        torch.manual_seed(seed + self.reduce.rank * 1_000_003)
        generator = torch.Generator().manual_seed(seed)
        phase = self.phases[epoch.phase]
        self.method.train()
        for name in phase.frozen:
            self.method.get_submodule(name).eval()
        totals: dict[str, list[Tensor]] = defaultdict(list)
        start, spent = time.perf_counter(), time.process_time()
        order = torch.randperm(len(self.data), generator=generator).numpy()
        others = self._abnormal_batches(generator)
        for number, indices in enumerate(np.array_split(order, self.steps)):
            index = self._part(torch.from_numpy(indices))
            x = self._place(self._part(self._augmented(self.data, indices, generator)))
            step = next(others) | {"index": index.to(self.device)}
            clock = Clock(epoch.number * self.steps + number, epoch.of * self.steps, epoch.number, epoch.of)
            for name, loss in self._step(epoch.phase, number, clock, x, len(index) / len(indices), step).items():
                totals[name].append(loss)
            bar.update()
            estimate.step()
        seconds = time.perf_counter() - start
        means = {name: float(self.reduce.sum(torch.stack(v).float().mean())) for name, v in totals.items()}
        speed = len(self.data) / seconds
        bar.set_postfix({**{k: f"{v:.4g}" for k, v in means.items()}, "images/s": f"{speed:.1f}"}, refresh=False)
        row = {
            "epoch": self.done + 1,
            "phase": phase.name,
            "seconds": seconds,
            "cpu_seconds": time.process_time() - spent,
            "images_per_s": speed,
            **means,
        }
        if not all(math.isfinite(v) for v in means.values()):
            raise FloatingPointError(f"a loss is not finite in epoch {self.done + 1}: {means}")
        self.history.append(row)

    def _abnormal_batches(self, generator: torch.Generator) -> Iterator[Step]:
        """Yield what each step of an epoch holds when it begins: abnormal images, in another order, where there are."""
        if not self.abnormal:
            yield from ({} for _ in range(self.steps))
            return
        order = np.resize(torch.randperm(len(self.abnormal), generator=generator).numpy(), len(self.data))
        for indices in np.array_split(order, self.steps):
            yield {"abnormal": self._place(self._part(self._augmented(self.abnormal, indices, generator)))}

    def _augmented(self, data: Dataset, indices: Any, generator: torch.Generator) -> Tensor:
        x = data.batch(indices)
        image = x[:, :1]  # alone, without a slice's position
        if self.config.intensity_augmentation:
            image = intensity(image, generator)
        if self.config.augment:
            image = jitter(image, generator)
        return torch.cat([image, x[:, 1:]], 1)

    def _part(self, x: Tensor) -> Tensor:
        """Return this process's part of what belongs to a batch's images."""
        return torch.tensor_split(x, self.reduce.size)[self.reduce.rank]

    def _step(self, phase: int, number: int, clock: Clock, x: Tensor, weight: float, step: Step) -> dict[str, Tensor]:
        """Take each turn that is due; return all losses, detached, weighted by the process's part of the batch."""
        logged: dict[str, Tensor] = {}
        for optimiser in self.optimisers[phase]:
            turn = optimiser.turn
            if number % turn.every:
                continue
            self.method.requires_grad_(False)
            for parameter in optimiser.parameters:
                parameter.requires_grad_(True)
            with autocast(x.device, self.dtype):
                losses = self.method.losses(x, turn.loss, step)
            torch.autograd.backward(losses[turn.loss] if weight == 1 else weight * losses[turn.loss])
            optimiser.step(clock, self.reduce)
            self.method.after_step(turn.loss, step, self.reduce)
            logged |= {name: weight * loss.detach() for name, loss in losses.items()}
        return logged

    def _place(self, x: Tensor) -> Tensor:
        return x.to(self.device).contiguous(memory_format=torch.channels_last)

    def plain_batches(self, purpose: str) -> Iterator[Tensor]:
        """Yield all images in order, without augmentation, beneath a progress bar."""
        with bars.bar(total=len(self.data), desc=purpose, unit="image", show=self.progress) as bar:
            for start in range(0, len(self.data), self.config.batch_size):
                indices = np.arange(start, min(start + self.config.batch_size, len(self.data)))
                yield self._place(self.data.batch(indices))
                bar.update(len(indices))
