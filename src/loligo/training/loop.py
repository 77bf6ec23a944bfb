"""Train a method on normal images: one loop for all, resumable to the same numbers; the only file with Lightning."""

from __future__ import annotations

import copy
import json
import math
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim import Adam
from tqdm import tqdm

from loligo.config import TrainConfig
from loligo.data.dataset import Dataset
from loligo.data.transforms import intensity, jitter
from loligo.files import replacing, sweep, write_csv
from loligo.methods.contract import Method, Phase, Turn
from loligo.nn.precision import autocast, hasten, pick_dtype
from loligo.types import Again

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Watch = Callable[[Method, int], None]
"""Called after each epoch with a copy of the method, finished as if that were the last, and the epoch."""


def fit(
    method: Method,
    data: Dataset,
    config: TrainConfig,
    folder: Path,
    watch: Watch | None = None,
    held_out: Dataset | None = None,
) -> pd.DataFrame:
    """Train ``method`` in place on all images of ``data``; return the history, one row an epoch.

    Its attributes ``attrs["seconds"]`` and ``attrs["cpu_seconds"]``, of all threads, are what the training took: all
    epochs, and what is learnt after them.

    ``held_out`` are normals for limits of the method's own; the training images unless given. ``folder`` keeps
    ``history.csv`` and ``checkpoint/last.safetensors``, both written after each epoch; where the checkpoint stands
    already, training goes on from it. ``watch`` looks on after each epoch; it changes nothing.
    """
    from lightning_fabric import Fabric  # not above: it takes 3 s, which scoring and reports do without

    hasten()
    try:
        fabric = Fabric(accelerator=config.device, devices=1)
    except (RuntimeError, ValueError, ImportError) as error:
        raise ValueError(f"train.device is {config.device!r}: {' '.join(str(error).split())}") from error
    dtype = pick_dtype(config.precision, fabric.device)
    method.start()
    method.to(fabric.device).to(memory_format=torch.channels_last)
    loop = Loop(method, data, config, folder, fabric, dtype, held_out or data)
    loop.resume()
    loop.run(watch)
    start, spent = time.perf_counter(), time.process_time()
    loop.finish(method)
    loop.tidy()
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
        folder: Path,
        fabric: Fabric,
        dtype: torch.dtype,
        held_out: Dataset,
    ) -> None:
        self.method, self.data, self.config, self.folder, self.fabric, self.dtype = (
            method, data, config, folder, fabric, dtype,
        )  # fmt: skip
        self.held_out = held_out
        self.plan = [
            (phase, epoch / count)
            for phase, count in zip(method.phases(), epochs_of(method.phases(), config.epochs), strict=True)
            for epoch in range(count)
        ]
        self.done = 0
        self.history: list[dict[str, object]] = []
        self.optimisers = {t: self._optimiser(t) for phase in method.phases() for t in phase.turns}
        self.steps = math.ceil(len(data) / config.batch_size)

    def _optimiser(self, turn: Turn) -> Adam:
        parameters = [p for name in turn.modules for p in self.method.get_submodule(name).parameters()]
        return Adam(parameters, turn.learning_rate, turn.betas, weight_decay=turn.weight_decay, fused=True)

    def run(self, watch: Watch | None) -> None:
        """Go through the epochs that are left."""
        bar = tqdm(total=len(self.plan), initial=self.done, desc="training", unit="epoch", disable=not self.plan)
        for phase, progress in self.plan[self.done :]:
            self._epoch(phase, progress, bar)
            self.done += 1
            self.method.after_epoch(self.done / len(self.plan))
            bar.update()
            if watch:
                watch(self.finish(copy.deepcopy(self.method)), self.done)
            self.save()
        bar.close()

    def finish(self, method: Method) -> Method:
        """Put ``method`` in eval mode and let it learn what is not learnt by gradient, as after the last epoch."""
        torch.manual_seed(self.config.seed)
        method.eval()
        with torch.no_grad(), autocast(self.fabric.device, self.dtype):
            method.fit(Again(lambda: self.plain_batches(self.data, "fitting")))
            method.calibrate(Again(lambda: self.plain_batches(self.held_out, "calibrating")))
        return method

    def _epoch(self, phase: Phase, progress: float, bar: tqdm[Any]) -> None:
        torch.manual_seed(self.config.seed * 100_003 + self.done)
        generator = torch.Generator().manual_seed(self.config.seed * 100_003 + self.done)
        self.method.train()
        for turn in phase.turns:
            share = turn.final_rate + (1 - turn.final_rate) * (1 + math.cos(math.pi * progress)) / 2
            self.optimisers[turn].param_groups[0]["lr"] = turn.learning_rate * share
        totals: dict[str, list[Tensor]] = defaultdict(list)
        start, spent = time.perf_counter(), time.process_time()
        order = torch.randperm(len(self.data), generator=generator).numpy()
        for step, indices in enumerate(np.array_split(order, self.steps)):
            x = self.data.batch(indices)
            image = x[:, :1]  # alone, without a slice's position
            if self.config.intensity_augmentation:
                image = intensity(image, generator)
            if self.config.augment:
                image = jitter(image, generator)
            x = torch.cat([image, x[:, 1:]], 1)
            for name, loss in self._step(phase, step, self._place(x)).items():
                totals[name].append(loss)
            if sys.stderr.isatty():
                bar.set_postfix_str(f"step {step + 1}/{self.steps}")
        seconds = time.perf_counter() - start
        means = {name: float(torch.stack(values).float().mean()) for name, values in totals.items()}
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

    def _step(self, phase: Phase, step: int, x: Tensor) -> dict[str, Tensor]:
        """Take each turn that is due; return all losses, detached."""
        logged: dict[str, Tensor] = {}
        for turn in phase.turns:
            if step % turn.every:
                continue
            self.method.requires_grad_(False)
            for parameter in self.optimisers[turn].param_groups[0]["params"]:
                parameter.requires_grad_(True)
            with autocast(x.device, self.dtype):
                losses = self.method.losses(x, turn.loss)
            torch.autograd.backward(losses[turn.loss])
            self.optimisers[turn].step()
            self.optimisers[turn].zero_grad()
            self.method.after_step(turn.loss)
            logged |= {name: loss.detach() for name, loss in losses.items()}
        return logged

    def _place(self, x: Tensor) -> Tensor:
        return x.to(self.fabric.device).contiguous(memory_format=torch.channels_last)

    def plain_batches(self, data: Dataset, purpose: str) -> Iterator[Tensor]:
        """Yield all images in order, without augmentation, beneath a progress bar."""
        with tqdm(total=len(data), desc=purpose, unit="image") as bar:
            for start in range(0, len(data), self.config.batch_size):
                indices = np.arange(start, min(start + self.config.batch_size, len(data)))
                yield self._place(data.batch(indices))
                bar.update(len(indices))

    @property
    def _checkpoint(self) -> Path:
        return self.folder / "checkpoint" / "last.safetensors"

    def save(self) -> None:
        """Write everything that the next epoch depends on; a kill leaves the previous file or this one."""
        tensors = {f"method.{k}": v for k, v in self.method.state_dict().items()}
        for i, optimiser in enumerate(self.optimisers.values()):
            for j, state in optimiser.state_dict()["state"].items():
                tensors |= {f"optimiser.{i}.{j}.{k}": v for k, v in state.items()}
        tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
        with replacing(self._checkpoint) as path:
            save_file(tensors, path, {"done": str(self.done), "history": json.dumps(self.history)})
        write_csv(pd.DataFrame(self.history), self.folder / "history.csv")

    def tidy(self) -> None:
        """Make good what a kill while saving left: a history without its last epoch, and half a checkpoint."""
        sweep(self._checkpoint.parent, f".{self._checkpoint.name}.????????", 0)
        if self.history:
            write_csv(pd.DataFrame(self.history), self.folder / "history.csv")

    def resume(self) -> None:
        """Go back to the last checkpoint, where there is one; ValueError, which names it, where it is not whole."""
        if not self._checkpoint.exists():
            return
        try:
            self._restore()
        except (SafetensorError, RuntimeError, ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"{self._checkpoint} is no checkpoint of this training ({type(error).__name__}); remove it"
            ) from error

    def _restore(self) -> None:
        with safe_open(self._checkpoint, "pt") as file:
            about = file.metadata()
        self.done, self.history = int(about["done"]), json.loads(about["history"])
        groups: dict[str, dict[str, Tensor]] = defaultdict(dict)
        for name, tensor in load_file(self._checkpoint).items():
            kind, rest = name.split(".", 1)
            groups[kind][rest] = tensor
        self.method.load_state_dict(groups["method"])
        for i, optimiser in enumerate(self.optimisers.values()):
            state: dict[int, dict[str, Tensor]] = defaultdict(dict)
            for name, tensor in groups["optimiser"].items():
                index, parameter, key = name.split(".")
                if int(index) == i:
                    like = optimiser.param_groups[0]["params"][int(parameter)]
                    same = tensor.shape == like.shape  # fused Adam takes memory as it lies: lay it as the parameter's
                    state[int(parameter)][key] = torch.empty_like(like).copy_(tensor) if same else tensor
            optimiser.load_state_dict({**optimiser.state_dict(), "state": dict(state)})


def epochs_of(phases: tuple[Phase, ...], epochs: int) -> list[int]:
    """Share out epochs among phases by their shares, each at least one."""
    total = sum(phase.share for phase in phases)
    ends = np.round(np.cumsum([phase.share for phase in phases]) / (total or 1) * epochs).astype(int)
    return [max(1, int(b - a)) for a, b in zip([0, *ends], ends, strict=False)]
