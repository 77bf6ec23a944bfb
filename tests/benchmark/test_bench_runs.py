"""Whole benchmarks in processes of their own: failing, being killed, being repeated."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import bench_data
import pandas as pd
import pytest

from loligo import api
from loligo.benchmark import Request, compare, run, runner
from loligo.benchmark.request import ROBUSTNESS, planned
from loligo.cli import main
from loligo.data.acquisition import STEPS

Command = Callable[[list[str]], None]
HERE = Path(__file__).parent
TIMES = [
    "train_seconds",
    "train_cpu_seconds",
    "images_per_s",
    "score_images_per_s",
    "peak_memory_bytes",
    "seconds",
    "command",
    "folder",
    "commit",
]


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a benchmark of methods that fail beside one that does not; said.txt holds its output."""
    root = tmp_path_factory.mktemp("failing")
    paths = os.pathsep.join((str(HERE.parent), str(HERE), os.environ.get("PYTHONPATH", "")))
    command = [sys.executable, str(HERE / "failing.py"), str(bench_data.write(root / "data")), str(root / "out")]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    (root / "out" / "said.txt").write_text(done.stdout)
    return root / "out"


def test_a_cell_that_fails_is_a_row_with_its_reason(failing: Path) -> None:
    cells = pd.read_csv(failing / "cells.csv").set_index(["method", "protocol"])
    assert cells.loc[("broken", "clean"), "reason"] == "train: RuntimeError: the plan was bad"
    assert cells.loc["gaussian", "status"].tolist() == ["done", "done"] and ("broken", "paper") not in cells.index
    assert "the plan was bad" in (failing / "benchmark.html").read_text()


def test_a_process_that_is_killed_fails_its_cell_alone(failing: Path) -> None:
    cells = pd.read_csv(failing / "cells.csv").set_index(["method", "protocol"])
    assert "its process ended abruptly, perhaps killed for want of memory" in cells.loc[("killed", "clean"), "reason"]
    assert (failing / "said.txt").read_text().splitlines()[-1] == "2 of 3"


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run one benchmark to its end, and one that is killed whenever a cell has come to another point."""
    root = tmp_path_factory.mktemp("killed")
    words = ["benchmark", "--methods", "ae,gaussian", "--seeds", "2", "--preset", "tiny"]
    words += ["--datasets", f"one={bench_data.write(root / 'data')}", "--set", "train.epochs=4", "train.batch_size=8"]
    main([*words, "--out", str(root / "whole")])  # here, as cells of all tests share one server to fork from
    for point in ("checkpoint/last.safetensors", "scores/test/scores.csv"):
        command = [sys.executable, "-m", "loligo", *words, "--out", str(root / "torn")]
        process = subprocess.Popen(command, start_new_session=True)
        while process.poll() is None and not list(root.glob(f"torn/cells/one/*/seed_*/run/{point}")):
            time.sleep(0.005)
        process.kill()
        process.wait()
        _wait_for_end(process.pid)
        assert process.returncode == -signal.SIGKILL, point
    main([*words, "--out", str(root / "torn")])
    return root


def _wait_for_end(group: int) -> None:
    """Wait until no process of a killed benchmark is left: they end with it."""
    for _ in range(600):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    raise AssertionError("processes of a killed benchmark go on")


def test_kills_leave_the_table_of_an_unbroken_run(killed: Path) -> None:
    whole, torn = (pd.read_csv(killed / name / "cells.csv") for name in ("whole", "torn"))
    assert (whole["status"] == "done").all() and len(whole) == 8
    assert whole.loc[whole["protocol"] == "paper", "epoch"].notna().any()  # epochs were chosen from snapshots
    pd.testing.assert_frame_equal(whole.drop(columns=TIMES), torn.drop(columns=TIMES))
    for name in ("pairs", "alarms", "summary"):
        a, b = (pd.read_csv(killed / where / f"{name}.csv") for where in ("whole", "torn"))
        pd.testing.assert_frame_equal(*(t.drop(columns=[c for c in TIMES if c in t]) for t in (a, b)))
    left = [path for path in (killed / "torn" / "cells").rglob(".*") if path.is_dir()]
    assert not left and not list((killed / "torn").rglob("snapshots"))


def test_both_protocols_are_those_of_one_plain_run(killed: Path, tmp_path: Path) -> None:
    train = {"epochs": 4, "batch_size": 8, "seed": 1, "evaluate_every_epoch": True}
    run = api.train("ae", killed / "data" / "m.csv", tmp_path, preset="tiny", train=train)
    api.score(run, maps="network")
    found = api.evaluate(run)
    cells = pd.read_csv(killed / "whole" / "cells.csv").set_index(["cell", "protocol"])
    for protocol in ("clean", "paper"):
        row = cells.loc[("one/ae/seed_1", protocol)]
        for name in ("auc", "ap", "accuracy", "f1", "sensitivity", "specificity", "threshold"):
            assert row[name] == pytest.approx(found[protocol][name], abs=1e-9), (protocol, name)
    assert row["epoch"] == found["paper"]["epoch"]
    row = cells.loc[("one/ae/seed_1", "clean")]  # the plain run's epochs.csv knows no patients
    assert (row["auc_low"], row["auc_high"]) == pytest.approx((found["clean"]["auc_low"], found["clean"]["auc_high"]))
    assert row["kind_blob"] == pytest.approx(found["kinds"]["blob"])
    for name in ("auroc", "ap", "best_dice"):
        assert row[f"pixel_{name}"] == pytest.approx(found["pixel"][name], rel=1e-6)
    pixels = cells["pixel_auroc"]
    assert pixels.xs("clean", level=1).nunique() > 1 and pixels.xs("paper", level=1).isna().all()
    assert not list(killed.rglob("cells/**/maps"))
    text = (killed / "whole" / "benchmark.md").read_text()
    assert "| Method | Blob | Pixel AUROC | Pixel AP | Best Dice |" in text


def test_everything_to_repeat_a_cell_is_in_the_json(failing: Path) -> None:
    values = json.loads((failing / "benchmark.json").read_text())
    row = next(row for row in values["cells"] if row["method"] == "gaussian" and row["protocol"] == "clean")
    assert row["command"].startswith("loligo benchmark --methods gaussian --datasets one=")
    assert row["command"].endswith("--seeds 1 --preset tiny --only one/gaussian/seed_0 --out again/one/gaussian/seed_0")
    assert json.loads(row["method_config"])["components"] == 8 and json.loads(row["train_config"])["seed"] == 0
    assert all(row[key] for key in ("data_hash", "version", "machine")) and values["about"]["torch"]
    assert "not a medical device" in values["notice"]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Give a command line to loligo, in the test's folder; cells of all tests share one server to fork from."""
    monkeypatch.chdir(tmp_path)
    return main


