"""Scoring speed of AnoDDPM beside its floor: what the convolutions and products of its chain take at the peak rate.

    OMP_NUM_THREADS=1 python -m experiments.diffusion_floor --json experiments/results/diffusion_floor.json

A row a preset, with fresh weights, which take as long as trained ones. The floor is images a second at the best rate of
a 3x3 convolution that this machine was seen to reach in the same minute. Of the paper's settings, the default, the
speed is not measured: its operations are counted without computing anything, and the floor is what they take at least.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.common import machine
from experiments.speed import convolution_peak
from loligo.benchmark import cost
from loligo.data.arrays import from_images
from loligo.detector import Detector
from loligo.files import write_json
from loligo.methods.anoddpm import AnoddpmConfig
from loligo.nn.precision import accelerate
from loligo.runs.settings import Settings

IMAGES = 64


class AtOneStep(torch.nn.Module):
    """The U-Net of a configuration, told one number of noise steps; without weights, so that nothing is computed."""

    def __init__(self, config: AnoddpmConfig) -> None:
        super().__init__()
        with torch.device("meta"):
            self.denoiser = config.denoiser(config.channels, config.channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.denoiser(x, 1)


def row(preset: str | None) -> dict[str, Any]:
    """Measure a preset; of the default, only count."""
    settings = Settings.of("anoddpm", preset, train={"precision": "float32", "device": "cpu"})
    config: Any = settings.method_config
    x = torch.empty(1, config.channels, config.size, config.size, device="meta")
    one, peak = cost.flops(AtOneStep(config), x), convolution_peak("float32")  # type: ignore[arg-type]
    found = {
        "preset": preset or "default",
        "size": config.size,
        "steps": config.steps,
        "gflop_a_pass": one / 1e9,
        "gflop_an_image": one * config.steps / 1e9,
        "peak_gflops": peak / 1e9,
        "floor_images_per_s": peak / (one * config.steps),
    }
    if preset:
        detector = Detector(settings.new_model(), settings, settings.preprocess(), precision="float32", device="cpu")
        images = from_images(np.random.default_rng(0).random((IMAGES, 64, 64)), settings.preprocess())
        found["images_per_s"] = cost.speed(detector, images)
        found["fraction_of_floor"] = found["images_per_s"] / found["floor_images_per_s"]
    return found


def main() -> None:
    """Print and keep the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--presets", nargs="+", default=["radiograph", "digits", "default"])
    given = parser.parse_args()
    accelerate()
    rows = [row(None if preset == "default" else preset) for preset in given.presets]
    for one in rows:
        print({key: round(value, 4) if isinstance(value, float) else value for key, value in one.items()})
    if given.json:
        write_json({"machine": machine(), "rows": rows}, given.json, indent=2)


if __name__ == "__main__":
    main()
