"""The run folder: what a training leaves on disk, written and read in one place."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from loligo import __version__, methods
from loligo.config import PreprocessingConfig, TrainConfig, build, one_line
from loligo.data import cache, manifest
from loligo.data.sources import mood
from loligo.data.dataset import Dataset
from loligo.data.preprocessing import Preprocessing
from loligo.files import replacing, write_text
from loligo.methods.contract import Method
from loligo.methods.configs import MethodConfig, SliceConfig

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
    preprocessing: PreprocessingConfig = field(default_factory=PreprocessingConfig)

    @classmethod
    def load(cls, folder: str | Path) -> Run:
        """Read a run folder; ValueError, which names the file, where it is none or its configuration is not whole."""
        if not str(folder):
            raise ValueError("the run folder's name is empty; name one that 'loligo train' made")
        folder = Path(folder)
        path = folder / "config.yaml"
        if not path.is_file():
            apart = "name the folder of the run that made its scores" if (folder / "scores.csv").is_file() else ""
            how = apart or "make one with 'loligo train'"
            raise ValueError(f"{folder} is not a run folder: it has no config.yaml; {how}")
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
            values["method_config"].pop("channels", None)  # an option once; older runs name it
            config = build(methods.get(values["method"]).Config, values["method_config"], "method_config")
            train = build(TrainConfig, values["train"], "train")
            about = {k: values.get(k, {}) for k in ("data", "cost")}
            preprocessing = build(PreprocessingConfig, values["preprocessing"], "preprocessing")
            return cls(folder, values["method"], config, train, about, values.get("preset", ""), preprocessing)
        except KeyError as error:
            raise ValueError(f"{path} lacks {error}; train the run again") from error
        except (yaml.YAMLError, ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is no configuration of a run: {one_line(error)}; train the run again") from error

    def save(self) -> None:
        """Write config.yaml."""
        values = {
            "loligo": __version__,
            "method": self.method,
            "preset": self.preset,
            "method_config": dataclasses.asdict(self.method_config),
            "train": dataclasses.asdict(self.train),
            "preprocessing": dataclasses.asdict(self.preprocessing),
            **self.about,
        }
        write_text(yaml.safe_dump(values, sort_keys=False), self.folder / "config.yaml")

    def images(self, rows: pd.DataFrame, strict: bool = False) -> Dataset:
        """Load manifest rows as the method sees them; see `data.cache.load`."""
        mood.check_window(rows, self.preprocessing.window)
        told = isinstance(self.method_config, SliceConfig) and self.method_config.position
        spacing = self.about.get("data", {}).get("spacing")
        shared: dict[str, Any] = {"position": told, "spacing": tuple(spacing) if spacing else None}
        preprocessing = Preprocessing(self.method_config.size, **dataclasses.asdict(self.preprocessing), **shared)
        return cache.load(rows, preprocessing, strict=strict)

    @property
    def begun(self) -> bool:
        """Say whether a training has kept something here: what an epoch, the model or the calibration made."""
        kept = ("checkpoint/last.safetensors", "model.safetensors", "calibration.json")
        return any((self.folder / name).is_file() for name in kept)

    @property
    def trained(self) -> bool:
        """Say whether the training was finished."""
        return (self.folder / "model.safetensors").is_file() and (self.folder / "calibration.json").is_file()

    def new_model(self) -> Method:
        """Return the method with fresh weights; ValueError where it cannot be made with its options."""
        try:
            return methods.get(self.method)(self.method_config)
        except (RuntimeError, ZeroDivisionError, OverflowError, MemoryError) as error:
            raise ValueError(f"{self.method} cannot be made with these options: {one_line(error)}") from error

    def model(self, path: Path | None = None) -> Method:
        """Return the trained method, in eval mode; or as it was when it was saved to ``path``.

        Raises ValueError, which names the file, where there is none or it does not hold the method's weights.
        """
        path = path or self.folder / "model.safetensors"
        if not path.is_file():
            raise ValueError(f"{self.folder} has no model.safetensors: its training is not finished; run it again")
        model = self.new_model()
        try:
            model.load_state_dict(load_file(path))
        except (SafetensorError, RuntimeError) as error:
            raise ValueError(f"{path} does not hold the weights of this {self.method}: {one_line(error)}") from error
        return model.eval()

    def save_model(self, model: Method, path: Path | None = None) -> None:
        """Write model.safetensors, or ``path``."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
        with replacing(path or self.folder / "model.safetensors") as new:
            save_file(tensors, new)

    def manifest(self) -> pd.DataFrame:
        """Read the manifest that the run was trained on."""
        return manifest.read(self.folder / "manifest.csv")
