"""Export a trained run as one file that scores without torch, and check that it scores equally before it is kept."""

from __future__ import annotations

import logging
import shutil
import tempfile
from pathlib import Path
from typing import Any, Literal

import numpy as np

from loligo.calibration import Calibration
from loligo.data.preprocessing import resized
from loligo.detector import Detector
from loligo.exporting import card, formats
from loligo.exporting.graph import Graph
from loligo.files import write_text
from loligo.methods.contract import Method
from loligo.names import nearest
from loligo.runs import exported
from loligo.runs.run import Run
from loligo.types import Floats

Format = Literal["onnx", "openvino", "torch"]
TOLERANCE = 1e-4
"""Difference of a score from the checkpoint's, at most, as `difference` measures it."""
COMPARED = 16
"""Images that are scored by both."""
log = logging.getLogger(__name__)


def export(run: Run | str | Path, out: str | Path, format: Format | None = None, *, int8: bool = False) -> Path:
    """Write the model of a run to ``out``, .onnx, .xml (OpenVINO) or .pt2 (torch), its manifest and card beside it.

    The graph computes in float32 and takes images of any size: its manifest says how. Where the run was calibrated in
    bf16, it is calibrated anew in float32 on the same images. ``int8`` quantises an OpenVINO model by the training
    images; see `int8.quantise`. Returns ``out``. Raises ValueError where it cannot be exported or would score otherwise
    than the checkpoint, where something stands at ``out``, or the run is not trained; ImportError, which says what to
    install.
    """
    run, out = run if isinstance(run, Run) else Run.load(run), Path(out)
    format = _format(out, format)
    if int8 and format != "openvino":
        raise ValueError(f"int8 is made by OpenVINO; name a file .xml, not {out.name}")
    formats.need(format, int8)
    method = run.model()
    if method.not_exportable:
        raise ValueError(f"{run.method} cannot be exported: {method.not_exportable}")
    detector = _in_float32(run, method)
    of_volumes = bool(run.spacing) or (detector.reference is not None and len(detector.reference.extents) > 0)
    graph = Graph(method.freeze(), run.preprocessing.aspect, None if of_volumes else detector.calibration)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=out.parent) as folder:
        made = Path(folder) / out.name
        files = formats.write(graph.eval(), made, format, run.method_config.channels)
        found: dict[str, Any] = {}
        if int8:
            from loligo.exporting import int8 as quantisation  # here: it imports slowly

            detector, found = quantisation.quantise(made, detector, run)
        if detector.reference:
            files.append(exported.beside(made, exported.REFERENCE))
            detector.reference.save(files[-1])
        more = {"format": format, "precision": "int8" if int8 else "float32", **formats.about(graph), **found}
        exported.write(made, run, detector.calibration, method, files, more)
        if not int8:
            _check(detector, made, _images(run, detector), graph)
        write_text(card.text(run, detector.calibration, out, more), exported.beside(made, exported.CARD))
        for file in [*files, *(exported.beside(made, end) for end in (exported.CARD, exported.MANIFEST))]:
            shutil.move(file, out.parent / file.name)
    return out


def _format(out: Path, format: str | None) -> Format:
    """Return the format of a file to write, by its ending; ValueError where both are not of one, or it is taken."""
    endings: dict[str, Format] = {".onnx": "onnx", ".xml": "openvino", ".pt2": "torch"}
    if out.suffix not in endings:
        raise ValueError(f"{out} ends in none of {', '.join(endings)}, which name the format; such as model.onnx")
    if format not in (None, endings[out.suffix]):
        if format not in endings.values():
            raise ValueError(f"there is no format {format!r}; {nearest(str(format), endings.values())}")
        raise ValueError(f"{out} is a name for {endings[out.suffix]}, and the format is {format}; change one of them")
    for end in (*exported.SUFFIXES[endings[out.suffix]], exported.MANIFEST, exported.REFERENCE, exported.CARD):
        if (taken := exported.beside(out, end)).exists():
            raise ValueError(f"{taken} is there already, and nothing is written over; choose another name")
    return endings[out.suffix]


def _in_float32(run: Run, method: Method) -> Detector:
    """Return the checkpoint as a graph computes it; a run that was calibrated in bf16 is calibrated anew."""
    loaded = Detector.load(run, "cpu")
    if loaded.precision == "float32":
        return loaded
    detector = Detector(method, run, run.preprocess(), device="cpu", reference=loaded.reference)
    rows, own = run.at_hand("calibration"), loaded.calibration
    if own.folds or own.shifted_by or len(rows) < len(own.scores):
        raise ValueError(
            f"{run.folder} was calibrated in bf16 and an exported model computes in float32: it needs the"
            f" {len(own.scores)} images of the calibration again, of which {len(rows)} are at hand; train with"
            " --train.precision float32"
        )
    log.warning(
        "calibrated in bf16; the exported model computes in float32 and is calibrated anew on %d images", len(rows)
    )
    return detector.with_calibration(detector.calibrate(detector.images(rows), own.false_alarm_rate))


def _images(run: Run, detector: Detector) -> Floats:
    """Return images (N, C, S, S) to compare scores on: some of the calibration, or smooth noise without them."""
    rows = run.at_hand("calibration").iloc[:COMPARED]
    if len(rows):
        data = detector.images(rows)
        return data.images(np.linspace(0, len(data) - 1, min(COMPARED, len(data))).round().astype(int))
    size, channels = run.method_config.size, run.method_config.channels
    noise = resized(np.random.default_rng(0).random((COMPARED, 6, 6), np.float32), (size, size))[:, None]
    return np.concatenate([noise, np.zeros((COMPARED, channels - 1, size, size), np.float32)], 1)


def _check(detector: Detector, made: Path, x: Floats, graph: Graph) -> None:
    """Raise ValueError where what was written scores otherwise than the checkpoint.

    Where the checkpoint's own fast form departs further from its plain one, which a graph is, that may be doubled.
    """
    compute = formats.in_torch(made) if made.suffix == ".pt2" else Detector.load(made).score
    expected, found = detector.score(x), compute(x)
    worst = difference(found.image, expected.image, detector.calibration)
    own = difference(formats.plain(graph, x), expected.image, detector.calibration)
    if not worst <= max(TOLERANCE, 2 * own):
        raise ValueError(
            f"{detector.settings.method}: scores of the exported model differ from the checkpoint's by {worst:.1e},"
            f" more than {TOLERANCE:g}, so that it is not written; please report this"
        )


def difference(found: Floats, expected: Floats, calibration: Calibration) -> float:
    """Return by how much scores (N,) differ, at most, as a part of the score or of the normals' standard deviation."""
    unit = np.maximum(np.abs(expected), calibration.std)
    return float(np.max(np.abs(found.astype(np.float64) - expected) / unit))
