"""What is asked of a trained model for its report: the right images, counted right, in bounded number."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from conftest import anatomy, blob, write_images
from loligo import api
from loligo.data import manifest
from loligo.evaluation.metrics import histogram_kl
from loligo.io import nifti, planes
from loligo.reports.run import gather
from loligo.reports.run.insight import Insight
from loligo.runs.run import Run
from loligo.runs.scores import find
from loligo.training import images


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    root = tmp_path_factory.mktemp("data")
    rows = []
    for split, count in (("train", 16), ("calibration", 12), ("test", 9)):
        for path in write_images(root / split, anatomy(count, 64, seed=len(split))):
            rows.append({"path": str(path), "split": split, "label": 0})
    for path in write_images(root / "test", blob(anatomy(7, 64, seed=9)), "b"):
        rows.append({"path": str(path), "split": "test", "label": 1, "kind": "blob"})
    return manifest.check(pd.DataFrame(rows))


@pytest.fixture(scope="module")
def run(data: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("runs") / "squid"
    run = api.train("squid", data, out, preset="tiny", train={"epochs": 1})
    api.score(run, maps="none")
    return run


@pytest.fixture(scope="module")
def found(run: Run) -> Insight:
    insight = gather.insight(find(run.folder))
    assert insight is not None
    return insight


def test_every_group_is_counted_once_a_generator(found: Insight) -> None:
    counts = found.errors.groupby(["group", "generator"]).size().to_dict()
    images = {"held-out normals": 12, "normal": 9, "abnormal": 7}
    assert counts == {(group, name): n for group, n in images.items() for name in ("teacher", "student")}
    assert found.cosines.groupby("group").size().to_dict() == images


def test_errors_are_those_of_the_model_on_those_images(run: Run, data: pd.DataFrame, found: Insight) -> None:
    held_out = images.load(run, data[data["split"] == "calibration"])
    x = held_out.batch(np.arange(12))
    with torch.no_grad():
        reconstructions = run.model().inspect(x).reconstructions  # type: ignore[union-attr]
    table = found.summary().set_index(["group", "generator"])
    for name, found_images in reconstructions.items():
        mse = np.mean([((a - b) ** 2).mean() for a, b in zip(x.numpy(), found_images.numpy(), strict=True)])
        kl = np.mean([histogram_kl(a, b) for a, b in zip(x.numpy(), found_images.numpy(), strict=True)])
        assert table.loc[("held-out normals", name), "mse"] == pytest.approx(mse, rel=1e-5)
        assert table.loc[("held-out normals", name), "kl"] == pytest.approx(
            kl, rel=0.01
        )  # a pixel at the edge of a bin


def test_examples_are_the_ends_of_the_scores(run: Run, found: Insight) -> None:
    scores = find(run.folder).read_scores().sort_values("score", ascending=False, kind="stable")
    rows = [int(example.title.split(",")[0].removeprefix("row ")) for example in found.examples]
    assert rows == [*(scores.index[:3] + 2), *(scores.index[-3:] + 2)]
    labels = [example.title.split("\n")[1] for example in found.examples]
    assert labels == [("normal", "abnormal (blob)")[label] for label in scores["label"].iloc[[0, 1, 2, -3, -2, -1]]]


def test_features_of_scored_images_stand_beside_the_memory(found: Insight) -> None:
    assert found.embedding is not None
    assert found.embedding.features.shape[:2] == (16, 4)
    assert sorted(found.embedding.labels) == [0] * 9 + [1] * 7


def test_a_learnt_memory_is_shown_too(data: pd.DataFrame, tmp_path: Path) -> None:
    run = api.train("squid", data, tmp_path, preset="tiny", options={"memory": "matrix"}, train={"epochs": 1})
    api.score(run, maps="none")
    found = gather.insight(find(run.folder))
    assert found is not None and found.embedding is not None
    slots = run.model().get_submodule("inpaint.memory").slots
    np.testing.assert_array_equal(found.embedding.memory, slots.detach().numpy())


def test_large_sets_are_sampled_evenly(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "MOST", 4)
    few = gather.insight(find(run.folder))
    assert few is not None
    assert set(few.errors.groupby(["group", "generator"]).size()) == {4}
    assert len(few.examples) == 6
    spread = gather._evenly(pd.DataFrame({"n": range(10)}))["n"].tolist()
    assert spread == [0, 3, 6, 9]


def test_an_image_that_is_gone_is_left_out(run: Run, data: pd.DataFrame, tmp_path: Path) -> None:
    first = Path(data.loc[data["split"] == "calibration", "path"].iloc[0])
    aside = first.rename(tmp_path / first.name)
    try:
        insight = gather.insight(find(run.folder))
    finally:
        aside.rename(first)
    assert insight is not None
    assert (insight.errors["group"] == "held-out normals").sum() == 2 * 11


def test_where_no_image_is_left_the_report_goes_without(
    run: Run, data: pd.DataFrame, caplog: pytest.LogCaptureFixture
) -> None:
    root = Path(data["path"].iloc[0]).parents[1]
    aside = root.rename(root.with_name("aside"))
    try:
        text = api.report(run).read_text(encoding="utf-8")
    finally:
        aside.rename(root)
    assert 'id="generators"' not in text
    assert "images were rejected" in caplog.text


def test_the_report_shows_it_and_its_figures_are_files(run: Run) -> None:
    text = api.report(run).read_text(encoding="utf-8")
    assert 'id="generators"' in text
    names = {path.stem for path in (run.folder / "figures").glob("*.png")}
    assert names == {"roc", "histogram", "scores", "losses", "reconstructions", "patches", "embedding"}
    assert len(text) < 8_000_000


def test_a_method_that_shows_nothing_has_no_such_section(data: pd.DataFrame, tmp_path: Path) -> None:
    run = api.train("gaussian", data, tmp_path / "run", preset="tiny")
    api.score(run, maps="none")
    assert gather.insight(find(run.folder)) is None
    assert "generators" not in api.report(run).read_text(encoding="utf-8")


def test_a_volume_is_seen_by_its_middle_slice(tmp_path: Path) -> None:
    rows = []
    for i, split in enumerate(["train"] * 4 + ["calibration"] * 2 + ["test"] * 3):
        depth, path = 5 + i % 2, tmp_path / f"{i}.nii"
        slices = anatomy(depth, 64, seed=i)[:, 0] + 0.05 * np.arange(depth)[:, None, None]
        nifti.save(path, planes.stack(slices.astype(np.float32), "axial"), np.eye(4), 1)
        rows.append({"path": str(path), "split": split})
    run = api.train("squid", pd.DataFrame(rows), tmp_path / "run", preset="tiny", train={"epochs": 1})
    api.score(run, maps="none")
    found = gather.insight(find(run.folder))
    assert found is not None
    assert found.errors.groupby(["group", "generator"]).size().max() == 3
    first = find(run.folder).read_scores().sort_values("score", ascending=False).iloc[:1]
    shown = found.examples[0]
    assert len(found.examples) == 3
    volume = images.load(run, first)
    np.testing.assert_array_equal(shown.images["original"], volume.batch([len(volume) // 2])[0])
