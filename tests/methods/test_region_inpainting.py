"""Region in-painting's parts: masks by loops, what is in-painted from what, losses and score by plain formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from conftest import anatomy
from loligo.methods.contract import Step
from loligo.methods.region_inpainting import Generator, RegionInpainting, RegionInpaintingConfig, lattice
from loligo.nn.superpixels import slic

TINY = dict(RegionInpainting.presets["tiny"])
X = torch.from_numpy(anatomy(4, 64, seed=1))


def region(**options: object) -> RegionInpainting:
    torch.manual_seed(0)
    return RegionInpainting(RegionInpaintingConfig(**{**TINY, **options})).eval()


def test_windows_of_a_lattice_are_as_far_apart_as_they_are_wide() -> None:
    mask = lattice(20, 4, torch.tensor([[3, 6]]))[0, 0]
    for row in range(20):
        for column in range(20):
            assert mask[row, column] == ((row - 3) % 8 < 4 and (column - 6) % 8 < 4)


@pytest.mark.parametrize("stride", [16, 8, 4])
def test_every_pixel_is_in_painted_as_often_as_any_other(stride: int) -> None:
    masks = region(stride=stride).masks
    assert masks.shape == ((32 // stride) ** 2, 1, 64, 64)
    assert (masks.sum(0) == (16 // stride) ** 2).all()


def test_what_is_missing_is_not_seen() -> None:
    generator, missing = region().generator, lattice(64, 16, torch.tensor([[5, 9]]))
    with torch.no_grad():
        expected = generator(X, missing)
        assert torch.equal(generator(torch.where(missing > 0, torch.rand_like(X), X), missing), expected)
        assert not torch.equal(generator(torch.where(missing > 0, X, torch.rand_like(X)), missing), expected)
        assert not torch.equal(generator(X * (1 - missing) + 0.5 * missing, 0 * missing), expected)  # the mask is


def test_the_generator_has_the_layers_that_it_says() -> None:
    generator = Generator(1, 32, (2, 4, 8, 16))

    def gated(inputs: int, outputs: int, kernel: int = 3) -> int:  # weights, biases, scales and shifts, twice
        return 2 * outputs * (inputs * kernel**2 + 3)

    expected = gated(2, 32, 5) + gated(32, 64) + gated(64, 64) + gated(64, 128) + 6 * gated(128, 128)
    expected += gated(128, 64) + gated(64, 32) + 32 * 9 + 1
    assert sum(p.numel() for p in generator.parameters()) == expected
    shapes: list[torch.Size] = []
    for layer in generator.down:
        layer.register_forward_hook(lambda module, inputs, output: shapes.append(output.shape))
    with torch.no_grad():
        generator.eval()(X, lattice(64, 16, torch.tensor([[0, 0]])))
    assert [(s[1], s[2]) for s in shapes] == [(32, 64), (64, 32), (64, 32), *[(128, 16)] * 7]


def test_the_generator_pays_for_missing_pixels_alone_and_the_discriminator_sees_them_pasted() -> None:
    model, step = region(adversarial_weight=0.5), Step()
    with torch.no_grad():
        torch.manual_seed(3)
        losses = model.losses(X, "generator", step)
        torch.manual_seed(3)
        missing = lattice(64, 16, torch.randint(32, (4, 2)))
        image = model.generator(X, missing)
        fake = X * (1 - missing) + image * missing
        torch.testing.assert_close(step["fake"], fake)
        torch.testing.assert_close(losses["reconstruction"], (X - image).abs()[missing > 0].mean())
        logits = model.discriminator(fake)
        adversarial = 0.5 * F.binary_cross_entropy_with_logits(logits, torch.ones(4))
        torch.testing.assert_close(losses["generator"], losses["reconstruction"] + adversarial)
        both = torch.cat([model.discriminator(X), logits])
        expected = 2 * F.binary_cross_entropy_with_logits(both, torch.tensor([1.0] * 4 + [0.0] * 4))
        torch.testing.assert_close(model.losses(X, "discriminator", step)["discriminator"], expected)


def errors(model: RegionInpainting, x: torch.Tensor) -> torch.Tensor:
    """Average the absolute errors of all lattices that cover a pixel, one at a time."""
    total = torch.zeros_like(x)
    for mask in model.masks:
        total[:, :, mask[0] > 0] += (x - model.generator(x, mask[None])).abs()[:, :, mask[0] > 0]
    return total / model.masks.sum((0, 1))


def regional(maps: torch.Tensor, x: torch.Tensor, side: int, contrast: float) -> np.ndarray:
    labels = slic(x, side, contrast).view(len(x), *x.shape[2:]).numpy()
    found = np.zeros(labels.shape)
    for image, label, heat in zip(found, labels, maps[:, 0].numpy(), strict=True):
        for one in np.unique(label):
            image[label == one] = heat[label == one].mean()
    return found


def test_the_score_is_the_largest_mean_error_of_a_superpixel() -> None:
    model = region(stride=8)
    with torch.no_grad():
        scores, expected = model(X), regional(errors(model, X), X, 8, 0.1)
    np.testing.assert_allclose(scores.map[:, 0].numpy(), expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(scores.image.numpy(), expected.max((1, 2)), rtol=1e-4)


def test_as_a_deviation_a_better_in_painting_counts_as_much_as_a_worse_one() -> None:
    model, normals = region(map="deviation", image_score="mean"), torch.from_numpy(anatomy(12, 64))
    with torch.no_grad():
        model.fit([normals[:8], normals[8:]])
        maps = errors(model, normals)
        deviation = maps.std(0, correction=0)
        signed = (errors(model, X) - maps.mean(0)) / (deviation + 0.1 * deviation.mean() + 1e-6)
        scores, expected = model(X), regional(signed, X, 8, 0.1)
    np.testing.assert_allclose(scores.map[:, 0].numpy(), abs(expected), rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(scores.image, scores.map.mean((1, 2, 3)))
    assert (expected < -0.5).any()
    assert (expected > 0.5).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 62}, "size 62 must be a multiple of 4"),
        ({"superpixel": 24}, "and of superpixel 24"),
        ({"size": 32}, "the discriminator needs more than 32 pixels"),
        ({"stride": 12}, "window 16 must be a multiple of stride 12"),
        ({"window": 48}, "half of size 64 is the most"),
        ({"contrast": 0.0}, "contrast is 0.0"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        region(**options)
