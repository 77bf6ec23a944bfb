"""Values of options: read from text, checked, and told in words."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import pytest

from loligo.values import check, read, sign

Rule = Literal["max", "mean"]


@pytest.mark.parametrize(
    ("text", "hint", "value"),
    [
        ("5", int, 5),
        ("1e-5", float, 1e-5),
        ("1", float, 1),
        ("no", bool, False),
        ("1e5", str, "1e5"),
        ("null", int | None, None),
        ("[1, 2]", tuple[int, ...], (1, 2)),
        ("(1, 2)", tuple[int, ...], (1, 2)),
        ("1,2", tuple[int, ...], (1, 2)),
        ("3", tuple[int, ...], (3,)),
        ("a/b", Path | None, Path("a/b")),
        ("mean", Rule, "mean"),
        ("knn", Literal[Rule, "knn"], "knn"),
        ("{a: {b: 1}}", dict, {"a": {"b": 1}}),
    ],
)
def test_text_is_read(text: str, hint: Any, value: Any) -> None:
    found = check("x", read(text, hint), hint)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "hint", "message"),
    [
        ("five", int, "x is 'five'; it must be a whole number of at least 1"),
        ("0", int, "x is 0; it must be a whole number of at least 1"),
        ("1.5", int, "x is 1.5; it must be a whole number of at least 1"),
        ("true", int, "x is True; it must be a whole number of at least 1"),
        (".nan", float, "x is nan; it must be a number"),
        ("1,5 mm", float, "x is '1,5 mm'; it must be a number"),
        ("maybe", bool, "x is 'maybe'; it must be true or false"),
        ("meen", Rule, "x is 'meen'; did you mean 'mean'?"),
        ("sum", Rule, "x is 'sum'; allowed: max, mean"),
        ("0,4", tuple[int, ...], "x is [0, 4]; it must be a list such as [1, 2], each a whole number of at least 1"),
        ("few", int | None, "x is 'few'; it must be a whole number of at least 1"),
        ("3", dict, "x is 3; it must be options, such as {name: value}"),
    ],
)
def test_what_is_wrong_is_said_in_words(text: str, hint: Any, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        check("x", read(text, hint), hint, 1)
    assert str(caught.value) == message


def test_a_huge_value_makes_a_short_message() -> None:
    nested: Any = []
    for _ in range(30):
        nested = [nested, nested]
    with pytest.raises(ValueError) as caught:
        check("x", nested, int)
    assert len(str(caught.value)) < 200


def test_whole_numbers_of_any_sign() -> None:
    assert check("x", -1, int) == -1
    assert check("x", (-1,), tuple[int, ...], -math.inf) == (-1,)


def test_a_line_of_help_shows_what_is_wanted() -> None:
    assert [sign(hint) for hint in (int, float | None, bool, tuple[int, ...], Rule, Path)] == [
        *("N", "X", "true|false", "N,...", "max|mean", "PATH")
    ]
