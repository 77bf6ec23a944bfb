"""Progress in logs and on terminals, and estimates."""

from __future__ import annotations

import io
import sys

import pytest

from loligo import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def test_a_log_has_a_plain_line_after_five_seconds_and_every_half_minute(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with progress.bar(total=2000, desc="scoring", unit="image") as bar:
        clock[0] = bar.start_t
        bar._time = lambda: clock[0]
        for _ in range(100):
            clock[0] += 1
            bar.update(20)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "scoring: 100 of 2,000 images, about 2 min left"
    assert len(lines) == 5
    assert lines[-1].startswith("scoring: 2,000 of 2,000 images")
    assert all("\r" not in line for line in lines)


def test_what_is_quick_leaves_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress.bar([1, 2], total=2, desc="reading", unit="image")) == [1, 2]
    assert capsys.readouterr().err == ""


def test_a_terminal_has_a_bar_and_nothing_is_shown_where_it_is_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    list(progress.bar([1, 2], total=2, desc="reading", unit="image", show=False))
    assert sys.stderr.getvalue() == ""  # type: ignore[attr-defined]
    list(progress.bar([1, 2], total=2, desc="reading", unit="image"))
    assert "2/2" in sys.stderr.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (40, "40 s"), (120, "2 min"), (3600, "1 h"), (6000, "1 h 40 min"), (7170, "2 h"), (89.9, "90 s")],
)
def test_times_are_words(seconds: float, words: str) -> None:
    assert progress.span(seconds) == words


def test_an_estimate_names_fewer_epochs_where_all_take_long() -> None:
    assert (
        progress.estimated(120, 60) == "an epoch takes 2 min: 60 epochs about 2 h; --train.epochs 10 would take 20 min"
    )
    assert progress.estimated(20, 6) == "an epoch takes 20 s: 6 epochs about 2 min"
    assert progress.estimated(1, 6) == ""


def test_the_estimate_is_said_once_after_the_first_steps(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    estimate = progress.Estimate(steps=10, epochs=60, show=True)
    for seconds in (9, 9, 2, 2, 2, 2):  # the first steps are slow, and not counted
        clock[0] += seconds
        estimate.step()
    assert capsys.readouterr().err == "an epoch takes 20 s: 60 epochs about 20 min\n"
