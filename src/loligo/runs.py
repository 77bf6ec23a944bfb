"""The run folder: what a training leaves on disk, written and read in one place."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import yaml
from safetensors.torch import load_file, save_file

from loligo import __version__, methods
from loligo.config import TrainConfig
from loligo.data import cache, manifest
from loligo.data.cache import Dataset
from loligo.data.sources import mood
from loligo.data.volumes import Cut
from loligo.files import replacing
from loligo.methods.base import Method, MethodConfig, SliceConfig
from loligo.names import nearest

T = TypeVar("T")


@dataclass(frozen=True)
class Run:
    """A run folder with its configuration; the weights are read when they are asked for."""

    folder: Path
    method: str
    method_config: MethodConfig
    train: TrainConfig
    about: dict[str, Any]
    """What was measured while it trained: data and cost."""
    preset: str = ""
    """Name of the preset that its options began with."""

    @classmethod
    def load(cls, folder: str | Path) -> Run:
        """Read a run folder; ValueError where it is none or was written by other options."""
        folder = Path(folder)
        path = folder / "config.yaml"
        if not path.is_file():
            raise ValueError(f"{folder} is not a run folder: it has no config.yaml; make one with 'loligo train'")
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        method = methods.get(values["method"])
        config = build(method.Config, values["method_config"], f"{path}: method_config")
        train = build(TrainConfig, values["train"], f"{path}: train")
        return cls(
            folder,
            values["method"],
            config,
            train,
            {k: values.get(k, {}) for k in ("data", "cost")},
            values.get("preset", ""),
        )

    def save(self) -> None:
        """Write config.yaml."""
        values = {
            "loligo": __version__,
            "method": self.method,
            "preset": self.preset,
            "method_config": dataclasses.asdict(self.method_config),
            "train": dataclasses.asdict(self.train),
            **self.about,
        }
        with replacing(self.folder / "config.yaml") as path:
            path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")

    def images(self, rows: pd.DataFrame, strict: bool = False) -> Dataset:
        """Load manifest rows as the method sees them; see `data.cache.load`."""
        mood.check_window(rows, self.train.window)
        told = isinstance(self.method_config, SliceConfig) and self.method_config.position
        cut = Cut(self.train.axis, self.train.window, told)
        return cache.load(rows, self.method_config.size, strict=strict, cut=cut)

    @property
    def trained(self) -> bool:
        """Say whether the training was finished."""
        return (self.folder / "model.safetensors").is_file() and (self.folder / "calibration.json").is_file()

    def new_model(self) -> Method:
        """Return the method with fresh weights."""
        return methods.get(self.method)(self.method_config)

    def model(self, path: Path | None = None) -> Method:
        """Return the trained method, in eval mode; or as it was when it was saved to ``path``."""
        path = path or self.folder / "model.safetensors"
        if not path.is_file():
            raise ValueError(f"{self.folder} has no model.safetensors: its training is not finished; run it again")
        model = self.new_model()
        model.load_state_dict(load_file(path))
        return model.eval()

    def save_model(self, model: Method, path: Path | None = None) -> None:
        """Write model.safetensors, or ``path``."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
        with replacing(path or self.folder / "model.safetensors") as new:
            save_file(tensors, new)

    def manifest(self) -> pd.DataFrame:
        """Read the manifest that the run was trained on."""
        return manifest.read(self.folder / "manifest.csv")


def build(kind: type[T], values: dict[str, Any], where: str = "options") -> T:
    """Make a configuration from a mapping; ValueError names an unknown key and the nearest known one.

    Lists become tuples: YAML knows no other sequence, and a configuration is compared with what was read back.
    """
    known = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise ValueError(f"{where} has no {key!r}; {nearest(key, known)}")
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})
