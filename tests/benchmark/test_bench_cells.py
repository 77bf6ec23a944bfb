"""What a cell is keyed by, what it may see, and how a data set and a request are read."""

from __future__ import annotations

import shlex
from pathlib import Path

import bench_data
import numpy as np
import pandas as pd
import pytest

from loligo.benchmark import cells as module
from loligo.benchmark import datasets, request
from loligo.benchmark.cells import Cell

WORDS = {"out": Path("out"), "seeds": 1, "preset": "tiny", "only": None, "workers": None, "budget": None, "set": []}
WORDS |= {"variants": {}, "config": None}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> datasets.Data:
    root = tmp_path_factory.mktemp("data")
    return datasets.read(f"one={bench_data.write(root)}", root)


def asked(data: datasets.Data, **given: object) -> request.Request:
    words = WORDS | {"methods": ["ae,gaussian"], "datasets": [data.given], "robustness": []} | given
    return request.parse(**words)


def test_a_training_sees_its_own_rows_alone_without_labels(data: datasets.Data) -> None:
    seen = module.seen_in_training(data.rows)
    assert set(seen["split"]) == {"train", "calibration"} and len(seen) == 80
    assert seen["label"].isna().all() and (seen["mask"] == "").all() and "kind" not in seen
    scored = module.seen_in_scoring(module.select(Cell("one", "ae", 0), data.rows))
    assert set(scored["split"]) == {"validation", "test"}
    assert scored["row"].tolist() == list(range(80, 136))
    assert scored["label"].isna().all() and (scored["patient"] == "").all() and "kind" not in scored


