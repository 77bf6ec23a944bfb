"""A run: a run folder with its configuration; weights, images and manifest are read when they are asked for."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import yaml
from safetensors import SafetensorError

from loligo import __version__, methods
from loligo.config import PreprocessingConfig, TrainConfig, build, check_forms, one_line
from loligo.data import manifest
from loligo.data.header_scope import HeaderScope
from loligo.files import replacing, write_text
from loligo.runs import tables
from loligo.runs.folder import RunFolder
from loligo.runs.settings import CALIBRATED, HELD_OUT, Settings

if TYPE_CHECKING:
    from loligo.methods.contract import Method
    from loligo.nn.precision import Resolved

DIGEST = "weights_sha256"
"""Name in config.yaml of the SHA-256 of model.safetensors."""
FORMS: dict[str, type] = {
    **dict.fromkeys(("method", "preset", "precision", DIGEST), str),
    **dict.fromkeys(("method_config", "train", "preprocessing", "data", "cost"), dict),
    **dict.fromkeys(("false_alarm_rate", "held_out"), float),
}
"""What config.yaml must hold where it has these names."""


@dataclass(frozen=True, kw_only=True)
class Run(Settings):
    """A run folder with its configuration."""

    folder: Path
    about: dict[str, Any] = field(default_factory=lambda: {"data": {}, "cost": {}})
    """What was measured while it trained: data, cost, what precision ``auto`` meant, and a digest of the weights."""

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
            run.about["data"] |= {key: value for key, value in before.about["data"].items() if key == "contents"}
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
            values = tables.mapping(files.config)
            check_forms(values, FORMS | ({} if values.get("folds") is None else {"folds": int}))
            return cls(
                folder=Path(folder),
                method=values["method"],
                method_config=build(methods.get(values["method"]).Config, values["method_config"], "method_config"),
                train=build(TrainConfig, values["train"], "train"),
                preprocessing=build(PreprocessingConfig, values["preprocessing"], "preprocessing"),
                preset=values.get("preset", ""),
                false_alarm_rate=values["false_alarm_rate"],
                held_out=values.get("held_out", HELD_OUT),
                folds=values.get("folds"),
                about=checked_about(values),
            )
        except KeyError as error:
            raise ValueError(f"{files.config} lacks {error}; train the run again") from error
        except (yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError, OverflowError) as error:
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
        """Write its `record` as config.yaml."""
        write_text(yaml.safe_dump(self.record(), sort_keys=False), self.files.config)

    def record(self) -> dict[str, Any]:
        """Return its options and what was measured while it trained, as config.yaml holds them."""
        return {
            "loligo": __version__,
            "method": self.method,
            "preset": self.preset,
            "method_config": dataclasses.asdict(self.method_config),
            "train": self.training(),
            "preprocessing": dataclasses.asdict(self.preprocessing),
            **{name: getattr(self, name) for name in CALIBRATED},
            **self.about,
        }

    @property
    def spacing(self) -> tuple[float, ...]:
        """Distance of voxels in mm that its volumes have; empty where it was trained on images."""
        return tuple(self.about["data"].get("spacing", ()))

    @property
    def headers(self) -> HeaderScope:
        """What DICOM headers may say: what those of its training images do."""
        return HeaderScope.read(self.about["data"])

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
        expected = "" if path else self.about.get(DIGEST, "")
        path = path or self.files.model
        if not path.is_file():
            raise ValueError(f"{self.folder} has no model.safetensors: its training is not finished; run it again")
        if expected and digest(path) != expected:
            raise ValueError(
                f"{path} is not the file that the training wrote: its SHA-256 is not the {DIGEST} of config.yaml; "
                "copy the run folder again, or train the run again"
            )
        from safetensors.torch import load_file  # here: a run that was exported is read without torch

        model = self.new_model()
        try:
            model.load_state_dict(load_file(path))
            _refuse_unfit(model)
        except (SafetensorError, RuntimeError, ValueError) as error:
            why = textwrap.shorten(
                str(error).partition("\n")[2] or str(error), 160
            )  # the first line of many has no news
            raise ValueError(f"{path} does not hold the weights of this {self.method}: {why}") from error
        return model.eval()

    def save_model(self, model: Method, path: Path | None = None) -> None:
        """Write model.safetensors, whose digest `save` then writes, or ``path``.

        Raises FloatingPointError, and writes nothing, where a weight is not finite.
        """
        from safetensors.torch import save_file

        from loligo.nn.precision import not_finite

        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
        if name := not_finite(tensors):
            raise FloatingPointError(
                f"{self.method} was not saved: its training ended in weights that are not finite ({name}); "
                "look at the training images, or train with a lower learning rate"
            )
        with replacing(path or self.files.model) as new:
            save_file(tensors, new)
        if path is None:
            self.about[DIGEST] = digest(self.files.model)

    def remember(self, contents: Iterable[str]) -> None:
        """Note the training images by the SHA-256 of their files, for `save`; they may come in any order.

        Raises ValueError where the training was begun on others.
        """
        found = hashlib.sha256("\n".join(sorted(contents)).encode()).hexdigest()
        if self.about["data"].setdefault("contents", found) != found:
            raise ValueError(
                f"{self.folder} was begun on training images of the same names with other contents; "
                "put those back to resume it, or choose another folder"
            )

    def manifest(self) -> pd.DataFrame:
        """Read the manifest that the run was trained on; it has no rows where that was images in memory."""
        if not self.files.manifest.is_file():
            return pd.DataFrame(columns=[*manifest.REQUIRED, *manifest.OPTIONAL], dtype=str)
        return manifest.read(self.files.manifest)

    def at_hand(self, split: str) -> pd.DataFrame:
        """Return the rows of a split of the manifest whose files are still there."""
        rows = self.manifest()
        rows = rows[rows["split"] == split]
        return rows.loc[rows["path"].map(lambda path: Path(path).is_file()).astype(bool)]


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refuse_unfit(model: Method) -> None:
    """Raise ValueError where weights that were loaded cannot score."""
    from loligo.nn.precision import not_finite

    if name := not_finite(model.state_dict()):
        raise ValueError(f"{name} is not finite")
    buffers = dict(model.named_buffers())  # a parameter that grows may be let go once training ends
    if empty := [name for name in model.grown if name in buffers and not len(buffers[name])]:
        raise ValueError(f"{empty[0]} has no rows")


def checked_about(values: dict[str, Any]) -> dict[str, Any]:
    """Return what a configuration says was measured; ValueError where a part has another form."""
    about: dict[str, Any] = {name: values.get(name, {}) for name in ("data", "cost")}
    spacing = about["data"].get("spacing", [])
    if not (isinstance(spacing, list) and len(spacing) in (0, 3) and all(map(_is_length, spacing))):
        raise ValueError(f"data.spacing is {spacing!r}; it must be 3 distances in mm")
    HeaderScope.read(about["data"])
    if (precision := values.get("precision", "float32")) not in ("bf16", "float32"):
        raise ValueError(f"precision is {precision!r}; it must be bf16 or float32")
    return about | {key: values[key] for key in ("precision", DIGEST) if key in values}


def _is_length(value: Any) -> bool:
    return isinstance(value, (int, float)) and 0 < value < math.inf
