"""What a training time is worth in epochs."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from conftest import anatomy, dataset
from loligo.runs.settings import Settings
from loligo.training import budget


def test_the_time_of_an_epoch_is_estimated_from_few_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(model: Any, data: Any, config: Any, **_: object) -> pd.DataFrame:
        assert len(data) == 4 * 5
        names = [phase.name for phase in model.phases()]
        rows = [{"phase": p, "images_per_s": v} for p in names for v in (1.0, 20.0 * (1 + names.index(p)))]
        return pd.DataFrame(rows)

    monkeypatch.setattr(budget.loop, "fit", fit)
    settings = Settings.of("simsid_staged", "tiny", train={"batch_size": 5})
    parts = [phase.fraction for phase in settings.new_model().phases()]
    expected = sum(part / sum(parts) * 60 / (20 * (1 + i)) for i, part in enumerate(parts))
    assert budget.epoch_seconds(settings, dataset(anatomy(60, 64))) == pytest.approx(expected)
