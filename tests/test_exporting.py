"""An exported model gives the table, maps and p-values of its run, without torch, or is refused."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import loligo
from conftest import anatomy, blob, write_images
from loligo import Detector, api, cli
from loligo.data.preprocessing import Preprocessing
from loligo.exporting import int8
from loligo.exporting.graph import Graph
from loligo.methods.configs import MethodConfig
from loligo.methods.contract import Method
from loligo.runs.run import Run
from loligo.types import Image, Scores

SRC = Path(__file__).parents[1] / "src"
BESIDE = (".onnx", ".json", ".md", ".reference.safetensors")
WITHOUT = """
import sys

class Without:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "vector_quantize_pytorch", "timm", "sklearn", "jinja2"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Without())
"""


class Same(Method):
    """Gives its input back as its map."""

    def forward(self, x: torch.Tensor) -> Scores:
        return Scores(x.mean((1, 2, 3)), x)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exporting")


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    write_images(folder / "normals", anatomy(60, 64))
    train = {"epochs": 2, "precision": "float32"}
    return loligo.train("ae", folder / "normals", folder / "run", preset="tiny", train=train, held_out=0.4)


@pytest.fixture(scope="module")
def model(run: Run, folder: Path) -> Path:
    return loligo.export(run, folder / "model.onnx")


@pytest.fixture(scope="module")
def new(run: Run, folder: Path) -> Path:
    """Radiographs of other sizes, an abnormal one, one of the training, and one of something else."""
    write_images(folder / "new", anatomy(4, 90, seed=3)[..., :77])
    write_images(folder / "new", blob(anatomy(2, 131, seed=4)), "blob")
    write_images(folder / "new", 1 - anatomy(1, 64, seed=5), "negative")
    seen = Path(run.manifest().query("split == 'train'")["path"].iloc[0])
    (folder / "new" / "seen.png").write_bytes(seen.read_bytes())
    return folder / "new"


def copied(model: Path, to: Path) -> Path:
    for end in BESIDE:
        (to / f"moved{end}").write_bytes(model.with_name(model.stem + end).read_bytes())
    return to / "moved.onnx"


def tables(first: Path, second: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    a, b = (pd.read_csv(path / "scores.csv") for path in (first, second))
    return a.assign(path=a["path"].map(own_name)), b.assign(path=b["path"].map(own_name))


def own_name(path: str) -> str:
    return Path(path).name


@pytest.mark.parametrize("aspect", ["squash", "pad"])
@pytest.mark.parametrize("shape", [(100, 60), (20, 13), (48, 48), (200, 31), (37, 1300), (49, 47)])
def test_the_graph_resizes_as_pillow_does(shape: tuple[int, int], aspect: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 65536, shape, np.uint16)
    levels = Preprocessing(48, aspect).image(Image(pixels[None].astype(np.float32) / np.float32(65535)))[0, 0]
    graph = Graph(Same(MethodConfig(48)), aspect, None)
    found = graph(torch.from_numpy(pixels[None, None].astype(np.float32)), torch.tensor([65535.0]))["map"][0, 0]
    difference = np.abs(found.numpy() * 65535 - levels)
    assert difference.max() < 1.01 and (difference > 0.01).mean() < 0.01  # a level where it rounds at a half
    if shape == (48, 48):
        assert difference.max() < 0.01


def test_it_gives_the_table_and_the_maps_of_the_run(run: Run, model: Path, new: Path, tmp_path: Path) -> None:
    expected, found = api.score(run, new, tmp_path / "a"), loligo.score(model, new, tmp_path / "b")
    pd.testing.assert_frame_equal(found, expected, rtol=1e-4)
    assert expected["warnings"].str.contains("seen_in_training").sum() == 1 and expected["flag"].sum() >= 1
    assert "negative000.png" in set(pd.read_csv(tmp_path / "b" / "rejected.csv")["path"].map(own_name))
    for name in expected["map"]:
        maps = (np.load(tmp_path / part / name) for part in "ab")
        np.testing.assert_allclose(*maps, rtol=1e-3, atol=1e-6)
    assert found.attrs["threshold"] == expected.attrs["threshold"]
    with pytest.raises(ValueError, match=r"was scored by the exported model model\.onnx; for this, score with its run"):
        api.report(tmp_path / "b")


def test_it_is_moved_and_renamed_with_its_files_and_scores_beside_them(
    model: Path, new: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = copied(model, tmp_path)
    cli.main(["score", str(moved), str(new), "--false_alarm_rate", "0.5"])
    said = capsys.readouterr().out
    assert f"{tmp_path / 'scores' / 'new' / 'scores.csv'}: 7 images" in said and "loligo report" not in said
    detector = Detector.load(moved)
    with pytest.raises(ValueError, match="is exported already; copy it with the files beside it"):
        detector.save(tmp_path / "run")
    with pytest.raises(ValueError, match="device is 'cuda'; an exported model"):
        Detector.load(moved, device="cuda")


def test_without_torch_it_scores_and_says_what_it_cannot(model: Path, new: Path, run: Run, tmp_path: Path) -> None:
    image = next(new.glob("blob*"))
    code = f"""{WITHOUT}
