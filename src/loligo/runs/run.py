"""A run: a run folder with its configuration; weights, images and manifest are read when they are asked for."""

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
from loligo.data import manifest
from loligo.files import replacing, write_text
from loligo.methods.contract import Method
from loligo.nn.precision import Resolved
from loligo.runs.folder import RunFolder
from loligo.runs.settings import CALIBRATED, HELD_OUT, Settings


@dataclass(frozen=True, kw_only=True)
class Run(Settings):
    """A run folder with its configuration."""

    folder: Path
    about: dict[str, Any] = field(default_factory=lambda: {"data": {}, "cost": {}})
    """What was measured while it trained: data, cost, and the precision that ``auto`` meant there."""

    @classmethod
    def new(cls, folder: str | Path, settings: Settings) -> Run:
        """Return the run of these settings in a folder; ValueError where one of others was begun there."""
        if not str(folder):
            raise ValueError("the run folder's name is empty; name one, such as runs/a")
        run = cls(folder=Path(folder), **{f.name: getattr(settings, f.name) for f in dataclasses.fields(Settings)})
        if run.begun:
            before = cls.load(run.folder)
            if difference := before.difference(run):
                raise ValueError(
                    f"{run.folder} was begun with other options ({difference}); "
                    "repeat those to resume it, or choose another folder"
                )
            run.about.update({key: before.about[key] for key in ("precision",) if key in before.about})
        return run

    @classmethod
    def load(cls, folder: str | Path) -> Run:
        """Read a run folder; ValueError, which names the file, where it is none or its configuration is not whole."""
        if not str(folder):
            raise ValueError("the run folder's name is empty; name one that 'loligo train' made")
        files = RunFolder(Path(folder))
        if not files.config.is_file():
            apart = "name the folder of the run that made its scores" if (files.path / "scores.csv").is_file() else ""
            how = apart or "make one with 'loligo train'"
            raise ValueError(f"{folder} is not a run folder: it has no config.yaml; {how}")
        try:
            values = yaml.safe_load(files.config.read_text(encoding="utf-8"))
            return cls(
                folder=Path(folder),
                method=values["method"],
                method_config=build(methods.get(values["method"]).Config, values["method_config"], "method_config"),
                train=build(TrainConfig, values["train"], "train"),
                preprocessing=build(PreprocessingConfig, values["preprocessing"], "preprocessing"),
                preset=values.get("preset", ""),
                false_alarm_rate=float(values["false_alarm_rate"]),
                held_out=float(values.get("held_out", HELD_OUT)),
                folds=int(values.get("folds", 0)),
                about={"data": values.get("data", {}), "cost": values.get("cost", {})}
                | ({"precision": values["precision"]} if values.get("precision") in ("bf16", "float32") else {}),
            )
        except KeyError as error:
            raise ValueError(f"{files.config} lacks {error}; train the run again") from error
        except (yaml.YAMLError, ValueError, TypeError, AttributeError) as error:
            why = one_line(error)
            raise ValueError(f"{files.config} is no configuration of a run: {why}; train the run again") from error

    @property
    def files(self) -> RunFolder:
        """The folder's artefacts."""
        return RunFolder(self.folder)

    @property
    def precision(self) -> Resolved:
        """The precision that it was trained and calibrated with; scores of another are not comparable."""
        found: Resolved = self.about.get("precision", "float32")
        return found

    def save(self) -> None:
        """Write config.yaml."""
        values = {
            "loligo": __version__,
            "method": self.method,
            "preset": self.preset,
            "method_config": dataclasses.asdict(self.method_config),
            "train": self.training(),
            "preprocessing": dataclasses.asdict(self.preprocessing),
            **{name: getattr(self, name) for name in CALIBRATED},
            **self.about,
        }
        write_text(yaml.safe_dump(values, sort_keys=False), self.files.config)

    @property
    def spacing(self) -> tuple[float, ...]:
        """Distance of voxels in mm that its volumes have; empty where it was trained on images."""
        return tuple(self.about["data"].get("spacing", ()))

    @property
    def begun(self) -> bool:
        """Say whether a training has kept something here: what an epoch, the model or the calibration made."""
        return any(path.is_file() for path in (self.files.checkpoint, self.files.model, self.files.calibration))

    @property
    def trained(self) -> bool:
        """Say whether the training was finished."""
        return self.files.model.is_file() and self.files.calibration.is_file()

    def model(self, path: Path | None = None) -> Method:
        """Return the trained method, in eval mode; or as it was when it was saved to ``path``.

        Raises ValueError, which names the file, where there is none or it does not hold the method's weights.
        """
        path = path or self.files.model
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
        with replacing(path or self.files.model) as new:
            save_file(tensors, new)

    def manifest(self) -> pd.DataFrame:
        """Read the manifest that the run was trained on; it has no rows where that was images in memory."""
        if not self.files.manifest.is_file():
            return pd.DataFrame(columns=[*manifest.REQUIRED, *manifest.OPTIONAL], dtype=str)
        return manifest.read(self.files.manifest)
