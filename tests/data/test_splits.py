import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loligo.data.splits import arrange, assign, hold_out

rows = st.lists(st.sampled_from(["", *"abcdefgh"]), min_size=12, max_size=40)


def table(patients, folder="/data", split="train"):
    paths = [f"{folder}/{i % 3}/{i}.png" for i in range(len(patients))]
    return pd.DataFrame({"path": paths, "split": split, "label": 0, "patient": patients})


def splits_by_name(frame):
    return dict(zip(frame["path"].str.split("/").str[-1], frame["split"], strict=True))


@settings(deadline=None, max_examples=40)
@given(patients=rows, seed=st.integers(0, 99), order=st.randoms(use_true_random=False))
def test_hold_out_depends_on_neither_order_nor_folder_and_splits_no_patient(patients, seed, order):
    frame = table([*patients, "x", "y", "z"])
    held = hold_out(frame, "calibration", 0.3, seed)
    shuffled = list(range(len(frame)))
    order.shuffle(shuffled)
    again = hold_out(frame.iloc[shuffled], "calibration", 0.3, seed)
    moved = hold_out(table([*patients, "x", "y", "z"], "/elsewhere/deep"), "calibration", 0.3, seed)
    assert splits_by_name(held) == splits_by_name(again) == splits_by_name(moved)
    known = held[held["patient"] != ""]
    assert (known.groupby("patient")["split"].nunique() == 1).all()
    assert set(held["split"]) == {"train", "calibration"}


def test_hold_out_moves_the_fraction_and_leaves_its_input():
    frame = table([""] * 50)
    held = hold_out(frame, "calibration", 0.1, 0)
    assert (held["split"] == "calibration").sum() == 5
    assert (frame["split"] == "train").all()
    assert splits_by_name(held) != splits_by_name(hold_out(frame, "calibration", 0.1, 1))


def test_hold_out_touches_only_train():
    frame = pd.concat([table([""] * 10), table([""] * 10, "/other", "test")], ignore_index=True)
    assert (hold_out(frame, "calibration", 0.5, 0)["split"] == "test").sum() == 10


def test_zero_holds_nothing_out():
    assert (hold_out(table(["a"]), "calibration", 0, 0)["split"] == "train").all()


def test_too_few_patients_fail():
    with pytest.raises(
        ValueError, match=r"2 image\(s\) of 1 patient\(s\) are too few .*: train, calibration need 2 pat"
    ):
        hold_out(table(["a", "a"]), "calibration", 0.1, 0)


def test_wrong_fraction_or_split_fails():
    with pytest.raises(ValueError, match=r"fraction 1.5 for calibration is outside \[0, 1\]"):
        hold_out(table(["a", "b"]), "calibration", 1.5, 0)
    with pytest.raises(ValueError, match="split 'dev' is not one of train, calibration, validation, test"):
        hold_out(table(["a", "b"]), "dev", 0.5, 0)


def test_deal_gives_each_share_its_own_patients():
    assigned = assign(pd.Series([f"p{i}" for i in range(100)]), {"calibration": 0.1, "test": 0.2}, 0, rest="train")
    assert assigned.value_counts().to_dict() == {"train": 70, "test": 20, "calibration": 10}


def test_arrange_keeps_every_row_of_a_partly_abnormal_patient_from_training():
    frame = table([f"p{i // 2}" for i in range(80)])
    frame.loc[1::8, "label"] = 1  # ten of forty patients
    out = arrange(frame, normal={"calibration": 0.1}, abnormal={"validation": 0.5}, seed=0)
    ill = set(frame["patient"][frame["label"] == 1])
    assert out["split"].value_counts().to_dict() == {"train": 54, "validation": 10, "calibration": 6}
    assert set(out["patient"][out["split"] == "validation"]) < ill
    assert not set(out["patient"][out["split"] != "validation"]) & ill
