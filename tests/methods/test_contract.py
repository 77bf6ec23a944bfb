"""What every registered method must do, on its own preset ``tiny``."""

from __future__ import annotations

import ast
import copy
import inspect
import itertools
import re
import textwrap
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import openvino
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.stats import spearmanr
from torch import Tensor

from conftest import anatomy, dataset, ready, swapped
from loligo import methods
from loligo.calibration import Calibration
from loligo.config import PreprocessingConfig as Plain
from loligo.config import TrainConfig, build
from loligo.detector import Detector
from loligo.exporting import difference, export, formats
from loligo.methods.contract import Method
from loligo.nn.precision import Resolved
from loligo.runs import exported
from loligo.runs.settings import Settings
from loligo.training import loop
from loligo.types import Prediction

EPOCHS, SIZE = 12, 64
CPU = torch.device("cpu")
HELD = ("_parameters", "_buffers", "_modules")
pytestmark = pytest.mark.parametrize("name", sorted(methods.METHODS))


def fresh(name: str) -> Method:
    torch.manual_seed(0)
    kind = methods.get(name)
    return kind(build(kind.Config, {k: v for k, v in kind.presets["tiny"].items() if not k.startswith("train.")}))


ABNORMAL = dataset(swapped(anatomy(16, SIZE, seed=9)))
"""Of the kind that is planted later: a weakly supervised method knows no other."""


def fit(method: Method, *given: Any, **options: Any) -> pd.DataFrame:
    """Train a method, on abnormal images, too, where it is weakly supervised."""
    abnormal = ABNORMAL if method.weakly_supervised else None
    return loop.fit(method, *given, **options, abnormal=abnormal)


@cache
def trained(name: str) -> tuple[Method, pd.DataFrame]:
    method = fresh(name)
    augment = bool(method.presets["tiny"].get("train.augment", True))
    config = TrainConfig(EPOCHS, batch_size=8, augment=augment, precision="float32", device="cpu")
    history = fit(method, dataset(anatomy(64, SIZE)), config, progress=False)
    return method.eval(), history


@cache
def of_normals(name: str, precision: Resolved) -> Tensor:
    return ready(trained(name)[0], precision)(torch.from_numpy(anatomy(40, SIZE, seed=3))).image


@pytest.fixture
def method(name: str) -> Method:
    return trained(name)[0]


X = torch.from_numpy(anatomy(5, SIZE, seed=1))


def test_too_few_normals_are_refused_before_anything_is_learnt(name: str) -> None:
    method = fresh(name)
    few = method.least - 1
    with pytest.raises(ValueError, match=f"{name} needs {method.least} normal images? or more; it got {few}"):
        fit(method, dataset(anatomy(max(few, 1), SIZE)).subset(range(few)), TrainConfig(2, device="cpu"))


def test_abnormal_images_are_for_weakly_supervised_methods_alone(name: str) -> None:
    method, data = fresh(name), dataset(anatomy(max(2, methods.get(name).least), SIZE))
    assert methods.METHODS[name].weakly_supervised == methods.weakly_supervised(name) == method.weakly_supervised
    assert (" (weakly supervised)" in methods.marked(name)) == method.weakly_supervised
    if method.weakly_supervised:
        with pytest.raises(ValueError, match=f"{name} is weakly supervised: .* got no abnormal image to train on"):
            loop.fit(method, data, TrainConfig(1, device="cpu"), progress=False)
    else:
        with pytest.raises(ValueError, match=f"{name} learns from normal images alone; it got 16 abnormal ones"):
            loop.fit(method, data, TrainConfig(1, device="cpu"), progress=False, abnormal=ABNORMAL)


def test_scores_have_the_shapes_of_the_contract(name: str, method: Method) -> None:
    scores = ready(method, "float32")(X)
    assert scores.image.shape == (5,)
    assert scores.map is None or scores.map.shape == (5, 1, SIZE, SIZE)
    for part in (scores.image, scores.map, scores.reconstruction):
        if part is not None:
            assert part.dtype == torch.float32
            assert torch.isfinite(part).all()
    if scores.reconstruction is not None:
        assert scores.reconstruction.shape == X.shape
        assert 0 <= float(scores.reconstruction.min()) <= float(scores.reconstruction.max()) <= 1


def test_every_loss_is_finite_and_that_of_reconstruction_falls(name: str) -> None:
    history = trained(name)[1]
    phases = fresh(name).phases()
    assert len(history) == (EPOCHS if phases else 0)
    for number, phase in enumerate(phases):
        rows = history[history["phase"] == phase.name].dropna(axis="columns", how="all")  # others' losses
        losses = rows.drop(columns=["epoch", "phase", "seconds", "cpu_seconds", "images_per_s"])
        assert {turn.loss for turn in phase.turns} <= set(losses)
        assert np.isfinite(losses.to_numpy()).all()
        if number == 0:
            known = [loss for loss in ("reconstruction", "difference") if loss in losses]  # the other one is a GAN's
            falls = losses[known[0] if known else phase.turns[0].loss]
            assert falls.iloc[-1] < 0.7 * falls.iloc[0]