def test_a_budget_becomes_epochs_and_the_printed_command_repeats_the_cell(tmp_path: Path, command: Command) -> None:
    bench_data.write(tmp_path)
    words = ["benchmark", "--methods", "ae", "--datasets", "m.csv", "--preset", "tiny", "--budget", "2s"]
    command([*words, "--out", "out"])
    cells = pd.read_csv(tmp_path / "out" / "cells.csv").set_index("protocol")
    (measured,) = (tmp_path / "out" / "cells" / "m" / "ae").glob("seed_0-*/budget.json")
    budget = json.loads(measured.read_text())
    assert cells.loc["clean", "epochs"] == budget["epochs"] == max(1, int(2 / budget["seconds_per_epoch"]))
    assert cells.loc["clean", "budget_seconds"] == 2
    command(cells.loc["clean", "command"].split()[1:])
    table = compare(tmp_path / "out", tmp_path / "again" / "m" / "ae" / "seed_0")
    assert table["protocol"].tolist() == ["clean", "paper"] and table["within"].all()
    assert (table["difference"] == 0).all() and (table["changed"] == "").all()


def test_every_curve_and_what_is_finished_is_not_run_again(tmp_path: Path, command: Command) -> None:
    data = bench_data.write(tmp_path)
    asked = Request(("gaussian",), (str(data),), tmp_path / "out", preset="tiny", robustness=ROBUSTNESS)
    words = ["benchmark", "--methods", "gaussian", "--datasets", str(data), "--preset", "tiny", "--out", "out"]
    command([*words, "--robustness", "contamination,sizes"])
    before = pd.read_csv(tmp_path / "out" / "cells.csv")
    (whole,) = (tmp_path / "out" / "cells" / "m" / "gaussian").glob("seed_0-*")
    left = whole / "run" / "scores" / "test" / "maps"
    left.mkdir()  # as a kill leaves it
    command([*words, "--robustness", "contamination,sizes", "corruptions"])
    after, changed = pd.read_csv(tmp_path / "out" / "cells.csv"), ["seconds", "command"]
    pd.testing.assert_frame_equal(before.drop(columns=changed), after.drop(columns=changed))
    assert (after["seconds"] >= before["seconds"]).all() and after["pixel_auroc"].notna().any()
    assert not left.exists()
    table = pd.read_csv(tmp_path / "out" / "robustness.csv")
    levels = table.groupby("curve")["level"].apply(lambda part: sorted(part.tolist()))
    assert levels["contamination"] == [0, 0.1, 0.2, 0.3, 0.4, 0.5] and levels["sizes"] == [50, 60]
    assert all(levels[kind] == [0, 1, 2, 3, 4, 5] for kind in STEPS)
    cells = pd.read_csv(tmp_path / "out" / "cells.csv")
    assert (cells["status"] == "done").all() and len(cells) == 9
    assert set(cells.loc[cells["curve"] == "contamination", "train"]) == {17}
    auc = cells.loc[cells["curve"].isna() & (cells["protocol"] == "clean"), "auc"].item()
    assert table.query("level == 0 and curve in @STEPS")["auc"].tolist() == pytest.approx([auc] * len(STEPS))
    kept, scored = whole / "corruptions.csv", pd.read_csv(whole / "corruptions.csv")
    scored[scored["kind"] != "zoom"].to_csv(kept, index=False)  # as a version that knows fewer kinds leaves it
    command([*words, "--robustness", "contamination,sizes", "corruptions"])
    order = ["kind", "severity", "row"]
    both = [t.sort_values(order, ignore_index=True) for t in (scored, pd.read_csv(kept))]
    pd.testing.assert_frame_equal(*both)
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "cells").rglob("*.*")}
    said: list[str] = []
    runner.run(planned(asked), asked, said.append)
    assert said[0].startswith("8 cells, 8 finished")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "cells").rglob("*.*")} == times


