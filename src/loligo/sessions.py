"""Networks that were exported, computed by ONNX Runtime or OpenVINO: no torch is needed."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from loligo.types import Floats, Scored

if TYPE_CHECKING:
    from loligo.methods.configs import MethodConfig

Compute = Callable[[dict[str, Floats]], dict[str, Floats]]
"""Takes inputs and returns outputs, by name."""
INPUTS = ("pixels", "white")
"""Of a graph: images (N, C, H, W) float32, and each image's value of white (N,) float32."""
OUTPUTS = ("score", "map", "reconstruction")
"""Those that are `Scores`; a graph of images has more, by its calibration."""


@dataclass(frozen=True)
class Session:
    """What stands for a `Method` where it was exported: scores images (N, C, S, S) float32 in [0, 1]."""

    path: Path
    """The file that it was read from."""
    compute: Compute
    volume_score: Literal["mean", "max"] = "mean"
    """See `Method.volume_score`."""
    slice_filter: tuple[int, int] | None = None
    """See `Method.slice_filter`."""

    @classmethod
    def open(
        cls,
        path: Path,
        config: MethodConfig,
        volume_score: Literal["mean", "max"] = "mean",
        slice_filter: tuple[int, int] | None = None,
    ) -> Self:
        """Make ready to compute a file, .onnx or .xml, by images of the config's size; in ``$OMP_NUM_THREADS`` threads.

        Raises ValueError, which names the file, where it is no such graph; ImportError, which says what to install.
        """
        try:
            compute = (_onnx if path.suffix == ".onnx" else _openvino)(path, config.channels, config.size)
        except ImportError:
            raise
        except Exception as error:  # each library has errors of its own
            raise ValueError(f"{path} cannot be computed here: {str(error).strip().splitlines()[0]}") from error
        return cls(path, compute, volume_score, slice_filter)

    def __call__(self, x: Floats) -> Scored:
        """Score a batch; results are float32."""
        found = self.compute({"pixels": x, "white": np.ones(len(x), np.float32)})
        return Scored(*(found.get(name) for name in OUTPUTS))  # type: ignore[arg-type]


def library(name: str, extra: str) -> Any:
    """Import a library of an extra; ImportError says how to install it."""
    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(f"{name} is needed for this and is not installed: pip install 'loligo[{extra}]'") from error


def _threads() -> int:
    """Return the threads to compute with; 0 leaves it to the library."""
    said = os.environ.get("OMP_NUM_THREADS", "")
    return int(said) if said.isdecimal() else 0


def _onnx(path: Path, channels: int, size: int) -> Compute:
    runtime = library("onnxruntime", "onnx")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = _threads()
    for side in ("height", "width"):
        options.add_free_dimension_override_by_name(side, size)
    session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [name for name in OUTPUTS if name in {output.name for output in session.get_outputs()}]
    return lambda inputs: dict(zip(names, session.run(names, inputs), strict=True))


def _openvino(path: Path, channels: int, size: int) -> Compute:
    openvino = library("openvino", "openvino")
    model = openvino.Core().read_model(path)
    model.reshape({"pixels": [-1, channels, size, size], "white": [-1]})
    exact = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": _threads()}  # else bfloat16, where a CPU can
    compiled = openvino.compile_model(model, "CPU", exact)
    names = [name for name in OUTPUTS if any(name in output.names for output in compiled.outputs)]

    def compute(inputs: dict[str, Floats]) -> dict[str, Floats]:
        found = compiled(inputs)
        return {name: np.array(found[name]) for name in names}  # apart from what it reuses

    return compute