def test_the_same_seed_gives_the_same_numbers_also_where_it_was_killed(name: str, tmp_path: Path) -> None:
    data, config = dataset(anatomy(16, SIZE)), TrainConfig(4, batch_size=8, precision="float32", device="cpu")

    def kill(method: Method, epoch: int) -> None:
        if epoch == 3:
            raise KeyboardInterrupt

    whole, again = fresh(name), fresh(name)
    fit(whole, data, config, progress=False)
    if whole.phases():
        with pytest.raises(KeyboardInterrupt):
            fit(again, data, config, tmp_path, kill, progress=False)
        again = fresh(name)
        again.load_state_dict({k: torch.zeros_like(v) for k, v in again.state_dict().items()})
    fit(again, data, config, tmp_path, progress=False)
    expected = whole.state_dict()
    assert again.state_dict().keys() == expected.keys()
    for key, value in again.state_dict().items():
        assert torch.equal(value, expected[key]), key


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_score_does_not_depend_on_its_batch(name: str, method: Method, precision: Resolved) -> None:
    detector = ready(method, precision)
    together = detector(X).image
    alone = torch.cat([detector(X[i : i + 1]).image for i in range(5)])
    turned = detector(X.flip(0)).image.flip(0)
    tolerance = (1e-4 if precision == "float32" else 0.1) * float(of_normals(name, precision).std())
    torch.testing.assert_close(alone, together, rtol=1e-5, atol=tolerance)
    torch.testing.assert_close(turned, together, rtol=1e-5, atol=tolerance)


def test_bf16_scores_are_close_to_those_in_float32(name: str, method: Method) -> None:
    normal = anatomy(40, SIZE, seed=3)
    images = torch.from_numpy(np.concatenate([normal[:20], swapped(normal[20:])]))
    exact, rounded = (ready(method, precision)(images).image for precision in ("float32", "bf16"))
    assert spearmanr(exact, rounded).statistic > 0.9


def test_packing_for_scoring_changes_nothing(name: str, method: Method) -> None:
    with torch.no_grad():
        plain = method.eval()(X)
    fast = ready(method)(X)
    torch.testing.assert_close(fast.image, plain.image, rtol=1e-4, atol=1e-5)
    if plain.map is not None:
        torch.testing.assert_close(fast.map, plain.map, rtol=1e-3, atol=1e-5 * max(1, float(plain.map.abs().max())))


def test_saved_loaded_and_moved_it_scores_the_same(name: str, method: Method, tmp_path: Path) -> None:
    save_file({k: v.contiguous() for k, v in method.state_dict().items()}, tmp_path / "m.safetensors")
    (tmp_path / "m.safetensors").rename(tmp_path / "moved.safetensors")
    loaded = fresh(name)
    loaded.load_state_dict(load_file(tmp_path / "moved.safetensors"))
    assert torch.equal(ready(loaded)(X).image, ready(method)(X).image)
    frozen = loaded.freeze()
    own = [(f"{part}.{k}", v) for part, m in frozen.named_modules() for k, v in vars(m).items() if k not in HELD]
    assert not [name for name, value in own if holds_tensors(value)]
    with torch.no_grad():
        before = frozen(X).image
        assert torch.equal(frozen.double().float().to(CPU)(X).image, before)


def holds_tensors(value: object) -> bool:
    """Say whether an attribute is what no `Module.to` moves."""
    if isinstance(value, dict):
        value = list(value.values())
    return isinstance(value, Tensor) or (isinstance(value, list | tuple) and any(map(holds_tensors, value)))


def test_an_anomaly_that_keeps_the_mean_scores_above_its_normal_twin(
    name: str, method: Method, request: pytest.FixtureRequest
) -> None:
    if name == "simsid_staged":  # its discriminator meets the finished student alone; sharp edges look real to it
        request.applymarker(pytest.mark.xfail(reason="found in a quarter of the images by its default score"))
    normal = anatomy(20, SIZE, seed=2)
    detector = ready(method)
    twins, abnormal = (detector(torch.from_numpy(images)).image for images in (normal, swapped(normal)))
    assert (abnormal > twins).float().mean() >= 0.9


def test_its_map_rises_where_the_anomaly_is(name: str, method: Method) -> None:
    normal = anatomy(20, SIZE, seed=2)
    detector = ready(method)
    twins, abnormal = (detector(torch.from_numpy(images)).map for images in (normal, swapped(normal)))
    if twins is None or abnormal is None:
        pytest.skip("it says nothing of where")
    where = torch.from_numpy(swapped(normal) != normal)
    rise = abnormal - twins
    inside, outside = ((rise * part).sum((1, 2, 3)) / part.sum((1, 2, 3)) for part in (where, ~where))
    assert (inside > outside).float().mean() >= 0.8


