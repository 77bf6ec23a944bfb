"""SALAD's parts by plain formulas."""

from __future__ import annotations

import pytest
import torch

from conftest import anatomy
from loligo.methods.contract import Step
from loligo.methods.salad import Salad, SaladConfig, corrupt, dissimilarity
from loligo.nn.similarity import ssim

TINY = dict(Salad.presets["tiny"])
X = torch.from_numpy(anatomy(6, 64, seed=1))


def salad(**options: object) -> Salad:
    torch.manual_seed(0)
    return Salad(SaladConfig(**{**TINY, **options})).eval()


def test_the_score_sums_three_parts_in_standard_deviations() -> None:
    model, normals = salad(), torch.from_numpy(anatomy(12, 64))
    model.centre.normal_()

    def parts(x: torch.Tensor) -> torch.Tensor:
        z = model.scale(model.encoder(x))
        y = model.bottom(z)
        for up in model.ups:
            y = up(torch.nn.functional.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False))
        fake = model.out(y).sigmoid()
        image = [(a - b).abs().mean() + (1 - ssim(a[None], b[None])).mean() for a, b in zip(x, fake, strict=True)]
        again = model.scale(model.encoder(fake))
        return torch.stack(
            [torch.stack(image), ((again - z) ** 2).mean((1, 2, 3)), ((z - model.centre) ** 2).mean((1, 2, 3))]
        )

    with torch.no_grad():
        model.fit([normals[:8], normals[8:]])
        found = parts(normals)
        expected = ((parts(X) - found.mean(1)[:, None]) / found.std(1)[:, None]).sum(0)
        scores = model(X)
        torch.testing.assert_close(scores.image, expected, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(scores.map, dissimilarity(X, scores.reconstruction))
        alone = salad(image_score="mean")
        alone.load_state_dict(model.state_dict())
        torch.testing.assert_close(alone(X).image, scores.map.mean((1, 2, 3)))


def test_corrupted_images_are_restored_but_teach_the_codes_nothing() -> None:
    model = salad(corrupted=1.0)
    with torch.no_grad():
        step: Step = {}
        losses = model.losses(X, "total", step)
        model.after_step("total", step)
        assert losses["consistency"] == losses["centre"] == 0
        assert not model.centre.any()
        torch.testing.assert_close(losses["total"], losses["reconstruction"] + losses["structure"])
        clean = salad(corrupted=0.0)
        losses = clean.losses(X, "total", step)
        z, fake, again = clean._translate(X)
        clean.after_step("total", step)
        torch.testing.assert_close(clean.centre, 0.05 * z.mean(0))
        torch.testing.assert_close(losses["consistency"], (again - z).square().mean())
        torch.testing.assert_close(losses["reconstruction"], (X - fake).abs().mean())


def test_corruption_changes_boxes_alone_and_is_that_of_the_seed() -> None:
    torch.manual_seed(0)
    found = corrupt(X, 1)
    for before, after in zip(X[:, 0], found[:, 0], strict=True):
        rows, columns = (before != after).nonzero(as_tuple=True)
        assert len(rows) > 0
        assert max(int(rows.max() - rows.min()), int(columns.max() - columns.min())) < 64 // 4
        box = after[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        same = before[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert len(box.unique()) == 1 or torch.equal(box.flatten().sort().values, same.flatten().sort().values)
    torch.manual_seed(0)
    assert torch.equal(corrupt(X, 1), found)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 60}, "size 60 must be a multiple of 2"),
        ({"size": 8}, "8 pixels a side is smaller than the window"),
        ({"corrupted": 1.5}, "corrupted 1.5 must lie in"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        salad(**options)
