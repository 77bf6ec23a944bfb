"""What every method that shows something of itself hands to the report."""

from __future__ import annotations

import math

import pytest
import torch

from conftest import anatomy
from loligo import methods
from loligo.config import build
from loligo.methods.contract import Method

SIZE = 64
SHOWING = [name for name in sorted(methods.METHODS) if methods.get(name).inspect is not Method.inspect]
X = torch.from_numpy(anatomy(3, SIZE))


@pytest.mark.parametrize("name", SHOWING)
def test_what_a_method_shows_has_the_shapes_that_it_says(name: str) -> None:
    torch.manual_seed(0)
    kind = methods.get(name)
    config = build(kind.Config, {k: v for k, v in kind.presets["tiny"].items() if not k.startswith("train.")})
    model = kind(config).eval()
    with torch.inference_mode():
        found = model.inspect(X)
    assert found is not None
    for image in found.reconstructions.values():
        assert image.shape == X.shape
        assert 0 <= float(image.min()) <= float(image.max()) <= 1
    if found.features is not None:
        count, length, depth = found.features.shape
        assert count == len(X) and math.isqrt(length) ** 2 == length
        assert found.inpainted is None or found.inpainted.shape == found.features.shape
        assert found.memory is None or (len(found.memory), found.memory.shape[2]) == (length, depth)
        assert torch.isfinite(found.features).all()


def test_squid_is_among_those_that_show_something() -> None:
    assert "squid" in SHOWING and "gaussian" not in SHOWING
