"""The model card of an exported model: what it is, what it learnt from, how it is calibrated, what it is not for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from loligo import NOTICE, __version__, methods
from loligo.calibration import Calibration
from loligo.dicom.about import population
from loligo.runs.run import Run

TEXT = """# {name}

{notice}

- **Model**: `{method}`{preset}, {summary}; exported by loligo {version} as {format}, {precision}.
- **Learnt from**: {population}. Only normal images; no label was seen.
- **Calibrated on**: {count} normal images that training did not see; the threshold {told}.
- **Use**: research on images made like those it learnt from. A p-value says how rare so high a score is among normal
  images like the calibration's; it is not the chance that an image is normal.
- **Limits**: at another hospital or device most normal images may be flagged until it is calibrated there
  (`loligo recalibrate`). Scores say nothing of images of another kind. What the method is worth: docs/results.md.
- **Privacy**: {private}
- **Files**: `{manifest}` says what goes in and comes out, and holds the SHA-256 of each file.

`loligo score {file} new/` scores with it, without torch: `pip install loligo-onnx`.
"""
REMEMBERED = (
    "`{reference}` holds hashes of the training images, and of each a blurred picture of 32 x 32 pixels, by which"
    " copies and images of another kind are recognised. Keep it where the training images may be kept."
)


def text(run: Run, calibration: Calibration, out: Path, more: dict[str, Any]) -> str:
    """Return the card of a run exported to ``out`` as Markdown; ``more`` is what its manifest says besides."""
    reference = f"{out.stem}.reference.safetensors"
    known = methods.METHODS.get(run.method)
    return TEXT.format(
        name=out.name,
        notice=NOTICE,
        method=run.method,
        preset=f" (preset `{run.preset}`)" if run.preset else "",
        summary=known.summary if known else "a method of another package",
        version=__version__,
        format=more["format"],
        precision=more["precision"],
        population=population(run),
        count=len(calibration.scores),
        told=calibration.told,
        private=REMEMBERED.format(reference=reference),
        manifest=f"{out.stem}.json",
        file=out.name,
    )
