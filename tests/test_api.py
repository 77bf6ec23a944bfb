"""The whole flow on files: train, score, evaluate, report; bad files; resuming after a real kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from conftest import anatomy, blob, write_images
from loligo import api
from loligo.calibration import Calibration
from loligo.data import inputs, manifest
from loligo.runs.run import Run
from loligo.runs.scores import ScoreFolder, find
from loligo.runs.settings import Settings


@pytest.fixture(scope="module")
def normals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("normals")
    write_images(folder, anatomy(60, 64))
    return folder


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest with all splits, masks, and a kind of anomaly."""
    root = tmp_path_factory.mktemp("labelled")
    rows = []
    for split, count in (("train", 60), ("calibration", 30)):
        for path in write_images(root / split, anatomy(count, 64, seed=len(split))):
            rows.append({"path": path, "split": split, "label": 0})
    mask = np.zeros((64, 64), np.uint8)
    mask[:16, 24:40] = 255
    Image.fromarray(mask).save(root / "mask.png")
    for split in ("validation", "test"):
        images = anatomy(20, 64, seed=99 + len(split))
        for path in write_images(root / split, images, "n"):
            rows.append({"path": path, "split": split, "label": 0})
        for path in write_images(root / split, blob(images), "b"):
            rows.append({"path": path, "split": split, "label": 1, "mask": root / "mask.png", "kind": "blob"})
    frame = pd.DataFrame(rows)
    manifest.write(
        manifest.check(frame.assign(path=frame["path"].astype(str), mask=frame["mask"].fillna("").astype(str))),
        root / "m.csv",
    )
    return root / "m.csv"


