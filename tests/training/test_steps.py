from __future__ import annotations

import pytest

from loligo.config import TrainConfig
from loligo.runs.settings import Settings


@pytest.mark.parametrize(("images", "epochs"), [(16, 1800), (100, 258), (1133, 26), (28_800, 1), (100_000, 1)])
def test_steps_are_rounded_up_to_whole_epochs(images: int, epochs: int) -> None:
    assert TrainConfig(steps=1800, batch_size=16).epochs_on(images) == epochs


def test_without_steps_epochs_decide() -> None:
    assert TrainConfig(7).epochs_on(1000) == 7


def test_epochs_that_are_asked_for_replace_a_method_s_own_steps() -> None:
    assert Settings.of("duet").train.steps == 1800
    assert Settings.of("duet", train={"epochs": 3}).train.epochs_on(1000) == 3
    assert Settings.of("duet", train={"steps": 20, "epochs": 3}).train.epochs_on(160) == 2
    assert Settings.of("duet", "tiny").train.epochs_on(1000) == 12


def test_negative_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="steps is -1"):
        TrainConfig(steps=-1)