def test_data_may_move_and_its_columns_stand_in_for_no_score(tmp_path: Path, command: Command) -> None:
    path = bench_data.write(tmp_path / "here")
    pd.read_csv(path).assign(score=1.0, flag=0, epoch=3).to_csv(path, index=False)
    (tmp_path / "here" / "test" / "0" / "003.png").write_text("no image")
    (tmp_path / "here" / "test" / "0" / "004.png").unlink()
    (tmp_path / "here" / "test" / "0" / "004.png").mkdir()
    asked = {"preset": "tiny", "out": tmp_path / "out"}
    words = ["benchmark", "--preset", "tiny", "--out", "out", "--datasets"]
    command([*words, "one=here/m.csv", "--methods", "gaussian"])
    (tmp_path / "here").rename(tmp_path / "there")
    moved = tmp_path / "there" / "m.csv"
    moved.write_text(moved.read_text().replace(str(tmp_path / "here"), str(tmp_path / "there")))
    command([*words, "one=there/m.csv", "--methods", "gaussian,ae", "--set", "ae.train.epochs=1"])
    cells = pd.read_csv(tmp_path / "out" / "cells.csv").query("protocol == 'clean'").set_index("method")
    assert (cells["status"] == "done").all() and cells["n_normal"].tolist() == [18, 18]
    assert cells["rejected_test"].tolist() == [2, 2] and cells.loc["gaussian", "auc"] > 0.6
    assert len(list((tmp_path / "out" / "cells" / "one" / "gaussian").iterdir())) == 1  # not run again
    pairs = pd.read_csv(tmp_path / "out" / "pairs.csv")
    assert pairs["images"].item() == 38
    with pytest.raises(ValueError, match="its tables would lose 1 of them, such as one/gaussian/seed_0"):
        run(Request(("ae",), (f"one={moved}",), **asked))


def test_a_file_of_options_and_the_exit_status(
    tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    bench_data.write(tmp_path)
    options = "methods: [gaussian, gaussian:small]\ndatasets: [m.csv]\npreset: tiny\nout: out\n"
    (tmp_path / "c.yaml").write_text(options + "variants: {small: {components: 2}}\n")
    command(["benchmark", "--config", "c.yaml"])
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == "0 of 2 cells failed" and any("gaussian:small/seed_0: AUC" in line for line in said)
    cells = pd.read_csv(tmp_path / "out" / "cells.csv").query("protocol == 'clean'").set_index("method")
    assert json.loads(cells.loc["gaussian:small", "method_config"])["components"] == 2
    assert "--config c.yaml --methods gaussian:small" in cells.loc["gaussian:small", "command"]
    for path in (tmp_path / "train" / "0").iterdir():
        path.write_text("no image")
    with pytest.raises(SystemExit) as stop:
        command(["benchmark", "--config", "c.yaml", "--out", "other"])
    assert stop.value.code == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith("2 of 2 cells failed; reasons: other")
