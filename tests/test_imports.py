"""What is imported, when, and on which systems."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from conftest import anatomy
from loligo import Detector


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_modules_that_linux_alone_has_are_not_needed() -> None:
    blocked = "import sys; sys.modules.update(fcntl=None, resource=None)\n"
    run(blocked + "import loligo.api, loligo.sklearn, loligo.benchmark, loligo.demo, loligo.contamination, loligo.cli")


def test_the_package_alone_imports_nothing_and_names_its_verbs() -> None:
    code = """
import sys, loligo
assert not {"torch", "numpy", "pandas"} & set(sys.modules)
print(*sorted(set(dir(loligo)) & set(loligo.__all__)))
import loligo.api, loligo.reports, loligo.training, loligo.evaluation
assert callable(loligo.train) and callable(loligo.report) and callable(loligo.evaluate) and callable(loligo.score)
try:
    loligo.trian
except AttributeError as error:
    print(error)
"""
    names, error = run(code).splitlines()
    verbs = "accelerate evaluate export list_methods load recalibrate report score sheet train"
    assert names == f"Detector Image Prediction {verbs}"
    assert error == "module 'loligo' has no attribute 'trian'"


def test_a_library_call_changes_nothing_for_the_process() -> None:
    code = """
import numpy as np, torch
from loligo import Detector
images = np.random.default_rng(0).random((12, 64, 64))
Detector.fit("ae", images, preset="tiny", train={"epochs": 1}).predict(images[:1])
assert float(torch.tensor(1e-40) * 1) > 0, "denormals are flushed"
"""
    assert run(code) == ""


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("name", ["ae", "squid", "padim"])
def test_a_gpu_gives_the_scores_of_the_processor(name: str) -> None:
    options = {"weights": "random"} if name == "padim" else {}
    train = {"epochs": 2, "precision": "float32", "device": "cuda"}
    made = Detector.fit(name, anatomy(40, 64)[:, 0], preset="tiny", train=train, **options)
    assert made.device.type == "cuda"
    new = anatomy(6, 64, seed=1)[:, 0]
    settings = made.settings
    on_cpu = Detector(made.method.cpu(), settings, made.preprocessing, device="cpu", calibration=made.calibration)
    scores = [[prediction.score for prediction in detector.predict(new)] for detector in (made, on_cpu)]
    torch.testing.assert_close(*map(torch.tensor, scores), rtol=1e-3, atol=1e-4)
