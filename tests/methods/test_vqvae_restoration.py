"""VQ-VAE restoration against its paper's description."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

import pytest
import torch
from torch import nn

import conftest
from loligo.io import planes
from loligo.methods.vqvae_restoration import VqvaeRestoration, VqvaeRestorationConfig
from loligo.nn.autoregressive import CausalConv, nll, resample
from loligo.nn.heat import smooth
from loligo.types import Again

TINY = dict(VqvaeRestoration.presets["tiny"])
X = torch.rand(3, 1, 64, 64, generator=torch.Generator().manual_seed(0))


def model(**options: object) -> VqvaeRestoration:
    torch.manual_seed(0)
    return VqvaeRestoration(VqvaeRestorationConfig(**{**TINY, **options}))


def with_position(x: torch.Tensor, position: float) -> torch.Tensor:
    return torch.cat([x, torch.full_like(x, position)], 1)


def test_the_network_has_the_papers_sizes() -> None:
    brain = VqvaeRestoration(VqvaeRestorationConfig(size=160, position=True)).eval()
    with torch.no_grad():
        codes = brain.encode(torch.rand(1, 2, 160, 160))
    assert codes.shape == (1, 20, 20)
    assert tuple(brain.quantize.quantizer.codebook.shape) == (128, 256)
    strided = [m for m in brain.encoder if isinstance(m, nn.Conv2d)]
    assert [(m.kernel_size[0], m.stride[0], m.out_channels) for m in strided] == [
        (7, 1, 16),
        (5, 2, 32),
        (5, 2, 64),
        (5, 2, 256),
    ]
    up = [m for m in brain.decoder if isinstance(m, nn.ConvTranspose2d)]
    assert [(m.kernel_size[0], m.out_channels) for m in up] == [(6, 64), (6, 32), (6, 16)]
    assert len(brain.prior.blocks) == 4
    assert all(len(block.pairs) == 4 for block in brain.prior.blocks)
    attention = brain.prior.blocks[0].attention
    assert (attention.key.out_channels, attention.value.out_channels) == (16, 128)
    first = brain.prior.first
    assert isinstance(first, CausalConv) and first.conv.kernel_size == (4, 7)


def test_the_prior_learns_from_frozen_codes() -> None:
    trained = model().train()
    for name in trained.phases()[1].frozen:
        trained.get_submodule(name).eval()
    before = {k: v.clone() for k, v in trained.state_dict().items()}
    losses = trained.losses(X, "prior", {})
    losses["prior"].backward()
    assert all(p.grad is None for m in (trained.encoder, trained.quantize, trained.decoder) for p in m.parameters())
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in trained.prior.parameters())
    assert all(torch.equal(v, before[k]) for k, v in trained.state_dict().items())  # batch norm and counts of use too


def test_training_hides_a_fraction_of_what_the_prior_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    trained = model(context_dropout=0.25).eval()
    codes, shown = trained.encode(X), []
    plain = trained.prior.forward

    def spied(seen: torch.Tensor, condition: torch.Tensor | None) -> torch.Tensor:
        shown.append(seen)
        return plain(seen, condition)

    monkeypatch.setattr(trained.prior, "forward", spied)
    for _ in range(100):
        loss = trained.losses(X, "prior", {})["prior"]
    torch.testing.assert_close(loss, nll(plain(shown[-1], None), codes).mean())
    hidden = torch.stack(shown) == trained.config.codes
    assert torch.equal(torch.where(hidden, codes, torch.stack(shown)), codes.expand(100, *codes.shape))
    assert hidden.float().mean().item() == pytest.approx(0.25, abs=0.03)
    fractions = hidden.float().mean((2, 3))  # of each image
    assert fractions.min() < 0.05 and 0.4 < fractions.max() < 0.65


def test_losses_of_the_first_phase_are_absolute_error_and_codebook() -> None:
    losses = model().train().losses(X, "vqvae", {})
    torch.testing.assert_close(losses["vqvae"], losses["reconstruction"] + losses["codebook"])
    assert 1 <= float(losses["perplexity"]) <= 16


def test_limits_are_percentiles_of_training_normals() -> None:
    ready = model().eval()
    with torch.no_grad():
        ready.fit([X[:2], X[2:]])
        nats = ready._code_nll(X)[0]
    torch.testing.assert_close(ready.limits[0], nats.quantile(0.98))
    torch.testing.assert_close(ready.limits[1], nats.quantile(0.90))


def test_the_prior_is_asked_once_a_batch_for_limits_and_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    ready, asked = model().eval(), []
    own = ready._code_nll
    monkeypatch.setattr(ready, "_code_nll", lambda x: asked.append(len(x)) or own(x))
    with torch.no_grad():
        ready.fit([X[:2], X[2:]])
        assert asked == [2, 1]
        parts = torch.cat([ready.parts(x)[0] for x in (X[:2], X[2:])])[:, :2].unbind(1)
    torch.testing.assert_close(ready.moments[:, 0], torch.stack([part.mean() for part in parts]))


def test_scores_are_standardised_over_some_of_many_training_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loligo.methods.vqvae_restoration.MEASURED", 2)
    ready = model().eval()
    with torch.no_grad():
        ready.fit([X[:1], X[1:2], X[2:]])
        parts = ready.parts(X[[0, 2]])[0][:, :2]
    torch.testing.assert_close(ready.moments[:, 0], parts.mean(0))
    torch.testing.assert_close(ready.moments[:, 1], parts.std(0, correction=0))


def test_scores_follow_their_definitions() -> None:
    ready = model(restorations=4, min_filter_size=1, mean_filter_size=1).eval()  # the map as it is
    with torch.no_grad():
        ready.fit([X])
        nats, codes = ready._code_nll(X)
        logits = ready.prior(codes)
        torch.testing.assert_close(nats, nll(logits, codes))
        found, heat, image = ready.parts(X)
        density, restoration, greatest = found.unbind(1)
        torch.testing.assert_close(density, torch.where(nats > ready.limits[0], nats, 0.0).sum((1, 2)))
        for most, found_of in zip(greatest, nats, strict=True):
            places = torch.cartesian_prod(*map(torch.arange, found_of.shape)).tolist()
            around = [found_of[max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2].mean() for i, j in places]
            torch.testing.assert_close(most, max(around))
        own = (X - ready.decode(codes)).abs()
        for score, far, lost in zip(restoration, heat, own, strict=True):
            torch.testing.assert_close(score, (far.mean() + 0.001) / (lost.mean() + 0.001))
        scores = ready(X)
        both = sum((v - v.mean()) / v.std(correction=0) for v in (density, restoration))
        torch.testing.assert_close(scores.image, both, rtol=1e-4, atol=1e-4)  # quotients near 1, by their deviation
        torch.testing.assert_close(scores.reconstruction, image)


def test_fitting_keeps_no_images() -> None:
    alive: list[weakref.ref[torch.Tensor]] = []

    def batches() -> Iterator[torch.Tensor]:
        for _ in range(4):
            assert sum(batch() is not None for batch in alive) <= 1
            x = X[:1].clone()
            alive.append(weakref.ref(x))
            yield x
            del x

    with torch.no_grad():
        model().eval().fit(Again(batches))
    assert len(alive) == 8


@pytest.mark.parametrize("score", ["both", "local"])
def test_one_training_image_is_enough(score: str) -> None:
    ready = model(score=score).eval()
    with torch.no_grad():
        ready.fit([X[:1]])
        scores = ready(X).image
        expected = sum(part - part[0] for part in ready.parts(X)[0][:, :2].unbind(1))
    assert scores.isfinite().all()
    if score == "both":  # with nothing to tell a deviation by, each part counts as it is
        torch.testing.assert_close(scores, expected)


def test_the_local_score_is_of_the_window_that_is_most_unusual_for_its_place() -> None:
    ready = model(score="local").eval()  # 8x8 codes, windows of 3x3
    ready.parts = None  # type: ignore[method-assign]  # nothing is restored
    with torch.no_grad():
        ready.fit([X[:2], X[2:]])
        codes = ready.encode(X)
        logits, local = ready.prior(codes), torch.zeros(3, 8, 8)
        for i in range(8):
            for j in range(8):
                rows, columns = slice(max(i - 1, 0), i + 2), slice(max(j - 1, 0), j + 2)
                prior = torch.distributions.Categorical(logits=logits[:, :, rows, columns].permute(0, 2, 3, 1))
                nats = -prior.logits
                variance = (prior.probs * (nats - prior.entropy()[..., None]).square()).sum(-1).mean((1, 2))
                over = -prior.log_prob(codes[:, rows, columns]) - prior.entropy()
                local[:, i, j] = over.mean((1, 2)) / (variance + 0.02).sqrt()
        deviation = local.std(0, correction=0)
        unusual = (local - local.mean(0)) / (deviation + 0.1 * deviation.mean())
        scores = ready(X)
        torch.testing.assert_close(scores.image, unusual.amax((1, 2)), rtol=1e-3, atol=1e-3)
        reconstruction = ready.decode(codes)
    assert scores.map.shape == X.shape
    peak = scores.map.flatten(1).argmax(1)
    assert (peak // 64 // 8 * 8 + peak % 64 // 8).tolist() == unusual.flatten(1).argmax(1).tolist()
    torch.testing.assert_close(scores.reconstruction, reconstruction)


def test_restorations_are_weighed_by_how_near_they_stay() -> None:
    ready = model(restorations=4).eval()
    ready.limits.zero_()  # every code is sampled anew
    with torch.no_grad():
        codes = ready.encode(X)
        restored = resample(ready.prior, codes, 0.0, ready.uniforms)
        total, weights = torch.zeros(3, 1, 64, 64), torch.zeros(3, 4)
        apart = [(X - ready.decoder(ready.quantize.lookup(restored[:, j])).clamp(0, 1)).abs() for j in range(4)]
        for j in range(4):
            weights[:, j] = 3 / (6 * apart[j]).mean((1, 2, 3))  # the paper's, for z-scores from -3 to 3
        for j, weight in enumerate(weights.softmax(1).T):
            total += weight[:, None, None, None] * apart[j]
        torch.testing.assert_close(ready.parts(X)[1], smooth(total, 3, 7), rtol=1e-4, atol=1e-5)


def test_a_map_of_code_nll_is_error_times_code_nll_and_nothing_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    ready = model(map="nll", score="max_nll", min_filter_size=1, mean_filter_size=1).eval()
    monkeypatch.setattr("loligo.methods.vqvae_restoration.resample", None)
    with torch.no_grad():
        ready.fit([X])
        nats, codes = ready._code_nll(X)
        reconstruction = ready.decode(codes)
        scores = ready(X)
    grown = nn.functional.interpolate(nats[:, None], (64, 64), mode="bilinear")
    torch.testing.assert_close(scores.map, (X - reconstruction).abs() * grown)
    torch.testing.assert_close(scores.reconstruction, reconstruction)
    nine = nn.functional.avg_pool2d(nats, 3, 1, 1, count_include_pad=False)
    assert torch.equal(scores.image, nine.amax((1, 2)))
    assert ready.moments.isfinite().all()


def test_with_a_map_of_code_nll_the_score_may_still_be_by_restoration() -> None:
    ready, paper = model(map="nll", score="restoration").eval(), model(score="restoration").eval()
    with torch.no_grad():
        for one in (ready, paper):
            one.fit([X])
        torch.testing.assert_close(ready(X).image, paper(X).image)
        assert not torch.allclose(ready(X).map, paper(X).map)


@pytest.mark.parametrize(
    "options", [{"score": "local"}, *({"score": score, "map": "nll"} for score in ("density", "max_nll"))]
)
def test_where_nothing_is_restored_it_exports_for_any_batch(options: dict[str, str]) -> None:
    ready = model(**options).eval()
    with torch.no_grad():
        ready.fit([X])
        assert ready.freeze().not_exportable == ""
        graph = torch.export.export(ready, (X[:2],), strict=False, dynamic_shapes=({0: torch.export.Dim("n")},))
        for found, expected in zip(graph.module()(X), ready(X), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"score": "restoration", "map": "nll"}, {"score": "density"}])
def test_where_it_restores_it_says_why_it_does_not_export(options: dict[str, str]) -> None:
    assert "a raster loop" in model(**options).not_exportable


def test_smoothing_drops_thin_edges_and_keeps_areas() -> None:
    x = torch.zeros(1, 1, 32, 32)
    x[..., 4:6, :] = 1
    assert float(smooth(x, 3, 7).max()) == 0
    x[..., 10:25, 10:25] = 1
    assert float(smooth(x, 3, 7)[0, 0, 17, 17]) == 1


def test_a_slice_is_conditioned_on_where_it_lies() -> None:
    conditioned = model(position=True).eval()
    with torch.no_grad():
        codes = conditioned.encode(with_position(X, 0.1))
        low, high = (conditioned.prior(codes, torch.full((3, 1), p)) for p in (-0.5, 0.5))
        assert not torch.allclose(low, high)
        torch.testing.assert_close(conditioned.config.split(with_position(X, 0.25))[1], torch.full((3, 1), 0.25))
        conditioned.fit([with_position(X, 0.1)])
        assert conditioned(with_position(X, 0.1)).reconstruction.shape == X.shape


def test_prior_and_codebook_stay_in_float32_when_packed() -> None:
    ready = model().eval()
    with torch.no_grad():
        ready.fit([X])
    fast = conftest.ready(ready, "bf16").network
    assert {p.dtype for p in fast.prior.parameters()} == {torch.float32}
    assert {p.dtype for p in fast.quantize.parameters()} == {torch.float32}
    assert torch.bfloat16 in {p.dtype for p in fast.decoder.parameters()}


@pytest.mark.parametrize("shape", [(6, 9, 8), (1, 9, 8), (2, 4, 3), (3, 1, 2)])
def test_maps_of_slices_are_smoothed_across_slices(shape: tuple[int, int, int]) -> None:
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    least = x.clone()
    for d, i, j in torch.cartesian_prod(*map(torch.arange, x.shape)).tolist():
        around = x[max(d - 1, 0) : d + 2, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2]
        least[d, i, j] = around.min()
    expected = torch.stack(
        [
            least[max(d - 1, 0) : d + 2, max(i - 2, 0) : i + 3, max(j - 2, 0) : j + 3].mean()
            for d, i, j in torch.cartesian_prod(*map(torch.arange, x.shape)).tolist()
        ]
    ).view(x.shape)
    torch.testing.assert_close(torch.from_numpy(planes.smoothed(x.numpy(), 3, 5)), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean_filter_size": 4}, "mean_filter_size is 4; a window around a pixel has an odd number"),
        ({"size": 60}, "size 60 must be a multiple of 2"),
        ({"sample_percentile": 980.0}, "sample_percentile is 980.0; it must lie in 0 to 100"),
        ({"pixel_percentile": -1.0}, "pixel_percentile is -1.0; it must lie in 0 to 100"),
        ({"context_dropout": 0.6}, "context_dropout is 0.6; it must lie in 0 to 0.5"),
        ({"prior_fraction": 0.0}, "prior_fraction is 0.0; it must be more than 0"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model(**options)
