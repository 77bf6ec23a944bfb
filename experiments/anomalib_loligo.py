"""Measure PaDiM or PatchCore of loligo for `anomalib_comparison`, in float32 or auto precision; print JSON."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from loligo.data import cache
from loligo.data.preprocessing import Preprocessing
from loligo.detector import Detector
from loligo.evaluation import metrics
from loligo.nn.precision import accelerate, resolve
from loligo.runs.settings import Settings
from loligo.training.loop import fit


def main() -> None:
    """Fit on all training images and score those of test."""
    method, images, precision = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    layers = {"padim": (1, 2, 3), "patchcore": (3, 4)}[method]
    settings = Settings.of(method, options={"layers": layers}, train={"batch_size": 32, "precision": precision})
    parts = {}
    for name in ("train", "test_normal", "test_abnormal"):
        paths = sorted(str(path) for path in (images / name).glob("*.png"))
        parts[name] = cache.load(pd.DataFrame({"path": paths, "mask": "", "label": 0}), Preprocessing(224))
    torch.manual_seed(0)
    accelerate()
    model, resolved = settings.new_model(), resolve(precision, torch.device("cpu"))
    start = time.perf_counter()
    fit(model, parts["train"], settings.train, precision=resolved)
    fitted = time.perf_counter()
    detector = Detector(model.eval(), settings, Preprocessing(224), precision=resolved, device="cpu")
    scores = [detector.scores(parts[name], 32) for name in ("test_normal", "test_abnormal")]
    done = time.perf_counter()
    labels = np.repeat([0, 1], [len(part) for part in scores])
    found = {
        "fit_seconds": fitted - start,
        "predict_images_per_s": len(labels) / (done - fitted),
        "peak_memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "auc": metrics.roc_auc(labels, np.concatenate(scores)),
    }
    print(json.dumps({name: round(value, 4) for name, value in found.items()}))


if __name__ == "__main__":
    main()
