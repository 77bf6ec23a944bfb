"""Keep all that the next epoch of a training depends on: a kill leaves the previous file or this one, never half."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from loligo.files import replacing, sweep
from loligo.nn.precision import not_finite
from loligo.runs.folder import RunFolder

if TYPE_CHECKING:
    from loligo.training.loop import Loop


class Checkpoint:
    """The checkpoint and the history of a training in a folder; all processes read it, the first one writes."""

    def __init__(self, folder: Path, writes: bool = True) -> None:
        self.folder, self.writes = RunFolder(folder), writes
        self.path = self.folder.checkpoint

    def save(self, loop: Loop) -> None:
        """Write the state of a training after an epoch; FloatingPointError where it is not finite."""
        if not self.writes:
            return
        state = loop.method.state_dict()
        if name := not_finite(state):
            raise FloatingPointError(
                f"{name} is not finite after epoch {loop.done}; what was kept of the epochs before stays: "
                "look at the training images, or train with a lower learning rate"
            )
        tensors = {f"method.{k}": v for k, v in state.items()}
        for i, optimiser in enumerate(turn for phase in loop.optimisers for turn in phase):
            tensors |= {f"optimiser.{i}.{k}": v for k, v in optimiser.state().items()}
        tensors = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
        with replacing(self.path) as path:
            save_file(tensors, path, {"done": str(loop.done), "history": json.dumps(loop.history)})
        self.folder.write_history(loop.history)

    def tidy(self, loop: Loop) -> None:
        """Make good what a kill while saving left: a history without its last epoch, and half a checkpoint."""
        if not self.writes:
            return
        sweep(self.path.parent, f".{self.path.name}.????????", 0)
        if loop.history:
            self.folder.write_history(loop.history)

    def restore(self, loop: Loop) -> bool:
        """Go back to the checkpoint and say whether there is one; ValueError, which names it, where it is not whole."""
        if not self.path.exists():
            return False
        try:
            self._restore(loop)
        except (SafetensorError, RuntimeError, ValueError, TypeError, KeyError, IndexError) as error:
            raise ValueError(
                f"{self.path} is no checkpoint of this training ({type(error).__name__}); remove it"
            ) from error
        return True

    def _restore(self, loop: Loop) -> None:
        with safe_open(self.path, "pt") as file:
            about = file.metadata()
        loop.done, loop.history = int(about["done"]), json.loads(about["history"])
        groups: dict[str, dict[str, Tensor]] = defaultdict(dict)
        for name, tensor in load_file(self.path).items():
            kind, rest = name.split(".", 1)
            groups[kind][rest] = tensor
        loop.method.load_state_dict(groups["method"])
        for i, optimiser in enumerate(turn for phase in loop.optimisers for turn in phase):
            own = {k.removeprefix(f"{i}."): v for k, v in groups["optimiser"].items() if k.startswith(f"{i}.")}
            optimiser.restore(own)