from loligo import cli, load
prediction, = load({str(model)!r}).predict([{str(image)!r}])
assert not {{"scipy.stats", "matplotlib"}} & set(sys.modules), "slow to import"
print(prediction.score, prediction.map.shape)
cli.main(["score", {str(model)!r}, {str(new)!r}, "--out", {str(tmp_path / "out")!r}])
cli.main(["score", {str(run.folder)!r}, {str(new)!r}])
"""
    environment = os.environ | {"PYTHONPATH": str(SRC)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].endswith(
        "torch is not installed: this installation scores exported models alone; for all else, pip install loligo"
    )
    expected = Detector.load(run).predict([image])[0]
    score, shape = done.stdout.splitlines()[0].split(maxsplit=1)
    assert float(score) == pytest.approx(expected.score, rel=1e-4) and shape == str(expected.map.shape)
    api.score(run, new, tmp_path / "run")
    pd.testing.assert_frame_equal(*tables(tmp_path / "out", tmp_path / "run"), rtol=1e-4)


def test_what_is_not_whole_is_refused_with_its_name(model: Path, tmp_path: Path) -> None:
    moved = copied(model, tmp_path)
    manifest = tmp_path / "moved.json"
    text = manifest.read_text()
    for changed, match in (
        (text.replace('"volume_score": "mean"', '"volume_score": "least"'), "volume_score is 'least'"),
        (text.replace('".onnx":', '"../a.onnx":'), r"it is of the files \['../a.onnx', "),
        (text[: len(text) // 2], "export the run again"),
        ("{}", "lacks 'files'"),
    ):
        manifest.write_text(changed)
        with pytest.raises(ValueError, match=match):
            Detector.load(moved)
    manifest.write_text(text)
    moved.write_bytes(moved.read_bytes()[:-1] + b"\0")
    with pytest.raises(ValueError, match=r"moved\.onnx is not the file that was exported: its SHA-256 is another"):
        Detector.load(moved)
    (tmp_path / "moved.reference.safetensors").unlink()
    moved.write_bytes(model.read_bytes())
    with pytest.raises(ValueError, match=r"moved\.reference\.safetensors is missing: copy all files of its name"):
        Detector.load(moved)
    manifest.unlink()
    with pytest.raises(ValueError, match=r"has no moved\.json beside it; copy all files of its name"):
        Detector.load(moved)
    with pytest.raises(ValueError, match=r"other\.onnx: no such file; make one with 'loligo export RUN"):
        Detector.load(tmp_path / "other.onnx")


def test_its_manifest_and_card_say_what_it_is_and_nothing_of_this_machine(model: Path, run: Run) -> None:
    manifest = json.loads(model.with_suffix(".json").read_text())
    assert manifest["notice"] == loligo.NOTICE and set(manifest["files"]) == {".onnx", ".reference.safetensors"}
    assert manifest["run"]["data"]["train"] == 36 and manifest["run"]["method_config"]["size"] == 64
    assert set(manifest["outputs"]) == {"score", "map", "reconstruction", "p_value", "flag", "anomaly_score"}
    card = model.with_suffix(".md").read_text()
    assert "36 normal images" in card and "24 normal images that training did not see" in card and loligo.NOTICE in card
    for text in (card, model.with_suffix(".json").read_text()):
        assert str(run.folder.parent) not in text


@pytest.mark.parametrize(
    ("out", "given", "match"),
    [
        ("model.onnx", {}, "model.onnx is there already, and nothing is written over"),
        ("other.pt", {}, "ends in none of .onnx, .xml, .pt2"),
        ("other.onnx", {"format": "openvino"}, "is a name for onnx, and the format is openvino"),
        ("other.onnx", {"format": "onxn"}, "there is no format 'onxn'; did you mean 'onnx'"),
        ("other.onnx", {"int8": True}, "int8 is made by OpenVINO; name a file .xml, not other.onnx"),
    ],
)
def test_what_cannot_be_written_is_said_before(run: Run, model: Path, out: str, given: dict, match: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(ValueError, match=match):
        loligo.export(run, model.with_name(out), **given)


def test_torch_reads_what_is_written_for_it(run: Run, new: Path, tmp_path: Path) -> None:
    cli.main(["export", str(run.folder), "--out", str(tmp_path / "model.pt2"), "--format", "torch"])
    graph = torch.export.load(tmp_path / "model.pt2").module()
    pixels = anatomy(3, 90, seed=3)[..., :77]
    found = graph(torch.from_numpy(pixels), torch.ones(3))
    expected = [one.p_value for one in Detector.load(run).predict(list(pixels[:, 0]))]
    np.testing.assert_allclose(found["p_value"], expected, rtol=1e-6)


def test_a_run_in_bf16_is_calibrated_anew_or_refused(folder: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "normals", anatomy(30, 64))
    train = {"precision": "bf16"}
    run = loligo.train("gaussian", tmp_path / "normals", tmp_path / "run", preset="tiny", train=train, folds=0)
    model = loligo.export(run, tmp_path / "model.onnx")
    rows = run.at_hand("calibration")
    plain = Detector(run.model(), run, run.preprocess(), device="cpu")
    np.testing.assert_allclose(
        Detector.load(model).calibration.scores, np.sort(plain.scores(plain.images(rows))), rtol=1e-6
    )
    Path(rows["path"].iloc[0]).unlink()
    with pytest.raises(ValueError, match="was calibrated in bf16 and an exported model computes in float32: it needs"):
        loligo.export(run, tmp_path / "again.onnx")


def test_int8_is_kept_where_it_ranks_and_flags_alike_and_else_refused(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int8, "RANKS", 0.8)  # a network that was trained for a second
    monkeypatch.setattr(int8, "FLAGS", 0.2)
    model = loligo.export(run, tmp_path / "model.xml", int8=True)
    manifest = json.loads(model.with_suffix(".json").read_text())
    assert 0.8 <= manifest["int8"]["rank_correlation"] <= 1 and manifest["precision"] == "int8"
    assert b"FakeQuantize" in model.read_bytes()
    images = anatomy(30, 64, seed=9)[:, 0]
    found, expected = (Detector.load(one).predict(images) for one in (model, run.folder))
    assert np.corrcoef([one.score for one in found], [one.score for one in expected])[0, 1] > 0.8
    assert not np.array_equal(Detector.load(model).calibration.scores, Detector.load(run).calibration.scores)
    monkeypatch.setattr(int8, "RANKS", 1.01)
    with pytest.raises(ValueError, match="ae in int8 is not equal enough: over 24 calibration images the ranks"):
        loligo.export(run, tmp_path / "other.xml", int8=True)
    assert not list(tmp_path.glob("other*")) and not list(tmp_path.glob(".export*"))


def test_the_thin_distribution_takes_no_torch_and_all_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    said: dict[str, Any] = {}
    monkeypatch.chdir(SRC.parent / "packaging" / "onnx")
    monkeypatch.setattr("setuptools.setup", lambda **given: said.update(given))
    runpy.run_path("setup.py")
    needs = {re.split(r"\W", need.replace("-", "_"))[0] for need in said["install_requires"]}
    assert {"numpy", "pandas", "pillow", "pydicom", "onnxruntime"} <= needs
    assert not needs & {"torch", "vector_quantize_pytorch", "onnx", "onnxscript"}
    assert {"loligo", "loligo.io", "loligo.runs", "loligo.cli"} <= set(said["packages"])
    assert said["version"] == loligo.__version__
