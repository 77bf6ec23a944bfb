"""Which abnormal images reach which method."""

from __future__ import annotations

import pandas as pd
import pytest

from loligo.data import manifest, supervision
from loligo.data.splits import ABNORMAL


def table(*rows: tuple[str, int | None, str]) -> pd.DataFrame:
    listed = [(f"/d/{i}.png", *row) for i, row in enumerate(rows)]
    return manifest.check(pd.DataFrame(listed, columns=["path", "split", "label", "patient"]))


ROWS = table(
    ("train", 0, "a"),
    ("validation", 0, "b"),
    ("validation", 1, "c"),
    ("validation", 0, "c"),
    ("validation", None, "d"),
    ("validation", 1, ""),
    ("test", 1, "e"),
)


def test_abnormal_images_of_validation_are_given_and_leave_it_with_their_patients() -> None:
    found = supervision.given(ROWS, True)
    assert found[["split", "patient"]].to_numpy().tolist() == [
        ["train", "a"],
        ["validation", "b"],
        [ABNORMAL, "c"],
        ["validation", "d"],
        [ABNORMAL, ""],
        ["test", "e"],
    ]
    pd.testing.assert_frame_equal(supervision.given(found, True), found)
    manifest.check(found)


def test_those_of_the_split_are_given_and_validation_is_left_alone() -> None:
    rows = table(("train", 0, "a"), (ABNORMAL, None, "b"), ("validation", 1, "c"))
    assert rows["label"].tolist() == [0, 1, 1]
    pd.testing.assert_frame_equal(supervision.given(rows, True), rows)


def test_other_methods_see_neither() -> None:
    pd.testing.assert_frame_equal(supervision.given(ROWS, False), ROWS)
    rows = table(("train", 0, "a"), (ABNORMAL, 1, "b"), ("test", 1, "c"))
    assert supervision.given(rows, False)["split"].tolist() == ["train", "test"]


def test_normal_images_may_not_stand_among_them() -> None:
    with pytest.raises(ValueError, match=r"1 normal image\(s\) \(label 0\) in train_abnormal: /d/0.png; move them"):
        table((ABNORMAL, 0, "a"))