@pytest.fixture(scope="module")
def run(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("runs") / "ae"
    run = api.train(
        "ae", labelled, out, preset="tiny", train={"epochs": 6, "batch_size": 8, "evaluate_every_epoch": True}
    )
    api.score(run)
    return run


def folder_of(table: pd.DataFrame) -> Path:
    return Path(table.attrs["folder"])


def test_a_folder_of_normals_is_all_that_is_needed(normals: Path, tmp_path: Path) -> None:
    run = api.train("gaussian", normals, tmp_path / "run", preset="tiny", folds=0)
    write_images(tmp_path / "new", anatomy(4, 64, seed=7))
    table = api.score(run, tmp_path / "new")
    assert run.about["data"]["train"] == 54
    assert run.about["data"]["calibration"] == 6
    assert len(table) == 4
    assert table["p_value"].between(0, 1).all()
    assert folder_of(table) == tmp_path / "run" / "scores" / "new"
    assert (folder_of(table) / table["map"][0]).is_file()


def test_bad_files_are_listed_with_their_reasons_and_the_others_scored(normals: Path, tmp_path: Path) -> None:
    run = api.train("gaussian", normals, tmp_path / "run", preset="tiny")
    new = tmp_path / "new"
    write_images(new, anatomy(3, 64, seed=7))
    (new / "text.png").write_text("not an image")
    (new / "empty.png").write_bytes(b"")
    Image.fromarray(np.full((40, 50), 30000, np.uint16)).save(new / "deep.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (9, 9, 3), dtype=np.uint8)).save(new / "colour.png")
    whole = (new / "000.png").read_bytes()
    (new / "short.png").write_bytes(whole[: len(whole) // 2])
    header = bytearray(whole)
    header[16:24] = (60_000).to_bytes(4, "big") * 2
    import zlib

    header[29:33] = zlib.crc32(bytes(header[12:29])).to_bytes(4, "big")
    (new / "huge.png").write_bytes(bytes(header))
    table = api.score(run, new)
    assert sorted(Path(p).name for p in table["path"]) == ["000.png", "001.png", "002.png", "deep.png"]
    rejected = pd.read_csv(folder_of(table) / "rejected.csv")
    written = pd.read_csv(folder_of(table) / "scores.csv")
    assert written["reason"].fillna("").tolist() == [""] * 4 + rejected["reason"].tolist()
    assert written["rank"].fillna(0).tolist() == [1, 2, 3, 4] + [0] * 5
    assert sorted(Path(p).name for p in rejected["path"]) == [
        "colour.png",
        "empty.png",
        "huge.png",
        "short.png",
        "text.png",
    ]
    assert rejected["reason"].str.len().min() > 5
    with pytest.raises(ValueError, match=r"empty\.png"):
        api.score(run, new, strict=True)
    with pytest.raises(ValueError, match=r"all 2 images were rejected, the first: .*empty\.png"):
        api.score(run, [new / "empty.png", new / "text.png"], tmp_path / "bad")
    listed = pd.read_csv(tmp_path / "bad" / "rejected.csv")
    assert [Path(path).name for path in listed["path"]] == ["empty.png", "text.png"]
    assert listed["reason"].notna().all()


def test_both_protocols_pixels_and_kinds_are_measured(run: Run) -> None:
    found = api.evaluate(run)
    assert found["clean"]["auc"] > 0.9
    assert found["clean"]["threshold"] == Calibration.load(run.folder / "calibration.json").threshold
    assert 1 <= found["paper"]["epoch"] <= 6
    assert "labelled validation" in found["paper"]["note"]
    assert found["pixel"]["auroc"] > 0.9
    assert found["kinds"] == {"blob": pytest.approx(found["clean"]["auc"])}


@pytest.mark.parametrize("aspect", ["squash", "pad"])
def test_maps_lie_on_the_image_or_on_the_networks_grid_and_measure_alike(aspect: str, tmp_path: Path) -> None:
    normal = np.repeat(anatomy(52, 64), 2, axis=3)  # (N, 1, 64, 128)
    changed = normal[40:].copy()
    changed[:, :, 8:24, 70:100] = 1
    mask = np.zeros((64, 128), np.uint8)
    mask[8:24, 70:100] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    paths = write_images(tmp_path / "n", normal)
    rows = [
        {"path": str(p), "split": s, "label": 0}
        for p, s in zip(paths, ["train"] * 30 + ["calibration"] * 10, strict=False)
    ]
    rows += [{"path": str(p), "split": "test", "label": 0} for p in paths[40:]]
    sick = write_images(tmp_path / "a", changed)
    rows += [{"path": str(p), "split": "test", "label": 1, "mask": str(tmp_path / "mask.png")} for p in sick]
    run = api.train("gaussian", pd.DataFrame(rows), tmp_path / "run", preset="tiny", preprocessing={"aspect": aspect})
    found = {}
    for maps, shape in (("image", (64, 128)), ("network", (64, 64))):
        table = api.score(run, maps=maps)
        where = folder_of(table)
        assert np.load(where / table["map"][0]).shape == shape
        assert Image.open(where / table["overlay"][0]).size == (128, 64)  # the image's aspect either way
        found[maps] = api.evaluate(where)["pixel"]
    assert found["image"]["auroc"] > 0.9
    assert found["image"]["auroc"] == pytest.approx(found["network"]["auroc"], abs=0.05)
    assert set(api.score(run, maps="none")["map"]) == {""}


def test_a_false_alarm_rate_holds_for_flags_metrics_and_pages_of_a_scoring(run: Run, tmp_path: Path) -> None:
    table = api.score(run, out=tmp_path / "out", maps="none", false_alarm_rate=0.4)
    loose, own = Calibration.load(tmp_path / "out" / "calibration.json"), Calibration.load(run.files.calibration)
    assert (loose.false_alarm_rate, own.false_alarm_rate) == (0.4, 0.05)
    np.testing.assert_array_equal(table["flag"], table["score"] >= loose.threshold)
    assert api.evaluate(run, false_alarm_rate=0.4)["clean"]["threshold"] == loose.threshold
    api.evaluate(run)


def test_the_last_epoch_scores_as_the_run_does(run: Run) -> None:
    epochs = pd.read_csv(run.folder / "epochs.csv")
    assert set(epochs["epoch"]) == {1, 2, 3, 4, 5, 6}
    final = epochs[(epochs["epoch"] == 6) & (epochs["split"] == "test")]
    scores = find(run.folder).read_scores().set_index("path")["score"]
    np.testing.assert_allclose(final["score"], scores[final["path"]], rtol=0.02)


def test_results_are_appended_a_row_a_protocol(run: Run, tmp_path: Path) -> None:
    for _ in range(2):
        api.evaluate(run, tmp_path / "results.csv")
    table = pd.read_csv(tmp_path / "results.csv")
    assert table["protocol"].tolist() == ["clean", "paper"] * 2
    assert set(table["method"]) == {"ae"}
    assert table["auc"].between(0, 1).all()


def test_a_score_depends_neither_on_batch_size_nor_on_order(run: Run, labelled: Path) -> None:
    rows = manifest.read(labelled)
    test = rows[rows["split"] == "test"]
    table = api.score(run, test, run.folder / "a", maps="none", batch_size=16).set_index("path")
    other = api.score(run, test[::-1], run.folder / "b", maps="none", batch_size=1).set_index("path")
    np.testing.assert_allclose(other["score"].loc[table.index], table["score"], rtol=0.01)


def test_the_report_is_written(run: Run) -> None:
    assert "not a medical device" in api.report(run).read_text(encoding="utf-8")


def test_misspelt_names_are_answered_with_the_nearest(normals: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="did you mean 'squid'"):
        api.train("squib", normals, tmp_path)
    with pytest.raises(ValueError, match="did you mean 'slots'"):
        api.train("squid", normals, tmp_path, options={"slotz": 3})
    with pytest.raises(ValueError, match="did you mean 'epochs'"):
        api.train("squid", normals, tmp_path, train={"epoch": 3})
    with pytest.raises(ValueError, match=r"squid\.shrinkage is 'Gumbel'; did you mean 'gumbel'"):
        api.train("squid", normals, tmp_path, options={"shrinkage": "Gumbel"})
    with pytest.raises(ValueError, match=r"squid\.score is 'input'; allowed: both, discriminator, local, pair, recon"):
        api.train("squid", normals, tmp_path, options={"score": "input"})


def test_splits_of_a_manifest_are_scored_alone(run: Run, labelled: Path, tmp_path: Path) -> None:
    rows = pd.read_csv(labelled)
    assert len(api.score(run, labelled, tmp_path / "all", maps="none")) == len(rows)
    table = api.score(run, labelled, tmp_path / "some", splits=["validation"], maps="none")
    assert sorted(table["path"]) == sorted(
        str(labelled.parent / path) for path in rows.loc[rows["split"] == "validation", "path"]
    )
    assert api.report(tmp_path / "some") == tmp_path / "some" / "report.html"


def test_a_second_scoring_leaves_the_first_as_it_is(normals: Path, tmp_path: Path) -> None:
    run = api.train("ae", normals, tmp_path / "run", preset="tiny", train={"epochs": 1})
    images = write_images(tmp_path / "new", anatomy(3, 64, seed=7))
    first = folder_of(api.score(run, images))
    before = {path: path.read_bytes() for path in first.rglob("*") if path.is_file()}
    other = api.score(run, images[1:])
    assert (first.name, folder_of(other).name) == ("new", "new_2")
    assert all(path.read_bytes() == was for path, was in before.items())
    named = other[["map", "overlay", "reconstruction"]].to_numpy().ravel()
    assert {path.name for path in (folder_of(other) / "maps").iterdir()} == {Path(name).name for name in named}
    assert find(run.folder).path == folder_of(other)
    for out, message in ((first, "another scoring"), (tmp_path / "new", "other files"), (images[0], "is a file")):
        with pytest.raises(ValueError, match=message):
            api.score(run, images, out)


def test_a_scoring_that_was_cut_off_leaves_nothing(normals: Path, tmp_path: Path) -> None:
    run = api.train("gaussian", normals, tmp_path / "run", preset="tiny")
    images = write_images(tmp_path / "new", anatomy(2, 64, seed=7))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScoreFolder, "write_scores", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            api.score(run, images)
    assert list(run.files.scorings.iterdir()) == []
    killed = run.files.scorings / ".scoring-killed"
    killed.mkdir()
    os.utime(killed, (0, 0))
    assert [path.name for path in (run.files.scorings, folder_of(api.score(run, images)))] == ["scores", "new"]
    assert not killed.exists()


def test_scorings_at_once_have_folders_of_their_own(normals: Path, tmp_path: Path) -> None:
    run = api.train("gaussian", normals, tmp_path / "run", preset="tiny")
    images = write_images(tmp_path / "new", anatomy(2, 64, seed=7))
    with ThreadPoolExecutor(4) as pool:
        tables = list(pool.map(lambda _: api.score(run, images), range(4)))
    assert sorted(folder_of(table).name for table in tables) == ["new", "new_2", "new_3", "new_4"]
    for table in tables:
        written = find(folder_of(table)).read_scores()
        assert all((folder_of(table) / name).is_file() for name in written["map"])


def test_a_table_of_scores_is_ranked_rounded_and_knows_where_its_files_lie(run: Run, labelled: Path) -> None:
    table = api.score(run, labelled, splits=["validation", "test"])
    written = pd.read_csv(folder_of(table) / "scores.csv", dtype=str, keep_default_na=False)
    assert list(written)[:7] == ["rank", "path", "p_value", "flag", "anomaly_score", "score", "threshold"]
    assert written["score"].astype(float).is_monotonic_decreasing
    assert max(written[name].str.replace(".", "").str.len().max() for name in ("p_value", "anomaly_score")) <= 8
    assert not any((written[name] == "").all() for name in written)
    assert find(folder_of(table)).read_scores()["path"].tolist() == table["path"].tolist()
    assert (folder_of(table) / written["path"][0]).is_file()


def test_unreadable_images_of_each_epoch_are_listed_or_stop_a_strict_run(labelled: Path, tmp_path: Path) -> None:
    rows = manifest.read(labelled)
    (tmp_path / "broken.png").touch()
    broken = pd.DataFrame({"path": [str(tmp_path / "broken.png")], "split": "validation", "label": 1})
    rows, options = pd.concat([rows, broken], ignore_index=True), {"epochs": 1, "evaluate_every_epoch": True}
    run = api.train("ae", rows, tmp_path / "run", preset="tiny", train=options)
    listed = pd.read_csv(run.folder / "rejected.csv")
    assert [Path(path).name for path in listed["path"]] == ["broken.png"]
    with pytest.raises(ValueError, match=r"broken\.png"):
        api.train("ae", rows, tmp_path / "strict", preset="tiny", train=options, strict=True)


@pytest.mark.parametrize(("levels", "warned"), [(4096, True), (65536, False)])
def test_pixels_of_12_bits_in_files_of_16_are_named(
    levels: int, warned: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for i, image in enumerate(np.random.default_rng(0).integers(0, levels, (20, 16, 16)).astype(np.uint16)):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    api.train("gaussian", tmp_path, tmp_path / "run", preset="tiny")
    assert ("20 of 20 training images: each uses less than half of its file's range" in caplog.text) is warned


def test_a_begun_run_is_planned_again_from_what_is_on_disk(tmp_path: Path) -> None:
    options = {"widths": (4, 8, 16), "size": 64}
    Run.new(tmp_path, Settings.of("simsid", options=options)).save()
    (tmp_path / "model.safetensors").touch()
    again = Run.new(tmp_path, Settings.of("simsid", options=options))  # refuses options that are not those on disk
    assert Run.load(tmp_path).method_config == again.method_config
    assert Run.load(tmp_path).method_config.widths == (4, 8, 16)


def test_a_begun_run_is_not_overwritten_by_other_options(normals: Path, tmp_path: Path) -> None:
    api.train("gaussian", normals, tmp_path / "run", preset="tiny")
    with pytest.raises(ValueError, match="finished training"):
        api.train("gaussian", normals, tmp_path / "run", preset="tiny")
    with pytest.raises(ValueError, match=r"method\.side was 16, is now 8"):
        api.train("gaussian", normals, tmp_path / "run", preset="tiny", options={"side": 8})


def test_a_folder_that_is_no_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a run folder"):
        api.score(tmp_path)


def test_without_labels_there_is_no_metric(normals: Path, tmp_path: Path) -> None:
    run = api.train("gaussian", normals, tmp_path / "run", preset="tiny")
    with pytest.raises(ValueError, match="has scored nothing yet"):
        api.evaluate(run)
    api.score(run, normals)
    with pytest.raises(ValueError, match="0 test images labelled normal"):
        api.evaluate(run)


def test_a_killed_training_resumes_to_the_same_model(normals: Path, tmp_path: Path) -> None:
    def command(out: str) -> list[str]:
        options = ["--preset", "tiny", "--train.epochs", "5", "--train.batch_size", "8"]
        code = "from loligo.cli import main; main()"
        return [
            sys.executable,
            "-c",
            code,
            "train",
            "squid",
            "--data",
            str(normals),
            "--out",
            str(tmp_path / out),
            *options,
        ]

    environment = os.environ | {"LOLIGO_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    subprocess.run(command("whole"), check=True, env=environment, capture_output=True)
    process = subprocess.Popen(command("killed"), env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while not (tmp_path / "killed" / "checkpoint" / "last.safetensors").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "model.safetensors").exists()
    subprocess.run(command("killed"), check=True, env=environment, capture_output=True)
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "killed"))
    assert one.keys() == other.keys()
    assert all((one[name] == other[name]).all() for name in one)
    one_json, other_json = ((tmp_path / name / "calibration.json").read_text() for name in ("whole", "killed"))
    assert one_json == other_json


def test_a_fit_that_was_cut_off_says_that_it_starts_over(
    normals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from loligo.methods.gaussian import Gaussian

    fit = Gaussian.fit

    def cut(self: Gaussian, batches: Iterable[torch.Tensor], reduce: object) -> None:
        next(iter(batches))
        raise KeyboardInterrupt

    monkeypatch.setattr(Gaussian, "fit", cut)
    with pytest.raises(KeyboardInterrupt):
        api.train("gaussian", normals, tmp_path / "run", preset="tiny")
    assert not (tmp_path / "run" / "model.safetensors").exists()
    with pytest.raises(ValueError, match="not finished"):
        api.score(tmp_path / "run", normals)
    monkeypatch.setattr(Gaussian, "fit", fit)
    api.train("gaussian", normals, tmp_path / "run", preset="tiny")
    assert "it starts over" in caplog.text


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_size_that_would_score_nothing_is_refused(batch_size: int, normals: Path, tmp_path: Path) -> None:
    run = api.train("gaussian", normals, tmp_path / "run", preset="tiny")
    with pytest.raises(ValueError, match=f"batch_size is {batch_size}; it must be at least 1"):
        api.score(run, normals, batch_size=batch_size)
    assert not run.files.scorings.exists()


def test_metrics_do_not_outlive_the_scores_that_they_are_of(labelled: Path, tmp_path: Path) -> None:
    run = api.train("gaussian", labelled, tmp_path / "run", preset="tiny")
    api.score(run)
    api.evaluate(run)
    assert "There are no metrics" not in api.report(run).read_text(encoding="utf-8")
    rows = manifest.read(labelled)
    swapped = rows[rows["split"] == "test"].assign(label=lambda test: 1 - test["label"])
    second = api.score(run, swapped).attrs["folder"]
    assert sorted(path.name for path in run.files.scorings.iterdir()) == ["test", "test_2"]
    assert "There are no metrics" in api.report(second).read_text(encoding="utf-8")


def test_a_start_that_failed_does_not_bind_the_next(normals: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    write_images(images, anatomy(30, 64))
    (images / "text.png").write_text("not an image")
    ae = {"preset": "tiny", "train": {"epochs": 1}}
    with pytest.raises(ValueError, match="must be a multiple"):
        api.train("ae", images, tmp_path / "run", **ae, options={"size": 100})
    with pytest.raises(ValueError, match=r"train\.evaluate_every_epoch needs"):
        api.train("ae", images, tmp_path / "run", preset="tiny", train={"epochs": 1, "evaluate_every_epoch": True})
    with pytest.raises(ValueError, match=r"text\.png"):
        api.train("ae", images, tmp_path / "run", **ae, strict=True)
    (images / "text.png").unlink()
    rows = inputs.resolve(images, purpose="train").rows
    run = api.train("ae", rows, tmp_path / "run", **ae, options={"size": 32}, strict=True)
    assert (run.trained, run.about["data"]["train"]) == (True, 26)
    (run.folder / "model.safetensors").unlink()  # as a kill after the last epoch would leave it
    (run.folder / "calibration.json").unlink()
    with pytest.raises(ValueError, match=r"method\.size was 32, is now 64"):
        api.train("ae", rows, tmp_path / "run", **ae)
    with pytest.raises(ValueError, match="begun on other training images"):
        api.train("ae", normals, tmp_path / "run", **ae, options={"size": 32})


def test_a_training_costs_its_epochs_and_what_is_learnt_after_them(
    normals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from loligo.methods.ae import Autoencoder

    monkeypatch.setattr(Autoencoder, "fit", lambda self, batches, reduce: time.sleep(0.5))
    run = api.train("ae", normals, tmp_path / "run", preset="tiny", train={"epochs": 2})
    epochs = pd.read_csv(run.folder / "history.csv")
    assert epochs["seconds"].sum() + 0.5 <= run.about["cost"]["train_seconds"] + 0.01
    assert run.about["cost"]["images_per_s"] == pytest.approx(epochs["images_per_s"].median(), abs=0.01)


def test_names_that_no_table_can_hold_are_rejected_and_long_ones_scored(normals: Path, tmp_path: Path) -> None:
    images, whole = tmp_path / "images", (normals / "000.png").read_bytes()
    write_images(images, anatomy(20, 64))
    Path(os.fsdecode(os.fsencode(images) + b"/M\xfcller.png")).write_bytes(whole)
    (images / "a\rb.png").write_bytes(whole)
    (images / ("\N{OCTOPUS}" * 60 + ".png")).write_bytes(whole)
    run = api.train("ae", images, tmp_path / "run", preset="tiny", train={"epochs": 1})
    table = api.score(run, images)
    where = folder_of(table)
    assert len(table) == len(pd.read_csv(where / "scores.csv")) - 2 == 21
    assert all((where / name).is_file() for name in table[["map", "overlay", "reconstruction"]].to_numpy().ravel())
    for folder in (run.folder, where):
        rejected = pd.read_csv(folder / "rejected.csv")
        assert sorted(Path(path).name for path in rejected["path"]) == [r"M\udcfcller.png", r"a\rb.png"]
        assert rejected["reason"].str.contains("its name is not UTF-8 or has a carriage return").all()
    with pytest.raises(ValueError, match=r"a\\rb\.png: its name is not UTF-8"):
        api.sheet(run, images / "a\rb.png", tmp_path / "a.html")


def test_the_reasons_of_the_training_outlive_a_scoring(normals: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    write_images(images, anatomy(20, 64))
    (images / "text.png").write_text("not an image")
    run = api.train("gaussian", images, tmp_path / "run", preset="tiny")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "ok.png").write_bytes((normals / "000.png").read_bytes())
    (tmp_path / "new" / "empty.png").touch()
    for _ in range(2):
        table = api.score(run, tmp_path / "new")
        for folder, name in ((run.folder, "text.png"), (folder_of(table), "empty.png")):
            assert [Path(path).name for path in pd.read_csv(folder / "rejected.csv")["path"]] == [name]
    assert "empty.png" in api.report(run).read_text(encoding="utf-8")


def test_a_map_that_cannot_be_written_is_named_and_leaves_no_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Image.Image, path: Path, **options: object) -> None:
        Path(path).touch()
        raise OSError(28, "No space left on device")

    write_images(tmp_path / "normals", anatomy(20, 64))
    run = api.train("ae", tmp_path / "normals", tmp_path / "run", preset="tiny", train={"epochs": 1})
    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match=r"cannot write a scoring in .*scores: No space left"):
        api.score(run, tmp_path / "normals" / "000.png")
    assert list(run.files.scorings.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epochs": 3}, r"epochs belongs to train: write train=\{'epochs': \.\.\.\}"),
        ({"width": 3}, r"width belongs to options: write options=\{'width'"),
        ({"aspect": "pad"}, r"aspect belongs to preprocessing: write preprocessing="),
        ({"widht": 3}, "there is no argument 'widht'; did you mean 'width'"),
    ],
)
def test_an_argument_that_is_an_option_is_told_its_place(given: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=message):
        api.train("ae", tmp_path, tmp_path / "run", **given)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("data", [torch.zeros(2, 8, 8), [np.zeros((8, 8))], torch.utils.data.DataLoader([1])])
def test_images_in_memory_are_told_what_takes_them(data: Any, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"Images in memory: loligo\.Detector\.fit\(method, images\)"):
        api.train("ae", data, tmp_path / "run")
    with pytest.raises(TypeError, match=r"Images in memory: loligo\.load\(run\)\.predict\(images\)"):
        api.score(tmp_path, data)


def test_a_method_of_one_pass_takes_no_epochs(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"train\.epochs is not taken: padim learns in one pass"):
        api.train("padim", tmp_path, tmp_path / "run", train={"epochs": 3})
    assert "epochs" not in Settings.of("padim").training()
    assert Settings.of("ae", train={"epochs": 3}).training()["epochs"] == 3
    with pytest.raises(ValueError, match="epochs belongs to train"):
        Settings.of("ae", options={"epochs": 3})


def test_a_refused_training_leaves_nothing(tmp_path: Path) -> None:
    write_images(tmp_path / "normals", anatomy(24, 64))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("kept")
    for out in (tmp_path / "run", tmp_path / "mine"):
        with pytest.raises(ValueError, match="there is no file of weights"):  # said once the images are read
            api.train("padim", tmp_path / "normals", out, preset="tiny", options={"weights": "nosuch.pth"})
        with pytest.raises(ValueError, match="device is 'gpu'"):
            api.train("ae", tmp_path / "normals", out, preset="tiny", train={"device": "gpu"})
    assert not (tmp_path / "run").exists()
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]