def test_exported_it_scores_the_same_or_it_says_truly_that_it_cannot(name: str, method: Method, tmp_path: Path) -> None:
    settings = Settings(method=name, method_config=method.config, train=TrainConfig(), preprocessing=Plain())
    detector = Detector(method, settings, settings.preprocess(), device="cpu")
    detector = detector.with_calibration(detector.calibrate(dataset(anatomy(40, SIZE, seed=3))))
    run = detector.save(tmp_path / "run")
    if method.not_exportable:
        with pytest.raises(Exception, match=r"(?i)data-dependent|functorch|Tensor"):
            torch.export.export(copy.deepcopy(method).freeze(), (X[:2],), strict=False)
        with pytest.raises(ValueError, match=f"{name} cannot be exported: {re.escape(method.not_exportable)}"):
            export(run, tmp_path / "m.onnx")
        return
    onnx = export(run, tmp_path / "m.onnx")
    files = formats.converted(onnx, tmp_path / "v.xml")
    exported.write(files[0], run, detector.calibration, method, files, {"precision": "float32"})
    if name == "simsid_staged":  # its whitened features multiply rounding: packed and plain differ as much
        pytest.skip("its scores are exact to 1e-3 alone, in torch, too: export compares it with that")
    images = [*radiographs(5, 90, 77), *radiographs(9, 61, 131), *swapped(radiographs(3, 64, 64)[:, None])[:, 0]]
    expected = detector.predict(images)
    for path, batch in ((onnx, 1), (onnx, 3), (onnx, 16), (files[0], 3)):
        alike(Detector.load(path).predict(images, batch), expected, detector.calibration)
    for path in (onnx, files[0]):  # as they are, by the graph alone
        found = raw(path, np.stack(images[5:14])[:, None])
        alike_scores(found["score"], [one.score for one in expected[5:14]], detector.calibration)
        np.testing.assert_array_equal(found["flag"], [one.flag for one in expected[5:14]])
        np.testing.assert_allclose(found["p_value"], [one.p_value for one in expected[5:14]], rtol=1e-6)
        np.testing.assert_allclose(found["anomaly_score"], [one.anomaly_score for one in expected[5:14]], atol=1e-4)


def radiographs(count: int, height: int, width: int) -> np.ndarray:
    """Return (count, height, width) uint16, of which the network sees another number of pixels."""
    whole = anatomy(count, max(height, width), seed=height)[:, 0, :height, :width]
    return np.round(whole * 65535).astype(np.uint16)


def alike(found: list[Prediction], expected: list[Prediction], calibration: Calibration) -> None:
    """Fail where predictions differ by more than float32 computed in another order does."""
    alike_scores([one.score for one in found], [one.score for one in expected], calibration)
    assert [(one.flag, one.p_value) for one in found] == [(one.flag, one.p_value) for one in expected]
    for one, other in zip(found, expected, strict=True):
        for part, wanted in ((one.map, other.map), (one.reconstruction, other.reconstruction)):
            assert (part is None) == (wanted is None)
            if part is not None and wanted is not None:
                np.testing.assert_allclose(part, wanted, rtol=1e-3, atol=1e-4 * max(1, float(np.abs(wanted).max())))


def alike_scores(found: Any, expected: Any, calibration: Calibration) -> None:
    assert difference(np.asarray(found), np.asarray(expected), calibration) <= 1e-4


def raw(path: Path, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """Compute a graph on pixels (N, 1, H, W) uint16 as whoever has not installed loligo would."""
    inputs = {"pixels": pixels.astype(np.float32), "white": np.full(len(pixels), 65535, np.float32)}
    if path.suffix == ".onnx":
        session = onnxruntime.InferenceSession(path)
        names = [one.name for one in session.get_outputs()]
        return dict(zip(names, session.run(names, inputs), strict=True))
    model = openvino.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = model(inputs)
    return {name: found[one] for one in model.outputs for name in one.names}


def test_the_registry_says_what_its_default_options_say_of_export(name: str) -> None:
    kind = methods.get(name)
    method = kind.__new__(kind)  # its options alone decide, and the networks of some are large
    method.__dict__["config"] = kind.Config()
    assert methods.METHODS[name].not_exportable == method.not_exportable


def test_options_carry_a_line_of_meaning(name: str, method: Method) -> None:
    kind = type(method.config)
    fields = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0].body  # type: ignore[attr-defined]
    assert kind.__doc__
    bare = [
        a.target.id
        for a, b in itertools.pairwise([*fields, None])
        if isinstance(a, ast.AnnAssign) and not (isinstance(b, ast.Expr) and isinstance(b.value, ast.Constant))
    ]
    assert not bare
    assert methods.get(name).__module__ == f"loligo.methods.{name}"
    assert inspect.getdoc(inspect.getmodule(methods.get(name)))
