import torch

from loligo.data.transforms import intensity, jitter


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_jitter_depends_on_its_generator_alone():
    x = torch.rand(4, 1, 16, 16, generator=generator())
    torch.manual_seed(1)
    first = jitter(x, generator(3))
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert torch.equal(first, jitter(x, generator(3)))
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(first, jitter(x, generator(4)))
    assert (first.shape, first.dtype) == (x.shape, torch.float32)


def test_no_shift_and_no_zoom_give_the_image_back():
    x = torch.rand(2, 3, 9, 9, generator=generator())
    torch.testing.assert_close(jitter(x, generator(), shift=0, scale=(1, 1)), x)


def test_shift_keeps_to_its_bound_and_differs_between_images():
    x = torch.zeros(64, 1, 101, 101)
    x[:, :, 50, 50] = 1
    moved = jitter(x, generator(), shift=0.1, scale=(1, 1))[:, 0]
    places = torch.arange(101.0)
    rows = (moved.sum(2) * places).sum(1) / moved.sum((1, 2))
    assert (rows - 50).abs().max() <= 0.1 * 101
    assert (rows - 50).abs().max() > 0.07 * 101
    assert rows.std() > 1


def test_zoom_of_two_doubles_a_square_and_outside_is_black():
    x = torch.zeros(1, 1, 64, 64)
    x[..., 24:40, 24:40] = 1
    assert 900 < jitter(x, generator(), shift=0, scale=(2, 2)).sum() < 1150  # 32 x 32 = 1024
    smaller = jitter(torch.ones(1, 1, 64, 64), generator(), shift=0, scale=(0.5, 0.5))
    assert smaller[..., 0, 0] == 0


def test_nothing_is_blurred():
    x = torch.rand(8, 1, 32, 32, generator=generator())
    for moved, original in zip(jitter(x, generator()), x, strict=True):
        assert torch.isin(moved, torch.cat([original.flatten(), torch.zeros(1)])).all()
    shifted = jitter(x, generator(), scale=(1, 1))  # by whole pixels: the middle stands somewhere as it is
    middle, places = x[0, 0, 8:24, 8:24], [(i, j) for i in range(5, 12) for j in range(5, 12)]
    assert any(torch.equal(shifted[0, 0, i : i + 16, j : j + 16], middle) for i, j in places)


def test_exposure_depends_on_its_generator_alone_and_keeps_to_the_range():
    x = torch.rand(4, 1, 16, 16, generator=generator())
    first = intensity(x, generator(3))
    torch.manual_seed(2)
    assert torch.equal(first, intensity(x, generator(3)))
    assert not torch.equal(first, intensity(x, generator(4)))
    assert (first.shape, first.dtype) == (x.shape, torch.float32)
    assert first.min() >= 0
    assert first.max() <= 1


def test_contrast_keeps_the_mean_and_gamma_keeps_black_and_white():
    x = 0.3 + 0.4 * torch.rand(200, 1, 8, 8, generator=generator())
    changed = intensity(x, generator(), gamma=1)
    torch.testing.assert_close(changed.mean((1, 2, 3)), x.mean((1, 2, 3)))
    factors = changed.std((1, 2, 3)) / x.std((1, 2, 3))
    assert 0.75 <= factors.min() < 0.8
    assert 1.2 < factors.max() <= 1.2501
    x[:, :, 0] = torch.tensor([0, 1, 0, 1, 0.25, 0.25, 0.5, 0.5])
    changed = intensity(x, generator(), contrast=(1, 1))
    torch.testing.assert_close(changed[:, :, 0, :4], x[:, :, 0, :4])
    exponents = changed[:, 0, 0, 7].log() / x[:, 0, 0, 7].log()
    assert 1 / 1.5001 <= exponents.min() < 0.72
    assert 1.4 < exponents.max() <= 1.5001
    torch.testing.assert_close(changed[:, 0, 0, 4], 0.25**exponents)
