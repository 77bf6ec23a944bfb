"""An exported model on disk: the file that computes it, and beside it what else turns images into predictions.

``model.onnx``, or ``model.xml`` with ``model.bin``; ``model.json``, its manifest; ``model.reference.safetensors``, what
is remembered of the training images; ``model.md``, the model card. They are found by the name that they share, so that
they may be moved and renamed together; the manifest holds the SHA-256 of each.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from loligo import NOTICE, __version__
from loligo.calibration import Calibration
from loligo.config import PreprocessingConfig, TrainConfig, build, check_forms, one_line
from loligo.data.reference import Reference
from loligo.files import write_json
from loligo.methods.configs import SliceConfig
from loligo.runs import tables
from loligo.runs.run import DIGEST, Run, checked_about, digest

if TYPE_CHECKING:
    from loligo.methods.contract import Method

SUFFIXES = {"onnx": (".onnx",), "openvino": (".xml", ".bin"), "torch": (".pt2",)}
"""Of the files of a format; the first is the one to name."""
SCORED = (".onnx", ".xml")
"""Of the files that a `Detector` is loaded from."""
MANIFEST, REFERENCE, CARD = ".json", ".reference.safetensors", ".md"
"""Of the files beside them."""
LOCAL = ("contents", "recalibrated_from")
"""What a run says of its data that means nothing elsewhere."""
FORMS: dict[str, type] = {
    **dict.fromkeys(("files", "run", "calibration"), dict),
    "volume_score": str,
    "slice_filter": list,
}
"""What a manifest holds."""
RECORD: dict[str, type] = {
    **dict.fromkeys(("method_config", "preprocessing", "data", "cost"), dict),
    "method": str,
    "false_alarm_rate": float,
}
"""What it holds of the run."""


@dataclass(frozen=True)
class Exported:
    """What lies beside an exported model."""

    run: Run
    """The run that it was exported from, as far as it takes to score: its folder is that of the model."""
    calibration: Calibration
    reference: Reference | None
    """What is remembered of the training images; None where that is not known."""
    volume_score: Literal["mean", "max"]
    """See `Method.volume_score`."""
    slice_filter: tuple[int, int] | None
    """See `Method.slice_filter`."""


def is_model(path: str | Path) -> bool:
    """Say by its name whether a path is an exported model that can be scored with, rather than a run folder."""
    return Path(path).suffix in SCORED and not Path(path).is_dir()


def beside(path: Path, suffix: str) -> Path:
    """Return the file beside a model that has its name with another suffix."""
    return path.with_name(path.stem + suffix)


def write(
    path: Path, run: Run, calibration: Calibration, method: Method, files: list[Path], more: dict[str, Any]
) -> None:
    """Write the manifest of a method at ``path``, whose other ``files`` are there; ``more`` is for readers."""
    record = run.record()
    record["data"] = {key: value for key, value in record["data"].items() if key not in LOCAL}
    values = {
        "loligo": __version__,
        "notice": NOTICE,
        "files": {file.name.removeprefix(path.stem): digest(file) for file in files},
        "run": record,
        "calibration": calibration.record(),
        "volume_score": method.volume_score,
        "slice_filter": list(method.slice_filter or ()),
        **more,
    }
    write_json(values, beside(path, MANIFEST), indent=2)


def read(path: Path) -> Exported:
    """Read what lies beside a model; ValueError, which names the file, where one is missing or another one."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file; make one with 'loligo export RUN --out {path.name}'")
    manifest = beside(path, MANIFEST)
    if not manifest.is_file():
        raise ValueError(
            f"{path} has no {manifest.name} beside it; copy all files of its name, or export the run again"
        )
    try:
        values = tables.mapping(manifest)
        check_forms(values, FORMS)
        _check_files(path, values["files"])
        return _parsed(path, values)
    except KeyError as error:
        raise ValueError(f"{manifest} lacks {error}; export the run again") from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{manifest}: {one_line(error)}; export the run again") from error


def _check_files(path: Path, digests: dict[str, Any]) -> None:
    """Raise ValueError unless each file has the SHA-256 that was noted."""
    known = {*SUFFIXES["onnx"], *SUFFIXES["openvino"], REFERENCE}
    if path.suffix not in digests or not digests.keys() <= known:
        raise ValueError(
            f"it is of the files {sorted(digests)}; {path.suffix} is to be one, and others than {known} none"
        )
    for suffix, noted in digests.items():
        file = beside(path, suffix)
        if not file.is_file():
            raise ValueError(f"{file.name} is missing: copy all files of its name")
        if digest(file) != noted:
            raise ValueError(
                f"{file.name} is not the file that was exported: its SHA-256 is another one; copy it again"
            )


def _parsed(path: Path, values: dict[str, Any]) -> Exported:
    """Make the parts; of the method's options those that scoring depends on, whatever version wrote the others."""
    run, volume_score, sides = values["run"], values["volume_score"], values["slice_filter"]
    if volume_score not in ("mean", "max"):
        raise ValueError(f"volume_score is {volume_score!r}; it must be mean or max")
    if sides and not (len(sides) == 2 and all(side in range(1, 100, 2) for side in sides)):
        raise ValueError(f"slice_filter is {sides}; it must be empty, or two odd numbers below 100")
    check_forms(run, RECORD)
    own = {key: value for key, value in run["method_config"].items() if key in ("size", "position")}
    weights = {key: run[key] for key in (DIGEST,) if key in run}
    return Exported(
        run=Run(
            folder=path.parent,
            method=run["method"],
            method_config=build(SliceConfig, own, "method_config"),
            train=TrainConfig(),
            preprocessing=build(PreprocessingConfig, run["preprocessing"], "preprocessing"),
            false_alarm_rate=run["false_alarm_rate"],
            about=checked_about({"data": run["data"], "cost": run["cost"]} | weights),
        ),
        calibration=Calibration.recorded(values["calibration"]),
        reference=Reference.load(file) if REFERENCE in values["files"] and (file := beside(path, REFERENCE)) else None,
        volume_score=volume_score,
        slice_filter=(sides[0], sides[1]) if sides else None,
    )