def test_the_key_follows_what_decides_the_numbers(
    data: datasets.Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def key(seed: int = 0, budget: float | None = None, data: datasets.Data = data, **given: object) -> str:
        settings = {k.replace("__", "."): v for k, v in given.items()}
        return module.plan(Cell("one", "ae", seed), data, tmp_path, "tiny", settings, budget).folder.name

    same = key()
    assert same == key() == key(gaussian__side=8)
    moved = bench_data.write(tmp_path / "elsewhere")
    assert key(data=datasets.read(f"one={moved}", tmp_path)) == same
    others = [key(1), key(ae__width=5), key(train__epochs=2), key(ae__train__epochs=3), key(budget=60.0)]
    others.append(key(data=datasets.read(f"one={bench_data.write(tmp_path / 'other', seed=1)}", tmp_path)))
    others.append(key(preprocessing__aspect="pad"))
    monkeypatch.setattr(module, "VERSION", "another")
    assert len({same, key(), *others}) == 9
    with pytest.raises(ValueError, match=r"ae has no 'widht'; did you mean 'width'"):
        key(ae__widht=5)


def test_a_label_is_part_of_the_hash(data: datasets.Data) -> None:
    changed = data.rows.assign(label=data.rows["label"].where(data.rows.index != len(data.rows) - 1, 0))
    assert data.hash(changed) != data.hash(data.rows)


def test_smaller_sets_are_nested_and_leave_test_and_calibration_alone(data: datasets.Data) -> None:
    def trained(level: float, seed: int = 0) -> set[str]:
        rows = module.select(Cell("one", "ae", seed, "sizes", level), data.rows)
        kept = rows[rows["split"] != "train"]
        expected = data.rows[data.rows["split"].isin(["calibration", "test"])]
        assert sorted(kept["path"]) == sorted(expected["path"])
        return set(rows.loc[rows["split"] == "train", "path"])

    assert len(trained(20)) == 20 and trained(20) < trained(50) and trained(20) != trained(20, 1)
    assert module.levels("sizes", data.rows) == [50]


def test_the_curve_of_contamination_draws_from_validation(data: datasets.Data) -> None:
    rows = module.select(Cell("one", "ae", 0, "contamination", 0.5), data.rows)
    trained = rows[rows["split"] == "train"]
    abnormal = set(data.rows.loc[(data.rows["label"] == 1) & (data.rows["split"] == "validation"), "path"])
    assert len(trained) == 17 and len(set(trained["path"]) & abnormal) == 8
    assert "contaminant" not in module.seen_in_training(rows)
    none = module.select(Cell("one", "ae", 0, "contamination", 0.0), data.rows)
    assert (none["split"] == "train").sum() == 17 and none.loc[none["split"] == "train", "label"].eq(0).all()
    assert module.levels("contamination", data.rows)[0] == 0  # all of the curve are of one size
    few = data.rows[(data.rows["split"] != "train") | (data.rows.index < 16)]
    assert module.levels("contamination", few)[0] == 0.1  # there the whole training set is the curve's first point


def test_cells_of_the_first_seed_come_first_and_curves_last(data: datasets.Data) -> None:
    names = [c.name for c in module.enumerate_cells([data], ["ae", "gaussian"], 2, ["sizes"])]
    assert names[:4] == ["one/ae/seed_0", "one/gaussian/seed_0", "one/ae/seed_1", "one/gaussian/seed_1"]
    assert names[4:6] == ["one/ae/seed_0_size_50", "one/gaussian/seed_0_size_50"]


def test_only_one_cell_and_the_command_that_makes_it(data: datasets.Data) -> None:
    given = asked(
        data, only="one/ae/seed_1_size_50", seeds=2, robustness=["sizes"], set=["ae.width=5", "gaussian.side=8"]
    )
    (job,) = request.planned(given)
    assert job.cell == Cell("one", "ae", 1, "sizes", 50)
    command = given.command(job.cell, data.given)
    assert command == (
        f"loligo benchmark --methods ae --datasets {data.given} --seeds 2 --preset tiny --set ae.width=5 "
        "--robustness sizes --only one/ae/seed_1_size_50 --out again/one/ae/seed_1_size_50"
    )
    budgeted = asked(data, budget="1.5min")
    assert budgeted.budget == 90
    assert "--set ae.train.epochs=7 --only" in budgeted.command(Cell("one", "ae", 0), data.given, 7)
    assert "--budget 90s --only" in budgeted.command(Cell("one", "ae", 0), data.given)  # it failed before that


def test_presets_and_variants_are_rows_of_their_own(data: datasets.Data) -> None:
    given = asked(
        data,
        methods=["ae", "ae:digits", "ae:narrow and long"],
        variants={"narrow and long": {"width": 2, "train.epochs": 9}},
        set=["ae.width=3"],
        config="c.yaml",
    )
    plans = {job.cell.method: job.plan for job in request.planned(given) if job.plan}
    assert {name: plan.preset for name, plan in plans.items()} == {
        "ae": "tiny", "ae:digits": "digits", "ae:narrow and long": "tiny",
    }  # fmt: skip
    assert [plan.method_config["width"] for plan in plans.values()] == [3, 3, 2]
    assert plans["ae:narrow and long"].train["epochs"] == 9 and plans["ae:digits"].train["epochs"] == 6
    assert ":" not in plans["ae:digits"].folder.name and "ae+digits" in str(plans["ae:digits"].folder)
    words = shlex.split(given.command(Cell("one", "ae:narrow and long", 0), data.given))
    assert words[2:6] == ["--config", "c.yaml", "--methods", "ae:narrow and long"] and "ae.width=3" in words


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"methods": ["gausian"]}, "did you mean 'gaussian'"),
        ({"robustness": ["corruption"]}, "did you mean 'corruptions'"),
        ({"set": ["squid.slots=4"]}, "the setting squid.slots is of no method here"),
        ({"set": ["train.epochs"]}, "is not NAME=VALUE"),
        ({"set": ["train.epoch=4"]}, "did you mean 'epochs'"),
        ({"budget": "5 parsecs"}, "give a time such as 90s, 30min or 2h"),
        ({"only": "one/ae/seed_9"}, "there is no cell 'one/ae/seed_9' here; did you mean 'one/ae/seed_0'"),
        ({"datasets": ["zhanglab"]}, "zhanglab needs the folder that holds it: zhanglab=DIR"),
        ({"datasets": ["zhanglabb=x"]}, "did you mean 'zhanglab'"),
        ({"seeds": 0}, "at least 1 is needed"),
        ({"workers": 0}, "workers is 0; at least 1 is needed"),
        ({"methods": ["ae:tinny"]}, "ae has no variant 'tinny'; did you mean 'tiny'"),
        ({"methods": [","]}, "there are no methods"),
        ({"preset": "tinny"}, "no method here has a preset 'tinny'; did you mean 'tiny'"),
        ({"budget": "1.2.3s"}, "give a time such as"),
        ({"budget": ""}, "give a time such as"),
    ],
)
def test_wrong_input_is_told_before_anything_runs(data: datasets.Data, given: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        request.planned(asked(data, **given))


def test_a_test_split_must_hold_two_of_each_kind(data: datasets.Data, tmp_path: Path) -> None:
    healthy = data.rows[(data.rows["label"] == 0) | (data.rows["split"] != "test")]
    healthy.to_csv(tmp_path / "m.csv", index=False)
    with pytest.raises(ValueError, match=r"has 20 images labelled normal \(0\) and 0 abnormal"):
        datasets.read(str(tmp_path / "m.csv"), tmp_path)


def test_without_abnormal_validation_images_contamination_is_a_row_with_its_reason(
    data: datasets.Data, tmp_path: Path
) -> None:
    rows = data.rows[(data.rows["label"] == 0) | (data.rows["split"] == "test")]
    rows.to_csv(tmp_path / "m.csv", index=False)
    jobs = request.planned(asked(data, datasets=[f"{tmp_path / 'm.csv'}"], robustness=["contamination"]))
    lost = [job for job in jobs if job.plan is None]
    assert len(lost) == 10 and all("such as its validation images" in job.reason for job in lost)
    assert all(isinstance(job.data.rows, pd.DataFrame) for job in jobs) and np.sum([not j.reason for j in jobs]) == 2


@pytest.mark.parametrize("word", ["0.00001", "null", "'007'", "[1, 2]", "radiograph", "true", "1e-5"])
def test_a_printed_setting_is_read_as_it_was_given(data: datasets.Data, word: str) -> None:
    given = asked(data, set=[f"ae.x={word}"])
    words = shlex.split(given.command(Cell("one", "ae", 0), data.given))
    (printed,) = [w for w in words if w.startswith("ae.x=")]
    assert request._setting(printed) == request._setting(f"ae.x={word}")


def test_a_weakly_supervised_training_sees_abnormal_images_of_validation_and_no_label(data: datasets.Data) -> None:
    rows = module.select(Cell("one", "ddpm_guided:a", 0), data.rows)
    seen = module.seen_in_training(rows)
    assert seen["split"].value_counts().to_dict() == {"train": 60, "calibration": 20, "train_abnormal": 8}
    assert seen["label"].isna().sum() == 80  # of the others the split says it
    assert not set(seen["path"]) & set(module.seen_in_scoring(rows)["path"])
    assert set(module.seen_in_training(module.select(Cell("one", "ae", 0), data.rows))["split"]) == {
        "train",
        "calibration",
    }
    with pytest.raises(ValueError, match="syndiff is given abnormal images to train on; contamination"):
        module.select(Cell("one", "syndiff", 0, "contamination", 0.1), data.rows)
