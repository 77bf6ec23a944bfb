"""Write a graph as a file of ONNX, OpenVINO or torch."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from loligo.exporting.graph import Graph
from loligo.runs.exported import beside
from loligo.sessions import INPUTS, OUTPUTS, library
from loligo.types import Floats, Scored

LARGEST = 2**31
"""Bytes of an ONNX file, at most: its format holds no more in one file."""
NAMES = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("onnx", "onnxscript", "openvino"), "torch": ()}
"""Libraries that a format needs."""


def need(format: str, int8: bool) -> None:
    """Raise ImportError, which says how to install it, where a library is missing."""
    for name in (*NAMES[format], *(("nncf",) if int8 else ())):
        library(name, "openvino" if format == "openvino" else "onnx")


def outputs(graph: Graph) -> list[str]:
    """Return the names of a graph's outputs, in order."""
    size, channels = graph.size, graph.method.config.channels
    with torch.no_grad():
        return list(graph(torch.zeros(2, channels, size, size), torch.ones(2)))


def write(graph: Graph, path: Path, format: str, channels: int) -> list[Path]:
    """Write a graph to ``path``; return the files that this made. Raises ValueError where torch cannot export it."""
    names, size = outputs(graph), graph.size
    example = torch.zeros(3, channels, size + 3, size + 5), torch.ones(3)
    free = {"pixels": {0: "batch", 2: "height", 3: "width"}, "white": {0: "batch"}}
    shapes = {name: dict.fromkeys(sides, torch.export.Dim.DYNAMIC) for name, sides in free.items()}
    with quiet():
        try:
            program = torch.export.export(graph, example, dynamic_shapes=shapes, strict=False)
        except Exception as error:  # torch has many
            raise ValueError(f"torch.export cannot export it: {str(error).strip().splitlines()[0]}") from error
        if format == "torch":
            torch.export.save(program, path)
            return [path]
        onnx = path if format == "onnx" else beside(path, ".onnx")
        torch.onnx.export(
            program,
            f=onnx,
            dynamic_shapes=free,
            input_names=list(INPUTS),
            output_names=names,
            external_data=sum(p.nbytes for p in graph.state_dict().values()) > LARGEST,
            verbose=False,
        )
    if beside(onnx, ".onnx.data").exists():
        raise ValueError(f"its weights take more than {LARGEST:,} bytes, which one ONNX file cannot hold")
    if format == "onnx":
        return [path]
    files = converted(onnx, path)
    onnx.unlink()
    return files


def converted(onnx: Path, path: Path) -> list[Path]:
    """Write a file of ONNX as one of OpenVINO; return the files that this made."""
    openvino = library("openvino", "openvino")
    openvino.save_model(openvino.convert_model(onnx), path, compress_to_fp16=False)
    return [path, beside(path, ".bin")]


def plain(graph: Graph, x: Floats) -> Floats:
    """Return the scores (N,) of images by a graph that is not exported."""
    with torch.no_grad():
        found: Floats = graph(torch.from_numpy(x), torch.ones(len(x)))["score"].numpy()
    return found


def in_torch(path: Path) -> Callable[[Floats], Scored]:
    """Return what scores arrays by a file of torch that was just written."""
    module = torch.export.load(path).module()

    def compute(x: Floats) -> Scored:
        with torch.no_grad():
            found = module(torch.from_numpy(x), torch.ones(len(x)))
        return Scored(*(found[name].numpy() if name in found else None for name in OUTPUTS))  # type: ignore[arg-type]

    return compute


def about(graph: Graph) -> dict[str, Any]:
    """Say what a graph takes and gives, for whoever computes it without loligo."""
    size, channels = graph.size, graph.method.config.channels
    meaning = {
        "score": "(N,) float32: raw score, higher is more abnormal",
        "map": f"(N, 1, {size}, {size}) float32: how abnormal each place is, on the network's grid; heat begins at"
        " calibration.typical_peak and is full at calibration.map_scale",
        "reconstruction": f"(N, 1, {size}, {size}) float32 in [0, 1]: the normal image that the method sees",
        "p_value": "(N,) float32: (1 + calibration normals that score as high) / (1 + all of them)",
        "flag": "(N,) bool: whether the score reaches calibration.threshold",
        "anomaly_score": "(N,) float32 in [0, 1]: sigmoid of the standardised score",
    }
    pixels = f"(N, {channels}, H, W) float32: grey levels as they are, of any height and width, one a batch"
    if channels > 1:
        pixels += "; the second channel is the position of the slice in its volume, from -0.5 to 0.5"
    before = (
        "8-bit: white 255; 16-bit: white 65535; float in [0, 1]: white 1. DICOM: VOI LUT or window applied, 0 black"
    )
    if not graph.calibration:
        before += (
            "; volumes: each slice mapped to [0, 1] by the window of run.preprocessing, white 1; a volume's score is"
            " volume_score over its slices (mean of those that hold tissue, or max), by which it is calibrated"
        )
    return {
        "inputs": {"pixels": pixels, "white": "(N,) float32: each image's value of white"},
        "outputs": {name: meaning[name] for name in outputs(graph)},
        "in_the_graph": "division by white, resizing to the network's size as Pillow's antialiased bilinear resize of"
        " floats has it (run.preprocessing.aspect), rounding to 16 bit, the method, and the calibration",
        "to_do_before": before,
    }


@contextlib.contextmanager
def quiet() -> Any:
    """Keep what libraries say of their own work from the user, who can do nothing about it."""
    before = logging.root.manager.disable
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)
