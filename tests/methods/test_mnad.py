"""MNAD against its paper: network, losses, memory, and the score of PSNR and distance."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from loligo.methods.contract import Reduce
from loligo.methods.mnad import Mnad, MnadConfig
from loligo.nn.places import dissimilarity

TINY = dict(Mnad.presets["tiny"])
X = torch.rand(5, 1, 64, 64, generator=torch.Generator().manual_seed(0))


def mnad(**options: object) -> Mnad:
    torch.manual_seed(0)
    return Mnad(MnadConfig(**{**TINY, **options}))


def test_the_network_is_the_papers_without_skip_connections() -> None:
    with torch.device("meta"):
        model = Mnad(MnadConfig())
        z = model.encoder(torch.empty(1, 1, 256, 256))
        assert z.shape == (1, 512, 32, 32)
        assert model.decoder(torch.empty(1, 1024, 32, 32)).shape == (1, 1, 256, 256)
    down = [(1, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512), (512, 512)]
    joined, last = [(1024, 512), (512, 512)], [(64, 1)]
    up = [(512, 512), (512, 256), (256, 256), (256, 256), (256, 128), (128, 128), (128, 128), (128, 64), (64, 64)]
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]
    assert [(layer.in_channels, layer.out_channels) for layer in layers] == down + joined + up + last
    normed = sum(b for _, b in down[:-1] + joined + up)  # codes may be negative, so that no norm and ReLU follow
    convolutions = sum(9 * a * b + b for a, b in down + joined + up + last)
    assert sum(p.numel() for p in model.parameters()) == convolutions + 2 * normed
    assert sum(isinstance(layer, nn.ConvTranspose2d) for layer in layers) == 3
    assert model.memory.slots.shape == (1, 10, 512)


def test_the_losses_are_the_papers() -> None:
    model = mnad(compactness_weight=0.2, separateness_weight=0.3, margin=0.5).eval()
    step: dict[str, torch.Tensor] = {}
    losses = model.losses(X, "total", step)
    with torch.no_grad():
        queries = nn.functional.normalize(model.encoder(2 * X - 1), dim=1).permute(0, 2, 3, 1).reshape(-1, 16)
        distances = torch.cdist(queries, model.memory.slots[0]).sort(1).values
        compactness = distances[:, 0].mean()
        separateness = (distances[:, 0] - distances[:, 1] + 0.5).clamp(min=0).mean()
        held = (queries @ model.memory.slots[0].T).softmax(1) @ model.memory.slots[0]
        joined = torch.cat([queries, held], 1).view(5, 16, 16, 32).permute(0, 3, 1, 2)
        squared = (torch.tanh(model.decoder(joined)) - (2 * X - 1)).square().mean()
    torch.testing.assert_close(step["queries"].reshape(-1, 16), queries)
    torch.testing.assert_close(losses["compactness"], compactness, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(losses["separateness"], separateness, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(losses["reconstruction"], squared, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(losses["total"], squared + 0.2 * compactness + 0.3 * separateness, rtol=1e-4, atol=1e-5)


def test_the_memory_is_written_after_a_step_by_the_codes_of_all_processes() -> None:
    class Two(Reduce):
        size = 2

        def gather(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([x, other])

    step: dict[str, torch.Tensor] = {}
    model, alone = mnad(), mnad()
    model.losses(X[:3], "total", step)
    other = torch.nn.functional.normalize(torch.randn(2, 256, 16), dim=2)
    together = torch.cat([step["queries"], other])
    before = model.memory.slots.clone()
    model.after_step("total", step, Two())
    alone.memory.write(together)
    torch.testing.assert_close(model.memory.slots, alone.memory.slots)
    assert not torch.allclose(model.memory.slots, before, atol=1e-3)


@torch.no_grad()
def test_scoring_leaves_the_memory_as_it_is() -> None:
    model = mnad().eval()
    before = model.memory.slots.clone()
    model.fit([X])
    model(X)
    assert torch.equal(model.memory.slots, before)


@torch.no_grad()
def test_the_score_is_of_psnr_and_distance_standardised_over_training_images() -> None:
    model = mnad(psnr_weight=0.7).eval()
    model.fit([X[:2], X[2:]])
    new = X.flip(3).sqrt()

    def parts(x: torch.Tensor) -> np.ndarray:
        scores = model(x)
        error = (x - scores.reconstruction).double().square().mean((1, 2, 3)).numpy()
        queries = nn.functional.normalize(model.encoder(2 * x - 1), dim=1).permute(0, 2, 3, 1).reshape(-1, 16)
        nearest = torch.cdist(queries, model.memory.slots[0]).amin(1).view(len(x), -1).mean(1)
        return np.stack([-10 * np.log10(1 / error), nearest.double().numpy()], 1)

    normal = parts(X)
    z = (parts(new) - normal.mean(0)) / normal.std(0)
    np.testing.assert_allclose(model(new).image.numpy(), z @ [0.7, 0.3], rtol=0.02, atol=0.02)


@torch.no_grad()
def test_by_typicality_what_is_changed_stands_out_at_its_place() -> None:
    model = mnad(score="typicality").eval()
    model.fit([X, X.flip(0)])
    altered = X.clone()
    altered[:, :, 20:44, 20:44] = 1
    normal, abnormal = model(X), model(altered)
    assert (abnormal.image > normal.image).all()
    rise = (abnormal.map - normal.map)[:, 0]
    assert (rise[:, 24:40, 24:40].mean((1, 2)) > rise[:, :12].mean((1, 2))).all()


@torch.no_grad()
def test_by_the_local_score_an_image_counts_by_its_least_similar_window() -> None:
    model = mnad(score="local").eval()
    model.fit([X, X.flip(0)])
    new = X.flip(3).sqrt()
    found, normal = (dissimilarity(x, model(x).reconstruction, 21, 5) for x in (new, X))
    deviation = normal.std(0, correction=0)
    expected = (found - normal.mean(0)) / (deviation + 0.1 * deviation.mean())
    torch.testing.assert_close(model(new).image, expected.amax((1, 2, 3)), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 62}, "size 62 must be a multiple of 4, 2 to the number of widths less one"),
        ({"items": 1}, "items 1 must be two or more"),
        ({"widths": (8,)}, r"widths \(8,\) and items 10 must be two or more"),
        ({"psnr_weight": 1.5}, r"psnr_weight is 1.5; it must lie in \[0, 1\]"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mnad(**options)
